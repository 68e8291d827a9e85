// SPDX-License-Identifier: BSL-1.0
//
// The clients of the inspection socket: which are accepted, and how they are read and written.
#if defined(__linux__)

#include "inspect_server.hpp"
#include "inspect_wire.hpp"
#include "process/user_identity.hpp"
#include "threads/wakeup.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace asio_pulse::detail {
namespace {

using namespace std::chrono_literals;

// How long to wait for the first request.
constexpr std::chrono::seconds introduction = 2s;
// How long to wait for the next request. Then the client is disconnected.
constexpr std::chrono::seconds between_requests = 60s;

constexpr std::ptrdiff_t most_clients = 8;
// The part of these that is reserved for root, so that the process's user cannot lock root out.
constexpr std::ptrdiff_t for_root = 2;

// How many connections are accepted before other clients are read again.
constexpr int most_at_a_time = 64;
// How long to wait if there is no descriptor for a client, and none in reserve. A guess: with less,
// the loop spins; with more, clients wait longer.
constexpr std::chrono::milliseconds no_descriptor_pause = 100ms;
// After refusals, nothing is accepted for this many times as long as they took.
constexpr int refusal_rest = 19;
constexpr std::chrono::nanoseconds longest_refusal_rest = 1s;

bool out_of_resources(int error) noexcept {
  return error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS;
}

}  // namespace

void inspect_server::reserve() noexcept {
  // A socket type that is in use anyway, so a seccomp filter allows it.
  if (socket_ && !reserve_) reserve_ = descriptor(make_wakeup());
}

// Empty, with errno set, if no client waits, or there is no descriptor.
descriptor inspect_server::accept_one() noexcept {
  const auto accept = [this] {
    return descriptor(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  };
  descriptor made = accept();
  if (made || !reserve_ || !out_of_resources(errno)) return made;
  reserve_.reset();
  made = accept();
  const int error = errno;
  if (!made) reserve();
  errno = error;
  return made;
}

// The kernel shows clients the user that this process was when it last called listen().
void inspect_server::tell_own_user() noexcept {
  if (!socket_ || listens_as_ == ::geteuid()) return;
  if (::listen(socket_.get(), most_waiting) == 0) listens_as_ = ::geteuid();
}

void inspect_server::accept_waiting(clock::time_point now) {
  tell_own_user();
  bool refused = false;
  for (int n = 0; n < most_at_a_time; ++n) {
    descriptor socket = accept_one();
    if (!socket) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno != EAGAIN) accept_from_ = now + no_descriptor_pause;
      break;
    }
    refused = !admit(std::move(socket), now) || refused;
  }
  if (refused) {
    // Any user of this machine can connect, but must not keep this thread busy.
    const auto end = clock::now();
    accept_from_ =
        std::max(accept_from_,
                 end + std::min<clock::duration>((end - now) * refusal_rest, longest_refusal_rest));
  }
}

// Forgets clients that have hung up since they were last polled.
void inspect_server::forget_gone() noexcept {
  std::erase_if(clients_, [](const client& c) {
    pollfd look{.fd = c.socket.get(), .events = POLLRDHUP, .revents = 0};
    return c.done || (::poll(&look, 1, 0) == 1 && (look.revents & (POLLRDHUP | POLLHUP)) != 0);
  });
}

bool inspect_server::has_place(bool root) const noexcept {
  const std::ptrdiff_t others = std::count_if(
      clients_.begin(), clients_.end(), [root](const client& c) { return root || c.user != 0; });
  return others < (root ? most_clients : most_clients - for_root);
}

std::string_view inspect_server::why_refused(const ucred& who) noexcept {
  const bool root = who.uid == 0;
  if (!root && !is_own_user(who.uid)) return "this process belongs to another user";
  if (!has_place(root)) forget_gone();
  if (!has_place(root)) return "too many inspectors are connected to this process; try again later";
  return {};
}

bool inspect_server::admit(descriptor socket, clock::time_point now) {
  ucred who{};
  socklen_t size = sizeof who;
  const bool known = ::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &who, &size) == 0;
  const std::string_view why = known ? why_refused(who) : "the kernel does not report your user";
  if (!why.empty()) {
    const std::string sentence = fmt::format("{} error {}\n", protocol, why);
    (void)::send(socket.get(), sentence.data(), sentence.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    return false;
  }
  client& c = clients_.emplace_back();
  c.socket = std::move(socket);
  c.user = who.uid;
  c.deadline = now + introduction;
  return true;
}

void inspect_server::serve(client& c, clock::time_point now) {
  if (c.sent < c.out.size()) {
    const ssize_t n = ::send(c.socket.get(), c.out.data() + c.sent, c.out.size() - c.sent,
                             MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0) {
      c.done = c.done || (errno != EAGAIN && errno != EINTR);
      return;
    }
    c.sent += static_cast<std::size_t>(n);
    c.deadline = now + answer_patience;
    if (c.sent < c.out.size()) return;
    c.done = c.last;
    c.out = {};
    c.sent = 0;
    c.deadline = now + between_requests;
    return;
  }
  char bytes[longest_request];
  const ssize_t n = ::recv(c.socket.get(), bytes, sizeof bytes, MSG_DONTWAIT);
  if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) c.done = true;
  if (n <= 0) return;
  // While the client waits for a trace, it must not send another request.
  if (!c.takers.empty()) return refuse(c, "one request at a time");
  c.in.append(bytes, static_cast<std::size_t>(n));
  if (c.in.find('\n') != std::string::npos) {
    answer(c, now);
  } else if (c.in.size() >= longest_request) {
    refuse(c,
           fmt::format("a request has at most {} bytes, and ends with a newline", longest_request));
  }
}

}  // namespace asio_pulse::detail

#endif
