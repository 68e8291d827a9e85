// SPDX-License-Identifier: BSL-1.0

#include "recording_output.hpp"
#include "text/utf8.hpp"

#include <boost/json.hpp>

#include <string_view>

namespace asio_pulse::tools {
namespace {

namespace json = boost::json;
using std::chrono::nanoseconds;

// Invalid UTF-8, and control characters that JSON does not escape, become U+FFFD.
json::string text(std::string_view bytes) {
  json::string result;
  while (!bytes.empty()) {
    const detail::code_point c = detail::first_code_point(bytes);
    if (c.length == 0 || (c.value >= 0x7f && c.value <= 0x9f)) {
      result.append("\xef\xbf\xbd");
    } else {
      result.append(bytes.substr(0, c.length));
    }
    bytes.remove_prefix(c.length == 0 ? 1 : c.length);
  }
  return result;
}

json::value optional_ns(const std::optional<nanoseconds>& value) {
  return value.has_value() ? json::value(value->count()) : json::value(nullptr);
}

json::object settings_object(const recorded_settings& s, const std::optional<nanoseconds>& budget,
                             const std::optional<nanoseconds>& per) {
  return {{"stall_threshold_ns", s.stall_threshold.count()},
          {"yield_threshold_ns", s.yield_threshold.count()},
          {"isolate_threshold_ns", s.isolate_threshold.count()},
          {"yield_after", s.tiers.yield_after},
          {"isolate_after", s.tiers.isolate_after},
          {"clean_window_ns", s.tiers.clean_window.count()},
          {"isolate_clean_window_ns", s.tiers.isolate_clean_window.count()},
          {"shadow", s.shadow},
          {"budget_ns", optional_ns(budget)},
          {"per_ns", optional_ns(per)}};
}

json::object waiting_object(const waiting& w) {
  json::array buckets;
  for (const histogram::bucket& b : w.durations.buckets) {
    buckets.push_back(json::array{b.upper.count(), b.count});
  }
  return {{"polls", w.durations.count},      {"sum_ns", w.durations.sum.count()},
          {"p50_ns", w.p50.count()},         {"p99_ns", w.p99.count()},
          {"longest_ns", w.longest.count()}, {"buckets", std::move(buckets)}};
}

json::object task_object(const replayed_task& t) {
  json::object in_tier;
  for (std::size_t i = 0; i < t.in_tier.size(); ++i) {
    in_tier[std::string(to_string(static_cast<tier>(i))) + "_ns"] = t.in_tier[i].count();
  }
  return {{"id", t.id},
          {"name", text(t.name)},
          {"polls", t.polls},
          {"cpu_ns", t.cpu.count()},
          {"offences", t.offences},
          {"warns", t.warns},
          {"put_back", t.put_back},
          {"isolations", t.isolations},
          {"in_tier", std::move(in_tier)},
          {"waited_before_ns", t.waited_before.count()},
          {"waited_after_ns", t.waited_after.count()}};
}

json::object figures_object(const tuning_figures& f) {
  return {{"others_p50_ns", f.others_p50.count()},
          {"others_p99_ns", f.others_p99.count()},
          {"others_longest_ns", f.others_longest.count()},
          {"tasks_touched", f.tasks_touched},
          {"put_back", f.put_back},
          {"warns", f.warns},
          {"isolations", f.isolations}};
}

json::object head(const recording& r) {
  return {{"program", text(r.program)},
          {"context", text(r.context)},
          {"pid", r.pid},
          {"length_ns", r.length.count()}};
}

}  // namespace

std::string replay_json(const recording& r, const recorded_settings& settings,
                        const replay_options& how, const replay_result& result) {
  json::object o = head(r);
  o["polls"] = result.polls;
  o["lost"] = result.lost;
  json::object replayed = settings_object(settings, how.budget, how.per);
  replayed["burst_ns"] = optional_ns(how.burst);
  o["settings"] = std::move(replayed);
  o["tasks_touched"] = result.tasks_touched;
  o["put_back"] = result.put_back;
  o["warns"] = result.warns;
  o["isolations"] = result.isolations;
  o["others_before"] = waiting_object(result.others_before);
  o["others_after"] = waiting_object(result.others_after);
  o["touched_before"] = waiting_object(result.touched_before);
  o["touched_after"] = waiting_object(result.touched_after);
  json::array tasks;
  for (const replayed_task& t : result.tasks) tasks.push_back(task_object(t));
  o["tasks"] = std::move(tasks);
  return json::serialize(o) + "\n";
}

std::string tune_json(const recording& r, const tuning_goal& goal,
                      const std::vector<proposal>& found) {
  json::object o = head(r);
  o["goal_p99_ns"] = goal.others_p99.count();
  if (found.empty()) {
    const replay_result present = replay(r, r.settings);
    o["present"] = figures_object({.others_p50 = present.others_after.p50,
                                   .others_p99 = present.others_after.p99,
                                   .others_longest = present.others_after.longest,
                                   .tasks_touched = present.tasks_touched,
                                   .put_back = present.put_back,
                                   .warns = present.warns,
                                   .isolations = present.isolations});
  } else {
    o["present"] = figures_object(found.front().present);
  }
  json::array proposals;
  for (const proposal& p : found) {
    proposals.push_back(json::object{{"settings", settings_object(p.settings, p.budget, p.per)},
                                     {"proposed", figures_object(p.proposed)},
                                     {"reaches_goal", p.reaches_goal},
                                     {"cpp", to_cpp(p)}});
  }
  o["proposals"] = std::move(proposals);
  return json::serialize(o) + "\n";
}

}  // namespace asio_pulse::tools
