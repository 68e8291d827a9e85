// SPDX-License-Identifier: BSL-1.0
//
// The answers of a process to an inspector.
#include <asio_pulse/metrics.hpp>
#include <asio_pulse/version.hpp>

#if defined(__linux__)

#include "inspect_server.hpp"
#include "inspect_wire.hpp"
#include "instruments.hpp"
#include "process/process_name.hpp"
#include "process/user_identity.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <system_error>

namespace asio_pulse::detail {
namespace {

using namespace std::chrono_literals;

// How long the workers collect after a request.
constexpr std::chrono::milliseconds metrics_lease = 15s;
constexpr std::chrono::milliseconds longest_trace = 60s;
constexpr std::size_t most_top = 1000;
// The most recordings that a process writes by itself, at stalls and signals.
constexpr std::uint64_t most_recordings = 16;
// Twenty changes at once, and ten a second. A guess: more than people make, and little work.
constexpr std::chrono::milliseconds time_of_a_change = 100ms;
constexpr int most_changes = 20;
constexpr std::chrono::seconds between_recordings = 10s;

/// Parses the words of a request.
class words {
 public:
  explicit words(std::string_view line) noexcept : left_(line) {}
  [[nodiscard]] std::string_view next() noexcept {
    const std::string_view word = left_.substr(0, left_.find(' '));
    separated_ = word.size() != left_.size();
    left_.remove_prefix(word.size() + (separated_ ? 1 : 0));
    return word;
  }
  /// Returns false if the word is not a number of at most `most`.
  [[nodiscard]] bool number(std::uint64_t& n, std::uint64_t most) noexcept {
    return parse_number(next(), n) && n <= most;
  }
  /// Whether nothing follows the last word, not even a space.
  [[nodiscard]] bool empty() const noexcept { return left_.empty() && !separated_; }

