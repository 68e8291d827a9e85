// SPDX-License-Identifier: BSL-1.0
//
// The terminal, by ncurses. Draws lines, reads keys, knows nothing else.

#pragma once

#include "styled.hpp"
#include "ui.hpp"

#include <chrono>
#include <memory>
#include <vector>

namespace asio_pulse::top {

/// Takes the terminal over while it lives. One at a time.
class screen {
 public:
  /// Null: the terminal's type (TERM) is not known.
  static std::unique_ptr<screen> open();
  screen(const screen&) = delete;
  screen& operator=(const screen&) = delete;
  ~screen();

  [[nodiscard]] size room() const;
  void draw(const std::vector<line>&);
  /// The next key; `other` when none comes in time, or the size has changed.
  key_press wait(std::chrono::milliseconds);

 private:
  explicit screen(void* handle);

  void* handle_;  // ncurses' SCREEN
  bool colours_ = false;
};

}  // namespace asio_pulse::top
