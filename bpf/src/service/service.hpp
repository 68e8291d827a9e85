// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "block_store.hpp"
#include "pressure.hpp"
#include "quota.hpp"

#include <asio_pulse/bpf/protocol.h>

#include <boost/json/fwd.hpp>

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>

/// \file
/// The server of protocol.h: gives control blocks to programs through a unix socket.

namespace boost::asio {
class io_context;
}

namespace asio_pulse::scx {

/// The order of the members is stable.
struct service_options {
  std::string path = ASIO_PULSE_SOCKET_PATH;
  /// The permission bits of the socket's file. Users who may write to it may connect.
  mode_t mode = 0666;
  limits bounds = {};
  /// A connection without requests is closed after this long: if it has no control blocks, and if
  /// it has some but no thread uses one. Must be positive.
  std::chrono::milliseconds idle_limit{10'000};
  std::chrono::milliseconds idle_limit_with_blocks{60'000};
  /// The interval at which element 0 of every process is written. The ABI promises at least once a
  /// second; half of that leaves a margin for a loader that waits for a CPU. Must be positive.
  std::chrono::milliseconds update_every{500};
};

/// The contents of element 0 of each process's array.
struct system_state {
  scx_pulse_settings settings = {};
  scx::pressure pressure = {};
  std::uint32_t queued = 0;
  std::uint32_t cpus = 0;
};

/// What the service asks its owner. `look` is required; the others may be empty.
struct service_hooks {
  std::function<system_state()> look;
  /// Adds members to the answer to STATUS.
  std::function<void(boost::json::object&)> describe = {};
  /// Applies new settings, which are valid, for this user. May throw; the text is sent to the peer.
  /// If it is empty, the settings cannot be changed.
  std::function<void(const scx_pulse_settings&, uid_t)> change = {};
  /// Whether the user may change settings. If it is empty, root and this process's user may.
  std::function<bool(uid_t)> may_change = {};
  /// The clock. If it is empty, the steady clock is used.
  std::function<std::chrono::steady_clock::time_point()> now = {};
};

/// The service. It runs in handlers of the given context and never blocks in them: if a peer does
/// not read its reply, its requests are not read either.
///
/// About a peer, only what the kernel says is trusted (SO_PEERCRED at the time of the connection,
/// /proc, its pidfd). Descriptors that a peer sends are never received.
///
/// \par Thread safety  For the thread that runs the context only, which must be the only one.
class service {
 public:
  /// \par Errors  std::runtime_error with a sentence: the socket's path is taken or cannot be made;
  ///              std::invalid_argument.
  service(boost::asio::io_context& context, block_store& store, service_options options,
          service_hooks hooks);
  /// Closes all connections, returns all control blocks, and removes the socket's file.
  ~service();
  service(const service&) = delete;
  service& operator=(const service&) = delete;

  /// Writes element 0 of every process now. The service does this by itself from time to time.
  void publish();
  /// Closes connections that have sent no requests for too long. The service does this by itself as
  /// often as it publishes.
  void end_idle();

  [[nodiscard]] std::size_t connections() const noexcept;
  [[nodiscard]] std::size_t processes() const noexcept;
  [[nodiscard]] std::size_t workers() const noexcept;

 private:
  struct impl;
  std::shared_ptr<impl> impl_;
};

}  // namespace asio_pulse::scx
