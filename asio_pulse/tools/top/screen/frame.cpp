// SPDX-License-Identifier: BSL-1.0

#include "details.hpp"
#include "text/short_numbers.hpp"
#include "ui.hpp"

#include <fmt/core.h>

#include <algorithm>

namespace asio_pulse::top {
namespace {

using detail::short_duration;

constexpr std::size_t least_columns = 40;
constexpr std::size_t least_rows = 8;
constexpr std::size_t most_remembered = 240;

const context_view* context_of(const picture& p, const ui_state& ui) {
  return ui.context < p.contexts.size() ? &p.contexts[ui.context] : nullptr;
}

table table_of(const picture& p, const context_view& context, const ui_state& ui,
               std::size_t columns, charset set) {
  order how = ui.lists[static_cast<std::size_t>(ui.shown)].how;
  how.filter = ui.filter;
  switch (ui.shown) {
    case pane::tasks:
      return tasks_table(context, how, set);
    case pane::sites:
      return sites_table(context, how, set);
    case pane::groups:
      return groups_table(context, how, set);
    case pane::shards:
      return shards_table(p, how, set);
    case pane::stalls:
      return stalls_table(context, p.at, how, set);
    default:
      return lints_table(p, how, columns, set);
  }
}

template <typename View>
const View* with_key(const std::vector<View>& views, const std::string& key) {
  const auto found =
      std::find_if(views.begin(), views.end(), [&](const View& v) { return key_of(v) == key; });
  return found == views.end() ? nullptr : &*found;
}

std::vector<line> details_of_row(const picture& p, const context_view& context, pane shown,
                                 const std::string& key, std::size_t columns, charset set) {
  switch (shown) {
    case pane::tasks:
      if (const auto* const task = with_key(context.tasks, key)) {
        return details_of(*task, context, columns, set);
      }
      break;
    case pane::groups:
      if (const auto* const group = with_key(context.groups, key)) {
        return details_of(*group, context, columns, set);
      }
      break;
    case pane::shards:
      if (const auto* const shard = with_key(p.contexts, key)) {
        return details_of(*shard, columns, set);
      }
      break;
    case pane::sites:
      if (const auto* const site = with_key(context.sites, key)) {
        return details_of(*site, columns, set);
      }
      break;
    case pane::stalls:
      if (const auto* const stall = with_key(context.now.stalls, key)) {
        return details_of(*stall, p.at, columns, set);
      }
      break;
    default:
      if (const auto* const found = with_key(p.lints, key)) return details_of(*found, columns, set);
      break;
  }
  return {line{"This row is no longer in the list.", style::dim}};
}

// Keeps the selection on the same row if it still exists, and within the list.
void follow(ui_state::list& list, const table& t) {
  if (t.rows.empty()) {
    list.selected = 0;
    return;
  }
  if (!list.key.empty()) {
    const auto same = std::find_if(t.rows.begin(), t.rows.end(),
                                   [&](const table_row& row) { return row.key == list.key; });
    if (same != t.rows.end()) list.selected = static_cast<std::size_t>(same - t.rows.begin());
  }
  list.selected = std::min(list.selected, t.rows.size() - 1);
  // Only if the user has moved the selection: at the top it stays at the top.
  list.key = list.selected == 0 ? std::string{} : t.rows[list.selected].key;
}

std::size_t height_of(const table_row& row) { return 1 + row.below.size(); }

// Scrolls so that the whole selected row is visible, or at least its beginning.
void scroll_to(ui_state::list& list, const table& t, std::size_t rows) {
  list.top = std::min(list.top, list.selected);
  std::size_t used = 0;
  for (std::size_t i = list.top; i <= list.selected && i < t.rows.size(); ++i) {
    used += height_of(t.rows[i]);
  }
  while (used > rows && list.top < list.selected) used -= height_of(t.rows[list.top++]);
}

// The heading, with a note behind the last title, if there is room, that there are more rows.
line heading_with(std::string_view seen, const table& t, std::vector<std::size_t> widths,
                  charset set) {
  if (widths.back() < t.columns.back().title.size() + seen.size() + 2) {
    return heading_of(t, widths, set);
  }
  widths.back() -= seen.size();
  return std::move(heading_of(t, widths, set).add(std::string{seen}, style::dim));
}

std::vector<line> list_pane(const picture& p, const context_view& context, ui_state& ui, size room,
                            charset set) {
  const table t = table_of(p, context, ui, room.columns, set);
  const auto widths = widths_of(t, room.columns);
  std::vector<line> lines{heading_of(t, widths, set)};
  ui_state::list& list = ui.current();
  follow(list, t);
  ui.page = room.rows - 1;
  if (t.rows.empty()) {
    ui.details = false;
    lines.emplace_back(
        ui.filter.empty() ? std::string{t.when_empty} : std::string{"No row has that text."},
        style::dim);
    return lines;
  }
  if (ui.details) {
    list.key = t.rows[list.selected].key;
    lines = details_of_row(p, context, ui.shown, list.key, room.columns, set);
    const std::size_t last = lines.size() > room.rows ? lines.size() - room.rows : 0;
    ui.details_top = std::min(ui.details_top, last);
    lines.erase(lines.begin(), lines.begin() + static_cast<std::ptrdiff_t>(ui.details_top));
    return lines;
  }
  scroll_to(list, t, ui.page);
  std::size_t i = list.top;
  for (; i != t.rows.size() && lines.size() < room.rows; ++i) {
    lines.push_back(line_of(t, t.rows[i], widths, set));
    lines.back().selected = i == list.selected;
    for (const line& l : t.rows[i].below) lines.push_back(l);
  }
  if (list.top != 0 || i != t.rows.size()) {
    lines.front() =
        heading_with(fmt::format("{}-{} of {}", list.top + 1, i, t.rows.size()), t, widths, set);
  }
  return lines;
}

void scroll_overview(std::vector<line>& lines, ui_state& ui, std::size_t rows) {
  ui_state::list& list = ui.current();
  const std::size_t last = lines.size() > rows ? lines.size() - rows : 0;
  list.selected = std::min(list.selected, last);
  lines.erase(lines.begin(), lines.begin() + static_cast<std::ptrdiff_t>(list.selected));
}

}  // namespace

const group_view* selected_group(const picture& p, const ui_state& ui) {
  const context_view* const context = context_of(p, ui);
  if (context == nullptr || ui.shown != pane::groups) return nullptr;
  constexpr std::size_t any_width = 80;  // does not change the rows
  const table t = table_of(p, *context, ui, any_width, charset::ascii);
  ui_state::list list = ui.lists[static_cast<std::size_t>(ui.shown)];
  follow(list, t);
  return t.rows.empty() ? nullptr : with_key(context->groups, t.rows[list.selected].key);
}

void remember(history& past, const picture& p) {
  for (const context_view& context : p.contexts) {
    auto& values = past[context.now.number];
    values.push_back(context.queue_delay.p99);
    if (values.size() > most_remembered) values.erase(values.begin());
  }
}

std::vector<line> header(const picture& p, const ui_state& ui, std::size_t columns, charset set) {
  line first;
  first.add(cut(printable(p.program, set), columns / 3, set), style::title);
  first.add(fmt::format("  pid {}  up {}  asio-pulse {}", p.pid,
                        p.age ? short_duration(*p.age) : "-",
                        cut(printable(p.version, set), 16, set)));
  std::string state = "every " + short_duration(ui.interval);
  if (ui.frozen) state = "FROZEN (f: continue)";
  if (ui.ended) state = "ENDED";
  const std::size_t used = width_of(first);
  if (used + 2 + state.size() <= columns)
    first.add(std::string(columns - used - state.size(), ' '));
  else
    first.add("  ");
  first.add(state, ui.frozen || ui.ended ? style::alarm : style::dim);

  line second;
  const context_view* const context = context_of(p, ui);
  if (context == nullptr) {
    second.add("The process has no context now.", style::warn);
  } else {
    second.add(p.contexts.size() == 1
                   ? std::string{"context"}
                   : fmt::format("context {}/{} (c: next)", ui.context + 1, p.contexts.size()));
    if (!context->now.name.empty()) {
      second.add(" " + cut(printable(context->now.name, set), columns / 4, set), style::title);
    }
    second.add(fmt::format("  {}", mode_of(context->now)),
               context->now.enabled ? style::plain : style::warn);
    second.add(fmt::format("  clock {}  {} worker{}  {} task{}",
                           timing::to_string(context->now.totals.clock), context->workers.size(),
                           context->workers.size() == 1 ? "" : "s", context->now.task_count,
                           context->now.task_count == 1 ? "" : "s"));
  }

  line third;
  for (std::size_t i = 0; i != pane_names.size(); ++i) {
    std::string name = fmt::format("{} {}", i + 1, pane_names[i]);
    if (static_cast<pane>(i) == pane::lints && !p.lints.empty()) {
      name += fmt::format(" ({})", p.lints.size());
    }
    if (static_cast<pane>(i) == pane::stalls && context != nullptr &&
        !context->now.stalls.empty()) {
      name += fmt::format(" ({})", context->now.stalls.size());
    }
    const bool current = static_cast<pane>(i) == ui.shown;
    third.add(current ? "[" + name + "]" : " " + name + " ", current ? style::title : style::dim);
  }
  return {cut(std::move(first), columns, set), cut(std::move(second), columns, set),
          cut(std::move(third), columns, set)};
}

line footer(const ui_state& ui, std::size_t columns, charset set) {
  line l;
  if (ui.typing) {
    l.add(
        "filter: " + cut_start(ui.filter, columns - std::min<std::size_t>(columns, 10), set) + "_",
        style::title);
    return cut(std::move(l), columns, set);
  }
  if (ui.change.at != asked_change::step::none) {
    l.add(question(ui.change, set), style::alarm);
    return cut(std::move(l), columns, set);
  }
  if (!ui.message.empty()) {
    l.add(printable_again(ui.message, set), ui.ended ? style::alarm : style::warn);
    if (ui.ended) l.add("  q: quit", style::title);
    return cut(std::move(l), columns, set);
  }
  if (!ui.filter.empty())
    l.add("filter: " + cut(ui.filter, 20, set) + " (Esc: off)  ", style::warn);
  l.add(ui.details ? "Enter/Esc back  arrows scroll  q quit  ? help"
                   : "q quit  ? help  1-7/Tab pane  Enter details  s sort  / filter  f freeze  "
                     "t trace",
        style::dim);
  return cut(std::move(l), columns, set);
}

std::vector<line> help_text(std::size_t columns) {
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 18> keys{
      {{"q", "quit"},
       {"1 to 7, Tab",
        "show a pane: overview, tasks, sites (kinds of handlers), stalls, lints, groups, shards"},
       {"g", "show the groups"},
       {"arrows, PgUp/PgDn", "move; Home and End too"},
       {"Enter", "show the selected row in full, a stall with its stack. Esc: back"},
       {"s, r", "sort by the next column; reverse the order"},
       {"/", "show only rows that contain a text; Esc: all rows"},
       {"Space, f", "freeze the screen; continue"},
       {"+ -", "change the time between two readings"},
       {"c", "show the next context"},
       {"t", "record 5 s: a .pulse file, and a .json for Perfetto, in this folder"},
       {"E, S", "ask, and then enforce; only decide and report (shadow)"},
       {"W, U", "ask, and then change the selected group's weight; undo the last change"},
       {"CPU", "100% is one CPU; for tasks, over the recent past"},
       {"queue delay", "how long ready handlers wait before they run"},
       {"AGAIN", "polls directly after one of the same handler: if high, it posts itself"},
       {"GOT, ASKED", "a group's part of the CPU time of all groups, and that of its weight"},
       {"!", "5 ms or longer: other handlers on that worker waited"}}};
  std::vector<line> lines{line{"Keys and words (any key: back)", style::title}};
  for (const auto& [name, text] : keys) {
    bool first = true;
    for (const std::string& part : wrap(text, columns - std::min<std::size_t>(columns, 20))) {
      line l;
      l.add(left(first ? name : std::string_view{}, 20, charset::ascii), style::title).add(part);
      lines.push_back(std::move(l));
      first = false;
    }
  }
  return lines;
}

std::vector<line> frame(const picture& p, const history& past, ui_state& ui, size room,
                        charset set) {
  std::vector<line> lines;
  if (room.columns < least_columns || room.rows < least_rows) {
    lines.emplace_back(fmt::format("at least {}x{}", least_columns, least_rows), style::alarm);
  } else {
    if (ui.context >= p.contexts.size()) ui.context = 0;
    lines = header(p, ui, room.columns, set);
    const size body{room.rows - lines.size() - 1, room.columns};
    std::vector<line> inside;
    const context_view* const context = context_of(p, ui);
    if (ui.help) {
      inside = help_text(room.columns);
    } else if (context == nullptr) {
      inside.emplace_back("Its figures are shown when it makes one.", style::dim);
    } else if (ui.shown == pane::overview) {
      ui.page = body.rows;
      inside = overview(p, *context, past, body, set);
      scroll_overview(inside, ui, body.rows);
    } else {
      inside = list_pane(p, *context, ui, body, set);
    }
    inside.resize(body.rows);
    for (line& l : inside) lines.push_back(std::move(l));
    lines.push_back(footer(ui, room.columns, set));
  }
  lines.resize(room.rows);
  for (line& l : lines) l = cut(std::move(l), room.columns, set);
  return lines;
}

}  // namespace asio_pulse::top
