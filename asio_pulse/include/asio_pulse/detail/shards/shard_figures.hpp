// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/shard_balance.hpp>
#include <asio_pulse/timing/timebase.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string_view>

/// \file
/// What a shard shows of itself: its load, for the others' decisions, and what has moved.
///
/// How code that moves something reports that: one call of note_move() for each thing, when it has
/// arrived.

namespace asio_pulse::detail {

/// A shard_report that its shard writes and others read, in one cache line.
///
/// \par Thread safety  Each value has one writer at a time: the shard's thread; `flags` and
///                     `moved_in`: any thread. Readers: any thread.
/// \par Memory order   Relaxed: the values publish nothing. A reader may see values of two windows
///                     together; a decision that is made with them is a little worse, and not wrong.
class alignas(64) published_load {
 public:
  using time = std::chrono::nanoseconds;
  enum flag : std::uint32_t { draining = 1, drained = 2, stopped = 4 };

  /// A window of measurement has ended at `now`.
  void measured(const shard_load& l, std::uint32_t movable_permille, time now) noexcept {
    set(delay_before_, get(delay_));
    set(window_began_, get(window_ended_));
    set(cpu_, l.cpu_permille);
    set(movable_cpu_, movable_permille);
    set(delay_, l.delay.count());
    set(window_ended_, now.count());
  }
  void movable(std::uint32_t things) noexcept { set(movable_, things); }
  void hogs(std::uint32_t things) noexcept { set(hogs_, things); }
  /// A session has come to a quiet point. With `rescue` two threads may do this at once, and one of
  /// the turns is not counted then.
  void turn(bool was_long) noexcept {
    const std::uint32_t t = get(turns_);
    const std::uint32_t half = (t & most_turns) == most_turns ? halved(t) : t;
    set(turns_, half + (was_long ? (1U << long_shift) + 1 : 1));
  }
  /// To be called once in a second: the turns are about those of the last two.
  void forget_turns() noexcept { set(turns_, halved(get(turns_))); }
  void moved_in(time at) noexcept { set(moved_in_, at.count()); }
  /// Sequentially consistent, as is(); see shard_moves::move().
  void raise(flag f) noexcept { flags_.fetch_or(f, std::memory_order_seq_cst); }
  void lower(flag f) noexcept {
    flags_.fetch_and(~static_cast<std::uint32_t>(f), std::memory_order_relaxed);
  }
  [[nodiscard]] bool is(flag f) const noexcept {
    return (flags_.load(std::memory_order_seq_cst) & f) != 0;
  }
  [[nodiscard]] time window_ended() const noexcept { return time(get(window_ended_)); }

  /// \par Cost  Ten loads of one cache line.
  [[nodiscard]] shard_report read() const noexcept {
    shard_report r;
    r.load = {get(cpu_), time(get(delay_))};
    r.movable_permille = get(movable_cpu_);
    r.movable = get(movable_);
    r.delay_before = time(get(delay_before_));
    r.window_began = time(get(window_began_));
    r.window_ended = time(get(window_ended_));
    r.hogs = get(hogs_);
    const std::uint32_t t = get(turns_);
    r.turns = t & most_turns;
    r.long_turns = t >> long_shift;
    r.moved_in = time(get(moved_in_));
    const std::uint32_t f = get(flags_);
    r.draining = (f & draining) != 0;
    r.drained = (f & drained) != 0;
    r.stopped = (f & stopped) != 0;
    return r;
  }

 private:
  static constexpr unsigned long_shift = 16;
  static constexpr std::uint32_t most_turns = 0xffff;
  static constexpr std::uint32_t halved(std::uint32_t t) noexcept {
    return (t >> long_shift) / 2 << long_shift | (t & most_turns) / 2;
  }

  template <class T>
  static T get(const std::atomic<T>& a) noexcept {
    return a.load(std::memory_order_relaxed);
  }
  template <class T>
  static void set(std::atomic<T>& a, T v) noexcept {
    a.store(v, std::memory_order_relaxed);
  }

  std::atomic<std::uint32_t> cpu_{0};
  std::atomic<std::uint32_t> movable_cpu_{0};
  std::atomic<std::uint32_t> movable_{0};
  std::atomic<std::uint32_t> flags_{0};
  std::atomic<std::int64_t> delay_{0};
  std::atomic<std::int64_t> delay_before_{0};
  std::atomic<std::int64_t> window_began_{0};
  std::atomic<std::int64_t> window_ended_{0};
  std::atomic<std::int64_t> moved_in_{0};
  std::atomic<std::uint32_t> hogs_{0};
  std::atomic<std::uint32_t> turns_{0};  ///< and above, from long_shift on, the long ones of them
};
static_assert(sizeof(published_load) == 64);

/// One thing that has moved.
struct noted_move {
  static constexpr std::size_t longest_name = 47;

