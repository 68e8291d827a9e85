// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/timing/clock.hpp>
#include <asio_pulse/timing/detail/tsc.hpp>
#include <asio_pulse/timing/manual_clock.hpp>
#include <asio_pulse/timing/published_cpu_time.hpp>
#include <asio_pulse/timing/timebase.hpp>
#include <atomic>
#include <cstdint>
#include <type_traits>

#if defined(__GNUC__)
#define ASIO_PULSE_TIMING_COLD [[gnu::cold, gnu::noinline]]
#else
#define ASIO_PULSE_TIMING_COLD
#endif

namespace asio_pulse::timing {

/// The end of one segment, which is the start of the next.
struct lap {
  ticks now = 0;       ///< the stamp that the next segment starts from
  ticks cost = 0;      ///< CPU ticks since the last stamp, never more than the wall ticks between
  bool exact = false;  ///< false: the clock could not vouch, the cost is an upper bound (occupancy)
  ticks start = 0;     ///< the stamp that the segment started from
};

/// Measures the CPU time of what its thread runs, segment after segment, for one TSC read each.
///
/// The problem: reading the thread's CPU clock is a system call, twenty times the price of the poll
/// it would measure. Wall time is cheap and wrong as soon as the kernel runs somebody else.
///
/// The way out (rseq_tsc): the thread's rseq area holds the address of a descriptor that names a
/// critical section which no instruction pointer is ever in. When the kernel preempts or migrates
/// the thread, blocks it (kernels before 7.2), or delivers a signal, it clears that word. So a word
/// that is still ours *after* the TSC was read says that the thread ran from stamp to stamp: the
/// difference is its CPU time. A word that is not ours says "unknown", and only then the system
/// call is made. Stamps, the undisturbed difference and the exact clock form a chain: exact CPU
/// time at an anchor, plus TSC since then, is the exact CPU time at the segment's start; subtracted
/// from the exact clock at its end it gives the disturbed segment's cost. The chain is re-anchored
/// once a millisecond, so that neither the calibration's error nor interrupt time, which some
/// kernels count elsewhere, adds up.
///
/// Other users of rseq (tcmalloc, restartable per-CPU code) store their own descriptors: that is a
/// disturbance like any other. A disturbed segment of up to one microsecond is charged as it
/// stands, because no preemption is that short; so short polls stay cheap beside tcmalloc.
///
/// A `published` source uses the same path with its sequence in the place of the rseq word.
///
/// \par Thread safety  Attached, stamped and detached by one thread; last() and kind() from any.
///                     Not from signal handlers, last() and kind() excepted. Several clocks on one
///                     thread are correct, each costs the others a system call now and then.
/// \par Fork           The child's forking thread goes on measuring; the lap that spans the fork is
///                     inexact.
/// \par Limits         Segments include time in interrupt handlers and time stolen by a hypervisor.
///                     Where the kernel does not clear the word on blocking (from 7.2), an
///                     undisturbed segment below 0.25 ms can include blocking and is not called
///                     exact.
class poll_clock {
 public:
  constexpr poll_clock() noexcept = default;
  poll_clock(const poll_clock&) = delete;
  poll_clock& operator=(const poll_clock&) = delete;

  /// Starts measuring the calling thread, by `wanted` or the best available clock after it.
  ///
  /// \par Cost    The first call in a process probes (probe_clocks()); later ones make a system
  ///              call or two.
  /// \par Errors  None (noexcept): what does not work here is replaced; kind() says by what.
  ///              clock_kind::none detaches.
  void attach(clock_kind wanted) noexcept;

  /// Starts measuring by a manual clock, which must outlive the attachment.
  void attach(const manual_clock& source) noexcept;

  /// Starts measuring by what a scheduler publishes; `source` must outlive the attachment. Where
  /// the timebase is not the TSC the best available clock is taken instead.
  void attach(const published_cpu_time& source) noexcept;

  /// Stops measuring and takes our descriptor out of the thread's rseq area. Not required.
  void detach() noexcept;

  [[nodiscard]] clock_kind kind() const noexcept { return kind_.load(std::memory_order_relaxed); }

