// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "process_info.hpp"
#include "quota.hpp"

#include <asio_pulse/bpf/protocol.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>

#include <sys/types.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>

/// \file
/// A connection of the service: what a message is, and when the next one is read. It does not know
/// control blocks.

namespace asio_pulse::scx {

/// The process at the other end of a connection, as the kernel reports it.
struct peer {
  pid_t pid = 0;  ///< 0 if it is not visible from here (another PID namespace)
  uid_t uid = 0;
  unique_fd pidfd;
  process_info process{0};

  /// \par Errors  None. What cannot be found out is empty.
  static peer of(int socket) noexcept;
  /// Only the user, which takes no descriptors.
  static uid_t user_of(int socket) noexcept;
  /// Whether the process has ended, even if another process has inherited its connection.
  [[nodiscard]] bool ended() const noexcept;
};

struct answer {
  refusal refused = {};
  std::uint32_t slot = 0;
  std::uint32_t slots = 0;
  std::string text = {};  ///< the text if nothing is refused
  int fd = -1;            ///< a descriptor to send; must stay open until the session ends
};

class session;

/// \par Thread safety  For one thread only.
class session_owner {
 public:
  /// Handles a request. `request` and, for SET, all of `change` are well-formed. The owner has to
  /// check the ABI version and the meaning.
  virtual answer handle(session& from, const asio_pulse_request& request,
                        const asio_pulse_set_request& change) = 0;
  /// How long the session has to pause after a request that took `cost`.
  virtual std::chrono::nanoseconds charge(session& from, std::chrono::nanoseconds cost) = 0;
  /// Called once when the connection has ended. The session makes no further calls.
  virtual void ended(session& which) noexcept = 0;

 protected:
  ~session_owner() = default;
};

/// \par Thread safety  For one thread only.
class session : public std::enable_shared_from_this<session> {
 public:
  session(boost::asio::io_context& context, unique_fd socket, peer who, session_owner& owner);
  session(const session&) = delete;
  session& operator=(const session&) = delete;
  ~session();

  /// Starts to read requests after this time.
  void start(std::chrono::nanoseconds after);
  /// Closes the connection, and tells the owner. Does nothing if called again.
  void end() noexcept;

  [[nodiscard]] const peer& who() const noexcept { return who_; }

 private:
  void wait_for_request();
  void rest(std::chrono::nanoseconds time);
  void receive();
  [[nodiscard]] bool serve(const char* bytes, std::size_t size, int flags);
  void send();

  boost::asio::posix::stream_descriptor socket_;
  std::optional<boost::asio::posix::stream_descriptor> death_;  // owned by who_; never closed here
  boost::asio::steady_timer timer_;
  peer who_;
  session_owner* owner_;  // null if the session has ended
  // The reply that is being sent. No request is read before it was sent.
  asio_pulse_reply reply_{};
  int reply_fd_ = -1;
  bool last_reply_ = false;
  std::chrono::nanoseconds rest_after_{0};
};

}  // namespace asio_pulse::scx
