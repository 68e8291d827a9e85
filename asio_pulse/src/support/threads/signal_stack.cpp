// SPDX-License-Identifier: BSL-1.0

#include "signal_stack.hpp"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>

#if defined(__linux__)
#include "thread_number.hpp"
#include "thread_usage.hpp"
#endif

namespace asio_pulse::detail {
namespace {

std::size_t frame_size() noexcept {
  const long least = sysconf(_SC_MINSIGSTKSZ);
  return least > 0 ? static_cast<std::size_t>(least) : 0;
}

std::size_t signal_stack_size() noexcept { return std::max<std::size_t>(frame_size(), 16384) * 2; }

// The kernel's frame, and what our handlers take.
std::size_t least_signal_stack() noexcept { return frame_size() + 4096; }

}  // namespace

void* make_signal_stack() noexcept {
#if defined(__linux__)
  if (own_seccomp_filters() != 0) return nullptr;
#endif
  stack_t now{};
  if (sigaltstack(nullptr, &now) != 0 || (now.ss_flags & SS_DISABLE) == 0) return nullptr;
  const std::size_t size = signal_stack_size();
  void* const at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return nullptr;
  stack_t ours{};
  ours.ss_sp = at;
  ours.ss_size = size;
  if (sigaltstack(&ours, nullptr) == 0) return at;
  munmap(at, size);
  return nullptr;
}

void drop_signal_stack(void* stack) noexcept {
  if (stack == nullptr) return;
#if defined(__linux__)
  if (own_seccomp_filters() != 0) return;  // then it stays in use, and is not freed
#endif
  stack_t now{};
  if (sigaltstack(nullptr, &now) != 0) return;
  if (now.ss_sp == stack) {
    stack_t off{};
    off.ss_flags = SS_DISABLE;
    if (sigaltstack(&off, nullptr) != 0) return;
  }
  munmap(stack, signal_stack_size());
}

bool has_small_stack() noexcept {
#if defined(__linux__)
  constexpr std::size_t small = std::size_t{128} << 10;
  std::size_t size = small;
  pthread_attr_t attributes;
  if (this_thread_number() == ::getpid()) {
    // The first thread's stack grows up to RLIMIT_STACK; new threads get that size at once.
    if (::pthread_attr_init(&attributes) != 0) return false;
    (void)::pthread_attr_getstacksize(&attributes, &size);
  } else {
    if (::pthread_getattr_np(::pthread_self(), &attributes) != 0) return false;
    void* lowest = nullptr;
    (void)::pthread_attr_getstack(&attributes, &lowest, &size);
  }
  ::pthread_attr_destroy(&attributes);
  return size < small;
#else
  return false;
#endif
}

bool has_signal_stack() noexcept {
  stack_t now{};
  return sigaltstack(nullptr, &now) == 0 && (now.ss_flags & SS_DISABLE) == 0 &&
         now.ss_size >= least_signal_stack();
}

}  // namespace asio_pulse::detail
