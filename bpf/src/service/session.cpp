// SPDX-License-Identifier: BSL-1.0
#include "session.hpp"

#include <fmt/core.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace asio_pulse::scx {
namespace {

#ifndef SO_PEERPIDFD
constexpr int so_peerpidfd = 77;  // Linux 6.5
#else
constexpr int so_peerpidfd = SO_PEERPIDFD;
#endif

using boost::system::error_code;

unique_fd pidfd_of(int socket, pid_t pid) noexcept {
  int fd = -1;
  socklen_t size = sizeof fd;
  if (::getsockopt(socket, SOL_SOCKET, so_peerpidfd, &fd, &size) == 0) return unique_fd(fd);
  // If another process has this id by now, its end is taken for that of the peer.
  return unique_fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
}

}  // namespace

peer peer::of(int socket) noexcept {
  peer who;
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
    who.uid = static_cast<uid_t>(-1);
    return who;
  }
  who.uid = credentials.uid;
  if (credentials.pid <= 0) return who;
  who.pid = credentials.pid;
  who.pidfd = pidfd_of(socket, credentials.pid);
  who.process = process_info(credentials.pid);
  // If the process is still alive after its folder was opened, the folder is its own and not that
  // of a later process with the same id.
  if (!who.pidfd || who.ended()) who.process = process_info(0);
  return who;
}

uid_t peer::user_of(int socket) noexcept {
  ucred credentials{};
  socklen_t size = sizeof credentials;
  return ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) == 0
             ? credentials.uid
             : static_cast<uid_t>(-1);
}

bool peer::ended() const noexcept {
  if (!pidfd) return false;
  pollfd look{.fd = pidfd.get(), .events = POLLIN, .revents = 0};
  return ::poll(&look, 1, 0) == 1;
}

session::session(boost::asio::io_context& context, unique_fd socket, peer who, session_owner& owner)
    : socket_(context), timer_(context), who_(std::move(who)), owner_(&owner) {
  socket_.assign(socket.get());  // may fail for lack of memory in the reactor
  static_cast<void>(socket.release());
}

session::~session() {
  if (death_) static_cast<void>(death_->release());
}

void session::start(std::chrono::nanoseconds after) {
  if (who_.pidfd) {
    death_.emplace(socket_.get_executor(), who_.pidfd.get());
    death_->async_wait(boost::asio::posix::stream_descriptor::wait_read,
                       [self = shared_from_this()](error_code ec) {
                         if (!ec) self->end();
                       });
  }
  rest(after);
}

void session::end() noexcept {
  session_owner* const owner = std::exchange(owner_, nullptr);
  if (owner == nullptr) return;
  const auto self = shared_from_this();  // the owner may release the last reference
  owner->ended(*this);
  if (death_) static_cast<void>(death_->release());  // cancels the wait; who_ closes it
  timer_.cancel();
  error_code ignored;
  socket_.close(ignored);
}

void session::rest(std::chrono::nanoseconds time) {
  if (time.count() <= 0) return wait_for_request();
  timer_.expires_after(time);
  timer_.async_wait([self = shared_from_this()](error_code ec) {
    if (!ec && self->owner_ != nullptr) self->wait_for_request();
  });
}

void session::wait_for_request() {
  socket_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                     [self = shared_from_this()](error_code ec) {
                       if (self->owner_ == nullptr) return;
                       if (ec) return self->end();
                       self->receive();
                     });
}

void session::receive() {
  // One byte more than the longest message, so that a longer one is noticed.
  char bytes[sizeof(asio_pulse_set_request) + 1];
  iovec part{.iov_base = bytes, .iov_len = sizeof bytes};
  // There is no room for descriptors. The kernel then drops them and sets a flag.
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  const ssize_t size =
      ::recvmsg(socket_.native_handle(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (size < 0) {
    if (errno == EAGAIN || errno == EINTR) return wait_for_request();
    return end();
  }
  if (size == 0) return end();

  const auto before = std::chrono::steady_clock::now();
  last_reply_ = !serve(bytes, static_cast<std::size_t>(size), message.msg_flags);
  if (owner_ == nullptr) return;
  rest_after_ = owner_->charge(*this, std::chrono::steady_clock::now() - before);
  send();
}

// Fills reply_. Returns false if the connection has to be closed after the reply.
bool session::serve(const char* bytes, std::size_t size, int flags) {
  asio_pulse_set_request message{};
  std::memcpy(&message, bytes, std::min(size, sizeof message));
  const asio_pulse_request& request = message.request;

  answer result;
  bool good = false;
  if ((flags & MSG_CTRUNC) != 0) {
    result.refused.text = "a request must not carry descriptors";
  } else if ((flags & MSG_TRUNC) != 0 || size > sizeof message) {
    result.refused.text =
        fmt::format("a request has at most {} bytes, and this one has more", sizeof message);
  } else if (size < sizeof request) {
    result.refused.text =
        fmt::format("a request has at least {} bytes, and this one has {}", sizeof request, size);
  } else if (request.magic != ASIO_PULSE_PROTOCOL_MAGIC) {
    result.refused.text = fmt::format("a request starts with {:#x}, and this one with {:#x}",
                                      ASIO_PULSE_PROTOCOL_MAGIC, request.magic);
  } else if (const std::size_t right =
                 request.kind == ASIO_PULSE_SET ? sizeof message : sizeof request;
             size != right) {
    result.refused.text = fmt::format("a request of kind {} has {} bytes, and this one has {}",
                                      request.kind, right, size);
  } else {
    good = true;
    result = owner_->handle(*this, request, message);
  }
  if (!good) result.refused.code = ASIO_PULSE_REFUSED_MALFORMED;

  const std::string& text = result.refused ? result.refused.text : result.text;
  reply_.magic = ASIO_PULSE_PROTOCOL_MAGIC;
  reply_.abi_version = ASIO_PULSE_ABI_VERSION;
  reply_.kind = good ? request.kind : std::uint16_t{0};
  reply_.refusal = static_cast<std::uint32_t>(result.refused.code);
  reply_.slot = result.slot;
  reply_.slots = result.slots;
  reply_.text_bytes =
      static_cast<std::uint32_t>(std::min<std::size_t>(text.size(), ASIO_PULSE_REPLY_TEXT));
  std::memcpy(reply_.text, text.data(), reply_.text_bytes);
  reply_fd_ = result.fd;
  return good;
}

void session::send() {
  iovec part{.iov_base = &reply_, .iov_len = offsetof(asio_pulse_reply, text) + reply_.text_bytes};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  if (reply_fd_ >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &reply_fd_, sizeof reply_fd_);
  }
  const ssize_t sent = ::sendmsg(socket_.native_handle(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0 && (errno == EAGAIN || errno == EINTR)) {
    // The peer does not read its replies. Until it does, its requests are not read either.
    socket_.async_wait(boost::asio::posix::stream_descriptor::wait_write,
                       [self = shared_from_this()](error_code ec) {
                         if (self->owner_ == nullptr) return;
                         if (ec) return self->end();
                         self->send();
                       });
    return;
  }
  if (sent < 0 || last_reply_) return end();
  rest(rest_after_);
}

}  // namespace asio_pulse::scx
