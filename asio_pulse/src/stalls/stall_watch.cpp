// SPDX-License-Identifier: BSL-1.0
#include "stall_watch.hpp"

#include <asio_pulse/hooks/assert.hpp>

#include <algorithm>

namespace asio_pulse::detail {
namespace {

using ticks = timing::ticks;

constexpr ticks subtract(ticks a, ticks b) noexcept { return a > b ? a - b : 0; }
constexpr ticks add(ticks a, ticks b) noexcept {
  return b > stall_watch::off - a ? stall_watch::off : a + b;
}

// Half the range of the counter. No deadline may be further away, since the comparison of two times
// would be reversed.
constexpr ticks furthest = stall_watch::off / 2;

}  // namespace

// How much more blamed time it takes until something happens.
ticks stall_watch::until_event(ticks blamed, const limits& l) const noexcept {
  if (!stalled_) return subtract(l.threshold, blamed);
  const ticks culpable = add(culpable_, subtract(blamed, judged_));
  ticks left = subtract(next_report_, blamed);
  if (escalated_ < 1 && l.yield != off) left = std::min(left, subtract(l.yield, culpable));
  if (escalated_ < 2 && l.isolate != off) left = std::min(left, subtract(l.isolate, culpable));
  return left;
}

bool stall_watch::due(ticks now, bool polling, ticks start, const limits& l) const noexcept {
  if (!polling) return false;
  const bool same = watches(start);
  if (same && dismissed_) return false;
  const ticks age = between(start, now);
  if (same) return until_event(subtract(age, excused_), l) == 0;
  return age >= l.threshold;
}

stall_watch::outcome stall_watch::look(const sight& s, const limits& l) noexcept {
  outcome o;
  const bool same = s.polling && watches(s.start);
  if (!same) {
    o.ended = stalled_;
    stalled_ = dismissed_ = false;
    start_ = s.start;
    excused_ = judged_ = culpable_ = 0;
    escalated_ = 0;
    polling_ = s.polling;
  }
  if (!s.polling) {
    // A poll that begins now crosses the threshold no earlier than this.
    o.next = s.now + std::min(l.threshold, furthest);
    return o;
  }
  const ticks age = between(start_, s.now);
  if (s.evidence) excused_ = s.excused;
  excused_ = std::min(excused_, age);
  const ticks blamed = age - excused_;
  o.blamed = blamed;
  ASIO_PULSE_ASSERT(!(stalled_ && dismissed_));
  if (dismissed_) {
    o.next = s.now + std::min(l.threshold, furthest);
    return o;
  }

  if (until_event(blamed, l) == 0) {
    culpable_ += std::min(s.culpable, subtract(blamed, judged_));
    judged_ = std::max(judged_, blamed);
    if (!stalled_ && blamed >= l.threshold) {
      stalled_ = o.crossed = true;
      o.escalate = culpable_ != 0;
      step_ = std::min(l.threshold, l.longest_step);
      next_report_ = add(blamed, step_);
    } else if (blamed >= next_report_) {
      o.repeat = true;
      step_ = std::min(add(step_, step_), l.longest_step);
      next_report_ = add(blamed, step_);
    }
    const std::uint8_t crossed = l.isolate != off && culpable_ >= l.isolate ? 2
                                 : l.yield != off && culpable_ >= l.yield   ? 1
                                                                            : 0;
    if (crossed > escalated_) {
      escalated_ = crossed;
      o.escalate = true;
    }
  }
  o.culpable = culpable_;
  ticks left = until_event(blamed, l);
  // If the limit is reached but the time was not the task's fault, do not look again at once.
  if (left == 0) left = l.threshold;
  if (stalled_) left = std::min(left, l.glance);

  if (s.critical_since == 0) {
    overstay_ = 0;
  } else if (l.max_critical != off && overstay_ != s.critical_since) {
    const ticks stayed = subtract(between(s.critical_since, s.now), excused_);
    if (stayed >= l.max_critical) {
      o.overstay = true;
      overstay_ = s.critical_since;
    } else {
      left = std::min(left, l.max_critical - stayed);
    }
  }
  // The numbers are those of the invariants in the header.
  ASIO_PULSE_ASSERT(blamed <= age);                                       // 1
  ASIO_PULSE_ASSERT(!o.crossed || blamed >= l.threshold);                 // 1, 2
  ASIO_PULSE_ASSERT(!(o.crossed && o.repeat));                            // 3
  ASIO_PULSE_ASSERT(!o.repeat || (stalled_ && step_ <= l.longest_step));  // 3, 4
  ASIO_PULSE_ASSERT(culpable_ <= judged_);                                // 5
  ASIO_PULSE_ASSERT(escalated_ <= 2);
  o.next = s.now + std::min(left, furthest);
  return o;
}

void stall_watch::dismiss() noexcept {
  ASIO_PULSE_ASSERT(polling_ || !stalled_);
  stalled_ = false;
  dismissed_ = true;
}

}  // namespace asio_pulse::detail
