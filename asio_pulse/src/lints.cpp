// SPDX-License-Identifier: BSL-1.0

#include <asio_pulse/metrics.hpp>
#include <asio_pulse/report.hpp>

#include "blocked_reason.hpp"
#include "short_numbers.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace asio_pulse {
namespace {

using namespace std::chrono_literals;
using detail::short_duration;
using std::chrono::nanoseconds;

// The thresholds. asio_pulse/docs/lints.md names each of them.

// What the library itself calls slow: the default of options::stall_threshold.
constexpr nanoseconds long_poll = 5ms;
// To others on the worker it is the same whether one handler or a strand's batch keeps them.
constexpr nanoseconds long_batch = long_poll;
// A batch that hardly exceeds its one long handler is that handler's fault, not the strand's.
constexpr int batch_to_poll = 2;
// So long a poll is not met in the middle by chance: people notice a tenth of a second.
constexpr nanoseconds stuck = 100ms;
// "Most of the time". A connection with one busy peer comes near it, one with several does not.
constexpr double mostly_again = 0.5;
// Enough polls that their share is no accident, and enough CPU time to be worth a look: below a
// tenth of a CPU there is little to win. Both are guesses.
constexpr std::uint64_t many_polls = 1000;
constexpr double much_of_a_cpu = 0.1;
// Rising: four times what was usual, which the noise between two intervals does not reach, and
// enough that somebody feels it. A delay that is always there is told of from where the library
// would call a single poll slow twice over. The 90th percentile of an interval: at 100 probes a
// second the 99th is one probe.
constexpr double delay_share = 0.9;
constexpr int rising_by = 4;
constexpr nanoseconds felt_delay = 1ms;
constexpr nanoseconds high_delay = 10ms;
constexpr std::uint64_t enough_probes = 20;
// Most of the CPU time, and at least half a CPU: the busiest task of an idle server is no finding.
constexpr double hot_share = 0.5;
// More than the pieces that a few tasks over budget put back in passing. A guess.
constexpr std::uint64_t many_parked = 100;
// A poll this long is above any threshold that watches for something, so that a watchdog had
// counted it.
constexpr nanoseconds watchdog_sees = 100ms;

// A name in a sentence: longer ones are to be read in the subject.
constexpr std::size_t name_bytes = 120;
constexpr std::size_t file_bytes = 80;

// What is worse, first by the kind of harm.
enum class harm : std::uint8_t {
  goes_on,     // a worker is stuck now
  delays,      // others waited for it
  uses,        // CPU time that may be wasted or unevenly shared
  blind_spots  // less is seen than there is
};

struct finding {
  lint what;
  harm how = harm::delays;
  nanoseconds cost{0};  // that others waited, or CPU time: orders findings of the same harm
};

std::string quoted(std::string_view name) {
  return name.empty() ? std::string{"an unnamed handler"}
                      : fmt::format("\"{}\"", escape(name, name_bytes));
}

std::string at(const source_place& place) {
  if (place.file.empty()) return {};
  return fmt::format(" ({}:{})", escape(place.file, file_bytes), place.line);
}

double share(nanoseconds part, nanoseconds of) {
  return of.count() <= 0 ? 0.0
                         : static_cast<double>(part.count()) / static_cast<double>(of.count());
}

class looker {
 public:
  looker(const context_metrics& now, const context_metrics* before, nanoseconds interval)
      : now_(now), before_(before), interval_(interval) {}

  void look(std::vector<finding>& out) {
    const auto first = out.size();
    out_ = &out;
    long_polls();
    running();
    batches();
    stalls();
    self_waking();
    delay();
    hot_task();
    held_back();
    blind_spots();
    for (auto i = first; i != out.size(); ++i) {
      out[i].what.context = now_.number;
      out[i].what.anchor = to_string(out[i].what.kind);
    }
  }

 private:
  void add(lint_kind kind, harm how, nanoseconds cost, std::string_view subject, std::string text,
           std::string advice) {
    out_->push_back(
        {{kind, 0, std::string{subject}, std::move(text), std::move(advice), {}}, how, cost});
  }

  // ---- handlers that keep their worker

