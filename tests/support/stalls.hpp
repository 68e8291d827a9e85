// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <support/sanitizers.hpp>

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <nss.h>
#include <poll.h>
#include <resolv.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

/// \file
/// The ways in which a handler gets stuck, each in a function with its own name until it is
/// released. Files that include this are built with -O2 -g, as programs are.

namespace stalls {

inline std::atomic<bool> released{false};

// The loops check without calling a function, because that function would be blamed.

/// ThreadSanitizer delivers signals where a thread calls a function that it intercepts.
inline void let_signals_in() noexcept {
#if defined(PULSE_TEST_TSAN)
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
#endif
}

[[gnu::noinline]] inline void spin() noexcept {
  std::uint64_t x = 1;
  while (let_signals_in(), !released.load(std::memory_order_relaxed)) {
    for (int i = 0; i != 100; ++i) {
      x = x * 6364136223846793005U + 1;
      asm volatile("" : "+r"(x));  // work that the compiler cannot see through
    }
  }
}

[[gnu::noinline]] inline void sleep() noexcept {
  while (let_signals_in(), !released.load(std::memory_order_relaxed)) {
    const timespec t{.tv_sec = 0, .tv_nsec = 200'000'000};
    ::nanosleep(&t, nullptr);
  }
}

/// A test that wants lock_mutex() to wait holds this.
inline std::mutex contended;

[[gnu::noinline]] inline void lock_mutex() {
  const std::lock_guard lock(contended);
  asm volatile("" ::: "memory");
}

[[gnu::noinline]] inline void read_pipe(int fd) noexcept {
  char byte = 0;
  while (::read(fd, &byte, 1) < 0) {
  }
}

/// A name server on this machine that answers late.
class slow_name_server {
 public:
  slow_name_server() : socket_(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    address_.sin_family = AF_INET;
    address_.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ::bind(socket_, reinterpret_cast<sockaddr*>(&address_), sizeof address_);
    socklen_t length = sizeof address_;
    ::getsockname(socket_, reinterpret_cast<sockaddr*>(&address_), &length);
  }
  ~slow_name_server() { ::close(socket_); }
  slow_name_server(const slow_name_server&) = delete;
  slow_name_server& operator=(const slow_name_server&) = delete;

  /// Makes the calling thread's resolver ask only this server.
  void serve_this_thread() const {
    static const int configured = ::__nss_configure_lookup("hosts", "dns");
    static_cast<void>(configured);
    ::res_init();
    _res.nscount = 1;
    _res.nsaddr_list[0] = address_;
    _res.retrans = 10;
    _res.retry = 1;
  }
  /// Waits for a query, at most this long (negative: without a limit), and answers that there is no
  /// such name.
  void answer(std::chrono::milliseconds patience = std::chrono::milliseconds{-1}) const {
    pollfd question{.fd = socket_, .events = POLLIN, .revents = 0};
    if (::poll(&question, 1, static_cast<int>(patience.count())) <= 0) return;
    std::array<unsigned char, 512> message{};
    sockaddr_in from{};
    socklen_t length = sizeof from;
    const ssize_t size = ::recvfrom(socket_, message.data(), message.size(), 0,
                                    reinterpret_cast<sockaddr*>(&from), &length);
    if (size < 12) return;
    message[2] |= 0x80U;  // an answer
    message[3] = 0x83U;   // recursion available; no such name
    ::sendto(socket_, message.data(), static_cast<std::size_t>(size), 0,
             reinterpret_cast<const sockaddr*>(&from), length);
  }

 private:
  int socket_;
  sockaddr_in address_{};
};

[[gnu::noinline]] inline bool resolve_name(const char* name) {
  addrinfo hints{};
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(name, "80", &hints, &found);
  if (found != nullptr) ::freeaddrinfo(found);
  return error == 0;
}

[[gnu::noinline]] inline void fail(int depth) {
  const std::string text(40, 'x');  // a destructor to run on the way
  if (depth == 0) throw std::runtime_error(text);
  fail(depth - 1);
  asm volatile("" ::"r"(text.data()) : "memory");
}

[[gnu::noinline]] inline void throw_storm() {
  while (let_signals_in(), !released.load(std::memory_order_relaxed)) {
    try {
      fail(3);
    } catch (const std::runtime_error&) {
    }
  }
}

[[gnu::noinline]] inline void malloc_storm() {
  std::vector<void*> blocks(64);
  for (std::size_t i = 0; let_signals_in(), !released.load(std::memory_order_relaxed); ++i) {
    void*& block = blocks[i % blocks.size()];
    std::free(block);
    block = std::malloc(16 + i * 37 % 4000);
  }
  for (void* block : blocks) std::free(block);
}

/// Deeper than a copy of the stack reaches: 2000 frames of 128 bytes and more.
[[gnu::noinline]] inline int recurse(int depth) noexcept {
  volatile char frame[128];
  frame[0] = static_cast<char>(depth);
  asm volatile("" ::"r"(frame) : "memory");  // all of it is there
  if (depth == 0) {
    while (let_signals_in(), !released.load(std::memory_order_relaxed)) asm volatile("");
  } else {
    recurse(depth - 1);
  }
  return frame[0];  // read after the call: no tail call
}

struct slow_to_destroy {
  [[gnu::noinline]] ~slow_to_destroy() {
    while (let_signals_in(), !released.load(std::memory_order_relaxed)) asm volatile("");
  }
};

[[gnu::noinline]] inline void leave_scope() {
  const slow_to_destroy object;
  asm volatile("" ::"r"(&object) : "memory");
}

// Inlined into its caller at -O2; it must be named nevertheless.
[[gnu::always_inline]] inline void inlined_spin() noexcept {
  while (let_signals_in(), !released.load(std::memory_order_relaxed)) asm volatile("");
}

[[gnu::noinline]] inline void call_inlined() noexcept {
  inlined_spin();
  asm volatile("" ::: "memory");
}

/// Stuck in a function that the C library calls back.
[[gnu::noinline]] inline int compare_slowly(const void*, const void*) noexcept {
  while (let_signals_in(), !released.load(std::memory_order_relaxed)) asm volatile("");
  return 0;
}

[[gnu::noinline]] inline void sort_slowly() {
  int values[2] = {2, 1};
  std::qsort(values, 2, sizeof(int), compare_slowly);
}

}  // namespace stalls
