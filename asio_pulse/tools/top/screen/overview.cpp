// SPDX-License-Identifier: BSL-1.0

#include "text/short_numbers.hpp"
#include "ui.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

namespace asio_pulse::top {
namespace {

using detail::short_duration;

// A worker: a bar, longer on wide terminals, and what the worker runs now.
line worker_line(const worker_view& worker, std::size_t columns, charset set) {
  const std::size_t bar_width = std::clamp<std::size_t>(columns / 5, 8, 40);
  line l;
  l.add(fmt::format("{:>8} ", worker.now.thread));
  const double load = worker.load.value_or(0.0);
  l.add("[").add(bar(load, bar_width, set), load > 0.9 ? style::warn : style::good).add("]");
  l.add(fmt::format("{:>7}{:>7}/s  ", load_text(worker.load), rate_text(worker.polls)));
  if (worker.now.running.empty()) return std::move(l.add("-", style::dim));
  const std::string what = printable(worker.now.running, set);
  const std::string for_long = short_duration(worker.now.running_for);
  if (worker.now.running_for >= stuck_running) {
    const std::string in = worker.waits_in.empty() ? "" : " in " + printable(worker.waits_in, set);
    l.add(fmt::format("STUCK {}{}: ", for_long, in), style::alarm).add(what, style::alarm);
  } else if (worker.now.running_for >= long_running) {
    l.add(fmt::format("! {} {}", for_long, what), style::warn);
  } else {
    l.add(fmt::format("{} {}", for_long, what));
  }
  return l;
}

void workers(std::vector<line>& out, const context_view& context, size room, charset set) {
  // Stuck workers first, then by thread id.
  std::vector<const worker_view*> all;
  for (const worker_view& worker : context.workers) all.push_back(&worker);
  std::stable_sort(all.begin(), all.end(), [](const worker_view* a, const worker_view* b) {
    const bool stuck_a = a->now.running_for >= stuck_running;
    const bool stuck_b = b->now.running_for >= stuck_running;
    return stuck_a != stuck_b ? stuck_a : a->now.thread < b->now.thread;
  });
  const std::size_t most = std::max<std::size_t>(room.rows / 4, 2);
  const std::size_t shown = all.size() <= most ? all.size() : most - 1;
  out.push_back(
      line{fmt::format("{:>8}  {}", "THREAD", "CPU, POLLS, WHAT IT RUNS NOW"), style::title});
  for (std::size_t i = 0; i != shown; ++i) {
    out.push_back(worker_line(*all[i], room.columns, set));
  }
  if (shown != all.size()) {
    out.push_back(line{fmt::format("{:>8} more workers", all.size() - shown), style::dim});
  }
  if (all.empty()) {
    out.push_back(line{context.now.collecting ? "         no thread runs the context"
                                              : "         the collection has just started",
                       style::dim});
  }
}

std::string a_second(const rate& r) { return r ? short_number(*r) + "/s" : "-"; }

void totals(std::vector<line>& out, const context_view& context, std::size_t columns) {
  const statistics& now = context.now.totals;
  const totals_view& t = context.totals;
  const auto so_far = [](std::uint64_t count, const rate& r) {
    return r && *r > 0 ? fmt::format("{} (+{}/s)", count, short_number(*r))
                       : short_number(static_cast<double>(count));
  };
  struct figure {
    std::string text;
    style how = style::plain;
  };
  std::vector<figure> all{{"polls " + a_second(t.polls)},
                          {"cpu " + load_text(t.load)},
                          {"yields " + a_second(t.of(&statistics::yields))},
                          {"checkpoint yields " + a_second(t.of(&statistics::checkpoint_yields))},
                          {"held back now " + short_number(static_cast<double>(now.parked)),
                           now.parked != 0 ? style::warn : style::plain},
                          {"isolated " + a_second(t.of(&statistics::isolated))},
                          {"stalls " + so_far(now.stalls, t.of(&statistics::stalls)),
                           now.stalls != 0 ? style::warn : style::plain},
                          {"reports " + so_far(now.reports, t.of(&statistics::reports))},
                          {"spares " + short_number(static_cast<double>(now.spares))},
                          {"hints " + a_second(t.of(&statistics::hints))}};
  const std::uint64_t refused = now.requests_refused_share + now.requests_refused_overload;
  if (now.requests_admitted != 0 || refused != 0) {
    rate by_both = t.of(&statistics::requests_refused_share);
    const rate by_overload = t.of(&statistics::requests_refused_overload);
    if (by_both && by_overload) *by_both += *by_overload;
    all.push_back({"requests admitted " + a_second(t.of(&statistics::requests_admitted))});
    all.push_back({"refused " + so_far(refused, by_both),
                   by_both.value_or(0) > 0 ? style::warn : style::plain});
  }
  if (now.updates != 0) {
    all.push_back({"updates " + so_far(now.updates, t.of(&statistics::updates))});
  }
  line l;
  std::size_t used = 0;
  for (const figure& f : all) {
    const std::string gap = used == 0 ? " " : "   ";
    if (used != 0 && used + gap.size() + f.text.size() > columns) {
      out.push_back(std::exchange(l, line{}));
      used = 0;
    }
    l.add(used == 0 ? " " : gap).add(f.text, f.how);
    used = width_of(l);
  }
  out.push_back(std::move(l));
}

line delay_line(std::string_view name, const duration_view& d) {
  line l;
  l.add(fmt::format("{:>14}", name));
  if (d.count == 0) return std::move(l.add("   none counted", style::dim));
  const style slow = d.p99 >= stuck_running  ? style::alarm
                     : d.p99 >= long_running ? style::warn
                                             : style::plain;
  l.add(fmt::format("{:>9}", short_duration(d.p50)));
  l.add(fmt::format("{:>9}", (slow == style::plain ? "" : "!") + short_duration(d.p99)), slow);
  l.add(fmt::format("{:>9}", short_duration(d.most)));
  l.add(fmt::format("{:>8}", short_number(static_cast<double>(d.count))));
  return l;
}

void delays(std::vector<line>& out, const context_view& context, const history& past,
            std::size_t columns, charset set) {
  out.push_back(line{fmt::format("{:>14}{:>9}{:>9}{:>9}{:>8}", "", "p50", "p99", "max", "count"),
                     style::title});
  line queue = delay_line("queue delay", context.queue_delay);
  const auto found = past.find(context.now.number);
  if (found != past.end() && !found->second.empty()) {
    const auto most = *std::max_element(found->second.begin(), found->second.end());
    const std::string label = fmt::format(" p99, up to {}", short_duration(most));
    const std::size_t used = width_of(queue) + 2 + label.size();
    if (used + 4 <= columns) {
      const std::size_t wide = std::min(columns - used, found->second.size());
      queue.add("  ").add(sparkline(found->second, most, wide, set)).add(label, style::dim);
    }
  }
  out.push_back(std::move(queue));
  out.push_back(delay_line("poll duration", context.poll_duration));
}

void top_of(std::vector<line>& out, const table& t, std::size_t rows, std::size_t columns,
            charset set) {
  if (rows < 2) return;
  const auto widths = widths_of(t, columns);
  out.push_back(heading_of(t, widths, set));
  for (std::size_t i = 0; i != t.rows.size() && i + 1 < rows; ++i) {
    out.push_back(line_of(t, t.rows[i], widths, set));
  }
  if (t.rows.empty()) out.emplace_back(std::string{t.when_empty}, style::dim);
}

void worst_lint(std::vector<line>& out, const picture& p, size room, charset set) {
  const std::size_t columns = room.columns;
  if (p.lints.empty()) {
    out.emplace_back(" No lints.", style::dim);
    return;
  }
  const lint& worst = p.lints.front();
  const std::string more = p.lints.size() == 1 ? "" : fmt::format(", {} more", p.lints.size() - 1);
  const std::string text =
      fmt::format("! {}: {}", to_string(worst.kind), printable_again(worst.text, set));
  const std::string tail = fmt::format(" (5: what to do{})", more);
  // A few lines. The last one leaves room for the note where to read more.
  const std::size_t most = room.rows >= 20 ? 3 : 2;
  auto lines = wrap(text, columns);
  if (lines.size() > most) {
    lines[most - 1] =
        cut(lines[most - 1] + " " + lines[most], columns - std::min(columns, tail.size()), set);
    lines.resize(most);
  }
  for (std::string& l : lines) out.emplace_back(std::move(l), style::warn);
  if (width_of(out.back()) + tail.size() <= columns) {
    out.back().add(tail, style::dim);
  } else {
    out.emplace_back(tail, style::dim);
  }
}

}  // namespace

std::vector<line> figures(const context_view& context, const history& past, size room,
                          charset set) {
  std::vector<line> lines;
  workers(lines, context, room, set);
  totals(lines, context, room.columns);
  delays(lines, context, past, room.columns, set);
  return lines;
}

std::vector<line> overview(const picture& p, const context_view& context, const history& past,
                           size room, charset set) {
  std::vector<line> lines;
  worst_lint(lines, p, room, set);
  for (line& l : figures(context, past, room, set)) lines.push_back(std::move(l));
  const std::size_t left = room.rows > lines.size() ? room.rows - lines.size() : 0;
  top_of(lines, sites_table(context, {}, set), std::max<std::size_t>((left + 1) / 2, 3),
         room.columns, set);
  const std::size_t rest = room.rows > lines.size() ? room.rows - lines.size() : 0;
  top_of(lines, tasks_table(context, {}, set), std::max<std::size_t>(rest, 3), room.columns, set);
  return lines;
}

}  // namespace asio_pulse::top
