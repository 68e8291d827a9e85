// SPDX-License-Identifier: BSL-1.0

#include "lint_rules.hpp"
#include "site_index.hpp"
#include "text/duration_math.hpp"
#include "text/short_numbers.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <string>

namespace asio_pulse::detail {
namespace {

using namespace std::chrono_literals;
using std::chrono::nanoseconds;

// The share of polls that counts as most of the time. A connection with one busy peer comes near
// it, one with several does not.
constexpr double mostly_again = 0.5;
// Enough polls to make their share significant, and enough CPU time to matter: below a tenth of a
// CPU there is little to gain. Both are guesses.
constexpr std::uint64_t many_polls = 1000;
constexpr double much_of_a_cpu = 0.1;
// A delay rises if it is four times the usual one, which is more than the noise between two
// intervals, and long enough to be noticed. A constant delay is reported if it is twice as long as
// a slow poll. The 90th percentile is used, since there are 100 probes a second, of which the 99th
// percentile would be a single one.
constexpr double delay_share = 0.9;
constexpr int rising_by = 4;
constexpr nanoseconds felt_delay = 1ms;
constexpr nanoseconds high_delay = 10ms;
constexpr std::uint64_t enough_probes = 20;
// A hot task uses most of the CPU time and at least half a CPU, so that the busiest task of an idle
// server is not reported.
constexpr double hot_share = 0.5;
// More than what a few tasks over budget have put back at any time. A guess.
constexpr std::uint64_t many_parked = 100;
// A poll this long is above any useful threshold, so a watchdog would have counted it.
constexpr nanoseconds watchdog_sees = 100ms;

class use_rules {
 public:
  use_rules(const context_metrics& now, const context_metrics* before, nanoseconds interval,
            findings& out)
      : now_(now), before_(before), interval_(interval), out_(out) {}

  void look() {
    self_waking();
    delay();
    hot_task();
    held_back();
    blind_spots();
  }

 private:
  // ---- how the CPU time is used

  void self_waking() {
    nanoseconds all = now_.other_sites.cpu;
    for (const site_metrics& site : now_.sites) add_up(all, site.cpu);
    const site_index earlier(before_);
    for (const site_metrics& site : now_.sites) {
      static const site_metrics fresh;
      const site_metrics* const old = earlier.find(site);
      const site_metrics& since = old != nullptr && old->polls <= site.polls ? *old : fresh;
      const std::uint64_t polls = site.polls - since.polls;
      const std::uint64_t again = site.again - std::min(since.again, site.again);
      const nanoseconds cpu = site.cpu - std::min(since.cpu, site.cpu);
      const double part =
          polls == 0 ? 0.0 : static_cast<double>(again) / static_cast<double>(polls);
      // Since the beginning there is no interval, so the share is that of all handlers' CPU time.
      const double used = share_of(cpu, before_ != nullptr ? interval_ : all);
      if (polls < many_polls || part < mostly_again || used < much_of_a_cpu) continue;
      out_.add(lint_kind::self_waking, harm::uses, cpu, site.type,
               fmt::format("{}{} ran again directly after itself in {:.0f} % of {} polls, and used "
                           "{:.0f} % of {}: it posts itself instead of waiting for an event.",
                           in_quotes(site.type), at(site.place), 100 * part, polls, 100 * used,
                           before_ != nullptr ? "a CPU" : "the CPU time"),
               "Let it wait for an asynchronous operation or a timer, or let the code that "
               "produces its work post it. If it computes in pieces, that is fine; with a budget, "
               "other handlers run in between.");
    }
  }

  void delay() {
    const bool interval = before_ != nullptr;
    const histogram recent =
        interval ? difference(now_.queue_delay, before_->queue_delay) : now_.queue_delay;
    if (recent.count < enough_probes) return;
    const nanoseconds p90 = recent.quantile(delay_share);
    const nanoseconds usual = interval && before_->queue_delay.count >= enough_probes
                                  ? before_->queue_delay.quantile(delay_share)
                                  : nanoseconds::max();
    const bool rises = p90 >= felt_delay && p90 / rising_by >= usual;
    if (!rises && p90 < high_delay) return;
    const std::string now_text =
        fmt::format("one in ten handlers that were ready waited {} or longer", short_duration(p90));
    out_.add(lint_kind::rising_delay, harm::delays, p90, {},
             rises ? fmt::format("The queue delay rises: {}, where {} was usual.", now_text,
                                 short_duration(usual))
                   : fmt::format("The queue delay is high: {}.", now_text),
             "Find the sites that use the workers, shorten long polls, and give a budget to work "
             "that can wait. If the workers are busy with work that cannot wait, let more threads "
             "call run(), or accept less work.");
  }

