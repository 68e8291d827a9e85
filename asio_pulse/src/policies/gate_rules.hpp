// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "fair_shares.hpp"

#include <asio_pulse/timing/timebase.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

/// \file
/// When the gate holds an operation back, and when it releases it.
///
/// The gate sees Asio's queue from its front, one operation at a time. It lets the operation run,
/// or parks it with its task and puts the *driver*, an operation of ours, into the queue behind
/// those that go first. At the driver's turn one parked operation runs, or the driver goes behind
/// others again.
///
/// What follows from these rules, and is tested on random loads against a plain queue and against
/// an ideal equal share (tests/property/gate_property_test.cpp):
///  - An operation is held back only in favour of waiting operations whose tasks have had less, or
///    of the reactor if that was not polled for a slice.
///  - Its wait is at most twice the longer of two waits, plus two polls: the wait in a plain queue,
///    and the wait for its task's equal share of the CPU. For a task at or below its equal share,
///    the former is the longer one.

namespace asio_pulse::detail {

/// The decisions. Pure: reads no clock, takes no lock, and knows no operations.
///
/// A queue_look describes what is in Asio's queue.
class gate_rules {
 public:
  struct limits {
    fair_shares::limits shares;
    /// How long released operations run before others in the queue get a turn. It is long, because
    /// those others belong to tasks that have had more.
    timing::ticks quantum;
    /// How long operations of a task over its budget run before the reactor is polled again. A
    /// timer beside a storm of such operations is late by this.
    timing::ticks slice;
  };

  explicit gate_rules(const limits& l) noexcept : limits_(l), shares_(l.shares) {}
  /// Changes the quantum and the slice. Shares keep their limits.
  void set(const limits& l) noexcept { limits_ = l; }

  [[nodiscard]] fair_shares& shares() noexcept { return shares_; }

  /// What waits in Asio's queue besides the task's own operations.
  struct waiting {
    enum class who : std::uint8_t {
      none,
      had_less,  ///< the first operation's task has had less, or is not known
      had_more   ///< the first operation's task has had as much or more
    } first = who::none;
    bool reactor_first = false;  ///< the reactor comes before that operation
    bool own_first = false;      ///< the task's own operations come before both
  };

  /// Whether to hold back an operation of `t` at the front of the queue. The task is over its
  /// budget and has nothing parked. `t` must be up to date.
  [[nodiscard]] bool hold(const share& t, const waiting& w, timing::ticks now) noexcept {
    if (w.first == waiting::who::had_less && shares_.ahead(t)) return true;
    const bool delays_reactor = w.reactor_first && w.own_first;
    const bool too_long = since(reactor_next_, now) >= limits_.slice;
    if (!delays_reactor || too_long) reactor_next_ = now;
    if (delays_reactor && too_long) return true;
    shares_.serve(t);
    return false;
  }

  /// The driver's turn begins. `others_had` is the CPU time that was used since the driver was put
  /// behind others.
  void turn_begins(timing::ticks now, timing::ticks others_had) noexcept {
    if (!std::exchange(behind_others_, false)) return;
    shares_.served(others_had, competitors_);
    slice_began_ = now;
    allowed_ = others_had * held_;
  }

  /// Adds to `w` that operations of `least` wait as well: the task with parked operations that has
  /// had least. It must be up to date.
  static void add_parked(waiting& w, const share& t, const share& least) noexcept {
    if (fair_shares::before(least, t)) {
      w.first = waiting::who::had_less;
    } else if (w.first == waiting::who::none) {
      w.first = waiting::who::had_more;
    }
  }

  /// Called in the driver's turn for `t`, the task with parked operations that has had least. It
  /// must be up to date. Returns true if its next operation runs and the driver stays in front, and
  /// false if the driver goes behind others.
  [[nodiscard]] bool release(const share& t, const waiting& w, timing::ticks now) noexcept {
    if ((w.first == waiting::who::had_less && shares_.ahead(t)) || slice_over(w, now)) return false;
    shares_.serve(t);
    return true;
  }