  /// Starts a segment now; what lies between the last stamp and now is charged to nobody.
  ///
  /// \par Cost  As take(); when the kernel switched the thread since the last stamp, a system call.
  ticks stamp() noexcept {
#if ASIO_PULSE_TIMING_HAS_TSC
    if (watch_ != nullptr) [[likely]] {
      return restart(false);
    }
#endif
    return stamp_other();
  }

  /// Ends the segment; the same reading starts the next one.
  ///
  /// \par Cost          rseq_tsc and published: one RDTSC, five loads, two stores, two predictable
  ///                    branches, no call, no lock prefix. The other kinds are out of line.
  /// \par Memory order  The watched word is read after the TSC. A preemption between the two makes
  ///                    the word differ (slow path, exact); one after the word was read belongs to
  ///                    the next segment, whose word it makes differ. Interrupts are precise, so no
  ///                    fence is needed: the kernel and this thread are never on two CPUs at once.
  lap take() noexcept {
#if ASIO_PULSE_TIMING_HAS_TSC
    if (const auto* const watch = watch_; watch != nullptr) [[likely]] {
      const ticks now = detail::read_tsc();
      const ticks start = last_.load(std::memory_order_relaxed);
      const ticks cost = now - start;
      const std::uint64_t change = watch->load(std::memory_order_relaxed) ^ expected_;
      const ticks left = left_ - cost;
      if ((change | sign(left | cost)) == 0) [[likely]] {
        left_ = left;
        last_.store(now, std::memory_order_relaxed);
        return {now, cost, vouched_, start};
      }
      const measured slow = take_slow(now, change != 0);
      return {last_.load(std::memory_order_relaxed), slow.cost, slow.exact, start};
    }
#endif
    const ticks before = last_.load(std::memory_order_relaxed);
    const measured other = take_other();
    return {last_.load(std::memory_order_relaxed), other.cost, other.exact, before};
  }

  /// Whether undisturbed() can be asked: the kind is one that shows every loss of the CPU.
  [[nodiscard]] bool chains() const noexcept { return vouched_ && watch_ != nullptr; }

  /// Whether nothing but this thread's own work can have come between the last stamp and now, so
  /// that the next segment may start at the last stamp. Only where chains() is true.
  ///
  /// \par Cost  Two loads and a compare.
  [[nodiscard]] bool undisturbed() const noexcept {
    return watch_->load(std::memory_order_relaxed) == expected_;
  }

  /// take() in its least form, for a caller that keeps the books of the chain itself: false, and
  /// nothing changed, where the thread was disturbed; then take() says what the segment cost. Only
  /// where chains() is true, and with confirm() before long.
  ///
  /// \par Cost  One RDTSC, three loads, one store, one branch.
  [[nodiscard]] bool try_take(ticks& cost) noexcept {
#if ASIO_PULSE_TIMING_HAS_TSC
    const ticks now = detail::read_tsc();
    cost = now - last_.load(std::memory_order_relaxed);
    if (watch_->load(std::memory_order_relaxed) != expected_) [[unlikely]] {
      return false;
    }
    last_.store(now, std::memory_order_relaxed);
    return true;
#else
    cost = 0;
    return false;
#endif
  }

  /// Completes try_take(), which has just ended a segment of `cost`: what it was, after a look at
  /// the exact clock where the segment or the chain is long, or the TSC went backwards. `passed` is
  /// what try_take() has measured since the last confirm(), this segment included.
  ///
  /// \par Cost  A few nanoseconds; a system call for each 250 us that have passed.
  lap confirm(ticks passed, ticks cost) noexcept {
    const ticks earlier = passed - cost;
    left_ -= earlier < left_ ? earlier : left_;
    if (cost < left_) [[likely]] {
      left_ -= cost;
      const ticks now = last_.load(std::memory_order_relaxed);
      return {now, cost, vouched_, now - cost};
    }
#if ASIO_PULSE_TIMING_HAS_TSC
    return confirm_slow(cost);
#else
    return take();
#endif
  }

  /// The last stamp, without reading a clock; 0 before the first.
  ///
  /// \par Thread safety  Any thread, and signal handlers.
  /// \par Memory order   Relaxed: written by the measured thread, read by a watchdog that compares
  ///                     it with its own reading of the timebase. It publishes no other data.
  [[nodiscard]] ticks last() const noexcept { return last_.load(std::memory_order_relaxed); }

