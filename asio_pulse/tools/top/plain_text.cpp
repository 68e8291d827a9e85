// SPDX-License-Identifier: BSL-1.0

#include "output.hpp"
#include "screen/ui.hpp"

#include <fmt/core.h>

namespace asio_pulse::top {
namespace {

// The limit for each list. The JSON has more.
constexpr std::size_t most_rows = 20;

void append(std::string& text, const line& l) {
  std::string one = text_of(l);
  while (one.ends_with(' ')) one.pop_back();
  text += one + '\n';
}

void append(std::string& text, const table& t, std::string_view title, std::size_t width,
            charset set) {
  text += fmt::format("\n{}\n", title);
  if (t.rows.empty()) {
    text += fmt::format("{}\n", t.when_empty);
    return;
  }
  const auto widths = widths_of(t, width);
  if (t.columns.size() > 1) append(text, heading_of(t, widths, set));
  for (std::size_t i = 0; i != t.rows.size() && i != most_rows; ++i) {
    append(text, line_of(t, t.rows[i], widths, set));
    for (const line& l : t.rows[i].below) append(text, l);
  }
  if (t.rows.size() > most_rows) {
    text += fmt::format("and {} more\n", t.rows.size() - most_rows);
  }
}

}  // namespace

std::string plain_text(const picture& p, std::size_t width, charset set) {
  std::string text;
  ui_state ui;
  if (p.interval) {
    ui.interval = std::chrono::duration_cast<std::chrono::milliseconds>(*p.interval);
  }
  append(text, header(p, ui, width, set)[0]);
  append(text, lints_table(p, {}, width, set), "Lints, worst first", width, set);
  for (std::size_t i = 0; i != p.contexts.size(); ++i) {
    const context_view& context = p.contexts[i];
    ui.context = i;
    text += '\n';
    append(text, header(p, ui, width, set)[1]);
    constexpr std::size_t quarters = 4;  // all workers get a row
    const size room{(context.workers.size() + 1) * quarters, width};
    for (const line& l : figures(context, {}, room, set)) append(text, cut(l, width, set));
    append(text, sites_table(context, {}, set), "Sites", width, set);
    append(text, tasks_table(context, {}, set), "Tasks", width, set);
    if (context.now.group_count != 0) {
      append(text, groups_table(context, {}, set), "Groups", width, set);
    }
    append(text, stalls_table(context, p.at, {}, set), "Stalls", width, set);
  }
  const table shards = shards_table(p, {}, set);
  if (!shards.rows.empty()) append(text, shards, "Shards", width, set);
  if (p.contexts.empty()) text += "The process has no context now.\n";
  return text;
}

}  // namespace asio_pulse::top
