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

/// Measures the CPU time of what its thread runs, segment by segment, with one TSC read for each.
///
/// The thread's CPU clock is no alternative: reading it is a system call, which takes twenty times
/// as long as the poll that it would measure. Wall time is cheap, but wrong when the kernel runs
/// another thread meanwhile.
///
/// The clock rseq_tsc works as follows. The thread's rseq area holds the address of a descriptor of
/// a critical section that no instruction pointer is ever in. When the kernel preempts or migrates
/// the thread, blocks it (kernels before 7.2), or delivers a signal, it clears that word. If the
/// word is still ours *after* the TSC was read, the thread has run from stamp to stamp, and the
/// difference is its CPU time. Only if it is not, the CPU time is unknown, and the system call is
/// made. For that the clock keeps a chain: the exact CPU time at an anchor, plus the TSC difference
/// since then, is the exact CPU time at the start of the segment. Subtracted from the exact clock
/// at the end it gives the cost of the disturbed segment. The chain is anchored anew every 250 us,
/// so that neither the error of the calibration adds up nor interrupt time, which some kernels do
/// not count as the thread's.
///
/// Other users of rseq (tcmalloc, restartable per-CPU code) store their own descriptors, which
/// counts as a disturbance. A disturbed segment of up to one microsecond is charged in full,
/// because no preemption is that short. So short polls stay cheap in a program with tcmalloc.
///
/// A `published` source uses the same path, with its sequence in the place of the rseq word.
///
/// \par Thread safety  Attach, stamp and detach on one thread. last() and kind() may be called on
///                     any thread and in signal handlers. Several clocks on one thread are
///                     correct, but each costs the others a system call now and then.
/// \par Fork           In the child, the clock of the forking thread continues to measure. The lap
///                     that spans the fork is inexact.
/// \par Limits         Segments include time in interrupt handlers and time stolen by a hypervisor.
///                     Where the kernel does not clear the word on blocking (from 7.2), an
///                     undisturbed segment below 0.25 ms can include blocking and is not called
///                     exact; a longer one is, unless 1/128 of it or more passed since the exact
///                     clock was read before it.
class poll_clock {
 public:
  constexpr poll_clock() noexcept = default;
  poll_clock(const poll_clock&) = delete;
  poll_clock& operator=(const poll_clock&) = delete;

  /// Starts to measure the calling thread, with `wanted` or the best clock after it that works.
  ///
  /// \par Cost    The first call in a process probes (probe_clocks()); later ones make a system
  ///              call or two.
  /// \par Errors  None (noexcept). A clock that does not work is replaced; kind() returns the one
  ///              in use. clock_kind::none detaches.
  void attach(clock_kind wanted) noexcept;

  /// Starts to measure with a manual clock, which must outlive the attachment.
  void attach(const manual_clock& source) noexcept;

  /// Starts to measure with what a scheduler publishes. `source` must outlive the attachment. If
  /// the timebase is not the TSC, the best available clock is used instead.
  void attach(const published_cpu_time& source) noexcept;

  /// As attach(), for a thread that may have used that clock before. Then its state is reused, and
  /// the time since is not charged.
  ///
  /// \par Cost  That of waited() if the state can be reused; otherwise that of attach().
  void resume(clock_kind wanted) noexcept;

  /// Stops measuring, and removes our descriptor from the thread's rseq area. Calling it is
  /// optional.
  void detach() noexcept;

  [[nodiscard]] clock_kind kind() const noexcept { return kind_.load(std::memory_order_relaxed); }

  /// Starts a segment now. The time since the last stamp is not charged.
  ///
  /// \par Cost  That of take(). If the kernel switched the thread since the last stamp, a system
  ///            call.
  ticks stamp() noexcept {
#if ASIO_PULSE_TIMING_HAS_TSC
    if (watch_ != nullptr) [[likely]] {
      return restart(false);
    }
#endif
    return stamp_other();
  }

