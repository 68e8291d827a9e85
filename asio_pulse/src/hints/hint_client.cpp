// SPDX-License-Identifier: BSL-1.0
#include "hint_client.hpp"

#if defined(__linux__)

#include "files/descriptor.hpp"
#include "hint_memory.hpp"

#include <asio_pulse/report.hpp>

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <utility>

namespace asio_pulse::detail {
namespace {

// A loader that runs answers within microseconds; one that is stopped must not block the hub. A
// guess.
constexpr timeval patience{.tv_sec = 0, .tv_usec = 500'000};

// How much of a sentence that the source has sent is kept for the status.
constexpr std::size_t longest_refusal = 256;
constexpr std::size_t reply_head = offsetof(asio_pulse_reply, text);

std::string because(std::string_view what, int error) {
  return fmt::format("{}: {}", what, std::strerror(error));
}

}  // namespace

std::string hint_client::connect(const std::string& path) {
  disconnect();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return fmt::format("the socket's path must have 1 to {} bytes", sizeof address.sun_path - 1);
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  fd_ = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (fd_ < 0) return because("socket", errno);
  ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  if (::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    const int error = errno;
    disconnect();
    return error == ENOENT || error == ECONNREFUSED ? fmt::format("no scx_pulse serves {}", path)
                                                    : because(path, error);
  }
  asio_pulse_request hello{};
  hello.kind = ASIO_PULSE_HELLO;
  asio_pulse_reply reply;
  descriptor array;
  std::string fault = ask(hello, reply, &array);
  if (fault.empty()) fault = map(array, reply);
  if (!fault.empty()) disconnect();
  return fault;
}

// The sizes in the reply must be right before anything is mapped, because there is no memory behind
// the end of a file.
std::string hint_client::map(const descriptor& array, const asio_pulse_reply& reply) {
  if (reply.abi_version != ASIO_PULSE_ABI_VERSION) {
    return fmt::format("the source serves version {} of the control blocks, instead of {}",
                       reply.abi_version, ASIO_PULSE_ABI_VERSION);
  }
  if (!array) return "the source's answer contains no control blocks";
  if (reply.slots < 2 || reply.slots > 65536) {
    return fmt::format("the source serves {} control blocks, and must serve 2 to 65536",
                       reply.slots);
  }
  std::string fault = why_not_control_blocks(array.get(), reply.slots);
  if (!fault.empty()) {
    return fmt::format("the source's control blocks are not accepted: {}", fault);
  }
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t bytes = (reply.slots * sizeof(asio_pulse_scb) + page - 1) / page * page;
  void* const at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, array.get(), 0);
  if (at == MAP_FAILED) return because("the source's control blocks cannot be mapped", errno);
  const auto unmap = [bytes](void* p) { ::munmap(p, bytes); };
  memory_ = std::shared_ptr<void>(at, unmap);  // also unmaps if the constructor throws
  slots_ = reply.slots;
  return {};
}

std::string hint_client::ask(const asio_pulse_request& request, asio_pulse_reply& reply,
                             descriptor* received) {
  asio_pulse_request mine = request;
  mine.magic = ASIO_PULSE_PROTOCOL_MAGIC;
  mine.abi_version = ASIO_PULSE_ABI_VERSION;
  ssize_t n = 0;
  do {
    n = ::send(fd_, &mine, sizeof mine, MSG_NOSIGNAL);
  } while (n < 0 && errno == EINTR);
  if (n != static_cast<ssize_t>(sizeof mine)) {
    const int error = errno;
    disconnect();
    return because("cannot send a request to scx_pulse", error);
  }
  iovec part{.iov_base = &reply, .iov_len = sizeof reply};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (received != nullptr) {
    message.msg_control = control;
    // Not CMSG_SPACE, whose padding has room for a second descriptor. Without room, further
    // descriptors are never installed in this process.
    message.msg_controllen = CMSG_LEN(sizeof(int));
  }
  do {
    n = ::recvmsg(fd_, &message, MSG_CMSG_CLOEXEC);
  } while (n < 0 && errno == EINTR);
  const int error = n < 0 ? errno : 0;
  descriptor first;
  const cmsghdr* const c = n < 0 ? nullptr : CMSG_FIRSTHDR(&message);
  if (c != nullptr && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
      c->cmsg_len >= CMSG_LEN(sizeof(int))) {
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(c), sizeof fd);
    first = descriptor(fd);
  }
  std::string fault;
  if (n < 0) {
    fault = error == EAGAIN ? "scx_pulse does not answer" : because("scx_pulse", error);
  } else if (n == 0) {
    fault = "scx_pulse has closed the connection";
  } else if (static_cast<std::size_t>(n) < reply_head || (message.msg_flags & MSG_TRUNC) != 0 ||
             reply.magic != ASIO_PULSE_PROTOCOL_MAGIC || reply.kind != mine.kind ||
             reply.text_bytes != static_cast<std::size_t>(n) - reply_head) {
    fault = "the server of the socket is not scx_pulse";
  } else if ((message.msg_flags & MSG_CTRUNC) != 0) {
    fault = received != nullptr
                ? "the source sends more than one descriptor, or this process cannot open any more"
                : "the source sends descriptors that were not requested";
  }
  if (!fault.empty()) {
    disconnect();
    return fault;
  }
  if (reply.refusal != ASIO_PULSE_OK) {
    return fmt::format("scx_pulse refuses: {}",
                       escape({reply.text, reply.text_bytes}, longest_refusal));
  }
  if (received != nullptr) *received = std::move(first);
  return {};
}

std::string hint_client::attach(pid_t tid, std::uint32_t& slot) {
  if (!connected()) return "not connected";
  asio_pulse_request request{};
  request.kind = ASIO_PULSE_ATTACH;
  request.tid = static_cast<std::uint32_t>(tid);
  asio_pulse_reply reply;
  std::string fault = ask(request, reply, nullptr);
  if (!fault.empty()) return fault;
  if (reply.slot == 0 || reply.slot >= slots_) {
    disconnect();
    return fmt::format("scx_pulse assigns control block {} of {}", reply.slot, slots_);
  }
  slot = reply.slot;
  return fault;
}

void hint_client::detach(pid_t tid, std::uint32_t slot) noexcept {
  if (!connected()) return;
  asio_pulse_request request{};
  request.kind = ASIO_PULSE_DETACH;
  request.tid = static_cast<std::uint32_t>(tid);
  request.slot = slot;
  asio_pulse_reply reply;
  try {
    (void)ask(request, reply, nullptr);
  } catch (...) {  // there is no memory for the sentence
    disconnect();
  }
}

void hint_client::disconnect() noexcept {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  memory_.reset();
  slots_ = 0;
}

asio_pulse_scb& hint_client::block(std::uint32_t slot) const noexcept {
  return static_cast<asio_pulse_scb*>(memory_.get())[slot];
}

const asio_pulse_system& hint_client::system() const noexcept {
  return *static_cast<const asio_pulse_system*>(memory_.get());
}

}  // namespace asio_pulse::detail

#endif
