// SPDX-License-Identifier: BSL-1.0

#include "lint_rules.hpp"
#include "text/duration_math.hpp"
#include "text/short_numbers.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <string_view>

namespace asio_pulse::detail {
namespace {

using namespace std::chrono_literals;
using std::chrono::nanoseconds;

// Shards that balance stay within 15 % of each other. With less than half a CPU no work waits for long.
// Both are guesses.
constexpr double far_above = 0.25;
constexpr std::uint64_t busy_permille = 500;
// The CPU of a shard is used by others, if its operations wait while it does not use it.
constexpr nanoseconds long_delay = 5ms;
constexpr std::uint64_t unused_permille = 800;
// Much of a shard's CPU time is one task's.
constexpr double large_part = 0.3;

class shard_rules {
 public:
  shard_rules(const process_metrics& all, const context_metrics& now, findings& out)
      : all_(all), now_(now), shard_(now.shard), out_(out) {}

  void look() {
    hot();
    shared_cpu();
  }

 private:
  [[nodiscard]] std::string name() const {
    return fmt::format("Shard {} of {}", shard_.index, shard_.shards);
  }

  void hot() {
    double sum = 0;  // another process may report anything: integers could overflow
    std::uint64_t count = 0;
    for (const context_metrics& other : all_.contexts) {
      if (other.shard.shards == 0 || other.shard.set != shard_.set) continue;
      sum += static_cast<double>(other.shard.cpu_permille);
      ++count;
    }
    if (count < 2 || shard_.cpu_permille < busy_permille) return;
    const double mean = sum / static_cast<double>(count);
    const double excess = static_cast<double>(shard_.cpu_permille) / mean - 1;
    if (excess < far_above) return;
    std::string text =
        fmt::format("{} is hot: it uses {:.0f} % of a CPU, and the mean is {:.0f} %.", name(),
                    static_cast<double>(shard_.cpu_permille) / 10, mean / 10);
    std::string_view subject;
    if (const task_metrics* const most = largest_task()) {
      const double part = share_of(most->recent, now_.recent_interval);
      text += fmt::format(" {} uses {:.0f} % of a CPU of that.", in_quotes(most->name), 100 * part);
      subject = most->name;
    }
    out_.add(lint_kind::hot_shard, harm::delays,
             nanoseconds{static_cast<std::int64_t>(excess * 1e9)}, subject, std::move(text),
             advice(!subject.empty()));
  }

  [[nodiscard]] const task_metrics* largest_task() const {
    const auto most = std::max_element(
        now_.tasks.begin(), now_.tasks.end(),
        [](const task_metrics& a, const task_metrics& b) { return a.recent < b.recent; });
    if (most == now_.tasks.end() || most->name.empty()) return nullptr;
    return share_of(most->recent, now_.recent_interval) < large_part ? nullptr : &*most;
  }

  [[nodiscard]] std::string advice(bool one_task) const {
    switch (shard_.keeps) {
      case stay_reason::nothing_movable:
        return "Nothing on it may move. Let connections move if possible, or place new ones by "
               "placement_rule::least_loaded instead of by key.";
      case stay_reason::too_large:
        return "Each session that may move has more load than the excess: it would only make "
               "another shard hot. Divide that key's work, or do a part of it on other shards, by "
               "on().";
      case stay_reason::limited:
        return "It moves as much as balance_settings::moves_per_second allows. Raise that, if "
               "moving is cheap for this program.";
      case stay_reason::no_target:
        return "No other shard can take anything: all are stuck, stopped or being drained.";
      default:
        return one_task ? "Divide that task's work, or do a part of it on other shards, by on()."
                        : "If this lasts, let connections move, or place new ones by "
                          "placement_rule::least_loaded.";
    }
  }

  void shared_cpu() {
    if (!shard_.pinned) return;
    for (const context_metrics& other : all_.contexts) {
      const shard_metrics& s = other.shard;
      const bool earlier = s.set < shard_.set || (s.set == shard_.set && s.index < shard_.index);
      if (s.shards == 0 || !s.pinned || s.cpu != shard_.cpu || !earlier) continue;
      out_.add(
          lint_kind::shared_cpu, harm::delays, shard_.delay, {},
          fmt::format("{} is pinned to CPU {}, as shard {}{} is: each of them gets half of it.",
                      name(), shard_.cpu, s.index,
                      s.set == shard_.set ? "" : " of another sharded_context"),
          "Make no more shards than there are CPUs in shard_options::cpus, or do not pin them.");
      return;
    }
    if (shard_.delay < long_delay || shard_.cpu_permille > unused_permille || computes()) return;
    out_.add(lint_kind::shared_cpu, harm::delays, shard_.delay, {},
             fmt::format("{} is pinned to CPU {} and uses {:.0f} % of it, yet its operations wait "
                         "for {}: other programs use that CPU.",
                         name(), shard_.cpu, static_cast<double>(shard_.cpu_permille) / 10,
                         short_duration(shard_.delay)),
             "Do not pin shards on a machine that runs other programs, so that the system can find "
             "a free CPU for them; or keep the other programs off these CPUs.");
  }
  // A handler that waits or computes for long explains the delay, too.
  [[nodiscard]] bool computes() const {
    return std::any_of(now_.workers.begin(), now_.workers.end(),
                       [](const worker_metrics& w) { return w.running_for >= long_delay; }) ||
           std::any_of(now_.stalls.begin(), now_.stalls.end(), [&](const stall_metrics& s) {
             return !s.ended || all_.at - s.at < now_.recent_interval;
           });
  }

  const process_metrics& all_;
  const context_metrics& now_;
  const shard_metrics& shard_;
  findings& out_;
};

}  // namespace

void look_at_shards(const process_metrics& all, const context_metrics& now, findings& out) {
  if (now.shard.shards != 0) shard_rules(all, now, out).look();
}

}  // namespace asio_pulse::detail
