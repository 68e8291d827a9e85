// SPDX-License-Identifier: BSL-1.0

#include "screen.hpp"

// The macros of ncurses would hide our names (clear, move, erase ...).
#define NCURSES_NOMACROS 1
#include <curses.h>
#include <poll.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cwchar>

namespace asio_pulse::top {
namespace {

enum : short { pair_good = 1, pair_warn, pair_alarm };

// See https://no-color.org: colours are off if the variable is set and not empty.
bool colour_wanted() {
  const char* const no = std::getenv("NO_COLOR");
  return no == nullptr || *no == '\0';
}

attr_t attributes(style how, bool colours) {
  const auto pair = [colours](short number) {
    return colours ? static_cast<attr_t>(COLOR_PAIR(number)) : attr_t{0};
  };
  switch (how) {
    case style::title:
      return A_BOLD;
    case style::dim:
      return A_DIM;
    case style::good:
      return pair(pair_good);
    case style::warn:
      return pair(pair_warn);
    case style::alarm:
      return A_BOLD | pair(pair_alarm);
    case style::plain:
      break;
  }
  return A_NORMAL;
}

key code_of(wint_t pressed) {
  switch (pressed) {
    case KEY_UP:
      return key::up;
    case KEY_DOWN:
      return key::down;
    case KEY_PPAGE:
      return key::page_up;
    case KEY_NPAGE:
      return key::page_down;
    case KEY_HOME:
      return key::home;
    case KEY_END:
      return key::end;
    case KEY_ENTER:
      return key::enter;
    case KEY_BACKSPACE:
      return key::backspace;
    case KEY_BTAB:
      return key::back_tab;
    default:
      return key::other;
  }
}

// A process that ignores SIGHUP, or has another session, survives its terminal. ncurses then reads
// the end of the input at once and for ever.
bool hung_up() noexcept {
  pollfd look{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
  return ::poll(&look, 1, 0) == 1 && (look.revents & (POLLHUP | POLLERR | POLLNVAL)) != 0;
}

}  // namespace

std::unique_ptr<screen> screen::open() {
  SCREEN* const handle = ::newterm(nullptr, stdout, stdin);
  if (handle == nullptr) return nullptr;
  // On a terminal that cannot move the cursor ("dumb"), ncurses would draw all lines over each
  // other.
  const char* const move_to = ::tigetstr("cup");
  if (move_to == nullptr || move_to == reinterpret_cast<const char*>(-1)) {
    ::endwin();
    ::delscreen(handle);
    return nullptr;
  }
  return std::unique_ptr<screen>(new screen(handle));
}

screen::screen(void* handle) : handle_(handle) {
  ::cbreak();
  ::noecho();
  ::nonl();
  ::keypad(stdscr, true);
  ::set_escdelay(25);  // the Esc key works without a noticeable delay
  ::curs_set(0);
  if (colour_wanted() && ::has_colors()) {
    ::start_color();
    const short background = ::use_default_colors() == OK ? short{-1} : short{COLOR_BLACK};
    ::init_pair(pair_good, COLOR_GREEN, background);
    ::init_pair(pair_warn, COLOR_YELLOW, background);
    ::init_pair(pair_alarm, COLOR_RED, background);
    colours_ = true;
  }
}

screen::~screen() {
  ::endwin();
  ::delscreen(static_cast<SCREEN*>(handle_));
}

size screen::room() const {
  const int rows = ::getmaxy(stdscr);
  const int columns = ::getmaxx(stdscr);
  return {static_cast<std::size_t>(rows < 1 ? 1 : rows),
          static_cast<std::size_t>(columns < 1 ? 1 : columns)};
}

void screen::draw(const std::vector<line>& lines) {
  // This draws into memory. The terminal gets only what has changed.
  ::werase(stdscr);
  const size all = room();
  for (std::size_t row = 0; row != lines.size() && row != all.rows; ++row) {
    const line& l = lines[row];
    ::wmove(stdscr, static_cast<int>(row), 0);
    const attr_t base = l.selected ? attr_t{A_REVERSE} : attr_t{A_NORMAL};
    for (const cell& c : l.cells) {
      ::wattrset(stdscr, static_cast<int>(base | attributes(c.how, colours_)));
      ::waddnstr(stdscr, c.text.data(), static_cast<int>(c.text.size()));
    }
    const std::size_t used = width_of(l);
    if (l.selected && used < all.columns) {
      ::wattrset(stdscr, static_cast<int>(base));
      ::whline(stdscr, ' ' | base, static_cast<int>(all.columns - used));
    }
  }
  ::wattrset(stdscr, A_NORMAL);
  ::wrefresh(stdscr);
}

key_press screen::wait(std::chrono::milliseconds timeout) {
  ::wtimeout(stdscr, static_cast<int>(timeout.count()));
  wint_t pressed = 0;
  const int kind = ::wget_wch(stdscr, &pressed);
  if (kind == KEY_CODE_YES) return {code_of(pressed), {}};
  if (kind != OK) return {hung_up() ? key::hang_up : key::other, {}};
  switch (pressed) {
    case L'\r':
    case L'\n':
      return {key::enter, {}};
    case L'\t':
      return {key::tab, {}};
    case 27:
      return {key::escape, {}};
    case 8:
    case 127:
      return {key::backspace, {}};
    default:
      break;
  }
  // Encodes the character in the locale, if it can be shown.
  char bytes[16];
  std::mbstate_t state{};
  const auto value = static_cast<wchar_t>(pressed);
  const std::size_t length = std::wcrtomb(&bytes[0], value, &state);
  if (length == 0 || length > sizeof bytes || ::wcwidth(value) < 1) return {};
  key_press result{key::text, std::string(&bytes[0], length)};
  // Characters that change the direction of the line are ignored.
  if (length > 1 && printable(result.text, charset_of_locale()) != result.text) return {};
  return result;
}

}  // namespace asio_pulse::top
