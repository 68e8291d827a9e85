// SPDX-License-Identifier: BSL-1.0
//
// A task's CPU budget in 16 bytes.
//
// The problem: one 10 s poll and ten thousand polls of 1 ms starve the others alike, so a count of
// polls says nothing. A budget is CPU time: `budget` in every window of `per`, and a `burst` that
// may be spent at once.
//
// A token bucket stored as "time left and when it was last topped up" needs two words, a refill
// and a division by the window at every poll. This one is the virtual scheduling form of the
// generic cell rate algorithm (ITU-T I.371, annex A): one word says when the bucket will be full
// again. Refilling is then the passing of time, and costs nothing.

#pragma once

#include <asio_pulse/timing/timebase.hpp>

#include <atomic>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace asio_pulse {

/// CPU time that a task may use: a token bucket that refills over a window.
///
/// A default constructed budget is unlimited: it is never over, and charging it has no effect.
///
/// Times that run backwards, costs longer than the age of the machine and the end of the tick
/// counter are all safe: every operation saturates, none wraps. A debt is capped at one more
/// bucket, so that it never takes longer to pay than a full bucket takes to fill. (Should time run
/// backwards by more than that, the next charge sets it right; until then the task is in debt.)
///
/// \par Cost           charge(): two loads, two multiplications, a few compares, one store; no lock
///                     prefix, no division, no allocation. About 2 ns in a chain of charges (2.6
///                     GHz VM).
/// \par Thread safety  Every member may be called from any thread. charge() can lose a charge
///                     when two threads charge the same task at once: use charge_shared() there.
/// \par Memory order   Relaxed throughout: the words publish no other data. Written by the worker
///                     that polls the task (full_at_) and by configure() (config_); read by both,
///                     by the gate and by whoever asks for statistics. Rate and tolerance share a
///                     word, so that no reader sees one without the other.
class task_budget {
 public:
  using ticks = timing::ticks;

  /// Largest window:budget ratio that fits; configure() saturates to it.
  static constexpr std::uint32_t max_ratio = 65535;

  /// An unlimited budget.
  constexpr task_budget() noexcept = default;

  task_budget(const task_budget&) = delete;
  task_budget& operator=(const task_budget&) = delete;

  /// Allows `budget` ticks of CPU time in every `per` ticks, `burst` of them at once.
  ///
  /// Nothing is refused here, options are validated before: a budget of zero is unlimited, a
  /// budget above the window counts as the window, a burst of zero is one budget. What was
  /// charged before stays charged.
  ///
  /// \par Cost  Divides; setup only.
  void configure(ticks budget, ticks per, ticks burst = 0) noexcept;

  /// Charges `cost` ticks of CPU time, used up to `now`. Returns true when over budget.
  ///
  /// For a task that one thread polls at a time.
  bool charge(ticks now, ticks cost) noexcept {
    const config c{config_.load(std::memory_order_relaxed)};
    const ticks next = advance(full_at_.load(std::memory_order_relaxed), now, c.scale(cost), c);
    full_at_.store(next, std::memory_order_relaxed);
    return next > saturating_add(now, c.tolerance());
  }

  /// As charge(), for a task that several threads poll at once: no charge is lost.
  ///
  /// \par Cost  One compare-and-swap, more under contention.
  bool charge_shared(ticks now, ticks cost) noexcept {
    const config c{config_.load(std::memory_order_relaxed)};
    const ticks scaled = c.scale(cost);
    ticks full_at = full_at_.load(std::memory_order_relaxed);
    ticks next = advance(full_at, now, scaled, c);
    while (!full_at_.compare_exchange_weak(full_at, next, std::memory_order_relaxed)) {
      next = advance(full_at, now, scaled, c);
    }
    return next > saturating_add(now, c.tolerance());
  }

  /// Whether more was used than the burst and the refill since allow.
  bool over(ticks now) const noexcept {
    const config c{config_.load(std::memory_order_relaxed)};
    return !c.unlimited() &&
           full_at_.load(std::memory_order_relaxed) > saturating_add(now, c.tolerance());
  }

  /// How much of the burst is left, from 0 (spent, or in debt) to 1 (full).
  double fill(ticks now) const noexcept;

  /// The CPU time that may still be used now: the largest cost whose charge is not over budget.
  /// The largest tick count when unlimited.
  ticks remaining(ticks now) const noexcept;

  /// How long the task has to stay off the CPU until it is no longer over budget; 0 when it is not.
  ticks debt(ticks now) const noexcept;

  /// The burst in ticks of CPU time, as stored; the largest tick count when unlimited.
  ticks burst() const noexcept;

  /// How long an exhausted bucket takes to fill, in ticks; 0 when unlimited.
  ticks refill_time() const noexcept {
    return config{config_.load(std::memory_order_relaxed)}.tolerance();
  }

  /// Fills the bucket; the configuration stays.
  void reset() noexcept { full_at_.store(0, std::memory_order_relaxed); }

  bool unlimited() const noexcept {
    return config{config_.load(std::memory_order_relaxed)}.unlimited();
  }

 private:
  static constexpr ticks max_ticks = std::numeric_limits<ticks>::max();
  static constexpr unsigned rate_bits = 16;       // rate: 16.16 fixed point
  static constexpr unsigned tolerance_bits = 10;  // tolerance: units of 1024 ticks, about 0.4 us

