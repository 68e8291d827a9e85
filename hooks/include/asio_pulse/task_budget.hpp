// SPDX-License-Identifier: BSL-1.0
//
// A task's CPU budget in 16 bytes.
//
// One poll of 10 s delays others as much as ten thousand polls of 1 ms do, so counting polls is no
// use. A budget is CPU time: `budget` in every window of `per`, and a `burst` that may be used at
// once.
//
// A token bucket that stores the time left and the time of the last refill needs two words, and a
// refill with a division by the window at every poll. This one is the virtual scheduling form of
// the generic cell rate algorithm (ITU-T I.371, annex A): one word says when the bucket will be
// full again. The bucket then refills by itself as time passes, at no cost.

#pragma once

#include <asio_pulse/hooks/requirements.hpp>
//
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
/// Times that run backwards, costs greater than the uptime of the machine, and the end of the tick
/// counter are safe: every operation saturates, none wraps. A debt is limited to one more bucket,
/// so that paying it never takes longer than an empty bucket takes to fill. (If time runs backwards
/// by more than that, the task is in debt until the next charge corrects it.)
///
/// \par Cost           charge(): two loads, two multiplications, a few compares, one store; no lock
///                     prefix, no division, no allocation. About 2 ns in a chain of charges (2.6
///                     GHz VM).
/// \par Thread safety  Every member may be called from any thread. charge() can lose a charge
///                     when two threads charge the same task at once: use charge_shared() then.
/// \par Memory order   Relaxed: the words publish no other data. full_at_ is written by the worker
///                     that polls the task, config_ by configure(), also while workers charge. Both
///                     are read by these, by the gate and by readers of statistics. Rate and
///                     tolerance share a word, so that no reader sees one without the other.
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
  /// Nothing is refused here, since options are validated before. A budget of zero is unlimited, a
  /// budget above the window counts as the window, and a burst of zero is one budget. Earlier
  /// charges remain.
  ///
  /// \par Cost  Divides; setup only.
  void configure(ticks budget, ticks per, ticks burst = 0) noexcept;
  /// Allows what `other` allows.
  void configure(const task_budget& other) noexcept {
    config_.store(other.config_.load(std::memory_order_relaxed), std::memory_order_relaxed);
  }

  /// Charges `cost` ticks of CPU time, used up to `now`. Returns true if the task is over budget.
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

  /// Whether the task has used more than the burst and the refill since then allow.
  bool over(ticks now) const noexcept {
    const config c{config_.load(std::memory_order_relaxed)};
    return !c.unlimited() &&
           full_at_.load(std::memory_order_relaxed) > saturating_add(now, c.tolerance());
  }

  /// How much of the burst is left, from 0 (spent, or in debt) to 1 (full).
  double fill(ticks now) const noexcept;

  /// The CPU time that may still be used now: the largest cost that can be charged without going
  /// over budget. The largest tick count if the budget is unlimited.
  ticks remaining(ticks now) const noexcept;

  /// How long the task has to stay off the CPU until it is no longer over budget; 0 if it is not.
  ticks debt(ticks now) const noexcept;

  /// The burst in ticks of CPU time, as stored; the largest tick count if unlimited.
  ticks burst() const noexcept;

  /// How long an empty bucket takes to fill, in ticks; 0 if unlimited.
  ticks refill_time() const noexcept {
    return config{config_.load(std::memory_order_relaxed)}.tolerance();
  }

  /// Allows what `other` allows, and counts what `other` was charged with as its own.
  void take_over(const task_budget& other) noexcept {
    configure(other);
    full_at_.store(other.full_at_.load(std::memory_order_relaxed), std::memory_order_relaxed);
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

  // Wall ticks above this are beyond any cap (twice the largest tolerance is 2^43). So clamping a
  // cost to this changes no result, and makes the products below fit into 64 bits.
  static constexpr ticks max_cost = (ticks{1} << 47) - 1;

  // Rate in the low half, tolerance in the high half. Rate 0 is unlimited.
  struct config {
    std::uint64_t word;

    ticks rate() const noexcept { return static_cast<std::uint32_t>(word); }
    ticks tolerance() const noexcept { return (word >> 32) << tolerance_bits; }
    bool unlimited() const noexcept { return rate() == 0; }

    // cost * rate in wall ticks, exactly, with two 64-bit products instead of one of 128 bits.
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

  // Works on points in time and not on differences, so that only the maximum, the addition and the
  // minimum depend on the charge before this one.
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
  // per * 65536 / budget, rounded; whole part and fraction separately, so that no product
  // overflows.
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