  void hot_task() {
    nanoseconds all = now_.other_tasks.recent;
    for (const task_metrics& task : now_.tasks) add_up(all, task.recent);
    if (now_.task_count < 2) return;  // there is no other task that could suffer
    for (const task_metrics& task : now_.tasks) {
      const double of_a_cpu = share_of(task.recent, now_.recent_interval);
      const double of_all = share_of(task.recent, all);
      if (task.id == 0 || of_all < hot_share || of_a_cpu < hot_share) continue;
      out_.add(
          lint_kind::hot_task, harm::uses, task.recent, task.name,
          fmt::format("Task {} (id {}, tier {}) took {:.0f} % of the CPU time of all {} tasks, "
                      "{:.0f} % of a CPU.",
                      in_quotes(task.name), task.id, to_string(task.level), 100 * of_all,
                      now_.task_count, 100 * of_a_cpu),
          "If other tasks wait for it, give it a smaller budget (task_options::budget), put "
          "checkpoints into its long handlers, or set .isolatable = true, so that its long "
          "handlers are moved to other threads.");
    }
  }

  void held_back() {
    const std::uint64_t parked = now_.totals.parked;
    // In both readings, because a single burst is what budgets are for.
    if (parked < many_parked || (before_ != nullptr && before_->totals.parked < many_parked))
      return;
    out_.add(lint_kind::held_back, harm::uses, nanoseconds{0}, {},
             fmt::format("{} operations are put back and wait until others have run.", parked),
             "If these tasks are meant to wait, that is fine. Otherwise raise their budgets, or "
             "accept less work: there is more than the budgets allow.");
  }

  // ---- what is not measured

  void blind_spots() {
    nanoseconds longest{0};
    for (const site_metrics& site : now_.sites) longest = std::max(longest, site.longest);
    for (const worker_metrics& worker : now_.workers) {
      if (!worker.running.empty()) longest = std::max(longest, worker.running_for);
    }
    if (now_.enabled && now_.totals.stalls == 0 && longest >= watchdog_sees) {
      out_.add(lint_kind::no_watchdog, harm::blind_spots, longest, {},
               fmt::format("A poll lasted {}, and no stall was found: the watchdog is off, or its "
                           "threshold is higher.",
                           short_duration(longest)),
               "Set options::watchdog to true and options::stall_threshold to some milliseconds: "
               "then a handler that does not end is reported while it is stuck, with its stack.");
    }
    if (!now_.enabled) {
      out_.add(lint_kind::not_collected, harm::blind_spots, nanoseconds{0}, {},
               "The context is not enabled: nothing is accounted for, and all figures stay zero.",
               "Set options::enabled to true; with options::shadow nothing is enforced.");
    } else if (!now_.collecting && before_ != nullptr && !before_->collecting) {
      out_.add(lint_kind::not_collected, harm::blind_spots, nanoseconds{0}, {},
               "Sites, workers and histograms are not collected.",
               "Set options::metrics to on_demand or on.");
    }
    if (now_.uncollected_workers != 0) {
      out_.add(
          lint_kind::not_collected, harm::blind_spots, nanoseconds{1}, {},
          fmt::format("{} worker{} not measured: the instruments already use {} KiB and may not "
                      "use more memory.",
                      now_.uncollected_workers, now_.uncollected_workers == 1 ? " is" : "s are",
                      now_.instrument_bytes / 1024),
          "Raise options::instrument_bytes.");
    }
  }

  const context_metrics& now_;
  const context_metrics* before_;
  nanoseconds interval_;
  findings& out_;
};

}  // namespace

void look_at_use(const context_metrics& now, const context_metrics* before, nanoseconds interval,
                 findings& out) {
  use_rules(now, before, interval, out).look();
}

}  // namespace asio_pulse::detail
