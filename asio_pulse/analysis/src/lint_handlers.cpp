// SPDX-License-Identifier: BSL-1.0

#include "blocked_reason.hpp"
#include "frame_text.hpp"
#include "lint_rules.hpp"
#include "text/duration_math.hpp"
#include "text/short_numbers.hpp"

#include <asio_pulse/report.hpp>

#include <fmt/core.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

namespace asio_pulse::detail {
namespace {

using namespace std::chrono_literals;
using std::chrono::nanoseconds;

// The default of options::stall_threshold.
constexpr nanoseconds long_poll = 5ms;
// For other handlers it does not matter whether one handler or a batch keeps the worker busy.
constexpr nanoseconds long_batch = long_poll;
// If a batch is hardly longer than its longest handler, that handler is the cause and not the
// strand.
constexpr int batch_to_poll = 2;
// A poll that has lasted this long is shown as stuck. People notice a tenth of a second.
constexpr nanoseconds stuck = 100ms;
// There is a check every 20 us, so this is 2 ms during which others could have run.
constexpr std::uint64_t many_refusals = 100;
// How much of a system call's text a sentence contains.
constexpr std::size_t call_bytes = 80;

class handler_rules {
 public:
  handler_rules(const context_metrics& now, findings& out) : now_(now), out_(out) {}

  void look() {
    long_polls();
    running();
    unseen_workers();
    batches();
    stalls();
    refused_checkpoints();
  }

 private:
  // ---- handlers that keep their worker

  [[nodiscard]] bool was_blocked(const site_metrics& site) const {
    return std::any_of(now_.stalls.begin(), now_.stalls.end(), [&](const stall_metrics& s) {
      return s.cause == stall_cause::blocked && s.site == site.type;
    });
  }

  // Where the watchdog has seen a handler compute, from the newest stack that shows it.
  [[nodiscard]] std::string seen_in(const std::string& type) const {
    for (const stall_metrics& s : now_.stalls) {
      if (s.cause != stall_cause::blocked && s.site == type && s.blamed < s.stack.size()) {
        return fmt::format("In {}: ", short_text_of(s.stack[s.blamed]));
      }
    }
    return {};
  }

  void long_polls() {
    // If polls are measured with the wall clock, a long one may only have waited.
    const bool occupancy = now_.totals.clock == timing::clock_kind::steady;
    for (const site_metrics& site : now_.sites) {
      if (site.longest < long_poll || (occupancy && was_blocked(site))) continue;
      out_.add(lint_kind::long_poll, harm::delays, site.longest, site.type,
               fmt::format("{}{}{} ran for up to {} without a break ({} polls, {} on average): "
                           "nothing else ran on its worker meanwhile.",
                           seen_in(site.type), in_quotes(site.type), at(site.place),
                           short_duration(site.longest), site.polls,
                           short_duration(mean_of(site.cpu, site.polls))),
               cut_it_up);
    }
  }