  /// Ends the segment. The same reading starts the next one.
  ///
  /// \par Cost          rseq_tsc and published: one RDTSC, five loads, two stores, two predictable
  ///                    branches, no call, no lock prefix. The other kinds are out of line.
  /// \par Memory order  The watched word is read after the TSC. A preemption between the two
  ///                    changes the word (slow path, exact). A preemption after the word was read
  ///                    belongs to the next segment, for which it changes the word. Interrupts are
  ///                    precise and the kernel and this thread are never on two CPUs at once, so no
  ///                    fence is needed.
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

  /// Whether undisturbed() may be called: the clock shows every loss of the CPU.
  [[nodiscard]] bool chains() const noexcept { return vouched_ && watch_ != nullptr; }

  /// Whether the thread has run without a break since the last stamp, so that the next segment may
  /// start at the last stamp.
  ///
  /// \pre chains()
  ///
  /// \par Cost  Two loads and a compare.
  [[nodiscard]] bool undisturbed() const noexcept {
    return watch_->load(std::memory_order_relaxed) == expected_;
  }

  /// A minimal take(), for a caller that adds up the length of the chain itself and calls confirm()
  /// before long. If the thread was disturbed, returns false and changes nothing; then take() must
  /// be called.
  ///
  /// \pre chains()
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

  /// Completes try_take(), which has just ended a segment of `cost`. If the segment or the chain is
  /// long, or the TSC went backwards, it reads the exact clock. `passed` is the sum of what
  /// try_take() has measured since the last confirm(), including this segment.
  ///
  /// \par Cost  A few nanoseconds, and a system call every 250 us.
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

  /// The last stamp, without reading a clock; 0 before the first one.
  ///
  /// \par Thread safety  Any thread, and signal handlers.
  /// \par Memory order   Relaxed: the measured thread writes it, and the watchdog compares it with
  ///                     its own reading of the timebase. It publishes no other data.
  [[nodiscard]] ticks last() const noexcept { return last_.load(std::memory_order_relaxed); }

  /// Restarts the segment after the thread may have slept (the reactor's wait).
  ///
  /// As stamp(), but makes a system call at most every 100 us. In between, the CPU time of a lap
  /// that is preempted cannot be told from that of the waits since: at most both are charged, and
  /// the lap is inexact unless the waits are short beside it.
  ///
  /// \par Cost  That of take(). If the thread slept, one system call, at most every 100 us.
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
  // A lap without its stamp, which is in last_. Two words, so that it is returned in registers.
  struct measured {
    ticks cost = 0;
    bool exact = false;
  };

#if ASIO_PULSE_TIMING_HAS_TSC
  // 1 if the top bit is set. All conditions of the fast path are or'ed into one branch. Both the
  // end of the chain (left_ - cost wraps) and a TSC that went backwards (cost wraps) set the top
  // bit; otherwise both values are far below 2^63.
  static constexpr std::uint64_t sign(std::uint64_t value) noexcept { return value >> 63U; }

  ticks restart(bool after_wait) noexcept {
    const ticks now = detail::read_tsc();
    const ticks passed = now - last_.load(std::memory_order_relaxed);
    const std::uint64_t change = watch_->load(std::memory_order_relaxed) ^ expected_;
    const ticks left = left_ - passed;
    // The chain breaks here if the wait would not have changed the word.
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
  ticks left_ = 0;                                     // until the chain is anchored anew
  bool vouched_ = false;                            // a blocked thread would have changed *watch_
  std::atomic<clock_kind> kind_{clock_kind::none};  // read by any thread
  // Cold:
  bool chained_ = false;  // the anchor is a reading of the exact clock
  std::uint32_t fork_epoch_ = 0;
  ticks anchor_at_ = 0;
  std::uint64_t anchor_cpu_ = 0;  // CPU time in ns (in cycles for thread_cycles) at the anchor; at
                                  // the last stamp for kinds without a chain
  ticks gap_ = 0;                 // wall time since the anchor whose CPU share is unknown
  const void* source_ = nullptr;
};

static_assert(std::is_trivially_destructible_v<poll_clock>);
static_assert(std::atomic<ticks>::is_always_lock_free);

}  // namespace asio_pulse::timing