  // Wall ticks above this are beyond any cap (twice the largest tolerance is 2^43), so that
  // clamping a cost here changes no result, and the products below fit 64 bits.
  static constexpr ticks max_cost = (ticks{1} << 47) - 1;

  // Rate in the low half, tolerance in the high half. Rate 0 is unlimited.
  struct config {
    std::uint64_t word;

    ticks rate() const noexcept { return static_cast<std::uint32_t>(word); }
    ticks tolerance() const noexcept { return (word >> 32) << tolerance_bits; }
    bool unlimited() const noexcept { return rate() == 0; }

    // cost * rate in wall ticks: exact, in two 64-bit products instead of one 128-bit one.
    ticks scale(ticks cost) const noexcept {
      if (cost > max_cost) [[unlikely]] {
        cost = max_cost;
      }
      constexpr ticks low = (ticks{1} << rate_bits) - 1;
      return (cost >> rate_bits) * rate() + (((cost & low) * rate()) >> rate_bits);
    }
  };

  static ticks saturating_add(ticks a, ticks b) noexcept {
    return b > max_ticks - a ? max_ticks : a + b;
  }

  // Works on points in time, not on differences, so that only the maximum, the addition and the
  // minimum wait for the charge before this one.
  static ticks advance(ticks full_at, ticks now, ticks scaled, config c) noexcept {
    const ticks cap = saturating_add(now, 2 * c.tolerance());
    if (full_at < now) {
      full_at = now;
    }
    // Above the cap: time ran backwards, or the configuration became smaller.
    if (full_at > cap || scaled > cap - full_at) [[unlikely]] {
      return cap;
    }
    return full_at + scaled;
  }

  ticks backlog(ticks now, config c) const noexcept {
    const ticks full_at = full_at_.load(std::memory_order_relaxed);
    const ticks cap = 2 * c.tolerance();
    if (full_at <= now) {
      return 0;
    }
    return full_at - now > cap ? cap : full_at - now;
  }

  std::atomic<std::uint64_t> full_at_{0};  // when the bucket will be full again
  std::atomic<std::uint64_t> config_{0};
};

static_assert(sizeof(task_budget) == 16, "one budget is 16 bytes: tasks are many");
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);
static_assert(std::is_trivially_destructible_v<task_budget>);

inline void task_budget::configure(ticks budget, ticks per, ticks burst) noexcept {
  if (budget == 0) {
    config_.store(0, std::memory_order_relaxed);
    return;
  }
  if (burst == 0) {
    burst = budget;
  }
  constexpr std::uint64_t max_u32 = std::numeric_limits<std::uint32_t>::max();
  constexpr std::uint64_t one = std::uint64_t{1} << rate_bits;
  // per * 65536 / budget, rounded, without a product that overflows: whole part and fraction apart.
  std::uint64_t rate = one;
  if (per > budget) {
    std::uint64_t whole = per / budget;
    std::uint64_t rest = per % budget;
    std::uint64_t divisor = budget;
    while (rest >
           (max_ticks >> (rate_bits + 1))) {  // keep the top 47 bits: the error is below 2^-30
      rest >>= 1;
      divisor >>= 1;
    }
    const std::uint64_t fraction = ((rest << rate_bits) + divisor / 2) / divisor;
    rate = whole > max_ratio ? max_u32 : (whole << rate_bits) + fraction;
    rate = rate > max_u32 ? max_u32 : rate;
  }
  // The product may exceed max_cost's range only where the result saturates anyway.
  std::uint64_t tolerance = config{rate}.scale(burst);
  constexpr std::uint64_t half_unit = std::uint64_t{1} << (tolerance_bits - 1);
  tolerance = (tolerance >> tolerance_bits) + ((tolerance & (2 * half_unit - 1)) >= half_unit);
  tolerance = tolerance == 0 ? 1 : tolerance;
  tolerance = tolerance > max_u32 ? max_u32 : tolerance;
  config_.store((tolerance << 32) | rate, std::memory_order_relaxed);
}

inline double task_budget::fill(ticks now) const noexcept {
  const config c{config_.load(std::memory_order_relaxed)};
  if (c.unlimited()) {
    return 1.0;
  }
  const ticks used = backlog(now, c);
  return used >= c.tolerance()
             ? 0.0
             : 1.0 - static_cast<double>(used) / static_cast<double>(c.tolerance());
}

inline task_budget::ticks task_budget::remaining(ticks now) const noexcept {
  const config c{config_.load(std::memory_order_relaxed)};
  if (c.unlimited()) {
    return max_ticks;
  }
  const ticks used = backlog(now, c);
  if (used > c.tolerance()) {
    return 0;
  }
  // The largest r with (r * rate) >> 16 <= left.
  const ticks left = c.tolerance() - used;
  return (((left + 1) << rate_bits) - 1) / c.rate();
}

inline task_budget::ticks task_budget::debt(ticks now) const noexcept {
  const config c{config_.load(std::memory_order_relaxed)};
  const ticks used = backlog(now, c);
  return c.unlimited() || used <= c.tolerance() ? 0 : used - c.tolerance();
}

inline task_budget::ticks task_budget::burst() const noexcept {
  const config c{config_.load(std::memory_order_relaxed)};
  return c.unlimited() ? max_ticks : (c.tolerance() << rate_bits) / c.rate();
}

}  // namespace asio_pulse