  [[nodiscard]] bool was_blocked(const site_metrics& site) const {
    return std::any_of(now_.stalls.begin(), now_.stalls.end(), [&](const stall_metrics& s) {
      return s.cause == stall_cause::blocked && s.site == site.type;
    });
  }

  void long_polls() {
    // Where polls are measured by the wall clock, a wait is no computation.
    const bool occupancy = now_.totals.clock == timing::clock_kind::steady;
    for (const site_metrics& site : now_.sites) {
      if (site.longest < long_poll || (occupancy && was_blocked(site))) continue;
      const auto polls = static_cast<std::int64_t>(std::max<std::uint64_t>(site.polls, 1));
      add(lint_kind::long_poll, harm::delays, site.longest, site.type,
          fmt::format("{}{} ran for up to {} without a break ({} polls, {} on average): nothing "
                      "else ran on its worker meanwhile.",
                      quoted(site.type), at(site.place), short_duration(site.longest), site.polls,
                      short_duration(site.cpu / polls)),
          cut_it_up);
    }
  }

  [[nodiscard]] const stall_metrics* stall_of(const worker_metrics& worker) const {
    const auto found =
        std::find_if(now_.stalls.begin(), now_.stalls.end(), [&](const stall_metrics& s) {
          return !s.ended && s.thread == worker.thread && s.site == worker.running;
        });
    return found == now_.stalls.end() ? nullptr : &*found;
  }

  void running() {
    for (const worker_metrics& worker : now_.workers) {
      if (worker.running.empty() || worker.running_for < stuck) continue;
      const stall_metrics* const stall = stall_of(worker);
      // Blocked ones are told of as such; what the kernel took away is nobody's fault.
      if (stall != nullptr && stall->cause != stall_cause::spinning &&
          stall->cause != stall_cause::unknown) {
        continue;
      }
      const source_place place = stall == nullptr ? source_place{} : stall->place;
      // One sentence a site: this one is the worse.
      std::erase_if(*out_, [&](const finding& f) {
        return f.what.kind == lint_kind::long_poll && f.what.context == 0 &&
               f.what.subject == worker.running;
      });
      add(lint_kind::long_poll, harm::goes_on, worker.running_for, worker.running,
          fmt::format("{}{} has been running on thread {} for {} and goes on: nothing else runs on "
                      "that worker.",
                      quoted(worker.running), at(place), worker.thread,
                      short_duration(worker.running_for)),
          cut_it_up);
    }
  }

  void batches() {
    const worker_metrics* worst = nullptr;
    for (const worker_metrics& worker : now_.workers) {
      if (worst == nullptr || worker.longest_batch > worst->longest_batch) worst = &worker;
    }
    if (worst == nullptr || worst->longest_batch < long_batch) return;
    for (const site_metrics& site : now_.sites) {
      if (site.type == worst->batch_site && worst->longest_batch < batch_to_poll * site.longest)
        return;
    }
    add(lint_kind::greedy_strand, harm::delays, worst->longest_batch, worst->batch_site,
        fmt::format("A strand kept its worker for {} without a break, handler after handler; the "
                    "last one was {}.",
                    short_duration(worst->longest_batch), quoted(worst->batch_site)),
        "Guard only what shares state with the strand, and post the rest outside of it; split it "
        "into one strand for each object; give its task a budget, then its batches are cut.");
  }

  // ---- handlers that wait

