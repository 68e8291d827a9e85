// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/accepted_connection.hpp>

#include <algorithm>

#if defined(__unix__) || defined(__APPLE__)
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#define ASIO_PULSE_HAS_SOCKADDR 1
#endif

namespace asio_pulse {

socket_address::socket_address(std::span<const std::byte> bytes) noexcept {
  if (bytes.size() > bytes_.size()) return;
  std::copy(bytes.begin(), bytes.end(), bytes_.begin());
  size_ = bytes.size();
}

#if defined(ASIO_PULSE_HAS_SOCKADDR)

namespace {

/// The bytes as a sockaddr of the family; zeros where bytes are missing.
template <class Address>
Address as_sockaddr(std::span<const std::byte> bytes) noexcept {
  Address a{};
  std::memcpy(static_cast<void*>(&a), bytes.data(), std::min(bytes.size(), sizeof a));
  return a;
}

template <class Call>
socket_address ask(Call call, std::intptr_t socket) noexcept {
  sockaddr_storage bytes{};
  socklen_t size = sizeof bytes;
  if (socket < 0 ||
      call(static_cast<int>(socket), reinterpret_cast<sockaddr*>(&bytes), &size) != 0) {
    return {};
  }
  const auto* const first = reinterpret_cast<const std::byte*>(&bytes);
  return socket_address({first, std::min<std::size_t>(size, sizeof bytes)});
}

}  // namespace

int socket_address::family() const noexcept {
  return size_ < offsetof(sockaddr, sa_data) ? AF_UNSPEC : as_sockaddr<sockaddr>(bytes()).sa_family;
}

std::uint16_t socket_address::port() const noexcept {
  switch (family()) {
    case AF_INET:
      return ntohs(as_sockaddr<sockaddr_in>(bytes()).sin_port);
    case AF_INET6:
      return ntohs(as_sockaddr<sockaddr_in6>(bytes()).sin6_port);
    default:
      return 0;
  }
}

std::string socket_address::text() const {
  char digits[INET6_ADDRSTRLEN] = "";
  switch (family()) {
    case AF_INET: {
      const auto a = as_sockaddr<sockaddr_in>(bytes());
      (void)::inet_ntop(AF_INET, &a.sin_addr, digits, sizeof digits);
      return digits;
    }
    case AF_INET6: {
      const auto a = as_sockaddr<sockaddr_in6>(bytes());
      (void)::inet_ntop(AF_INET6, &a.sin6_addr, digits, sizeof digits);
      return digits;
    }
    case AF_UNIX: {
      constexpr std::size_t before = offsetof(sockaddr_un, sun_path);
      if (size_ <= before) return {};
      std::string path(reinterpret_cast<const char*>(bytes_.data()) + before, size_ - before);
      // A path ends with a zero byte; an abstract name begins with one, and may have others.
      if (path.front() != '\0') path.resize(std::min(path.find('\0'), path.size()));
      return path;
    }
    default:
      return {};
  }
}

socket_address accepted_connection::peer() const noexcept { return ask(&::getpeername, socket); }

socket_address accepted_connection::local() const noexcept { return ask(&::getsockname, socket); }

#else

int socket_address::family() const noexcept { return 0; }
std::uint16_t socket_address::port() const noexcept { return 0; }
std::string socket_address::text() const { return {}; }
socket_address accepted_connection::peer() const noexcept { return {}; }
socket_address accepted_connection::local() const noexcept { return {}; }

#endif

}  // namespace asio_pulse