  std::chrono::nanoseconds at{0};    ///< steady_clock
  std::chrono::nanoseconds took{0};  ///< from the decision until it had arrived
  std::uint32_t from = 0;
  std::uint32_t to = 0;
  move_reason why = move_reason::imbalance;
  std::array<char, longest_name + 1> who{};  ///< ends with a zero; cut off if it was longer
};

/// What a shard shows. It outlives the shard's context, whose instruments read it.
///
/// \par Thread safety  Any thread.
class shard_figures {
 public:
  shard_figures(std::size_t index, std::size_t shards, std::uint64_t set) noexcept
      : index_(index), shards_(shards), set_(set) {}
  shard_figures(const shard_figures&) = delete;
  shard_figures& operator=(const shard_figures&) = delete;

  [[nodiscard]] std::size_t index() const noexcept { return index_; }
  [[nodiscard]] std::size_t shards() const noexcept { return shards_; }
  /// A number of the sharded_context, that no other one of the process has.
  [[nodiscard]] std::uint64_t set() const noexcept { return set_; }

  /// A new number for set().
  [[nodiscard]] static std::uint64_t new_set() noexcept {
    static std::atomic<std::uint64_t> last{0};
    return last.fetch_add(1, std::memory_order_relaxed) + 1;
  }

  published_load load;

  /// A poll that uses this much CPU time sticks the shard: balance_settings::stuck_after. Set before
  /// the shard's context knows of it.
  timing::ticks stuck_ticks = ~timing::ticks{0};

  // Counted relaxed by any thread.
  std::array<std::atomic<std::uint64_t>, move_reasons> moves_in{};   ///< by move_reason
  std::array<std::atomic<std::uint64_t>, move_reasons> moves_out{};  ///< by move_reason
  std::atomic<std::uint64_t> received{0};  ///< messages; written by the shard's thread
  std::atomic<std::uint64_t> wakes{0};     ///< written by senders
  std::atomic<int> cpu{-1};                ///< that its thread is pinned to; -1: it is not
  /// stay_reason: why the shard last kept what it has.
  std::atomic<std::uint8_t> stays{static_cast<std::uint8_t>(stay_reason::balanced)};

  /// The last moves to this shard, oldest first. Returns how many of `to` were written.
  static constexpr std::size_t remembered = 8;
  std::size_t last_moves(std::array<noted_move, remembered>& to) const noexcept {
    const std::lock_guard lock(mutex_);
    const std::size_t n = std::min<std::size_t>(noted_, remembered);
    for (std::size_t i = 0; i != n; ++i) to[i] = moves_[(noted_ - n + i) % remembered];
    return n;
  }

 private:
  friend void note_move(shard_figures&, shard_figures&, move_reason, std::string_view,
                        std::chrono::nanoseconds, std::chrono::nanoseconds) noexcept;

  std::size_t index_;
  std::size_t shards_;
  std::uint64_t set_;
  mutable std::mutex mutex_;  ///< what follows. Only moves and readers take it.
  std::array<noted_move, remembered> moves_{};
  std::size_t noted_ = 0;
};

/// Something has moved. To be called once for each thing, when it has arrived; not if the move
/// failed and the thing is where it was.
///
/// \param who   The name of its task, or what else names it (a connection's peer). Copied, and cut off
///              at 47 bytes.
/// \param took  Time from the decision until now.
/// \param now   std::chrono::steady_clock.
/// \par Cost           About 100 ns: a mutex without contention, and a few locked
///                     instructions.
/// \par Thread safety  Any thread.
inline void note_move(shard_figures& from, shard_figures& to, move_reason why, std::string_view who,
                      std::chrono::nanoseconds took, std::chrono::nanoseconds now) noexcept {
  const auto reason = static_cast<std::size_t>(why);
  from.moves_out[reason].fetch_add(1, std::memory_order_relaxed);
  to.moves_in[reason].fetch_add(1, std::memory_order_relaxed);
  if (why == move_reason::imbalance) to.load.moved_in(now);
  noted_move m;
  m.at = now;
  m.took = took;
  m.from = static_cast<std::uint32_t>(from.index());
  m.to = static_cast<std::uint32_t>(to.index());
  m.why = why;
  std::copy_n(who.data(), std::min(who.size(), noted_move::longest_name), m.who.begin());
  const std::lock_guard lock(to.mutex_);
  to.moves_[to.noted_++ % shard_figures::remembered] = m;
}

}  // namespace asio_pulse::detail