  void stalls() {
    for (auto s = now_.stalls.begin(); s != now_.stalls.end(); ++s) {
      if (s->cause != stall_cause::blocked) continue;
      const detail::blocked_reason why = detail::why_blocked(*s);
      const auto same = [&](const stall_metrics& other) {
        return other.cause == stall_cause::blocked && other.site == s->site &&
               other.place == s->place && detail::why_blocked(other).kind == why.kind;
      };
      if (std::any_of(now_.stalls.begin(), s, same)) continue;  // told with the newest of them
      nanoseconds longest{0};
      bool goes_on = false;
      for (auto other = s; other != now_.stalls.end(); ++other) {
        if (!same(*other)) continue;
        longest = std::max(longest, other->lasted);
        goes_on = goes_on || !other->ended;
      }
      const auto times = std::count_if(s, now_.stalls.end(), same);
      std::string text = fmt::format(
          "{}{} {} for {} {}", quoted(s->site), at(s->place), goes_on ? "has waited" : "waited",
          goes_on ? short_duration(s->lasted) : "up to " + short_duration(longest), why.for_what);
      if (!s->system_call.empty()) {
        text += fmt::format(" ({})", escape(s->system_call, file_bytes));
      }
      if (s->blamed < s->stack.size()) {
        // The frames are escaped already.
        text += fmt::format(", in {}", detail::function_of(s->stack[s->blamed]));
      }
      text += fmt::format("; {} of the last {} stall{}.", times, now_.stalls.size(),
                          now_.stalls.size() == 1 ? "" : "s");
      add(why.kind, goes_on ? harm::goes_on : harm::delays, longest, s->site, std::move(text),
          std::string{why.advice});
    }
  }

  // ---- how the CPU time is used

