// SPDX-License-Identifier: BSL-1.0

#include "text.hpp"
#include "ui.hpp"

#include <algorithm>
#include <iterator>
#include <string>

namespace asio_pulse::top {
namespace {

using std::chrono::milliseconds;

// The steps of + and -.
constexpr milliseconds intervals[] = {
    milliseconds{100},    milliseconds{200},    milliseconds{500},
    milliseconds{1'000},  milliseconds{2'000},  milliseconds{5'000},
    milliseconds{10'000}, milliseconds{30'000}, milliseconds{60'000}};
static_assert(intervals[0] == least_interval && *std::rbegin(intervals) == most_interval);

constexpr std::size_t filter_bytes = 200;

void move(std::size_t& at, bool forward, std::size_t by) {
  at = forward ? at + by : at - std::min(at, by);  // the frame corrects it if it is too far
}

wish type(ui_state& ui, const key_press& press) {
  switch (press.code) {
    case key::enter:
      ui.typing = false;
      break;
    case key::escape:
      ui.typing = false;
      ui.filter.clear();
      break;
    case key::backspace:
      // Removes all bytes of the last character.
      while (!ui.filter.empty() && (static_cast<unsigned char>(ui.filter.back()) & 0xc0U) == 0x80) {
        ui.filter.pop_back();
      }
      if (!ui.filter.empty()) ui.filter.pop_back();
      break;
    case key::text:
      if (ui.filter.size() + press.text.size() <= filter_bytes) ui.filter += press.text;
      break;
    default:
      break;
  }
  return wish::nothing;
}

wish ask(ui_state& ui, context_change::kind what) {
  if (ui.ended) return wish::nothing;
  ui.change = {.what = {.what = what}};
  return wish::ask_change;
}

// A weight has at most five digits. The process checks it.
wish type_weight(ui_state& ui, const key_press& press) {
  constexpr std::size_t most_digits = 5;
  asked_change& change = ui.change;
  if (press.code == key::enter && !change.digits.empty()) {
    change.what.weight = static_cast<unsigned>(std::stoul(change.digits));
    change.at = asked_change::step::confirm;
  } else if (press.code == key::backspace) {
    if (!change.digits.empty()) change.digits.pop_back();
  } else if (press.code == key::escape) {
    change = {};
  } else if (press.code == key::text && press.text.size() == 1 && press.text[0] >= '0' &&
             press.text[0] <= '9' && change.digits.size() < most_digits) {
    change.digits += press.text;
  }
  return wish::nothing;
}

wish confirm(ui_state& ui, const key_press& press) {
  ui.change.at = asked_change::step::none;
  if (press.code == key::text && press.text == "y") return wish::change;
  ui.message = "Nothing was changed.";
  return wish::nothing;
}

wish scroll(ui_state& ui, key code) {
  const bool forward = code == key::down || code == key::page_down || code == key::end;
  std::size_t by = 1;
  if (code == key::page_up || code == key::page_down) by = std::max<std::size_t>(ui.page, 2) - 1;
  if (code == key::home || code == key::end) by = 1'000'000;
  if (ui.details) {
    move(ui.details_top, forward, by);
  } else {
    move(ui.current().selected, forward, by);
    ui.current().key.clear();
  }
  return wish::nothing;
}

void show_pane(ui_state& ui, std::size_t which) {
  ui.shown = static_cast<pane>(which % pane_names.size());
  ui.details = false;
}

wish step_interval(ui_state& ui, bool longer) {
  if (longer) {
    const auto* const next =
        std::upper_bound(std::begin(intervals), std::end(intervals), ui.interval);
    if (next != std::end(intervals)) ui.interval = *next;
  } else {
    const auto* const same =
        std::lower_bound(std::begin(intervals), std::end(intervals), ui.interval);
    if (same != std::begin(intervals)) ui.interval = *std::prev(same);
  }
  return wish::new_interval;
}

wish command(ui_state& ui, char c, std::size_t contexts) {
  switch (c) {
    case 'q':
    case 'Q':
      return wish::quit;
    case '?':
    case 'h':
      ui.help = true;
      break;
    case '1':
    case '2':
    case '3':
    case '4':
    case '5':
    case '6':
    case '7':
      show_pane(ui, static_cast<std::size_t>(c - '1'));
      break;
    case 'g':
      show_pane(ui, static_cast<std::size_t>(pane::groups));
      break;
    case 's':
      ++ui.current().how.by;
      break;
    case 'r':
      ui.current().how.reverse = !ui.current().how.reverse;
      break;
    case '/':
      ui.typing = true;
      ui.details = false;
      break;
    case ' ':
    case 'f':
      ui.frozen = !ui.frozen;
      return wish::freeze;
    case '+':
    case '=':
      return step_interval(ui, true);
    case '-':
      return step_interval(ui, false);
    case 'c':
      if (contexts != 0) ui.context = (ui.context + 1) % contexts;
      for (auto& list : ui.lists) list.key.clear();
      ui.details = false;
      break;
    case 'j':
      return scroll(ui, key::down);
    case 'k':
      return scroll(ui, key::up);
    case 't':
      return wish::trace;
    case 'E':
      return ask(ui, context_change::kind::enforce);
    case 'S':
      return ask(ui, context_change::kind::shadow);
    case 'W':
      return ask(ui, context_change::kind::weight);
    case 'U':
      return ask(ui, context_change::kind::undo);
    default:
      break;
  }
  return wish::nothing;
}

}  // namespace

wish press(ui_state& ui, const key_press& pressed, std::size_t contexts) {
  if (pressed.code == key::hang_up) return wish::quit;
  if (ui.typing) return type(ui, pressed);
  if (ui.change.at == asked_change::step::weight) return type_weight(ui, pressed);
  if (!ui.ended) ui.message.clear();
  if (ui.change.at == asked_change::step::confirm) return confirm(ui, pressed);
  const bool quits = pressed.code == key::text && (pressed.text == "q" || pressed.text == "Q");
  if (ui.help && !quits) {
    ui.help = false;
    return wish::nothing;
  }
  switch (pressed.code) {
    case key::text:
      return pressed.text.size() == 1 ? command(ui, pressed.text[0], contexts) : wish::nothing;
    case key::up:
    case key::down:
    case key::page_up:
    case key::page_down:
    case key::home:
    case key::end:
      return scroll(ui, pressed.code);
    case key::enter:
      // The lint on the overview is the first one in their pane.
      if (ui.shown == pane::overview) {
        show_pane(ui, static_cast<std::size_t>(pane::lints));
      } else {
        ui.details = !ui.details;
        ui.details_top = 0;
      }
      break;
    case key::escape:
    case key::backspace:
      if (ui.details) {
        ui.details = false;
      } else {
        ui.filter.clear();
      }
      break;
    case key::tab:
      show_pane(ui, static_cast<std::size_t>(ui.shown) + 1);
      break;
    case key::back_tab:
      show_pane(ui, static_cast<std::size_t>(ui.shown) + pane_names.size() - 1);
      break;
    case key::hang_up:
    case key::other:
      break;
  }
  return wish::nothing;
}

void begin_change(ui_state& ui, const picture& p) {
  asked_change& change = ui.change;
  change.at = asked_change::step::none;
  if (ui.context >= p.contexts.size()) {
    ui.message = "There is no context to change.";
    return;
  }
  const context_metrics& context = p.contexts[ui.context].now;
  change.context = context.number;
  change.context_name = context.name;
  change.at = asked_change::step::confirm;
  if (change.what.what != context_change::kind::weight) return;
  const group_view* const group = selected_group(p, ui);
  if (group == nullptr) {
    change.at = asked_change::step::none;
    ui.message = "Select a group first (g).";
    return;
  }
  change.what.group = group->now.path;
  change.weight_before = group->now.weight;
  change.at = asked_change::step::weight;
}

std::string question(const asked_change& change, charset set) {
  const std::string group = printable(change.what.group, set);
  if (change.at == asked_change::step::weight) {
    return "weight of group \"" + group + "\", now " + std::to_string(change.weight_before) +
           " (Esc: leave it): " + change.digits + '_';
  }
  std::string text = "context \"" + printable(change.context_name, set) + "\": ";
  switch (change.what.what) {
    case context_change::kind::enforce:
      text += "enforce";
      break;
    case context_change::kind::shadow:
      text += "only decide and report";
      break;
    case context_change::kind::weight:
      text += "group \"" + group + "\" weighs " + std::to_string(change.what.weight);
      break;
    case context_change::kind::undo:
      text += "undo the last change";
      break;
  }
  return text + "? y: yes, other keys: no";
}

}  // namespace asio_pulse::top
