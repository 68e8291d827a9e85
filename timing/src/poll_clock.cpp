// SPDX-License-Identifier: BSL-1.0
#include "perf_page.hpp"
#include "probe.hpp"
#include "rseq_area.hpp"
#include "thread_cpu.hpp"

#include <asio_pulse/timing/poll_clock.hpp>

#include <algorithm>
#include <chrono>

namespace asio_pulse::timing {

namespace {

constexpr auto relaxed = std::memory_order_relaxed;

constexpr ticks minus(ticks a, ticks b) noexcept { return a > b ? a - b : 0; }

ticks ticks_of(std::uint64_t ns) noexcept {
  constexpr auto most = std::chrono::nanoseconds::max();
  return timebase::get().from_ns(
      ns > static_cast<std::uint64_t>(most.count())
          ? most
          : std::chrono::nanoseconds{static_cast<std::chrono::nanoseconds::rep>(ns)});
}

#if ASIO_PULSE_TIMING_HAS_TSC
// A lap is exact if its error is at most this part of it.
constexpr std::uint64_t error_divisor = 128;

struct limits {
  ticks chain;         // longest time between two readings of the exact clock
  ticks harmless;      // a disturbed segment that is too short to hold a preemption
  ticks resync;        // least time between two system calls of waited()
  ticks slow_reading;  // if an exact reading took longer, it was interrupted
};

const limits& limit() noexcept {
  using namespace std::chrono_literals;
  static const limits instance{
      // A shorter chain costs more system calls (155 to 190 ns each here, so 0.06 to 0.08 % of the
      // time). A longer one lets longer segments go unchecked. The rseq word does not show time
      // that a hypervisor has stolen (3 of 15 000 segments of 200 us on a shared host, by 10 to 80
      // us), nor blocking on kernels from 7.2 on. The error of the calibration (10 ppm) is small
      // beside that.
      .chain = timebase::get().from_ns(250us),
      // A switch to another thread and back takes longer. A guess: published figures start at 1.5
      // us.
      .harmless = timebase::get().from_ns(1us),
      // 0.16 to 0.19 % of the time of a loop that sleeps in every turn.
      .resync = timebase::get().from_ns(100us),
      // At least ten times what the system call takes.
      .slow_reading = timebase::get().from_ns(2us),
  };
  return instance;
}

std::uint64_t ns_of(ticks value) noexcept {
  return static_cast<std::uint64_t>(timebase::get().to_ns(value).count());
}
#endif

}  // namespace

struct poll_clock::reading {
  std::uint64_t cpu = 0;  // ns (cycles for thread_cycles), valid at `at`
  ticks at = 0;
  bool ok = false;
};

// ---- kinds with a word to watch: rseq_tsc, published --------------------------------------------

#if ASIO_PULSE_TIMING_HAS_TSC

void poll_clock::follow(const std::atomic<std::uint64_t>& word, bool blocking_shows) noexcept {
  watch_ = &word;
  vouched_ = blocking_shows;
  rearm();
  anchor(read_exact());
}

/// Makes *watch_ and expected_ equal, so that what happens from here on shows.
void poll_clock::rearm() noexcept {
  const std::uint64_t present = watch_->load(relaxed);
  if (kind() == clock_kind::published) {
    // An odd sequence means that the writer is at work, or gone. It never equals what is expected.
    expected_ = present & ~std::uint64_t{1};
    return;
  }
  if (detail::is_our_descriptor(present)) {
    // Another clock of this thread has put it there. It stays, so that the other clock does not
    // take this for a disturbance.
    expected_ = present;
    return;
  }
  expected_ = detail::next_descriptor();
  if (auto* const word = detail::rseq_word(); word != nullptr) {
    word->store(expected_, relaxed);
  }
}

/// Reads the exact clock. *watch_ is armed, so that an interruption of the reading itself shows in
/// the next lap.
poll_clock::reading poll_clock::read_exact() const noexcept {
  reading result;
  const ticks before = detail::read_tsc();
  if (kind() == clock_kind::published && source_ != nullptr) {  // the first implies the second
    const auto& source = *static_cast<const published_cpu_time*>(source_);
    constexpr int attempts = 64;  // the writer runs only while this thread does not: one is usual
    for (int i = 0; i < attempts && !result.ok; ++i) {
      const auto seen = source.try_read();
      const std::uint64_t now = detail::monotonic_ns();
      result.ok = seen.consistent && source.sequence.load(relaxed) == seen.sequence;
      result.cpu = seen.run_ns + minus(now, seen.run_start_ns);
    }
  } else {
    const auto seen = detail::thread_cpu_ns();
    result.cpu = seen.value;
    result.ok = seen.ok;
  }
  result.at = detail::read_tsc();
  const ticks took = minus(result.at, before);
  if (watch_->load(relaxed) == expected_ && took <= limit().slow_reading) {
    result.cpu += ns_of(took / 2);  // the clock was read about half way through the call
  }
  return result;
}

void poll_clock::anchor(const reading& at) noexcept {
  anchor_at_ = at.at;
  anchor_cpu_ = at.cpu;
  gap_ = 0;
  // Without a reading there is no chain: every lap tries again, and no lap is exact.
  chained_ = at.ok;
  left_ = at.ok ? limit().chain : 0;
  fork_epoch_ = detail::fork_epoch();
  last_.store(at.at, relaxed);
}

poll_clock::measured poll_clock::take_slow(ticks now, bool disturbed) noexcept {
  const ticks start = last_.load(relaxed);
  if (disturbed) {
    rearm();
    // Read the TSC again: a preemption between `now` and the arming would not be noticed.
    now = detail::read_tsc();
    const ticks wall = now - start;
    if (kind() == clock_kind::rseq_tsc && wall <= limit().harmless && wall <= left_) {
      left_ -= wall;
      last_.store(now, relaxed);
      return {wall, vouched_};
    }
  }
  const bool vouched = !disturbed && vouched_ && chained_ && now >= start;
  const ticks wall = minus(now, start);
  const bool chained = chained_;
  const ticks gap = gap_;
  const bool forked = fork_epoch_ != detail::fork_epoch();
  const std::uint64_t cpu_at_start = anchor_cpu_ + ns_of(minus(start, anchor_at_));
  const ticks since_anchor = minus(now, anchor_at_);
  const reading at = read_exact();
  anchor(at);
  if (!at.ok || !chained) {
    return {wall, vouched};
  }
  if (forked) {  // the CPU clock of the child has started at zero
    return {std::min(wall, ticks_of(at.cpu)), false};
  }
  if (vouched && wall < since_anchor / 2) {
    return {wall, true};  // undisturbed: only the chain is long
  }
  // The least that the thread can have consumed before `start` gives the most that it can have
  // consumed since. The time of the reading itself is subtracted, unless it was interrupted. A long
  // undisturbed lap comes here as well: the exact clock shows time that an interrupt or the
  // hypervisor took, most likely from the longest lap of the chain.
  const std::uint64_t before = minus(cpu_at_start, ns_of(gap));
  const ticks own = minus(at.at, now);
  const std::uint64_t own_ns =
      own <= limit().slow_reading && watch_->load(relaxed) == expected_ ? ns_of(own) : 0;
  const std::uint64_t spent = minus(minus(at.cpu, before), own_ns);
  // What is not known is for how much of this time before `start` the thread had the CPU. If it is
  // short beside what was spent, so is the error.
  const ticks unknown = vouched_ ? gap : minus(start, anchor_at_);
  const bool exact = at.cpu >= before && ns_of(unknown) <= spent / error_divisor;
  return {std::min(wall, ticks_of(spent)), exact || vouched};
}

lap poll_clock::confirm_slow(ticks cost) noexcept {
  const ticks now = last_.load(relaxed);
  const ticks start = now - cost;  // right even if the TSC went backwards: both wrap
  last_.store(start, relaxed);
  const measured slow = take_slow(now, false);
  return {last_.load(relaxed), slow.cost, slow.exact, start};
}

ticks poll_clock::restart_slow(bool disturbed, bool after_wait) noexcept {
  // The kernel sets the rseq word to zero. Another descriptor of ours was set after that. The
  // descriptor of another user does not mean that the thread was switched.
  const std::uint64_t word = watch_->load(relaxed);
  const bool switched = disturbed && (kind() == clock_kind::published || word == 0 ||
                                      detail::is_our_descriptor(word));
  if (disturbed) {
    rearm();
  }
  const ticks now = detail::read_tsc();
  const ticks passed = minus(now, last());
  const bool harmless = disturbed && kind() == clock_kind::rseq_tsc && passed <= limit().harmless;
  if (!harmless) {
    gap_ += passed;
    const ticks since = minus(now, anchor_at_);
    if ((switched && !after_wait) || since >= limit().resync || now < anchor_at_ || !chained_) {
      anchor(read_exact());
      return last();
    }
  }
  left_ = minus(left_, passed);  // at zero, the next lap anchors the chain anew
  last_.store(now, relaxed);
  return now;
}

#endif

// ---- the other kinds ----------------------------------------------------------------------------

poll_clock::reading poll_clock::read_other() noexcept {
  const auto stamped = [](const detail::os_reading& seen) {
    return reading{seen.value, timebase::get().now(), seen.ok};
  };
  switch (kind()) {
    case clock_kind::perf_mmap: {
      detail::perf_reading seen = detail::read_perf_page();
      if (!seen.ok && detail::open_perf_page() == nullptr) {  // a forked child
        seen = detail::read_perf_page();
      }
      if (!seen.ok) {
        return {0, timebase::get().now(), false};
      }
      return {seen.cpu_ns, seen.tsc, true};
    }
    case clock_kind::thread_cputime:
      return stamped(detail::thread_cpu_ns());
    case clock_kind::thread_cycles:
      return stamped(detail::thread_cycles());
    case clock_kind::mach_thread:
      return stamped(detail::mach_thread_ns());
    default:
      return {0, timebase::get().now(), false};
  }
}

poll_clock::measured poll_clock::take_other() noexcept {
  if (kind() == clock_kind::manual && source_ != nullptr) {  // the first implies the second
    const auto& source = *static_cast<const manual_clock*>(source_);
    const auto cpu = static_cast<std::uint64_t>(source.cpu().count());
    const ticks cost = ticks_of(minus(cpu, anchor_cpu_));
    anchor_cpu_ = cpu;
    last_.store(source.now(), relaxed);
    return {cost, source.exact()};
  }
  const ticks start = last();
  const reading at = read_other();
  const ticks wall = start == 0 ? 0 : minus(at.at, start);
  const std::uint32_t epoch = detail::fork_epoch();
  const bool known = at.ok && epoch == fork_epoch_ && at.cpu >= anchor_cpu_;
  const std::uint64_t spent = minus(at.cpu, anchor_cpu_);
  const ticks cost = kind() == clock_kind::thread_cycles ? spent : ticks_of(spent);
  anchor_cpu_ = at.cpu;
  fork_epoch_ = epoch;
  last_.store(at.at, relaxed);
  return {known ? std::min(wall, cost) : wall, known};
}

ticks poll_clock::stamp_other() noexcept {
  take_other();
  return last();
}

// ---- attaching ----------------------------------------------------------------------------------

void poll_clock::reset(clock_kind kind, const void* source) noexcept {
  watch_ = nullptr;
  expected_ = 0;
  chained_ = false;
  left_ = 0;
  gap_ = 0;
  vouched_ = false;
  anchor_at_ = 0;
  anchor_cpu_ = 0;
  fork_epoch_ = detail::fork_epoch();
  source_ = source;
  kind_.store(kind, relaxed);
}

bool poll_clock::try_attach(clock_kind kind) noexcept {
  if (!detail::probe(kind).available) {
    return false;
  }
#if ASIO_PULSE_TIMING_HAS_TSC
  if (kind == clock_kind::rseq_tsc) {
    const auto* const word = detail::rseq_word();  // of this thread; the probe saw another's
    if (word == nullptr) {
      return false;
    }
    reset(kind, nullptr);
    follow(*word, detail::probe(kind).shows_blocking);
    return chained_;
  }
#endif
  if (kind == clock_kind::perf_mmap && detail::open_perf_page() != nullptr) {
    return false;
  }
  reset(kind, nullptr);
  take_other();
  return true;
}

void poll_clock::attach_best() noexcept {
  for (const clock_kind kind : detail::preference) {
    if (try_attach(kind)) {
      return;
    }
  }
  reset(clock_kind::steady, nullptr);  // always works
  take_other();
}

void poll_clock::attach(clock_kind wanted) noexcept {
  if (wanted == clock_kind::none) {
    detach();
  } else if (!try_attach(wanted)) {
    attach_best();
  }
}

void poll_clock::resume(clock_kind wanted) noexcept {
  const bool known = wanted == clock_kind::rseq_tsc && kind() == wanted && chained_ &&
                     fork_epoch_ == detail::fork_epoch();
  if (known) {
    waited();
  } else {
    attach(wanted);
  }
}

void poll_clock::attach(const manual_clock& source) noexcept {
  reset(clock_kind::manual, &source);
  take_other();
}

void poll_clock::attach(const published_cpu_time& source) noexcept {
#if ASIO_PULSE_TIMING_HAS_TSC
  if (timebase::get().uses_tsc()) {
    reset(clock_kind::published, &source);
    follow(source.sequence, true);
    return;
  }
#endif
  static_cast<void>(source);
  attach_best();
}

void poll_clock::detach() noexcept {
  if (kind() == clock_kind::rseq_tsc) {
    detail::disarm_rseq();
  }
  reset(clock_kind::none, nullptr);
}

}  // namespace asio_pulse::timing
