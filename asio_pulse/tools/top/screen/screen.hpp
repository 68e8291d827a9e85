// SPDX-License-Identifier: BSL-1.0
//
// The terminal, with ncurses. Draws lines and reads keys.

#pragma once

#include "styled.hpp"
#include "ui.hpp"

#include <chrono>
#include <memory>
#include <vector>

namespace asio_pulse::top {

/// Takes over the terminal while it lives. There may be one object at a time.
class screen {
 public:
  /// Null if the terminal's type (TERM) is not known.
  static std::unique_ptr<screen> open();
  screen(const screen&) = delete;
  screen& operator=(const screen&) = delete;
  ~screen();

  [[nodiscard]] size room() const;
  void draw(const std::vector<line>&);
  /// Waits for the next key; `other` if none comes in time or the size has changed; `hang_up` at
  /// once if the terminal is gone.
  key_press wait(std::chrono::milliseconds);

 private:
  explicit screen(void* handle);

  void* handle_;  // the SCREEN of ncurses
  bool colours_ = false;
};

}  // namespace asio_pulse::top
