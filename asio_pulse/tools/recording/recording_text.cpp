// SPDX-License-Identifier: BSL-1.0
//
// The answers as text. Names are escaped, because they may come from the network.

#include "recording_output.hpp"
#include "text/duration_literal.hpp"

#include <asio_pulse/report.hpp>

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <span>
#include <string_view>

namespace asio_pulse::tools {
namespace {

using detail::duration_literal;
using std::chrono::nanoseconds;

constexpr std::size_t name_bytes = 40;
constexpr std::size_t most_tasks = 20;

double ms(nanoseconds value) { return std::chrono::duration<double, std::milli>(value).count(); }

template <typename... Args>
void put(std::string& text, fmt::format_string<Args...> format, Args&&... args) {
  text += fmt::format(format, std::forward<Args>(args)...);
}

void put_head(std::string& text, const recording& r, std::uint64_t polls, std::uint64_t lost) {
  put(text, "{} \"{}\": {} polls on {} workers in {:.3f} ms", escape(r.program, name_bytes),
      escape(r.context, name_bytes), polls, r.workers.size(), ms(r.length));
  put(text, "{}\n", lost == 0 ? "" : fmt::format(", {} events lost", lost));
  if (!r.settings.shadow) {
    text +=
        "It was made with enforcement, so the recorded waits already include the effect of "
        "enforcement.\n";
  }
}

void put_settings(std::string& text, const recorded_settings& s, const replay_options& how) {
  put(text, "stall_threshold {}, yield_threshold {}, isolate_threshold {}, yield_after {}",
      duration_literal(s.stall_threshold), duration_literal(s.yield_threshold),
      duration_literal(s.isolate_threshold), s.tiers.yield_after);
  const auto given = [&text](std::string_view name, const std::optional<nanoseconds>& value) {
    if (value.has_value()) put(text, ", {} {}", name, duration_literal(*value));
  };
  given("budget", how.budget);
  given("per", how.per);
  given("burst", how.burst);
  text += '\n';
}

void put_waits(std::string& text, std::string_view whose, const waiting& before,
               const waiting& after) {
  put(text, "{:<24}{:>9}  {:>12} -> {:<12}{:>12} -> {:<12}{:>12} -> {:<12}\n", whose,
      before.durations.count, fmt::format("{:.3f}", ms(before.p50)),
      fmt::format("{:.3f}", ms(after.p50)), fmt::format("{:.3f}", ms(before.p99)),
      fmt::format("{:.3f}", ms(after.p99)), fmt::format("{:.3f}", ms(before.longest)),
      fmt::format("{:.3f}", ms(after.longest)));
}

void put_figures(std::string& text, std::string_view what, const tuning_figures& f) {
  put(text, "{:<12}{:>12.3f}{:>12.3f}{:>12.3f}{:>10}{:>10}{:>8}{:>10}\n", what, ms(f.others_p50),
      ms(f.others_p99), ms(f.others_longest), f.tasks_touched, f.put_back, f.warns, f.isolations);
}

}  // namespace

std::string replay_text(const recording& r, const recorded_settings& settings,
                        const replay_options& how, const replay_result& result) {
  std::string text;
  put_head(text, r, result.polls, result.lost);
  text += "Replayed with ";
  put_settings(text, settings, how);
  put(text, "\n{:<24}{:>9}  {:>28}{:>28}{:>28}\n", "wait in ms", "polls", "median", "p99",
      "longest");
  put_waits(text, "tasks left alone", result.others_before, result.others_after);
  put_waits(text, fmt::format("tasks held back ({})", result.tasks_touched), result.touched_before,
            result.touched_after);
  put(text, "\n{:<40}{:>9}{:>11}{:>9}{:>9}{:>9}{:>7}", "task", "polls", "CPU ms", "offences",
      "put back", "isolate", "warns");
  for (const std::string_view level : std::span(tier_names).subspan(1)) {
    put(text, "{:>12}", fmt::format("in {}", level));
  }
  put(text, "{:>15}\n", "waits less ms");
  const std::size_t shown = std::min(result.tasks.size(), most_tasks);
  for (std::size_t i = 0; i < shown; ++i) {
    const replayed_task& t = result.tasks[i];
    const std::string name = t.id == 0 && t.name.empty() ? "(of no task)"
                             : t.name.empty()            ? fmt::format("#{}", t.id)
                                                         : escape(t.name, name_bytes - 16);
    put(text, "{:<40}{:>9}{:>11.3f}{:>9}{:>9}{:>9}{:>7}", name, t.polls, ms(t.cpu), t.offences,
        t.put_back, t.isolations, t.warns);
    for (const std::chrono::nanoseconds in : std::span(t.in_tier).subspan(1)) {
      put(text, "{:>12.1f}", ms(in));
    }
    put(text, "{:>15.1f}\n", ms(t.waited_before) - ms(t.waited_after));
  }
  if (shown < result.tasks.size()) put(text, "and {} more\n", result.tasks.size() - shown);
  return text;
}

std::string tune_text(const recording& r, const tuning_goal& goal,
                      const std::vector<proposal>& found) {
  std::string text;
  put(text, "Goal: 99 of 100 polls of tasks that are left alone wait for {} at most.\n",
      duration_literal(goal.others_p99));
  if (found.empty()) {
    const replay_result present = replay(r, r.settings);
    put(text, "p99 {:.3f} ms, {} tasks held back: {}.\n", ms(present.others_after.p99),
        present.tasks_touched,
        present.others_after.p99 <= goal.others_p99
            ? "the recording's settings reach the goal, and no other settings that reach it hold "
              "back fewer tasks"
            : "the goal is not reached, and no settings that were tried come nearer");
    return text;
  }
  put(text, "\n{:<12}{:>12}{:>12}{:>12}{:>10}{:>10}{:>8}{:>10}\n", "wait in ms", "median", "p99",
      "longest", "held back", "put back", "warns", "isolated");
  put_figures(text, "present", found.front().present);
  for (std::size_t i = 0; i < found.size(); ++i) {
    put_figures(text, fmt::format("proposal {}", i + 1), found[i].proposed);
  }
  for (std::size_t i = 0; i < found.size(); ++i) {
    put(text, "\n// Proposal {}{}\n{}\n", i + 1,
        found[i].reaches_goal ? "" : ", which does not reach the goal", to_cpp(found[i]));
  }
  return text;
}

}  // namespace asio_pulse::tools
