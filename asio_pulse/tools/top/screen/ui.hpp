// SPDX-License-Identifier: BSL-1.0
//
// What is shown to the user, and what keys change. It does no input or output.

#pragma once

#include "picture.hpp"
#include "styled.hpp"
#include "tables.hpp"

#include <asio_pulse/inspect.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace asio_pulse::top {

enum class pane : std::uint8_t { overview, tasks, sites, stalls, lints, groups, shards };
inline constexpr std::array<std::string_view, 7> pane_names{"Overview", "Tasks",  "Sites", "Stalls",
                                                            "Lints",    "Groups", "Shards"};

enum class key : std::uint8_t {
  other,
  text,  ///< a character: key_press::text
  up,
  down,
  page_up,
  page_down,
  home,
  end,
  enter,
  escape,
  backspace,
  tab,
  back_tab,
  hang_up  ///< no key: the terminal is gone
};

struct key_press {
  key code = key::other;
  std::string text{};  ///< printable, of one character
};

/// What a key asks the program that runs the screen to do.
enum class wish : std::uint8_t {
  nothing,
  quit,
  new_interval,
  freeze,
  trace,
  ask_change,  ///< begin_change(): ui_state::change says of which kind
  change       ///< the user has confirmed ui_state::change
};

/// A change of the process that the user is asked about.
struct asked_change {
  enum class step : std::uint8_t {
    none,
    weight,  ///< the user types the weight
    confirm  ///< the next key says whether it is made
  };
  step at = step::none;
  context_change what{};
  std::uint64_t context = 0;  ///< its number
  std::string context_name{};
  std::uint64_t weight_before = 0;
  std::string digits{};
};

/// Recent 99th percentiles of the queue delay, by context_metrics::number.
using history = std::map<std::uint64_t, std::vector<std::chrono::nanoseconds>>;
void remember(history&, const picture&);

struct size {
  std::size_t rows = 24;
  std::size_t columns = 80;
};

struct ui_state {
  struct list {
    std::size_t selected = 0;
    std::string key{};  ///< of the selected row, which the selection follows; empty: it stays
    std::size_t top = 0;
    order how{};
  };

  pane shown = pane::overview;
  std::size_t context = 0;  ///< index in picture::contexts
  std::array<list, pane_names.size()> lists{};
  std::string filter{};
  bool typing = false;  ///< the user is typing the filter
  bool help = false;
  bool details = false;  ///< the selected row is shown in full
  std::size_t details_top = 0;
  std::size_t page = 10;  ///< how many rows of the list were drawn last
  bool frozen = false;
  std::chrono::milliseconds interval{1000};
  asked_change change{};
  std::string message{};  ///< shown on the last line
  bool ended = false;     ///< the process has ended; the message says so, and stays

  [[nodiscard]] list& current() { return lists[static_cast<std::size_t>(shown)]; }
};

inline constexpr std::chrono::milliseconds least_interval{100};
inline constexpr std::chrono::milliseconds most_interval{60'000};

wish press(ui_state&, const key_press&, std::size_t contexts);

/// Fills in what ui_state::change is about, and begins to ask the user. If there is nothing to change,
/// it says so.
void begin_change(ui_state&, const picture&);

/// The group in the selected row, for what is done with it; null in other panes, and if there is none.
const group_view* selected_group(const picture&, const ui_state&);

/// Exactly `rows` lines of at most `columns` columns. Corrects the parts of the state that no
/// longer fit the picture.
std::vector<line> frame(const picture&, const history&, ui_state&, size, charset);

// Parts of the frame:

/// The first lines, including the names of the panes.
std::vector<line> header(const picture&, const ui_state&, std::size_t columns, charset);
/// The parts of the overview that are not lists: workers (in at most a quarter of the room), totals
/// and delays.
std::vector<line> figures(const context_view&, const history&, size, charset);
std::vector<line> overview(const picture&, const context_view&, const history&, size, charset);
std::vector<line> help_text(std::size_t columns);
line footer(const ui_state&, std::size_t columns, charset);
/// What the user is asked about ui_state::change; printable.
std::string question(const asked_change&, charset);

}  // namespace asio_pulse::top