 private:
  std::string_view left_;
  bool separated_ = false;
};

}  // namespace

void inspect_server::refuse(client& c, std::string_view why) {
  c.takers.clear();
  c.out = fmt::format("{} error {}\n", protocol, why);
  c.sent = 0;
  c.last = true;
}

void inspect_server::send_answer(client& c, const std::string& body, std::size_t longest) {
  if (body.size() > longest) return refuse(c, "the answer is too long");
  c.out = fmt::format("{} ok {}\n", protocol, body.size());
  c.out += body;
  c.sent = 0;
}

void inspect_server::answer(client& c, clock::time_point now) {
  const std::string line = c.in.substr(0, c.in.find('\n'));
  c.in.clear();
  words request(line);
  if (request.next() != protocol) {
    return refuse(c, fmt::format("this process uses protocol {}", protocol));
  }
  const std::string_view verb = request.next();
  if (verb == "metrics") {
    std::uint64_t tasks = 0;
    std::uint64_t sites = 0;
    std::uint64_t groups = 0;
    if (!request.number(tasks, most_top) || !request.number(sites, most_top) ||
        !request.number(groups, most_top) || !request.empty()) {
      return refuse(
          c, fmt::format("metrics TASKS SITES GROUPS: all must be numbers up to {}", most_top));
    }
    process_metrics m =
        collect_now({.top_tasks = tasks, .top_sites = sites, .top_groups = groups}, metrics_lease);
    if (m.contexts.size() > most_contexts) m.contexts.resize(most_contexts);
    std::erase_if(m.contexts, [this](const context_metrics& of) { return !visible(of.number); });
    return send_answer(c, encode(m), longest_metrics);
  }
  if (verb == "trace") {
    std::uint64_t length = 0;
    std::uint64_t context = 0;
    if (!request.number(length, static_cast<std::uint64_t>(longest_trace.count())) ||
        !request.number(context, ~std::uint64_t{0}) || !request.empty()) {
      return refuse(
          c, fmt::format(
                 "trace MILLISECONDS CONTEXT: both must be numbers, and MILLISECONDS at most {}",
                 longest_trace.count()));
    }
    for (const shown& s : contexts_) {
      const options& o = s.context->core().opts();
      if (!o.inspectable || o.trace == instrument_mode::off) continue;
      if (context != 0 && s.context->core().number() != context) continue;
      s.context->want_trace(std::chrono::milliseconds(length) + 1s);
      c.takers.push_back(std::make_unique<trace_taker>(
          *s.context, length == 0 ? trace_taker::from::oldest : trace_taker::from::now));
    }
    if (c.takers.empty())
      return refuse(c, "no context with that number can be traced (options::trace)");
    c.trace_until = now + std::chrono::milliseconds(length);
    return follow(c, now);
  }
  if (verb == "change") {
    std::uint64_t context = 0;
    std::uint64_t weight = 0;
    std::string group;
    const bool numbered = request.number(context, ~std::uint64_t{0});
    const std::string_view what = request.next();
    bool whole = what == "enforce" || what == "shadow" || what == "undo";
    if (what == "weight") {
      whole = request.number(weight, ~0U) && decode_word(request.next(), group);
    }
    if (!numbered || !whole || !request.empty()) {
      return refuse(c, "change CONTEXT enforce, shadow, undo, or weight WEIGHT GROUP");
    }
    return change(c, context, what, static_cast<unsigned>(weight), group, now);
  }
  refuse(c, "known requests: metrics, trace, change");
}

// ---- changes

// Each change stands for a part of a second. So the load of the process, and that of its hooks, is
// bounded however many clients there are.
bool inspect_server::may_change(clock::time_point now) noexcept {
  const clock::time_point next = std::max(changes_until_, now) + time_of_a_change;
  if (next > now + most_changes * time_of_a_change) return false;
  changes_until_ = next;
  return true;
}

void inspect_server::change(client& c, std::uint64_t context, std::string_view what,
                            unsigned weight, const std::string& group, clock::time_point now) {
  if (c.user != 0 && !is_own_user(c.user)) {
    return refuse(c, "this process acts as another user since you connected");
  }
  shown* found = nullptr;
  bool several = false;
  for (shown& s : contexts_) {
    const options& o = s.context->core().opts();
    if (!o.inspectable || !o.controllable) continue;
    if (context != 0 && s.context->core().number() != context) continue;
    several = found != nullptr;
    if (several) break;
    found = &s;
  }
  if (found == nullptr) {
    return refuse(c, context == 0
                         ? "no context can be changed (options::controllable)"
                         : fmt::format("no context has the number {}, or it cannot be changed "
                                       "(options::controllable)",
                                       context));
  }
  if (several) return refuse(c, "there are several contexts; give the number of one");
  if (!may_change(now)) return refuse(c, "too many changes; try again in a second");
  context_core& core = found->context->core();
  // What can fail comes before the change, so that each change is announced.
  core.acquire();
  to_announce_.push_back({.context = found->context, .core = core_ref(&core), .made = {}});
  context_control::answer a;
  try {
    a = what == "weight" ? found->control.set_weight(core, group, weight)
        : what == "undo" ? found->control.undo(core)
                         : found->control.set_shadow(core, what == "shadow");
  } catch (const std::bad_alloc&) {
    to_announce_.pop_back();
    throw;
  }
  to_announce_.back().made = std::move(a.made);
  if (a.refused) return refuse(c, a.text);
  send_answer(c, a.text, longest_sentence);
}

// During a trace, reads new events before they are overwritten.
void inspect_server::follow(client& c, clock::time_point now) {
  if (c.takers.empty()) return;
  for (const auto& t : c.takers) t->take();
  if (now < c.trace_until) return;
  recording best;
  std::size_t most = 0;
  for (const auto& t : c.takers) {
    recording r = t->finish();
    std::size_t events = 0;
    for (const recorded_worker& w : r.workers) events += w.events.size();
    if (&t == &c.takers.front() || events > most) {
      best = std::move(r);
      most = events;
    }
  }
  c.takers.clear();
  c.deadline = now + answer_patience;
  send_answer(c, encode(best), longest_answer);
}

bool inspect_server::visible(std::uint64_t number) const noexcept {
  return std::any_of(contexts_.begin(), contexts_.end(), [number](const shown& s) {
    return s.context->core().number() == number && s.context->core().opts().inspectable;
  });
}

void inspect_server::write_wanted(clock::time_point now) {
  for (shown& s : contexts_) {
    if (s.to_write == clock::time_point{} || now < s.to_write) continue;
    s.to_write = {};
    const options& o = s.context->core().opts();
    const bool soon =
        s.last_written != clock::time_point{} && now - s.last_written < between_recordings;
    if (o.trace_folder.empty() || soon || written_ == most_recordings) continue;
    s.last_written = now;
    ++written_;
    std::error_code ec;
    // Errors are ignored: the folder may be missing, or the disk full.
    write_recording(s.context->recorded(),
                    fmt::format("{}/{}.{}.{}.pulse", o.trace_folder, this_program(),
                                this_process_number(), written_),
                    ec);
  }
}

// ---- metrics

process_metrics inspect_server::collect_now(const metrics_request& what,
                                            std::chrono::milliseconds lease) {
  process_metrics m;
  m.pid = this_process_number();
  m.program = this_program();
  m.version = ASIO_PULSE_VERSION;
  m.at = std::chrono::system_clock::now();
  m.uptime = clock::now().time_since_epoch();
  for (const shown& s : contexts_) m.contexts.push_back(s.context->snapshot(what, lease));
  return m;
}

process_metrics inspect_server::collect(const metrics_request& what) {
  const std::lock_guard lock(mutex_);
  process_metrics m = collect_now(what, looks_again);
  start();
  wake();
  return m;
}

}  // namespace asio_pulse::detail

namespace asio_pulse {

process_metrics collect(const metrics_request& what) {
  return detail::inspect_server::get().collect(what);
}

}  // namespace asio_pulse

#else

namespace asio_pulse {

process_metrics collect(const metrics_request&) { return {}; }

}  // namespace asio_pulse

#endif
