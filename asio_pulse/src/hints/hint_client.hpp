// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/bpf/protocol.h>

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>

/// \file
/// The client of scx_pulse's socket (<asio_pulse/bpf/protocol.h>).

namespace asio_pulse::detail {

class descriptor;

/// A connection. It ends at the first violation of the protocol, because the source is trusted only
/// for hints. One descriptor is accepted, in the answer to HELLO. It is mapped only if it is memory
/// that the source cannot take away (hint_memory.hpp).
///
/// \par Thread safety  Distinct objects: Safe. Shared objects: Unsafe.
class hint_client {
 public:
  hint_client() noexcept = default;
  ~hint_client() { disconnect(); }
  hint_client(const hint_client&) = delete;
  hint_client& operator=(const hint_client&) = delete;

  /// Connects, sends HELLO, and maps the memory. Returns what went wrong as a sentence; empty if
  /// nothing did.
  ///
  /// \par Blocking  At most half a second for each answer.
  [[nodiscard]] std::string connect(const std::string& path);
  /// Asks for a control block for a thread of this process. Returns what went wrong, or empty. If
  /// the loader has refused, the connection stays.
  ///
  /// \par Blocking  As connect().
  [[nodiscard]] std::string attach(pid_t tid, std::uint32_t& slot);
  void detach(pid_t tid, std::uint32_t slot) noexcept;
  void disconnect() noexcept;

  [[nodiscard]] bool connected() const noexcept { return fd_ >= 0; }
  /// A descriptor for poll(), which is hung up when the loader is gone. Negative if not connected.
  [[nodiscard]] int fd() const noexcept { return fd_; }
  /// The control blocks. They may be used after the connection has ended.
  [[nodiscard]] const std::shared_ptr<void>& memory() const noexcept { return memory_; }
  [[nodiscard]] asio_pulse_scb& block(std::uint32_t slot) const noexcept;
  /// The source's own block. Only while connected.
  [[nodiscard]] const asio_pulse_system& system() const noexcept;

 private:
  /// Sends a request, and receives the answer and, if wanted, its descriptor.
  [[nodiscard]] std::string ask(const asio_pulse_request& request, asio_pulse_reply& reply,
                                descriptor* received);
  [[nodiscard]] std::string map(const descriptor& array, const asio_pulse_reply& reply);

  int fd_ = -1;
  std::uint32_t slots_ = 0;
  std::shared_ptr<void> memory_;
};

}  // namespace asio_pulse::detail
