// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/types.h>

#include <asio_pulse/bpf/protocol.h>

#include <cstdint>
#include <memory>
#include <string>

/// \file
/// A program's end of scx_pulse's socket (bpf/protocol.h).

namespace asio_pulse::detail {

/// One connection. It is over at the first thing that is not as agreed.
///
/// \par Thread safety  Distinct objects: Safe. Shared objects: Unsafe.
class hint_client {
 public:
  hint_client() noexcept = default;
  ~hint_client() { disconnect(); }
  hint_client(const hint_client&) = delete;
  hint_client& operator=(const hint_client&) = delete;

  /// Connects, says hello and maps what it gets. What went wrong, in one sentence; empty: nothing.
  ///
  /// \par Blocking  At most half a second: a loader that does not answer is none.
  [[nodiscard]] std::string connect(const std::string& path);
  /// Asks for a control block for the thread of this process. Empty, or what went wrong; where the
  /// loader refused it the connection stays.
  ///
  /// \par Blocking  As connect().
  [[nodiscard]] std::string attach(pid_t tid, std::uint32_t& slot);
  void detach(pid_t tid, std::uint32_t slot) noexcept;
  void disconnect() noexcept;

  [[nodiscard]] bool connected() const noexcept { return fd_ >= 0; }
  /// For poll(): hung up when the loader is gone. Negative: not connected.
  [[nodiscard]] int fd() const noexcept { return fd_; }
  /// Everybody's control blocks, who may outlive the connection.
  [[nodiscard]] const std::shared_ptr<void>& memory() const noexcept { return memory_; }
  [[nodiscard]] asio_pulse_scb& block(std::uint32_t slot) const noexcept;
  /// What the loader says to all; only while connected.
  [[nodiscard]] const asio_pulse_system& system() const noexcept;

 private:
  [[nodiscard]] std::string ask(const asio_pulse_request& request, asio_pulse_reply& reply,
                                int* received_fd);

  int fd_ = -1;
  std::uint32_t slots_ = 0;
  std::shared_ptr<void> memory_;
};

}  // namespace asio_pulse::detail
