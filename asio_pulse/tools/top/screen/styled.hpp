// SPDX-License-Identifier: BSL-1.0
//
// Lines to be drawn, which consist of pieces of printable text with a style. The text always says
// everything that the style says.

#pragma once

#include "text.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace asio_pulse::top {

enum class style : std::uint8_t { plain, title, dim, good, warn, alarm };

struct cell {
  std::string text{};
  style how = style::plain;
};

struct line {
  std::vector<cell> cells{};
  bool selected = false;

  line() = default;
  explicit line(std::string text, style how = style::plain) {
    cells.push_back({std::move(text), how});
  }
  line& add(std::string text, style how = style::plain) {
    cells.push_back({std::move(text), how});
    return *this;
  }
};

/// The width in terminal columns.
inline std::size_t width_of(const line& l) {
  std::size_t width = 0;
  for (const cell& c : l.cells) width += width_of(c.text);
  return width;
}

/// Cuts a line to at most `width` columns. An ellipsis shows where text is missing.
inline line cut(line l, std::size_t width, charset set) {
  if (width_of(l) <= width) return l;
  std::size_t used = 0;
  for (std::size_t i = 0; i != l.cells.size(); ++i) {
    cell& c = l.cells[i];
    const std::size_t wide = width_of(c.text);
    // The ellipsis may need some room of this piece, even if the piece itself fits.
    if (used + wide + (i + 1 < l.cells.size() ? 3 : 0) > width) {
      // The blanks make cut() add an ellipsis even if only later pieces are missing.
      c.text = cut(c.text + std::string(width + 1, ' '), width - used, set);
      l.cells.resize(i + 1);
      break;
    }
    used += wide;
  }
  return l;
}

/// The text without the styles.
inline std::string text_of(const line& l) {
  std::string text;
  for (const cell& c : l.cells) text += c.text;
  return text;
}

}  // namespace asio_pulse::top