  /// Whether released operations have run for so long that the next entry of the queue gets its
  /// turn.
  [[nodiscard]] bool slice_over(const waiting& w, timing::ticks now) const noexcept {
    const bool others = w.first != waiting::who::none && !w.reactor_first;
    return since(slice_began_, now) >= std::max(others ? limits_.quantum : limits_.slice, allowed_);
  }

  [[nodiscard]] timing::ticks since_put(timing::ticks now) const noexcept {
    return since(put_behind_, now);
  }
  /// The driver was put behind others at `now`, when `held` tasks (at least one) had parked
  /// operations and `others` had operations in the queue.
  void put_behind(timing::ticks now, std::size_t held, std::size_t others) noexcept {
    behind_others_ = true;
    put_behind_ = now;
    held_ = held;
    competitors_ = held + others;
  }

 private:
  [[nodiscard]] static timing::ticks since(timing::ticks then, timing::ticks now) noexcept {
    return now - std::min(then, now);
  }

  limits limits_;
  fair_shares shares_;
  timing::ticks reactor_next_ = 0;  ///< when the reactor was next in the queue
  timing::ticks put_behind_ = 0;
  timing::ticks slice_began_ = 0;
  timing::ticks allowed_ = 0;  ///< the length of this slice: what the others had, per held task
  std::size_t held_ = 0;
  std::size_t competitors_ = 1;
  bool behind_others_ = false;
};

/// Collects what the gate has to know about Asio's queue, entry by entry from its front. Shares
/// must be up to date when they are shown.
class queue_look {
 public:
  /// How far it looks, in operations. A guess: each operation costs a few nanoseconds under the
  /// scheduler's mutex. If there are more competitors than that, they count as this many, and the
  /// task that is held back gets more than an equal share.
  static constexpr std::size_t farthest = 64;

  /// What the look is for.
  enum class purpose : std::uint8_t {
    who_is_next,     ///< only to see what is next
    behind_less,     ///< to find the driver's place: behind those that have had less
    behind_the_next  ///< to find the driver's place: behind the next entry, as the slice is over
  };

  /// `number` differs from that of the look before.
  queue_look(const share& t, std::uint32_t number, purpose what) noexcept
      : t_(t), number_(number), what_(what) {}

  /// What to do about an entry.
  struct answer {
    bool enough;      ///< the next entry need not be shown
    bool put_behind;  ///< the driver goes behind this entry, or behind a later one
  };

  answer reactor() noexcept {
    found_.reactor_first = found_.first == gate_rules::waiting::who::none;
    return {false, what_ == purpose::behind_the_next && std::exchange(leading_, false)};
  }
  /// An operation whose task has the share `s`; null if it is not known.
  answer operation(share* s) noexcept {
    const bool enough = ++seen_ == farthest;
    if (s == &t_) {
      if (found_.first == gate_rules::waiting::who::none && !found_.reactor_first) {
        found_.own_first = true;
        // There are this many of the task's own operations. The reactor, if it is queued, is behind
        // them.
        found_.reactor_first = enough;
      }
      return {enough, what_ == purpose::behind_the_next && std::exchange(leading_, false)};
    }
    const bool had_less = s == nullptr || fair_shares::before(*s, t_);
    const bool first_of_its_task = s == nullptr || std::exchange(s->counted, number_) != number_;
    if (others_ == 0) {
      found_.first =
          had_less ? gate_rules::waiting::who::had_less : gate_rules::waiting::who::had_more;
    }
    if (first_of_its_task) ++others_;
    const bool next = what_ == purpose::behind_the_next;
    const bool put_behind = leading_ && (next || (had_less && first_of_its_task));
    leading_ = put_behind && !next;
    return {enough || what_ == purpose::who_is_next, put_behind};
  }

  [[nodiscard]] const gate_rules::waiting& found() const noexcept { return found_; }
  /// The number of other tasks whose operations were seen.
  [[nodiscard]] std::size_t others() const noexcept { return others_; }

 private:
  const share& t_;
  const std::uint32_t number_;
  const purpose what_;
  gate_rules::waiting found_;
  std::size_t seen_ = 0;
  std::size_t others_ = 0;
  bool leading_ = true;  ///< everything seen so far goes before the driver
};

}  // namespace asio_pulse::detail
