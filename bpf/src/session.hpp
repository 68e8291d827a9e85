// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/bpf/protocol.h>
#include <sys/types.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "ledger.hpp"
#include "process_info.hpp"

/// \file
/// One connection of the service: what a message is, and when the next one is read. Knows nothing
/// of control blocks.

namespace asio_pulse::scx {

/// Who is at the other end: who connected, as the kernel says.
struct peer {
  pid_t pid = 0;  ///< 0: not visible from here (another PID namespace)
  uid_t uid = 0;
  unique_fd pidfd;
  process_info process{0};

  /// \par Errors  None: what cannot be found out is empty.
  static peer of(int socket) noexcept;
  /// Whether the process has ended, whoever has inherited its connection.
  [[nodiscard]] bool ended() const noexcept;
};

struct answer {
  refusal refused = {};
  std::uint32_t slot = 0;
  std::uint32_t slots = 0;
  std::string text = {};  ///< where nothing is refused
  int fd = -1;            ///< to be sent along; must stay open until the session ends
};

class session;

/// \par Thread safety  One thread.
class session_owner {
 public:
  /// `request` and, for SET, the whole of `change` have arrived and are well-formed; the ABI
  /// version and the meaning are the owner's to check.
  virtual answer handle(session& from, const asio_pulse_request& request,
                        const asio_pulse_set_request& change) = 0;
  /// How long the session is to rest after a request that took so long.
  virtual std::chrono::nanoseconds charge(session& from, std::chrono::nanoseconds cost) = 0;
  /// Once; the session is gone from the socket's side, and never calls again.
  virtual void ended(session& which) noexcept = 0;

 protected:
  ~session_owner() = default;
};

/// \par Thread safety  One thread.
class session : public std::enable_shared_from_this<session> {
 public:
  session(boost::asio::io_context& context, unique_fd socket, peer who, session_owner& owner);
  session(const session&) = delete;
  session& operator=(const session&) = delete;
  ~session();

  /// Reads, from `after` on.
  void start(std::chrono::nanoseconds after);
  /// Closes the connection and tells the owner. Does nothing the second time.
  void end() noexcept;

  [[nodiscard]] const peer& who() const noexcept { return who_; }

 private:
  void wait_for_request();
  void rest(std::chrono::nanoseconds time);
  void receive();
  [[nodiscard]] bool serve(const char* bytes, std::size_t size, int flags);
  void send();

  boost::asio::posix::stream_descriptor socket_;
  std::optional<boost::asio::posix::stream_descriptor> death_;  // who_'s; released, never closed
  boost::asio::steady_timer timer_;
  peer who_;
  session_owner* owner_;  // null: ended
  // The reply that is under way; no request is read before it is gone.
  asio_pulse_reply reply_{};
  int reply_fd_ = -1;
  bool last_reply_ = false;
  std::chrono::nanoseconds rest_after_{0};
};

}  // namespace asio_pulse::scx
