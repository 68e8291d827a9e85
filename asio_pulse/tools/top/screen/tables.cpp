// SPDX-License-Identifier: BSL-1.0

#include "tables.hpp"

#include "frame_text.hpp"
#include "text/short_numbers.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <compare>
#include <functional>

namespace asio_pulse::top {
namespace {

using detail::short_duration;
using std::chrono::nanoseconds;

// For searching: ASCII letters in lower case.
std::string folded(std::string_view text) {
  std::string result{text};
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return result;
}

bool contains(const std::string& folded_text, const std::string& wanted) {
  return folded_text.find(wanted) != folded_text.npos;
}

// Sorts the views, and makes rows for those that match the filter.
template <typename View, typename Compare, typename MakeRow>
void fill(table& t, std::vector<const View*> views, const order& how, Compare compare,
          MakeRow make_row) {
  t.sorted_by = t.sortable[how.by % t.sortable.size()];
  t.descending = t.columns[t.sorted_by].descending != how.reverse;
  std::stable_sort(views.begin(), views.end(), [&](const View* a, const View* b) {
    const std::partial_ordering order = compare(*a, *b, t.sorted_by);
    return t.descending ? order > 0 : order < 0;
  });
  const std::string wanted = folded(how.filter);
  for (const View* view : views) {
    table_row row = make_row(*view);
    if (!wanted.empty()) {
      std::string all;
      for (const cell& c : row.cells) all += c.text + '\n';
      for (const line& l : row.below) all += text_of(l) + ' ';
      if (!contains(folded(all), wanted)) continue;
    }
    t.rows.push_back(std::move(row));
  }
}

template <typename View>
std::vector<const View*> pointers(const std::vector<View>& views) {
  std::vector<const View*> result;
  result.reserve(views.size());
  for (const View& view : views) result.push_back(&view);
  return result;
}

double value(const rate& r) noexcept { return r.value_or(-1.0); }

style style_of(tier level) noexcept { return level == tier::monitor ? style::plain : style::warn; }

style style_of_longest(nanoseconds longest) noexcept {
  if (longest >= stuck_running) return style::alarm;
  return longest >= long_running ? style::warn : style::plain;
}

// Adds a mark to the text, since a style alone must not carry a meaning.
std::string with_mark(std::string text, style how) {
  return how == style::alarm || how == style::warn ? "!" + text : text;
}

}  // namespace

std::string rate_text(const rate& r) { return r ? short_number(*r) : "-"; }
std::string load_text(const rate& r) { return r ? percent(*r) : "-"; }

std::string key_of(const task_view& task) { return fmt::format("{}", task.now.id); }

std::string key_of(const site_view& site) {
  return fmt::format("{}:{} {}", site.now.place.file, site.now.place.line, site.now.type);
}

std::string key_of(const group_view& group) { return group.now.path; }

std::string key_of(const context_view& context) {
  return context.now.shard.shards == 0 ? std::string{} : fmt::format("{}", context.now.number);
}

std::string key_of(const stall_metrics& stall) {
  return fmt::format("{} {}", stall.at.time_since_epoch().count(), stall.thread);
}

std::string key_of(const lint& l) {
  return fmt::format("{} {} {}", l.context, to_string(l.kind), l.subject);
}

std::string place_text(const source_place& place, charset set) {
  if (place.file.empty()) return printable(place.function, set);
  return fmt::format("{}:{}", printable(place.file, set), place.line);
}

std::string blamed_text(const stall_metrics& stall, charset set) {
  if (stall.blamed >= stall.stack.size()) return printable(stall.site, set);
  return printable_again(detail::name_of(stall.stack[stall.blamed]), set);
}

std::string move_text(const shard_move_metrics& m, charset set) {
  return fmt::format("{} from {}, {}", printable(m.who, set), m.from, to_string(m.why));
}

std::string age_text(std::chrono::system_clock::time_point then,
                     std::chrono::system_clock::time_point now) {
  using std::chrono::seconds;
  const auto age = std::chrono::floor<seconds>(now - then);
  if (age < seconds{1}) return "now";
  if (age < seconds{60}) return fmt::format("{}s ago", age.count());
  using std::chrono::hours;
  using std::chrono::minutes;
  if (age < hours{1}) return fmt::format("{}m ago", age / minutes{1});
  return fmt::format("{}h ago", age / hours{1});
}

table tasks_table(const context_view& context, const order& how, charset set) {
  enum : std::size_t { load, total, polls, level, waits, id, name };
  table t{.columns = {{"CPU", 6, true, false, false, true},
                      {"CPU TIME", 9, true, false, false, true},
                      {"POLLS/S", 8, true, false, false, true},
                      {"TIER", 7},
                      {"HELD", 4},
                      {"ID", 8, true},
                      {"TASK", 10, false, true}},
          .sortable = {load, total, polls, id, name},
          .when_empty = "No task has run."};
  const auto compare = [](const task_view& a, const task_view& b,
                          std::size_t by) -> std::partial_ordering {
    switch (by) {
      case load:
        return value(a.load) <=> value(b.load);
      case total:
        return a.now.cpu.count() <=> b.now.cpu.count();
      case polls:
        return value(a.polls) <=> value(b.polls);
      case id:
        return a.now.id <=> b.now.id;
      default:
        return a.now.name <=> b.now.name;
    }
  };
  fill(t, pointers(context.tasks), how, compare, [set](const task_view& task) {
    return table_row{.cells = {{load_text(task.load)},
                               {short_duration(task.now.cpu)},
                               {rate_text(task.polls)},
                               {std::string{to_string(task.now.level)}, style_of(task.now.level)},
                               {task.now.waiting ? "yes" : "", style::warn},
                               {fmt::format("{}", task.now.id)},
                               {printable(task.now.name, set)}},
                     .key = key_of(task)};
  });
  return t;
}

table sites_table(const context_view& context, const order& how, charset set) {
  enum : std::size_t { load, polls, mean, longest, again, place, type };
  table t{.columns = {{"CPU", 6, true, false, false, true},
                      {"POLLS/S", 8, true, false, false, true},
                      {"MEAN", 7, true, false, false, true},
                      {"LONGEST", 8, true, false, false, true},
                      {"AGAIN", 6, true, false, false, true},
                      {"PLACE", 5, false, true, true},
                      {"HANDLER", 10, false, true}},
          .sortable = {load, longest, polls, mean, type},
          .when_empty = "No handler has run since the collection began."};
  const auto compare = [](const site_view& a, const site_view& b,
                          std::size_t by) -> std::partial_ordering {
    switch (by) {
      case load:
        return value(a.load) != value(b.load) ? value(a.load) <=> value(b.load)
                                              : a.now.cpu.count() <=> b.now.cpu.count();
      case polls:
        return value(a.polls) <=> value(b.polls);
      case mean:
        return a.mean.count() <=> b.mean.count();
      case longest:
        return a.now.longest.count() <=> b.now.longest.count();
      default:
        return a.now.type <=> b.now.type;
    }
  };
  fill(t, pointers(context.sites), how, compare, [set](const site_view& site) {
    const style slow = style_of_longest(site.now.longest);
    const auto all = static_cast<double>(std::max<std::uint64_t>(site.now.polls, 1));
    return table_row{
        .cells = {{load_text(site.load)},
                  {rate_text(site.polls)},
                  {short_duration(site.mean)},
                  {with_mark(short_duration(site.now.longest), slow), slow},
                  {fmt::format("{:.0f}%", 100.0 * static_cast<double>(site.now.again) / all)},
                  {place_text(site.now.place, set)},
                  {printable(site.now.type, set)}},
        .key = key_of(site)};
  });
  return t;
}

table groups_table(const context_view& context, const order& how, charset set) {
  enum : std::size_t { got, asked, weight, delay, tasks, admitted, refused, path };
  table t{.columns = {{"GOT", 6, true, false, false, true},
                      {"ASKED", 6, true, false, false, true},
                      {"WEIGHT", 6, true, false, false, true},
                      {"DELAY", 7, true, false, false, true},
                      {"TASKS", 6, true, false, false, true},
                      {"ADMITTED/S", 11, true, false, false, true},
                      {"REFUSED/S", 10, true, false, false, true},
                      {"GROUP", 10, false, true, true}},
          .sortable = {got, asked, delay, tasks, admitted, refused, path},
          .when_empty = "No groups: the program has made no task_group."};
  const auto compare = [](const group_view& a, const group_view& b,
                          std::size_t by) -> std::partial_ordering {
    switch (by) {
      case got:
        return a.now.recent != b.now.recent ? a.now.recent.count() <=> b.now.recent.count()
                                            : a.now.cpu.count() <=> b.now.cpu.count();
      case asked:
        return a.now.asked.count() <=> b.now.asked.count();
      case delay:
        return a.now.queue_delay.count() <=> b.now.queue_delay.count();
      case tasks:
        return a.now.tasks <=> b.now.tasks;
      case admitted:
        return value(a.admitted) <=> value(b.admitted);
      case refused:
        return value(a.refused) <=> value(b.refused);
      default:
        return a.now.path <=> b.now.path;
    }
  };
  fill(t, pointers(context.groups), how, compare, [set](const group_view& group) {
    const style turned_away = value(group.refused) > 0 ? style::warn : style::plain;
    return table_row{.cells = {{load_text(group.got)},
                               {load_text(group.asked)},
                               {fmt::format("{}", group.now.weight)},
                               {short_duration(group.now.queue_delay)},
                               {short_number(static_cast<double>(group.now.tasks))},
                               {rate_text(group.admitted)},
                               {with_mark(rate_text(group.refused), turned_away), turned_away},
                               {printable(group.now.path, set)}},
                     .key = key_of(group)};
  });
  return t;
}

table shards_table(const picture& p, const order& how, charset set) {
  enum : std::size_t { number, cpu, delay, movable, in, out, state, last };
  table t{.columns = {{"SHARD", 6, true},
                      {"CPU", 5, true, false, false, true},
                      {"DELAY", 7, true, false, false, true},
                      {"MOVABLE", 7, true, false, false, true},
                      {"IN/S", 6, true, false, false, true},
                      {"OUT/S", 6, true, false, false, true},
                      {"KEEPS", 15},
                      {"LAST MOVE TO IT", 15, false, true}},
          .sortable = {number, cpu, delay, movable, in, out},
          .when_empty = "No shards: the program has no sharded_context."};
  const auto compare = [](const context_view& a, const context_view& b,
                          std::size_t by) -> std::partial_ordering {
    const shard_metrics& x = a.now.shard;
    const shard_metrics& y = b.now.shard;
    switch (by) {
      case cpu:
        return x.cpu_permille <=> y.cpu_permille;
      case delay:
        return x.delay.count() <=> y.delay.count();
      case movable:
        return x.movable <=> y.movable;
      case in:
        return value(a.moves_in) <=> value(b.moves_in);
      case out:
        return value(a.moves_out) <=> value(b.moves_out);
      default:
        return x.set != y.set ? x.set <=> y.set : x.index <=> y.index;
    }
  };
  std::vector<const context_view*> shards;
  bool several = false;
  for (const context_view& context : p.contexts) {
    if (context.now.shard.shards == 0) continue;
    several =
        several || (!shards.empty() && shards.front()->now.shard.set != context.now.shard.set);
    shards.push_back(&context);
  }
  fill(t, shards, how, compare, [set, several](const context_view& context) {
    const shard_metrics& s = context.now.shard;
    const style slow = style_of_longest(s.delay);
    const style busy = s.cpu_permille > 900 ? style::warn : style::plain;
    return table_row{
        .cells = {{several ? fmt::format("{}.{}", s.set, s.index) : fmt::format("{}", s.index)},
                  {fmt::format("{}%", s.cpu_permille / 10), busy},
                  {with_mark(short_duration(s.delay), slow), slow},
                  {short_number(static_cast<double>(s.movable))},
                  {rate_text(context.moves_in)},
                  {rate_text(context.moves_out)},
                  {s.draining ? std::string{"draining"} : std::string{to_string(s.keeps)}},
                  {s.moves.empty() ? std::string{} : move_text(s.moves.front(), set)}},
        .key = key_of(context)};
  });
  return t;
}

table stalls_table(const context_view& context, std::chrono::system_clock::time_point now,
                   const order& how, charset set) {
  enum : std::size_t { when, lasted, cause, call, task, where };
  table t{.columns = {{"WHEN", 10, true, false, false, true},
                      {"LASTED", 9, true, false, false, true},
                      {"CAUSE", 11},
                      {"CALL", 12, false, true},
                      {"TASK", 8, false, true},
                      {"TO BLAME", 12, false, true}},
          .sortable = {when, lasted},
          .when_empty = "No stalls."};
  const auto compare = [](const stall_metrics& a, const stall_metrics& b,
                          std::size_t by) -> std::partial_ordering {
    return by == when ? a.at <=> b.at : a.lasted.count() <=> b.lasted.count();
  };
  fill(t, pointers(context.now.stalls), how, compare, [set, now](const stall_metrics& stall) {
    const style how_bad = stall.ended ? style_of_longest(stall.lasted) : style::alarm;
    return table_row{.cells = {{age_text(stall.at, now)},
                               {short_duration(stall.lasted) + (stall.ended ? "" : "+"), how_bad},
                               {std::string{to_string(stall.cause)}},
                               {printable(stall.system_call, set)},
                               {printable(stall.task, set)},
                               {blamed_text(stall, set)}},
                     .key = key_of(stall)};
  });
  return t;
}

table lints_table(const picture& p, const order& how, std::size_t width, charset set) {
  constexpr std::size_t indent = 4;
  table t{.columns = {{"LINTS, WORST FIRST", 14, false, true}},
          .sortable = {0},
          .when_empty = "No lints: no long or blocked handlers, no rising delay."};
  // Lints are sorted already.
  const auto compare = [](const lint&, const lint&, std::size_t) -> std::partial_ordering {
    return std::partial_ordering::equivalent;
  };
  fill(t, pointers(p.lints), order{.filter = how.filter}, compare, [&](const lint& l) {
    table_row row{.key = key_of(l)};
    std::string title{to_string(l.kind)};
    if (p.contexts.size() > 1) title += fmt::format(" (context {})", l.context);
    row.cells.push_back({"! " + title, style::warn});
    const std::string blank(indent, ' ');
    for (const std::string& text :
         wrap(printable_again(l.text, set), width - std::min(width, indent))) {
      row.below.emplace_back(blank + text);
    }
    bool first = true;
    for (const std::string& text :
         wrap(printable_again(l.advice, set), width - std::min(width, indent + 2))) {
      row.below.push_back(line{blank + (first ? "> " : "  ") + text, style::good});
      first = false;
    }
    return row;
  });
  if (how.reverse) std::reverse(t.rows.begin(), t.rows.end());
  return t;
}

std::vector<std::size_t> widths_of(const table& t, std::size_t width) {
  std::vector<std::size_t> result;
  std::vector<std::size_t> needed;                                   // beyond the least width
  std::size_t fixed = t.columns.empty() ? 0 : t.columns.size() - 1;  // the gaps
  for (std::size_t i = 0; i != t.columns.size(); ++i) {
    std::size_t widest = 0;
    for (const table_row& row : t.rows) {
      if (i < row.cells.size()) widest = std::max(widest, width_of(row.cells[i].text));
    }
    const column& c = t.columns[i];
    result.push_back(c.width);
    needed.push_back(c.grows && widest > c.width ? widest - c.width : 0);
    fixed += c.width;
  }
  std::size_t spare = width > fixed ? width - fixed : 0;
  for (std::size_t i = 0; i != t.columns.size(); ++i) {
    if (!t.columns[i].grows) continue;
    std::size_t later = 0;
    bool last = true;
    for (std::size_t other = i + 1; other != t.columns.size(); ++other) {
      later += needed[other];
      last = last && !t.columns[other].grows;
    }
    // It gets what the later columns do not need, and at least two fifths.
    const std::size_t share = std::max(spare * 2 / 5, spare > later ? spare - later : 0);
    const std::size_t more = last ? spare : std::min(share, needed[i]);
    result[i] += more;
    spare -= more;
  }
  return result;
}

line heading_of(const table& t, const std::vector<std::size_t>& widths, charset set) {
  const std::string_view down = set == charset::utf8 ? "\u25bc" : "v";
  const std::string_view up = set == charset::utf8 ? "\u25b2" : "^";
  line l;
  for (std::size_t i = 0; i != t.columns.size(); ++i) {
    std::string title{t.columns[i].title};
    if (i == t.sorted_by && t.sortable.size() > 1) title += t.descending ? down : up;
    if (i != 0) l.add(" ");
    l.add(t.columns[i].right ? right(title, widths[i], set) : left(title, widths[i], set),
          style::title);
  }
  return l;
}

line line_of(const table& t, const table_row& row, const std::vector<std::size_t>& widths,
             charset set) {
  line l;
  for (std::size_t i = 0; i != t.columns.size() && i != row.cells.size(); ++i) {
    const column& c = t.columns[i];
    std::string text = row.cells[i].text;
    if (c.keeps_end) text = cut_start(text, widths[i], set);
    if (i != 0) l.add(" ");
    const bool last = i + 1 == t.columns.size();
    l.add(c.right ? right(text, widths[i], set)
                  : (last ? cut(text, widths[i], set) : left(text, widths[i], set)),
          row.cells[i].how);
  }
  return l;
}

}  // namespace asio_pulse::top
