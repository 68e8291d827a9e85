// SPDX-License-Identifier: BSL-1.0
#include "perf_page.hpp"

#include "thread_cpu.hpp"
#include "thread_exit.hpp"

#include <asio_pulse/timing/detail/tsc.hpp>

#if defined(__linux__) && ASIO_PULSE_TIMING_HAS_TSC
#include <linux/perf_event.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#endif

namespace asio_pulse::detail {

#if defined(__linux__) && ASIO_PULSE_TIMING_HAS_TSC
namespace {

class perf_page {
 public:
  constexpr perf_page() noexcept = default;
  perf_page(const perf_page&) = delete;
  perf_page& operator=(const perf_page&) = delete;
  ~perf_page() = default;

  const char* open() noexcept {
    if (usable()) {
      return nullptr;
    }
    close();
    if (!close_at_exit()) {
      return "there is no memory to close it with the thread";
    }
    perf_event_attr attributes{};
    attributes.type = PERF_TYPE_SOFTWARE;
    attributes.size = sizeof attributes;
    attributes.config = PERF_COUNT_SW_DUMMY;
    attributes.exclude_kernel = 1;  // allowed up to perf_event_paranoid 2; the times are the same
    attributes.exclude_hv = 1;
    const int file = static_cast<int>(
        syscall(SYS_perf_event_open, &attributes, 0, -1, -1, PERF_FLAG_FD_CLOEXEC));
    if (file < 0) {
      return errno == EACCES || errno == EPERM
                 ? "perf_event_open is not permitted (perf_event_paranoid, seccomp)"
                 : "perf_event_open failed";
    }
    epoch_ = fork_epoch();
    void* const memory = mmap(nullptr, size(), PROT_READ, MAP_SHARED, file, 0);
    ::close(file);  // the mapping keeps the event: no descriptor for each thread
    if (memory == MAP_FAILED) {
      return "the perf page cannot be mapped";
    }
    page_ = static_cast<const perf_event_mmap_page*>(memory);
    if (page_->cap_user_time == 0) {
      close();
      return "the kernel does not offer cap_user_time (its sched_clock is not the TSC)";
    }
    return nullptr;
  }

  [[nodiscard]] perf_reading read() const noexcept {
    if (!usable()) {
      return {};
    }
    for (;;) {  // the kernel writes only when this thread is switched, so this ends soon
      const std::uint32_t sequence = __atomic_load_n(&page_->lock, __ATOMIC_ACQUIRE);
      const std::uint64_t tsc = read_tsc();
      const perf_times times{page_->time_enabled, page_->time_offset, page_->time_mult,
                             page_->time_shift};
      __asm__ volatile("" : : : "memory");  // same thread, same CPU: the compiler's order suffices
      if (__atomic_load_n(&page_->lock, __ATOMIC_RELAXED) == sequence) {
        return {perf_cpu_ns(times, tsc), tsc, true};
      }
    }
  }

  void close() noexcept {
    if (page_ != nullptr && epoch_ == fork_epoch()) {
      munmap(const_cast<perf_event_mmap_page*>(page_), size());
    }
    page_ = nullptr;
  }

 private:
  static bool close_at_exit() noexcept;
  static std::size_t size() noexcept { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }

  // perf's pages are not copied into a forked child (VM_DONTCOPY). There the address is invalid.
  [[nodiscard]] bool usable() const noexcept { return page_ != nullptr && epoch_ == fork_epoch(); }

  const perf_event_mmap_page* page_ = nullptr;
  std::uint32_t epoch_ = 0;
};

constinit thread_local perf_page this_page;
constinit thread_local thread_exit_hook closing{[]() noexcept { this_page.close(); }};

bool perf_page::close_at_exit() noexcept { return at_thread_exit(closing); }

}  // namespace

const char* open_perf_page() noexcept { return this_page.open(); }
perf_reading read_perf_page() noexcept { return this_page.read(); }

#else

const char* open_perf_page() noexcept { return "perf's page is used on Linux x86-64"; }
perf_reading read_perf_page() noexcept { return {}; }

#endif

}  // namespace asio_pulse::detail
