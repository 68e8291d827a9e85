// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/timing/timebase.hpp>

#include <algorithm>
#include <cstdint>

/// \file
/// When a context is overloaded, and whose requests are refused then.
///
/// The input is how long operations wait in the queue. A burst makes a queue that is gone soon, and
/// is no reason to refuse anything. A queue that stays is: if the delay has been above `target` for
/// the whole `interval`, the context is overloaded. It is so until for an interval the delay has been
/// below `target` and no request was refused.
///
/// While a policy decides whose turn it is, operations do not wait alike. Then the longest wait says
/// whether the context is overloaded, and a group's requests are refused by how long its own
/// operations wait.
///
/// While it is overloaded, each group has a limit for the delay, and its requests are refused while
/// the delay is above it. The limit is `target` for a group that has had exactly its share of the CPU.
/// It is lower for a group that has had more, but never zero: such a group gets the CPU time that
/// no other group wants. It is higher for one that has had less, up to four times the target. So a
/// delay longer than that does not last.
///
/// \par Source  Nichols and Jacobson, "Controlling Queue Delay" (ACM Queue 10(5), 2012; RFC 8289):
///              the delay as the input, target and interval. CoDel drops single packets at shorter
///              and shorter intervals, because TCP sends less then. Clients that are refused may not
///              send less, hence the limits.

namespace asio_pulse::detail {

/// The decisions about one context's requests.
///
/// Pure: reads no clock and takes no lock.
class overload {
 public:
  struct limits {
    timing::ticks target;    ///< must be positive
    timing::ticks interval;  ///< must be positive
  };

  explicit overload(const limits& l) noexcept : limits_(l) {}

  void configure(const limits& l) noexcept { limits_ = l; }
  [[nodiscard]] timing::ticks interval() const noexcept { return limits_.interval; }

  /// An operation has waited for `delay` in the queue, until `now`.
  void waited(timing::ticks delay, timing::ticks now) noexcept {
    delay_ = delay;
    measured_ = now;
    measuring_ = false;
  }
  /// Whether an operation whose wait is measured should be put into the queue at `now`. If so, it is
  /// put there, and waited() is called when it runs.
  [[nodiscard]] bool measure(timing::ticks now) noexcept {
    if (measuring_) return false;
    measuring_ = true;
    queued_ = now;
    return true;
  }
  /// The operation could not be put into the queue.
  void not_measured() noexcept { measuring_ = false; }

  /// How long operations wait now, as far as it is known. What was measured longer than an interval
  /// ago does not count.
  [[nodiscard]] timing::ticks delay(timing::ticks now) const noexcept {
    const timing::ticks waiting = measuring_ ? since(queued_, now) : 0;
    const timing::ticks last = since(measured_, now) <= limits_.interval ? delay_ : 0;
    return std::max(waiting, last);
  }

  /// How long operations wait: those that wait longest, and those of the group that asks.
  struct waits {
    timing::ticks longest;
    timing::ticks own;
  };
  /// Whether a request is admitted. `position`: that of its group, see group_shares::position().
  [[nodiscard]] bool admits(double position, timing::ticks now) noexcept {
    const timing::ticks d = delay(now);
    return admits(position, {.longest = d, .own = d}, now);
  }
  /// The same while a policy decides whose turn it is.
  [[nodiscard]] bool admits(double position, const waits& w, timing::ticks now) noexcept {
    if (w.longest > limits_.target) {
      // Nobody may have asked meanwhile. What has waited for so long shows that it was above the target
      // then, but not what was an interval before.
      const bool lately = since(last_above_, now) <= limits_.interval + w.longest;
      if (!above_ || !lately) above_since_ = now;
      above_ = true;
      last_above_ = now;
      overloaded_ = (overloaded_ && lately) || since(above_since_, now) >= limits_.interval;
    } else {
      above_ = false;
      overloaded_ = overloaded_ && since(last_above_, now) < limits_.interval;
    }
    if (!overloaded_ || static_cast<double>(w.own) <= limit(position)) return true;
    last_above_ = now;
    return false;
  }

  [[nodiscard]] bool overloaded() const noexcept { return overloaded_; }

 private:
  [[nodiscard]] static timing::ticks since(timing::ticks then, timing::ticks now) noexcept {
    return now - std::min(then, now);
  }
  [[nodiscard]] double limit(double position) const noexcept {
    // Any steep and continuous function will do. At 8 windows ahead it is a 57th of the target.
    const double factor = position >= 0 ? 1 / (1 + 7 * position) : 1 - 3 * position;
    return static_cast<double>(limits_.target) * factor;
  }

  limits limits_;
  timing::ticks delay_ = 0;
  timing::ticks measured_ = 0;
  timing::ticks queued_ = 0;
  timing::ticks above_since_ = 0;  ///< valid if `above_`
  timing::ticks last_above_ = 0;
  bool measuring_ = false;
  bool above_ = false;
  bool overloaded_ = false;
};

}  // namespace asio_pulse::detail
