// SPDX-License-Identifier: BSL-1.0
//
// The lists of a context as tables: the same for the screen and for --once.

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
  std::size_t width = 0;    ///< in terminal columns; of one that grows, the least
  bool right = false;       ///< aligned
  bool grows = false;       ///< takes what is left; of two, the first no more than it needs
  bool keeps_end = false;   ///< when it is cut
  bool descending = false;  ///< when it is sorted by
};

struct table_row {
  std::vector<cell> cells{};
  std::string key{};  ///< key_of()
  /// Where it does not fit on a line.
  std::vector<line> below{};
};

struct table {
  std::vector<column> columns{};
  std::vector<table_row> rows{};
  std::vector<std::size_t> sortable{};  ///< columns, in the order that s takes
  std::string_view when_empty;          ///< a sentence
  std::size_t sorted_by = 0;            ///< a column
  bool descending = false;
};

/// How a table is wanted.
struct order {
  std::size_t by = 0;  ///< index in table::sortable; taken modulo its size
  bool reverse = false;
  std::string filter{};  ///< rows that contain it, whatever the case of ASCII letters; empty: all
};

/// The same thing in another picture has the same. Not for the terminal.
std::string key_of(const task_view&);
std::string key_of(const site_view&);
std::string key_of(const stall_metrics&);
std::string key_of(const lint&);

table tasks_table(const context_view&, const order&, charset);
table sites_table(const context_view&, const order&, charset);
/// \param now  when the picture was taken
table stalls_table(const context_view&, std::chrono::system_clock::time_point now, const order&,
                   charset);
/// Of all contexts; each with its sentences, wrapped to `width`.
table lints_table(const picture&, const order&, std::size_t width, charset);

/// The columns' widths when the table is `width` wide.
std::vector<std::size_t> widths_of(const table&, std::size_t width);
line heading_of(const table&, const std::vector<std::size_t>& widths, charset);
line line_of(const table&, const table_row&, const std::vector<std::size_t>& widths, charset);

/// "server.cpp:42" and its function, as far as they are known.
std::string place_text(const source_place&, charset);

/// A figure or a dash.
std::string rate_text(const rate&);
std::string load_text(const rate&);

/// The frame to blame, without its number; else the handler.
std::string blamed_text(const stall_metrics&, charset);

/// "12s ago"
std::string age_text(std::chrono::system_clock::time_point then,
                     std::chrono::system_clock::time_point now);

}  // namespace asio_pulse::top
