// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/bpf/protocol.h>
#include <sys/types.h>

#include <boost/json/fwd.hpp>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "block_store.hpp"
#include "ledger.hpp"
#include "pressure.hpp"

/// \file
/// Serves protocol.h: hands control blocks to programs, over a unix socket.

namespace boost::asio {
class io_context;
}

namespace asio_pulse::scx {

/// The order of the members is stable.
struct service_options {
  std::string path = ASIO_PULSE_SOCKET_PATH;
  /// Of the file. Who may write to it may ask.
  mode_t mode = 0666;
  limits bounds = {};
  /// How often element 0 of every process is written. The ABI promises once a second at the least:
  /// half of that leaves room for a loader that waits for a CPU. Must be positive.
  std::chrono::milliseconds update_every{500};
};

/// What element 0 of every process's array is to say.
struct system_state {
  scx_pulse_settings settings = {};
  scx::pressure pressure = {};
  std::uint32_t queued = 0;
  std::uint32_t cpus = 0;
};

/// What the service asks of who runs it. `look` is required; the others may be empty.
struct service_hooks {
  std::function<system_state()> look;
  /// Adds what it knows to the answer of a STATUS.
  std::function<void(boost::json::object&)> describe = {};
  /// Puts new settings in force, that are within the rules, for this user. May throw: its sentence
  /// is what the peer gets. Empty: nobody can change anything.
  std::function<void(const scx_pulse_settings&, uid_t)> change = {};
  /// Who may. Empty: root, and the user that this process runs as.
  std::function<bool(uid_t)> may_change = {};
};

/// The service. It runs in the handlers of the given context, and never waits in them for anybody:
/// a peer that does not read its reply is not read from either.
///
/// Believed of a peer is what the kernel says of it (SO_PEERCRED when it connected, /proc, its
/// pidfd). Descriptors that a peer sends along are never received.
///
/// \par Thread safety  One thread: the one that runs the context. The context's threads must be
/// one.
class service {
 public:
  /// \par Errors  std::runtime_error with a sentence: the socket's path is taken or cannot be made;
  ///              std::invalid_argument.
  service(boost::asio::io_context& context, block_store& store, service_options options,
          service_hooks hooks);
  /// Closes every connection, gives all control blocks back and removes the socket's file.
  ~service();
  service(const service&) = delete;
  service& operator=(const service&) = delete;

  /// Writes element 0 of every process now; the service does it by itself from time to time.
  void publish();

  [[nodiscard]] std::size_t connections() const noexcept;
  [[nodiscard]] std::size_t processes() const noexcept;
  [[nodiscard]] std::size_t workers() const noexcept;

 private:
  struct impl;
  std::shared_ptr<impl> impl_;
};

}  // namespace asio_pulse::scx
