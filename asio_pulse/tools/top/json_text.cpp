// SPDX-License-Identifier: BSL-1.0

#include "frame_text.hpp"
#include "output.hpp"

#include <asio_pulse/report.hpp>

#include <boost/json.hpp>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <variant>

namespace asio_pulse::top {
namespace {

namespace json = boost::json;
using std::chrono::nanoseconds;

// The limit for names, which may be any bytes, while JSON is UTF-8.
constexpr std::size_t name_bytes = 16384;
std::string text(std::string_view bytes) { return escape(bytes, name_bytes); }

std::int64_t ns(nanoseconds value) { return value.count(); }

std::int64_t ns(std::chrono::system_clock::time_point value) {
  return std::chrono::duration_cast<nanoseconds>(value.time_since_epoch()).count();
}

json::value plain(std::uint64_t value) { return value; }
json::value plain(bool value) { return value; }
json::value plain(nanoseconds value) { return ns(value); }

json::value number(const rate& r) { return r ? json::value(*r) : json::value(nullptr); }

json::value place(const source_place& where) {
  if (where.file.empty() && where.function.empty()) return nullptr;
  return json::object{
      {"file", text(where.file)}, {"line", where.line}, {"function", text(where.function)}};
}

json::object value_of(const duration_view& d) {
  return {{"count", d.count}, {"p50_ns", ns(d.p50)}, {"p99_ns", ns(d.p99)}, {"max_ns", ns(d.most)}};
}

// What pulse_top works out of a figure, and shows after it.
struct derived {
  std::string_view of;
  std::string_view name;
  json::value value;
};

template <typename Of>
void put_figures(json::object& to, const Of& of, std::initializer_list<derived> also = {}) {
  for (const figure<Of>& row : figure_table<Of>) {
    if (!row.json.empty()) {
      std::visit([&](auto member) { to[std::string(row.json)] = plain(of.*member); }, row.member);
    }
    for (const derived& d : also) {
      if (d.of == row.name) to[std::string(d.name)] = d.value;
    }
  }
}

json::object value_of(const worker_view& w) {
  json::object object;
  put_figures(object, w.now);
  object["load"] = number(w.load);
  object["polls_per_second"] = number(w.polls);
  object["running"] = nullptr;
  if (!w.now.running.empty()) {
    object["running"] = json::object{{"site", text(w.now.running)},
                                     {"task", w.now.running_task},
                                     {"for_ns", ns(w.now.running_for)},
                                     {"system_call", text(w.waits_in)}};
  }
  return object;
}

json::object value_of(const task_view& t) {
  json::object object{{"id", t.now.id},
                      {"name", text(t.now.name)},
                      {"tier", to_string(t.now.level)},
                      {"load", number(t.load)}};
  put_figures(object, t.now, {{"polls", "polls_per_second", number(t.polls)}});
  return object;
}

json::object value_of(const site_view& s) {
  json::object object{{"type", text(s.now.type)},
                      {"place", place(s.now.place)},
                      {"load", number(s.load)},
                      {"lock", text(s.now.lock)}};
  put_figures(object, s.now,
              {{"polls", "polls_per_second", number(s.polls)}, {"again", "mean_ns", ns(s.mean)}});
  return object;
}

json::object value_of(const group_view& g) {
  json::object object{{"path", text(g.now.path)},
                      {"name", text(g.now.name)},
                      {"share_got", number(g.got)},
                      {"share_asked", number(g.asked)},
                      {"load", number(g.load)}};
  put_figures(object, g.now,
              {{"admitted", "admitted_per_second", number(g.admitted)},
               {"refused_overload", "refused_per_second", number(g.refused)}});
  return object;
}

json::object value_of(const shard_move_metrics& m) {
  return {{"who", text(m.who)},      {"from", m.from},      {"to", m.to},
          {"why", to_string(m.why)}, {"ago_ns", ns(m.ago)}, {"took_ns", ns(m.took)}};
}

json::object value_of(const stall_metrics& s) {
  json::array stack;
  for (const stack_frame& frame : s.stack) {
    stack.emplace_back(printable_again(detail::text_of(frame), charset::ascii));
  }
  return {{"at_unix_ns", ns(s.at)},
          {"lasted_ns", ns(s.lasted)},
          {"ended", s.ended},
          {"cause", to_string(s.cause)},
          {"system_call", text(s.system_call)},
          {"task_id", s.task_id},
          {"task", text(s.task)},
          {"site", text(s.site)},
          {"place", place(s.place)},
          {"thread", s.thread},
          {"stack", std::move(stack)},
          {"blamed", s.blamed < s.stack.size() ? json::value(s.blamed) : json::value(nullptr)}};
}

json::object value_of(const lint& l) {
  return {{"kind", to_string(l.kind)},  {"context", l.context},
          {"subject", text(l.subject)}, {"text", printable_again(l.text, charset::ascii)},
          {"advice", l.advice},         {"anchor", l.anchor}};
}

json::object value_of(const context_view&);

template <typename Range>
json::array array_of(const Range& range) {
  json::array array;
  array.reserve(range.size());
  for (const auto& element : range) array.emplace_back(value_of(element));
  return array;
}

json::value shard_of(const context_view& c) {
  const shard_metrics& s = c.now.shard;
  if (s.shards == 0) return nullptr;
  json::object object{{"keeps", to_string(s.keeps)},
                      {"moves_in_per_second", number(c.moves_in)},
                      {"moves_out_per_second", number(c.moves_out)},
                      {"moves", array_of(s.moves)}};
  put_figures(object, s);
  return object;
}

json::object totals_of(const context_view& c) {
  json::object object{{"polls", c.now.polls},
                      {"polls_per_second", number(c.totals.polls)},
                      {"cpu_ns", ns(c.now.cpu)},
                      {"load", number(c.totals.load)}};
  for (std::size_t i = 0; i < statistic_table.size(); ++i) {
    const statistic& row = statistic_table[i];
    const std::string name(row.name);
    if (row.count == nullptr) {
      object[name + "_ns"] = ns(c.now.totals.*row.time);
      continue;
    }
    object[name] = c.now.totals.*row.count;
    if (row.what == statistic::kind::counter) {
      object[name + "_per_second"] = number(c.totals.counted[i]);
    }
  }
  return object;
}

json::object value_of(const context_view& c) {
  return {{"number", c.now.number},
          {"name", text(c.now.name)},
          {"enabled", c.now.enabled},
          {"shadow", c.now.shadow},
          {"collecting", c.now.collecting},
          {"clock", timing::to_string(c.now.totals.clock)},
          {"totals", totals_of(c)},
          {"queue_delay", value_of(c.queue_delay)},
          {"poll_duration", value_of(c.poll_duration)},
          {"workers", array_of(c.workers)},
          {"task_count", c.now.task_count},
          {"tasks", array_of(c.tasks)},
          {"sites", array_of(c.sites)},
          {"group_count", c.now.group_count},
          {"groups", array_of(c.groups)},
          {"shard", shard_of(c)},
          {"stalls", array_of(c.now.stalls)}};
}

}  // namespace

std::string json_text(const picture& p) {
  return json::serialize(json::object{
      {"schema", "asio-pulse-top/1"},
      {"pid", p.pid},
      {"program", text(p.program)},
      {"version", text(p.version)},
      {"at_unix_ns", ns(p.at)},
      {"age_ns", p.age ? json::value(ns(*p.age)) : json::value(nullptr)},
      {"interval_ns", p.interval ? json::value(ns(*p.interval)) : json::value(nullptr)},
      {"contexts", array_of(p.contexts)},
      {"lints", array_of(p.lints)}});
}

}  // namespace asio_pulse::top
