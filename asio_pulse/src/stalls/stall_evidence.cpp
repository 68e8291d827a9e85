// SPDX-License-Identifier: BSL-1.0
#include "stall_evidence.hpp"

#include <algorithm>

namespace asio_pulse::detail {
namespace {

/// The time between two looks, divided into parts that add up to it.
struct division {
  std::int64_t cpu = 0;
  std::int64_t excused = 0;  ///< the thread waited for a CPU, or was stopped
  std::int64_t blocked = 0;
};

bool is_stopped(char state) noexcept { return state == 'T' || state == 't'; }

division divide(const stall_evidence& e) noexcept {
  const std::int64_t wall = std::max<std::int64_t>(e.wall_ns, 0);
  division d;
  if (!e.before.valid || !e.now.valid) return d;
  d.cpu = std::clamp<std::int64_t>(e.now.cpu_ns - e.before.cpu_ns, 0, wall);
  const std::int64_t off = wall - d.cpu;
  const bool have_delay = e.before.have_delay && e.now.have_delay;
  const std::int64_t delay =
      have_delay ? std::clamp<std::int64_t>(e.now.run_delay_ns - e.before.run_delay_ns, 0, off) : 0;
  const bool never_blocked =
      e.before.have_switches && e.now.have_switches && e.before.voluntary == e.now.voluntary;
  // The kernel's figures do not contain a wait that is not over. A thread without a voluntary
  // switch has done nothing but wait. One that waits now may have waited all the time, and is
  // excused.
  const bool runnable = e.now.state == 'R';
  if (is_stopped(e.now.state) || (runnable && (never_blocked || e.now.waiting))) {
    d.excused = off;
  } else {
    d.excused = delay;
  }
  d.blocked = off - d.excused;
  return d;
}

/// What most of the thread's own time was: at least two thirds of it. This is a guess. Of a poll
/// that alternately computes and blocks, neither would be true; and the clocks are not read at
/// exactly the same time.
stall_cause own_doing(std::int64_t own, std::int64_t cpu, const stall_evidence& e) noexcept {
  if (cpu >= own - own / 3) return stall_cause::spinning;
  if (cpu > own / 3) return stall_cause::unknown;
  const bool sleeps = e.now.state == 'S' || e.now.state == 'D';
  const bool slept = e.before.have_switches && e.now.have_switches && e.before.have_delay &&
                     e.now.have_delay && e.now.voluntary > e.before.voluntary;
  return sleeps || slept ? stall_cause::blocked : stall_cause::unknown;
}

}  // namespace

std::int64_t excused_ns(const stall_evidence& e) noexcept { return divide(e).excused; }

stall_cause classify(const stall_evidence& e) noexcept {
  if (!e.before.valid || !e.now.valid || e.wall_ns <= 0) return stall_cause::unknown;
  if (is_stopped(e.now.state)) return stall_cause::stopped;
  const division d = divide(e);
  if (d.excused >= e.wall_ns - d.excused) return stall_cause::descheduled;
  return own_doing(d.cpu + d.blocked, d.cpu, e);
}

stall_cause classify(std::int64_t own_ns, std::int64_t cpu_ns, const stall_evidence& e) noexcept {
  if (!e.now.valid) return stall_cause::unknown;
  if (is_stopped(e.now.state)) return stall_cause::stopped;
  if (own_ns <= 0) return classify(e);
  return own_doing(own_ns, std::clamp<std::int64_t>(cpu_ns, 0, own_ns), e);
}

}  // namespace asio_pulse::detail