  void refused_checkpoints() {
    for (const site_metrics& site : now_.sites) {
      if (site.refused < many_refusals || site.refused < site.suspended) continue;
      std::string why = "that was not safe; the counters automatic_refused_... say why";
      if (site.refused_lock * 2 >= site.refused) {
        why = site.lock.empty() ? std::string("it held a lock")
                                : fmt::format("it held a lock: {}", in_quotes(site.lock));
      }
      out_.add(
          lint_kind::refused_checkpoint, harm::delays, site.longest, site.type,
          fmt::format("{}{} was not suspended at {} of {} automatic checkpoints where its time "
                      "was up: {}.",
                      in_quotes(site.type), at(site.place), site.refused,
                      site.refused + site.suspended, why),
          "Hold the lock for a shorter time, or put the work that needs it into a separate "
          "handler.");
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
    struct stuck_worker {
      const worker_metrics& worker;
      const stall_metrics* stall;
    };
    std::vector<stuck_worker> found;
    std::unordered_set<std::string_view> handlers;
    for (const worker_metrics& worker : now_.workers) {
      if (worker.running.empty() || worker.running_for < stuck) continue;
      const stall_metrics* const stall = stall_of(worker);
      // There are other lints for blocked handlers, and the task is not responsible for time that
      // the kernel gave to other threads.
      if (stall != nullptr && stall->cause != stall_cause::spinning &&
          stall->cause != stall_cause::unknown) {
        continue;
      }
      found.push_back({worker, stall});
      handlers.insert(worker.running);
    }
    // One lint for each handler suffices, and this one is worse.
    std::erase_if(out_.all(), [&](const finding& f) {
      return f.how == harm::delays && f.what.kind == lint_kind::long_poll &&
             handlers.contains(f.what.subject);
    });
    for (const auto& [worker, stall] : found) {
      const source_place place = stall == nullptr ? source_place{} : stall->place;
      out_.add(lint_kind::long_poll, harm::goes_on, worker.running_for, worker.running,
               fmt::format("{}{}{} has been running on thread {} for {} and has not ended: nothing "
                           "else can run on that worker.",
                           seen_in(worker.running), in_quotes(worker.running), at(place),
                           worker.thread, short_duration(worker.running_for)),
               cut_it_up);
    }
  }

  // A worker that was stuck before the collection began has no recorder. Only the watchdog knows
  // about it.
  void unseen_workers() {
    for (const stall_metrics& s : now_.stalls) {
      const bool computes = s.cause == stall_cause::spinning || s.cause == stall_cause::unknown;
      if (s.ended || !computes || s.lasted < stuck) continue;
      if (std::any_of(now_.workers.begin(), now_.workers.end(),
                      [&](const worker_metrics& w) { return w.thread == s.thread; })) {
        continue;
      }
      out_.add(lint_kind::long_poll, harm::goes_on, s.lasted, s.site,
               fmt::format("{}{}{} has been running on thread {} for {} and has not ended: nothing "
                           "else can run on that worker.",
                           seen_in(s.site), in_quotes(s.site), at(s.place), s.thread,
                           short_duration(s.lasted)),
               cut_it_up);
    }
  }

  // Reports, and therefore stacks, are limited. Another stall of the same handler may have more.
  [[nodiscard]] bool told_better(const stall_metrics& s) const {
    return !described(s) &&
           std::any_of(now_.stalls.begin(), now_.stalls.end(), [&](const stall_metrics& other) {
             return other.cause == stall_cause::blocked && described(other) &&
                    other.site == s.site && other.place == s.place;
           });
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
    out_.add(lint_kind::greedy_strand, harm::delays, worst->longest_batch, worst->batch_site,
             fmt::format("A strand ran handler after handler and kept its worker busy for {} "
                         "without a break; the last handler was {}.",
                         short_duration(worst->longest_batch), in_quotes(worst->batch_site)),
             "Use the strand only for handlers that share state, and post the others outside of "
             "it; or split it into one strand for each object; or give its task a budget, so that "
             "its batches are cut short.");
  }

  // ---- handlers that wait

  static lint_kind kind_of(const blocked_reason& why) noexcept {
    switch (why.kind) {
      case waits_for::lock:
        return lint_kind::blocked_lock;
      case waits_for::name_resolution:
        return lint_kind::blocked_dns;
      case waits_for::call:
        break;
    }
    return lint_kind::blocked_call;
  }

  void stalls() {
    for (auto s = now_.stalls.begin(); s != now_.stalls.end(); ++s) {
      if (s->cause != stall_cause::blocked || told_better(*s)) continue;
      const blocked_reason why = why_blocked(*s);
      const auto same = [&](const stall_metrics& other) {
        return other.cause == stall_cause::blocked && other.site == s->site &&
               other.place == s->place && why_blocked(other).kind == why.kind;
      };
      if (std::any_of(now_.stalls.begin(), s, same)) continue;  // reported with the newest one
      nanoseconds longest{0};
      bool goes_on = false;
      for (auto other = s; other != now_.stalls.end(); ++other) {
        if (!same(*other)) continue;
        longest = std::max(longest, other->lasted);
        goes_on = goes_on || !other->ended;
      }
      const auto times = std::count_if(s, now_.stalls.end(), same);
      std::string text;
      if (s->blamed < s->stack.size()) {
        text = fmt::format("In {}: ", short_text_of(s->stack[s->blamed]));
      }
      text += fmt::format(
          "{}{} {} for {} {}", in_quotes(s->site), at(s->place), goes_on ? "has waited" : "waited",
          goes_on ? short_duration(s->lasted) : "up to " + short_duration(longest), why.for_what);
      if (!s->system_call.empty()) {
        text += fmt::format(" ({})", escape(s->system_call, call_bytes));
      }
      text += fmt::format("; {} of the last {} stall{}.", times, now_.stalls.size(),
                          now_.stalls.size() == 1 ? "" : "s");
      out_.add(kind_of(why), goes_on ? harm::goes_on : harm::delays, longest, s->site,
               std::move(text), std::string{why.advice});
    }
  }

  static constexpr const char* cut_it_up =
      "Put ASIO_PULSE_CHECKPOINT() or co_await asio_pulse::checkpoint() into its loop; or do a "
      "part of the work at a time and post the rest; or run it in a task with .isolatable = true, "
      "whose long handlers are moved to other threads.";

  const context_metrics& now_;
  findings& out_;
};

}  // namespace

void look_at_handlers(const context_metrics& now, findings& out) { handler_rules(now, out).look(); }

}  // namespace asio_pulse::detail
