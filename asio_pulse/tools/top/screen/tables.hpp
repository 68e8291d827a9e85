// SPDX-License-Identifier: BSL-1.0
//
// The lists of a context as tables, for the screen and for --once.

#pragma once

#include "picture.hpp"
#include "styled.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace asio_pulse::top {

struct column {
  std::string_view title;
  std::size_t width = 0;    ///< in terminal columns; the least width of one that grows
  bool right = false;       ///< aligned to the right
  bool grows = false;       ///< takes the remaining width; the first of two only what it needs
  bool keeps_end = false;   ///< is cut at the beginning
  bool descending = false;  ///< sorts in descending order
};

struct table_row {
  std::vector<cell> cells{};
  std::string key{};  ///< key_of()
  /// Further lines below the row.
  std::vector<line> below{};
};

struct table {
  std::vector<column> columns{};
  std::vector<table_row> rows{};
  std::vector<std::size_t> sortable{};  ///< columns, in the order of the key s
  std::string_view when_empty;          ///< what to show if there are no rows
  std::size_t sorted_by = 0;            ///< a column
  bool descending = false;
};

/// The order and filter of a table.
struct order {
  std::size_t by = 0;  ///< index in table::sortable; taken modulo its size
  bool reverse = false;
  std::string filter{};  ///< shows rows that contain it, ignoring ASCII case; empty: all rows
};

/// Identifies the same object in another picture. Not printable.
std::string key_of(const task_view&);
std::string key_of(const site_view&);
/// The group's path.
std::string key_of(const group_view&);
/// The context's number. Only shards have a row.
std::string key_of(const context_view&);
std::string key_of(const stall_metrics&);
std::string key_of(const lint&);

table tasks_table(const context_view&, const order&, charset);
table sites_table(const context_view&, const order&, charset);
table groups_table(const context_view&, const order&, charset);
/// The shards of the process, whichever context is shown.
table shards_table(const picture&, const order&, charset);
/// \param now  when the picture was taken
table stalls_table(const context_view&, std::chrono::system_clock::time_point now, const order&,
                   charset);
/// The lints of all contexts, each with its text wrapped to `width`.
table lints_table(const picture&, const order&, std::size_t width, charset);

/// The widths of the columns if the table is `width` wide.
std::vector<std::size_t> widths_of(const table&, std::size_t width);
line heading_of(const table&, const std::vector<std::size_t>& widths, charset);
line line_of(const table&, const table_row&, const std::vector<std::size_t>& widths, charset);

/// "server.cpp:42" and its function, as far as they are known.
std::string place_text(const source_place&, charset);

/// A rate, or a dash if it is not known.
std::string rate_text(const rate&);
std::string load_text(const rate&);

/// The frame to blame, without its number; or the handler if there is no such frame.
std::string blamed_text(const stall_metrics&, charset);

/// "peer from 2, drain"
std::string move_text(const shard_move_metrics&, charset);

/// "12s ago"
std::string age_text(std::chrono::system_clock::time_point then,
                     std::chrono::system_clock::time_point now);

}  // namespace asio_pulse::top
