// SPDX-License-Identifier: BSL-1.0
#include "thread_cpu.hpp"

#include <atomic>
#include <chrono>

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>
#else
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#endif
#if defined(__APPLE__)
#include <mach/mach.h>
#endif

namespace asio_pulse::detail {

#if !defined(_WIN32)
namespace {

std::uint64_t to_ns(const timespec& at) noexcept {
  return static_cast<std::uint64_t>(at.tv_sec) * 1'000'000'000U +
         static_cast<std::uint64_t>(at.tv_nsec);
}

// The epoch is in a page that the kernel zeroes in a forked child, so that even a fork without
// atfork handlers is noticed. The last number is in ordinary memory, which is copied, so that the
// child takes a new one.
std::atomic<std::uint32_t> last_epoch{0};

std::atomic<std::uint32_t>* make_epoch_word() noexcept {
  static std::atomic<std::uint32_t> fallback{0};
#if defined(MADV_WIPEONFORK)
  const auto size = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  void* const page =
      mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page != MAP_FAILED) {
    if (madvise(page, size, MADV_WIPEONFORK) == 0) {
      return new (page) std::atomic<std::uint32_t>{0};  // never unmapped
    }
    munmap(page, size);
  }
#endif
  pthread_atfork(nullptr, nullptr, [] { fallback.store(0, std::memory_order_relaxed); });
  return &fallback;
}

}  // namespace

std::uint32_t fork_epoch() noexcept {
  static std::atomic<std::uint32_t>* const word = make_epoch_word();
  std::uint32_t epoch = word->load(std::memory_order_relaxed);
  if (epoch == 0) {  // first use, or first use in a child
    const std::uint32_t fresh = last_epoch.fetch_add(1, std::memory_order_relaxed) + 1;
    epoch = word->compare_exchange_strong(epoch, fresh, std::memory_order_relaxed) ? fresh : epoch;
  }
  return epoch;
}

os_reading thread_cpu_ns() noexcept {
  timespec at{};
  return clock_gettime(CLOCK_THREAD_CPUTIME_ID, &at) == 0 ? os_reading{to_ns(at), true}
                                                          : os_reading{};
}

std::uint64_t monotonic_ns() noexcept {
  timespec at{};
  clock_gettime(CLOCK_MONOTONIC, &at);
  return to_ns(at);
}
#else
std::uint32_t fork_epoch() noexcept { return 0; }

os_reading thread_cpu_ns() noexcept { return {}; }

std::uint64_t monotonic_ns() noexcept {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                        std::chrono::steady_clock::now().time_since_epoch())
                                        .count());
}
#endif

os_reading thread_cycles() noexcept {
#if defined(_WIN32)
  ULONG64 cycles = 0;
  if (QueryThreadCycleTime(GetCurrentThread(), &cycles) != 0) {
    return {cycles, true};
  }
#endif
  return {};
}

os_reading mach_thread_ns() noexcept {
#if defined(__APPLE__)
  thread_basic_info_data_t info{};
  mach_msg_type_number_t count = THREAD_BASIC_INFO_COUNT;
  const mach_port_t thread = mach_thread_self();
  const kern_return_t result =
      thread_info(thread, THREAD_BASIC_INFO, reinterpret_cast<thread_info_t>(&info), &count);
  mach_port_deallocate(mach_task_self(), thread);
  if (result == KERN_SUCCESS) {
    const auto seconds =
        static_cast<std::uint64_t>(info.user_time.seconds + info.system_time.seconds);
    const auto micros =
        static_cast<std::uint64_t>(info.user_time.microseconds + info.system_time.microseconds);
    return {seconds * 1'000'000'000U + micros * 1'000U, true};
  }
#endif
  return {};
}

}  // namespace asio_pulse::detail