  void self_waking() {
    for (const site_metrics& site : now_.sites) {
      site_metrics since{};
      if (before_ != nullptr) {
        const auto old = std::find_if(before_->sites.begin(), before_->sites.end(),
                                      [&](const site_metrics& other) {
                                        return other.type == site.type && other.place == site.place;
                                      });
        if (old != before_->sites.end() && old->polls <= site.polls) since = *old;
      }
      const std::uint64_t polls = site.polls - since.polls;
      const std::uint64_t again = site.again - std::min(since.again, site.again);
      const nanoseconds cpu = site.cpu - std::min(since.cpu, site.cpu);
      const double part =
          polls == 0 ? 0.0 : static_cast<double>(again) / static_cast<double>(polls);
      const double of_a_cpu = share(cpu, interval_);
      if (polls < many_polls || part < mostly_again || of_a_cpu < much_of_a_cpu) continue;
      add(lint_kind::self_waking, harm::uses, cpu, site.type,
          fmt::format("{}{} ran again directly after itself in {:.0f} % of {} polls, with {:.0f} % "
                      "of a CPU: it wakes itself rather than wait for something.",
                      quoted(site.type), at(site.place), 100 * part, polls, 100 * of_a_cpu),
          "Let it wait: for an asynchronous operation, for a timer between two tries, or for "
          "whoever has work for it to post it. Where it computes in pieces, that is fine; a budget "
          "puts it behind the others.");
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
    add(lint_kind::rising_delay, harm::delays, p90, {},
        rises ? fmt::format("The queue delay rises: {}, where {} was usual.", now_text,
                            short_duration(usual))
              : fmt::format("The queue delay is high: {}.", now_text),
        "See which sites use the workers; cut long polls; give a budget to what can wait. If all "
        "workers are busy with what cannot, let more threads call run(), or take less work in.");
  }

  void hot_task() {
    nanoseconds all = now_.other_tasks.recent;
    for (const task_metrics& task : now_.tasks) all += task.recent;
    if (now_.task_count < 2) return;  // it has nobody to take the CPU from
    for (const task_metrics& task : now_.tasks) {
      const double of_a_cpu = share(task.recent, now_.recent_interval);
      const double of_all = share(task.recent, all);
      if (task.id == 0 || of_all < hot_share || of_a_cpu < hot_share) continue;
      add(lint_kind::hot_task, harm::uses, task.recent, task.name,
          fmt::format("Task {} (id {}, tier {}) took {:.0f} % of the CPU time of all {} tasks, "
                      "{:.0f} % of a CPU.",
                      quoted(task.name), task.id, to_string(task.level), 100 * of_all,
                      now_.task_count, 100 * of_a_cpu),
          "If the others wait for it: a smaller budget (task_options::budget), checkpoints in its "
          "long handlers, or .isolatable = true, which moves it to threads of their own.");
    }
  }

  void held_back() {
    const std::uint64_t parked = now_.totals.parked;
    // Both readings: in passing it is what budgets are for.
    if (parked < many_parked || (before_ != nullptr && before_->totals.parked < many_parked))
      return;
    add(lint_kind::held_back, harm::uses, nanoseconds{0}, {},
        fmt::format("{} operations are put back and wait until others have run.", parked),
        "Where these tasks are meant to wait, that is fine. Else raise their budgets, or take less "
        "work in: it is more than the budgets let through.");
  }

  // ---- what is not seen

  void blind_spots() {
    nanoseconds longest{0};
    for (const site_metrics& site : now_.sites) longest = std::max(longest, site.longest);
    for (const worker_metrics& worker : now_.workers) {
      if (!worker.running.empty()) longest = std::max(longest, worker.running_for);
    }
    if (now_.enabled && now_.totals.stalls == 0 && longest >= watchdog_sees) {
      add(lint_kind::no_watchdog, harm::blind_spots, longest, {},
          fmt::format("A poll lasted {}, and no stall was found: the watchdog is off, or its "
                      "threshold is higher.",
                      short_duration(longest)),
          "Set options::watchdog to true and options::stall_threshold to some milliseconds: a "
          "handler that does not end is then named, with its stack, while it is stuck.");
    }
    if (!now_.enabled) {
      add(lint_kind::not_collected, harm::blind_spots, nanoseconds{0}, {},
          "The context is not enabled: nothing is accounted for, and all figures stay zero.",
          "Set options::enabled to true; with options::shadow nothing is enforced.");
    } else if (!now_.collecting && before_ != nullptr && !before_->collecting) {
      add(lint_kind::not_collected, harm::blind_spots, nanoseconds{0}, {},
          "Sites, workers and histograms are not collected.",
          "Set options::metrics to on_demand or on.");
    }
    if (now_.uncollected_workers != 0) {
      add(lint_kind::not_collected, harm::blind_spots, nanoseconds{1}, {},
          fmt::format("{} worker{} not collected from: the instruments hold {} KiB and may take no "
                      "more.",
                      now_.uncollected_workers, now_.uncollected_workers == 1 ? " is" : "s are",
                      now_.instrument_bytes / 1024),
          "Raise options::instrument_bytes.");
    }
  }

  static constexpr const char* cut_it_up =
      "Put ASIO_PULSE_CHECKPOINT() or co_await asio_pulse::checkpoint() into its loop; or do a "
      "piece at a time and post the rest; or give it to a task with .isolatable = true, whose long "
      "handlers run on threads of their own.";

  const context_metrics& now_;
  const context_metrics* before_;
  nanoseconds interval_;
  std::vector<finding>* out_ = nullptr;
};

}  // namespace

std::string_view to_string(lint_kind kind) noexcept {
  static constexpr std::array<std::string_view, 11> names{
      "long_poll",   "self_waking",  "greedy_strand", "blocked_lock",
      "blocked_dns", "blocked_call", "rising_delay",  "hot_task",
      "held_back",   "no_watchdog",  "not_collected"};
  static_assert(static_cast<std::size_t>(lint_kind::not_collected) + 1 == names.size());
  const auto index = static_cast<std::size_t>(kind);
  return index < names.size() ? names[index] : "unknown";
}

std::vector<lint> lints(const process_metrics& now, const process_metrics* before) {
  // Another process with the same number, or nothing between the two.
  if (before != nullptr && (before->pid != now.pid || before->uptime >= now.uptime)) {
    before = nullptr;
  }
  const nanoseconds interval = now.uptime - (before == nullptr ? nanoseconds{0} : before->uptime);
  std::vector<finding> found;
  for (const context_metrics& context : now.contexts) {
    const context_metrics* earlier = nullptr;
    if (before != nullptr) {
      const auto same = std::find_if(before->contexts.begin(), before->contexts.end(),
                                     [&](const auto& c) { return c.number == context.number; });
      if (same != before->contexts.end()) earlier = &*same;
    }
    looker{context, earlier, interval}.look(found);
  }
  std::stable_sort(found.begin(), found.end(), [](const finding& a, const finding& b) {
    return a.how != b.how ? a.how < b.how : a.cost > b.cost;
  });
  std::vector<lint> result;
  result.reserve(found.size());
  for (finding& f : found) result.push_back(std::move(f.what));
  return result;
}

}  // namespace asio_pulse
