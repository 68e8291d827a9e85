// SPDX-License-Identifier: BSL-1.0
#include "probe.hpp"

#include "perf_page.hpp"
#include "rseq_area.hpp"
#include "seccomp.hpp"
#include "thread_cpu.hpp"

#include <asio_pulse/timing/detail/tsc.hpp>
#include <asio_pulse/timing/timebase.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#endif

namespace asio_pulse::detail {

namespace {

using timing::clock_kind;
using timing::timebase;

probe_result verdict(bool available, const char* reason) noexcept {
  probe_result result;
  result.available = available;
  std::snprintf(result.reason, sizeof result.reason, "%s", reason);
  return result;
}

/// Runs for about `duration` of wall time without blocking.
void spin(std::chrono::nanoseconds duration) noexcept {
  const auto& base = timebase::get();
  const auto start = base.now();
  while (base.to_ns(base.now() - start) < duration) {
  }
}

#if defined(__linux__) && ASIO_PULSE_TIMING_HAS_TSC
// Too short a bound would make a working clock look unavailable, so both are generous. A scheduling
// tick is at most 10 ms (HZ=100), and a woken thread preempts a spinning one within a slice or two.
constexpr std::chrono::milliseconds longest_wait_for_preemption{50};
constexpr std::chrono::microseconds nap{100};

/// Blocks for a moment, with a system call that multithreaded programs make anyway.
void nap_in_kernel() {
  std::mutex mutex;
  std::condition_variable never_notified;
  std::unique_lock lock(mutex);
  never_notified.wait_for(lock, nap);
}

/// Whether blocking clears the word. A try in which this thread did not block says nothing: it is
/// so if the whole machine stood still until the time to wait for had passed. A try in which it was
/// preempted as well says nothing either, but cannot be told: so nearly every try has to clear it.
bool cleared_by_blocking(std::atomic<std::uint64_t>& word, std::uint64_t descriptor) {
  constexpr int enough = 3;  // tries, if they agree
  constexpr int most = 24;
  int cleared = 0;
  int kept = 0;
  for (int i = 0; i < most && (kept != 0 || cleared < enough); ++i) {
    const os_reading before = thread_cpu_ns();
    const std::uint64_t start = monotonic_ns();
    word.store(descriptor, std::memory_order_relaxed);
    nap_in_kernel();
    const bool lost = word.load(std::memory_order_relaxed) != descriptor;
    const std::uint64_t wall = monotonic_ns() - start;
    const os_reading after = thread_cpu_ns();
    const bool blocked =
        before.ok && after.ok &&
        after.value - before.value + std::chrono::nanoseconds{nap}.count() / 2 <= wall;
    if (lost) {
      ++cleared;
    } else if (blocked && ++kept == enough && cleared == 0) {
      return false;
    }
  }
  return cleared >= enough && cleared > 4 * kept;
}

enum class rseq_behaviour {
  unregistered,
  no_memory,
  lost,
  never_cleared,
  on_preemption,
  always,
  untried
};

/// Makes the kernel preempt this thread: a companion on the same CPU wakes up again and again.
bool cleared_by_preemption(const std::atomic<std::uint64_t>& word,
                           std::uint64_t descriptor) noexcept {
  const int cpu = sched_getcpu();
  if (cpu < 0 || cpu >= CPU_SETSIZE) {
    return false;
  }
  cpu_set_t here;
  CPU_ZERO(&here);
  CPU_SET(static_cast<unsigned>(cpu), &here);
  if (sched_setaffinity(0, sizeof here, &here) != 0) {  // affects only this short-lived thread
    return false;
  }
  std::atomic<bool> done{false};
  bool cleared = false;
  try {
    std::thread companion([&done] {  // inherits the affinity
      while (!done.load(std::memory_order_relaxed)) {
        std::this_thread::sleep_for(nap);
      }
    });
    rseq_word()->store(descriptor, std::memory_order_relaxed);
    const auto& base = timebase::get();
    const auto start = base.now();
    do {
      cleared = word.load(std::memory_order_relaxed) != descriptor;
    } while (!cleared && base.to_ns(base.now() - start) < longest_wait_for_preemption);
    done.store(true, std::memory_order_relaxed);
    companion.join();
  } catch (const std::exception&) {  // the thread could not be started
    return false;
  }
  return cleared;
}

rseq_behaviour try_rseq() noexcept {
  auto* const word = rseq_word();
  if (word == nullptr) {
    return rseq_behaviour::unregistered;
  }
  const std::uint64_t descriptor = next_descriptor();
  if (descriptor == 0) {
    return rseq_behaviour::no_memory;
  }
  // Is the word kept while nothing happens? Several tries, because the kernel may disturb one.
  bool kept = false;
  for (int i = 0; i < 16 && !kept; ++i) {
    word->store(descriptor, std::memory_order_relaxed);
    spin(std::chrono::microseconds{2});
    kept = word->load(std::memory_order_relaxed) == descriptor;
  }
  if (!kept) {
    return rseq_behaviour::lost;
  }
  if (cleared_by_blocking(*word, descriptor)) {
    return rseq_behaviour::always;
  }
  if (may_be_filtered()) {
    return rseq_behaviour::untried;
  }
  // On a thread of its own, because it changes its affinity.
  auto behaviour = rseq_behaviour::never_cleared;
  try {
    std::thread([&] {
      auto* const own_word = rseq_word();
      if (own_word != nullptr && cleared_by_preemption(*own_word, descriptor)) {
        behaviour = rseq_behaviour::on_preemption;
      }
    }).join();
  } catch (const std::exception&) {  // no thread to be had
  }
  return behaviour;
}

probe_result probe_rseq() noexcept {
  if (!timebase::get().uses_tsc()) {
    return verdict(false, "the timebase is not the TSC");
  }
  if (!probe(clock_kind::thread_cputime).available) {
    return verdict(false, "CLOCK_THREAD_CPUTIME_ID, which it is corrected by, fails");
  }
  if (rseq_word() == nullptr) {
    return verdict(false, rseq_state());
  }
  // On the calling thread. A thread started for this would permanently disable the C library's
  // shortcuts for single-threaded programs (its mutexes and shared_ptr's counts without locked
  // instructions), which costs such a program more than everything else here.
  auto behaviour = rseq_behaviour::lost;
  {
    sigset_t all;
    sigset_t old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    const std::uint64_t before = rseq_word()->load(std::memory_order_relaxed);
    behaviour = try_rseq();
    // Puts back the descriptor of another user, if there was one. After a preemption it would be
    // gone as well.
    rseq_word()->store(before, std::memory_order_relaxed);
    pthread_sigmask(SIG_SETMASK, &old, nullptr);
  }
  switch (behaviour) {
    case rseq_behaviour::always: {
      auto result = verdict(
          true, "tried: the kernel clears the rseq descriptor when it deschedules the thread");
      result.shows_blocking = true;
      return result;
    }
    case rseq_behaviour::on_preemption:
      return verdict(true,
                     "tried: the kernel clears the rseq descriptor on preemption, not on blocking");
    case rseq_behaviour::never_cleared:
      return verdict(false, "tried: the kernel was not seen to clear the rseq descriptor");
    case rseq_behaviour::untried:
      return verdict(false,
                     "whether preemption clears the rseq descriptor is not tried under a "
                     "seccomp filter");
    case rseq_behaviour::no_memory:
      return verdict(false, "no page for the rseq descriptors");
    case rseq_behaviour::unregistered:
      return verdict(false, "a new thread has no rseq registration");
    case rseq_behaviour::lost:
      break;
  }
  return verdict(false, "tried: the rseq descriptor does not stay in place");
}

probe_result probe_perf() noexcept {
  if (!timebase::get().uses_tsc()) {
    return verdict(false, "the timebase is not the TSC");
  }
  if (may_be_filtered()) {
    return verdict(false, "perf_event_open is not tried under a seccomp filter");
  }
  if (const char* const missing = open_perf_page(); missing != nullptr) {
    return verdict(false, missing);
  }
  // The values must be right as well, so they are compared with the CPU clock. Several tries,
  // because a switch may come in between.
  for (int i = 0; i < 5; ++i) {
    const auto first = read_perf_page();
    const auto cpu = thread_cpu_ns();
    spin(std::chrono::microseconds{200});
    const auto last = read_perf_page();
    const auto cpu_end = thread_cpu_ns();
    const auto by_perf = static_cast<std::int64_t>(last.cpu_ns - first.cpu_ns);
    const auto by_cpu = static_cast<std::int64_t>(cpu_end.value - cpu.value);
    const auto off = by_perf > by_cpu ? by_perf - by_cpu : by_cpu - by_perf;
    if (first.ok && last.ok && cpu.ok && cpu_end.ok && off < 5'000) {
      return verdict(true, "tried: perf's page agrees with CLOCK_THREAD_CPUTIME_ID");
    }
  }
  return verdict(false, "tried: perf's page disagrees with CLOCK_THREAD_CPUTIME_ID");
}
#else
probe_result probe_rseq() noexcept { return verdict(false, rseq_state()); }
probe_result probe_perf() noexcept { return verdict(false, open_perf_page()); }
#endif

probe_result probe_os_clock(os_reading (*read)() noexcept, const char* good,
                            const char* bad) noexcept {
  const os_reading first = read();
  spin(std::chrono::microseconds{20});
  const os_reading last = read();
  const bool works = first.ok && last.ok && last.value >= first.value;
  return verdict(works, works ? good : bad);
}

probe_result probe_cycles() noexcept {
  const probe_result result = probe_os_clock(
      &thread_cycles, "tried: QueryThreadCycleTime, a system call per reading", "Windows only");
  return result.available && !timebase::get().uses_tsc()
             ? verdict(false, "the timebase is not the TSC")
             : result;
}

timing::clock_status status(clock_kind kind) {
  const probe_result& result = probe(kind);
  return {kind, result.available, result.reason};
}

}  // namespace

const probe_result& probe(clock_kind kind) noexcept {
  switch (kind) {
    case clock_kind::rseq_tsc: {
      static probe_result result = probe_rseq();  // not const: a test changes shows_blocking
      return result;
    }
    case clock_kind::perf_mmap: {
      static const probe_result result = probe_perf();
      return result;
    }
    case clock_kind::thread_cputime: {
      static const probe_result result =
          probe_os_clock(&thread_cpu_ns,
                         "tried: clock_gettime(CLOCK_THREAD_CPUTIME_ID), a system call per reading",
                         "clock_gettime(CLOCK_THREAD_CPUTIME_ID) is missing or fails");
      return result;
    }
    case clock_kind::thread_cycles: {
      static const probe_result result = probe_cycles();
      return result;
    }
    case clock_kind::mach_thread: {
      static const probe_result result = probe_os_clock(
          &mach_thread_ns, "tried: thread_info, a system call per reading, in steps of 1 us",
          "macOS only");
      return result;
    }
    case clock_kind::steady: {
      static const probe_result result =
          verdict(true, "always: wall time, which counts occupancy instead of CPU time");
      return result;
    }
    case clock_kind::published: {
      static const probe_result result =
          verdict(false, "needs a scheduler's control block to attach to");
      return result;
    }
    case clock_kind::manual: {
      static const probe_result result =
          verdict(false, "needs a manual_clock to attach to; for tests");
      return result;
    }
    case clock_kind::none:
      break;
  }
  static const probe_result unknown = verdict(false, "no clock");
  return unknown;
}

}  // namespace asio_pulse::detail

