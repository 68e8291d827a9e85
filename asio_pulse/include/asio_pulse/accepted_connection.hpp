// SPDX-License-Identifier: BSL-1.0
//
// A connection that was just accepted, as options::classify sees it.

#pragma once

#include <asio_pulse/hooks/requirements.hpp>
//
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace asio_pulse {

/// The address of one end of a connection: the bytes that the kernel reports (sockaddr).
///
/// \par Thread safety  Distinct objects: Safe. Shared objects: Unsafe.
class socket_address {
 public:
  /// No address.
  socket_address() noexcept = default;
  /// Copies the bytes of a sockaddr. Without effect if there are more than 128.
  explicit socket_address(std::span<const std::byte> bytes) noexcept;

  /// Whether the address is known.
  explicit operator bool() const noexcept { return size_ != 0; }
  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return {bytes_.data(), size_}; }
  /// AF_INET, AF_INET6, AF_UNIX or another family; 0 (AF_UNSPEC) if the address is not known.
  [[nodiscard]] int family() const noexcept;
  /// The port of an address of AF_INET or AF_INET6; otherwise 0.
  [[nodiscard]] std::uint16_t port() const noexcept;
  /// The address without its port: "192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1". Of AF_UNIX the
  /// path; an abstract name begins with a zero byte. Otherwise empty.
  ///
  /// \par Errors  std::bad_alloc.
  [[nodiscard]] std::string text() const;
  /// As an endpoint of Asio, for example `as<tcp::endpoint>()`. A default-constructed one if the
  /// address is not known, or too long for it. The endpoint's protocol should fit family().
  template <class Endpoint>
  [[nodiscard]] Endpoint as() const {
    Endpoint result;
    if (size_ == 0 || size_ > result.capacity()) return result;
    std::memcpy(static_cast<void*>(result.data()), bytes_.data(), size_);
    result.resize(size_);
    return result;
  }

 private:
  std::array<std::byte, 128> bytes_{};  // as sockaddr_storage
  std::size_t size_ = 0;
};

/// A connection whose accept has completed. Its handler runs next.
///
/// \par Thread safety  Distinct objects: Safe. Shared objects: Unsafe.
struct accepted_connection {
  /// The connection's descriptor; -1 if Asio does not show it. That is so for
  /// `async_accept(socket, handler)` with select or io_uring, or if the handler was put back when it
  /// was its turn.
  std::intptr_t socket = -1;
  /// The connection's task, which this_task::id() returns in the call.
  std::uint64_t task_id = 0;
  /// The task that accepts: a declared one, or 0 and empty.
  std::uint64_t listener_id = 0;
  std::string_view listener_name{};  ///< valid only during the call

  /// The address of the client. Not known if there is no descriptor, or the client has gone already.
  ///
  /// \par Cost    A system call (getpeername), at each call.
  /// \par Errors  None (noexcept).
  [[nodiscard]] socket_address peer() const noexcept;
  /// The address at which the client was accepted, which says which listener it was.
  ///
  /// \par Cost    A system call (getsockname), at each call.
  /// \par Errors  None (noexcept).
  [[nodiscard]] socket_address local() const noexcept;
};

}  // namespace asio_pulse