  /// Restarts the segment after the thread may have slept (the reactor's wait).
  ///
  /// As stamp(), but it pays for a system call at most every 100 us. In between, a lap that is
  /// preempted cannot tell its own CPU time from that of the waits since: it is inexact, and
  /// charged both at the most.
  ///
  /// \par Cost  As take(); when the thread did sleep one system call, at most every 100 us.
  void waited() noexcept {
#if ASIO_PULSE_TIMING_HAS_TSC
    if (watch_ != nullptr) [[likely]] {
      restart(true);
      return;
    }
#endif
    stamp_other();
  }

 private:
  struct reading;
  // A lap whose stamp is in last_: two words, so that it is returned in registers.
  struct measured {
    ticks cost = 0;
    bool exact = false;
  };

#if ASIO_PULSE_TIMING_HAS_TSC
  // 1 if the top bit is set. All the conditions of the fast path are or'ed into one branch: both a
  // chain at its end (left_ - cost wraps) and a TSC that went backwards (cost wraps) set that bit,
  // as both are far below 2^63 otherwise.
  static constexpr std::uint64_t sign(std::uint64_t value) noexcept { return value >> 63U; }

  ticks restart(bool after_wait) noexcept {
    const ticks now = detail::read_tsc();
    const ticks passed = now - last_.load(std::memory_order_relaxed);
    const std::uint64_t change = watch_->load(std::memory_order_relaxed) ^ expected_;
    const ticks left = left_ - passed;
    // A wait that would not have changed the word is a break in the chain.
    const bool unseen = after_wait && !vouched_;
    if ((change | sign(left | passed) | static_cast<std::uint64_t>(unseen)) == 0) [[likely]] {
      left_ = left;
      last_.store(now, std::memory_order_relaxed);
      return now;
    }
    return restart_slow(change != 0, after_wait);
  }
  ASIO_PULSE_TIMING_COLD ticks restart_slow(bool disturbed, bool after_wait) noexcept;
  ASIO_PULSE_TIMING_COLD lap confirm_slow(ticks cost) noexcept;
  ASIO_PULSE_TIMING_COLD measured take_slow(ticks now, bool disturbed) noexcept;
  void rearm() noexcept;
  [[nodiscard]] reading read_exact() const noexcept;
  void anchor(const reading& at) noexcept;
  void follow(const std::atomic<std::uint64_t>& word, bool blocking_shows) noexcept;
#endif
  ASIO_PULSE_TIMING_COLD measured take_other() noexcept;
  ASIO_PULSE_TIMING_COLD ticks stamp_other() noexcept;
  [[nodiscard]] bool try_attach(clock_kind kind) noexcept;
  void attach_best() noexcept;
  void reset(clock_kind kind, const void* source) noexcept;
  [[nodiscard]] reading read_other() noexcept;

  // Written by the measured thread only. Hot, in the order of use:
  const std::atomic<std::uint64_t>* watch_ = nullptr;  // rseq_cs or a sequence; null: another kind
  std::atomic<ticks> last_{0};                         // read by any thread
  std::uint64_t expected_ = 0;                         // what *watch_ holds while nothing happened
  ticks left_ = 0;                                     // of the chain, before it is anchored anew
  bool vouched_ = false;                            // a blocked thread would have changed *watch_
  std::atomic<clock_kind> kind_{clock_kind::none};  // read by any thread
  // Cold:
  bool chained_ = false;  // the anchor is a reading of the exact clock
  std::uint32_t fork_epoch_ = 0;
  ticks anchor_at_ = 0;
  std::uint64_t anchor_cpu_ = 0;  // CPU time at the anchor (or the last stamp, kinds without
                                  // chain), ns; cycles for thread_cycles
  ticks gap_ = 0;                 // wall time since the anchor whose CPU share is unknown
  const void* source_ = nullptr;
};

static_assert(std::is_trivially_destructible_v<poll_clock>);
static_assert(std::atomic<ticks>::is_always_lock_free);

}  // namespace asio_pulse::timing