namespace asio_pulse::timing {

std::string_view to_string(clock_kind kind) noexcept {
  switch (kind) {
    case clock_kind::none:
      return "none";
    case clock_kind::rseq_tsc:
      return "rseq_tsc";
    case clock_kind::perf_mmap:
      return "perf_mmap";
    case clock_kind::published:
      return "published";
    case clock_kind::thread_cputime:
      return "thread_cputime";
    case clock_kind::steady:
      return "steady";
    case clock_kind::thread_cycles:
      return "thread_cycles";
    case clock_kind::mach_thread:
      return "mach_thread";
    case clock_kind::manual:
      return "manual";
  }
  return "unknown";
}

const std::vector<clock_status>& probe_clocks() {
  static const std::vector<clock_status> instance = [] {
    std::vector<clock_status> all;
    for (const clock_kind kind : detail::preference) {
      all.push_back(detail::status(kind));
    }
    all.push_back(detail::status(clock_kind::published));
    all.push_back(detail::status(clock_kind::manual));
    return all;
  }();
  return instance;
}

const clock_status& default_clock() {
  static const clock_status instance = [] {
    clock_status chosen;
    std::string passed_over;
    for (const clock_kind kind : detail::preference) {  // stops at the first that works
      clock_status candidate = detail::status(kind);
      if (candidate.available) {
        chosen = std::move(candidate);
        break;
      }
      passed_over += passed_over.empty() ? "; not " : ", not ";
      passed_over += std::string(to_string(candidate.kind)) + " (" + candidate.reason + ")";
    }
    chosen.reason = "the cheapest exact clock that works here: " + chosen.reason + passed_over;
    if (chosen.kind == clock_kind::steady) {
      chosen.reason = "no exact clock works here; " + chosen.reason;
    }
    return chosen;
  }();
  return instance;
}

}  // namespace asio_pulse::timing
