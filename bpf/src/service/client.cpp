// SPDX-License-Identifier: BSL-1.0
#include "client.hpp"

#include "printable.hpp"
#include "socket_file.hpp"

#include <fmt/core.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <stdexcept>

namespace asio_pulse::scx {
namespace {

std::string ask(const std::string& path, const void* request, std::size_t size) {
  const unique_fd socket = connect_to_service(path);
  if (::send(socket.get(), request, size, MSG_NOSIGNAL) != static_cast<ssize_t>(size)) {
    throw std::runtime_error(
        fmt::format("cannot ask the scx_pulse that serves {}: {}", path, std::strerror(errno)));
  }
  const auto reply = std::make_unique<asio_pulse_reply>();
  constexpr std::size_t head = offsetof(asio_pulse_reply, text);
  const ssize_t got = ::recv(socket.get(), reply.get(), sizeof *reply, 0);
  if (got < 0) {
    throw std::runtime_error(fmt::format("the scx_pulse that serves {} does not answer: {}", path,
                                         std::strerror(errno)));
  }
  const auto bytes = static_cast<std::size_t>(got);
  if (bytes < head || reply->magic != ASIO_PULSE_PROTOCOL_MAGIC ||
      reply->text_bytes != bytes - head) {
    throw std::runtime_error(
        fmt::format("the program that serves {} does not answer like scx_pulse", path));
  }
  std::string text(reply->text, reply->text_bytes);
  if (reply->refusal != ASIO_PULSE_OK) throw std::runtime_error(printable(text));
  return text;
}

asio_pulse_request head_of(asio_pulse_request_kind kind) noexcept {
  return {.magic = ASIO_PULSE_PROTOCOL_MAGIC,
          .abi_version = ASIO_PULSE_ABI_VERSION,
          .kind = static_cast<std::uint16_t>(kind),
          .tid = 0,
          .slot = 0};
}

}  // namespace

std::string ask_status(const std::string& socket_path) {
  const asio_pulse_request request = head_of(ASIO_PULSE_STATUS);
  return ask(socket_path, &request, sizeof request);
}

void ask_change(const std::string& socket_path, asio_pulse_set_request change) {
  change.request = head_of(ASIO_PULSE_SET);
  ask(socket_path, &change, sizeof change);
}

}  // namespace asio_pulse::scx
