// SPDX-License-Identifier: BSL-1.0

#include "targets.hpp"

#include "text.hpp"

#include <fmt/core.h>

#include <algorithm>

namespace asio_pulse::top {
namespace {

// TASK_COMM_LEN of Linux, without the terminating zero.
constexpr std::size_t kernel_name_bytes = 15;
// How much of the user's input a message repeats.
constexpr std::size_t most_name_columns = 60;

}  // namespace

target find_target(machine& m, std::string_view who) {
  if (const auto pid = number_of(who).value_or(0); pid != 0) return {.pid = pid};
  std::error_code ec;
  target found{.choice = m.processes(ec)};
  if (!who.empty()) {
    std::erase_if(found.choice, [who](const inspectable_process& p) {
      return p.program != who &&
             (who.size() <= kernel_name_bytes || p.program != who.substr(0, kernel_name_bytes));
    });
  }
  if (found.choice.size() == 1) found.pid = found.choice.front().pid;
  if (!found.choice.empty()) return found;
  if (ec) {
    found.trouble = fmt::format("the processes cannot be listed: {}; give the number of a process",
                                ec.message());
  } else if (who.empty()) {
    found.trouble =
        "no process of this user has an asio_pulse::io_context that can be inspected "
        "(options::inspectable); give the number of a process to see the reason";
  } else {
    found.trouble = fmt::format(
        "no process of this user named \"{}\" has an asio_pulse::io_context that can be looked "
        "into "
        "(options::inspectable)",
        cut(printable(who, charset_of_locale()), most_name_columns, charset_of_locale()));
  }
  return found;
}

std::string list_of(const std::vector<inspectable_process>& processes, charset set) {
  std::string text;
  for (const inspectable_process& p : processes) {
    text += fmt::format("{:>10}  {}\n", p.pid, printable(p.program, set));
  }
  return text;
}

std::vector<line> chooser_frame(const std::vector<inspectable_process>& processes,
                                std::size_t selected, size room, charset set) {
  std::vector<line> lines;
  lines.emplace_back("Which process? Arrows and Enter; q quits", style::title);
  const std::size_t rows = room.rows > 1 ? room.rows - 1 : 1;
  const std::size_t first = selected >= rows ? selected - rows + 1 : 0;
  for (std::size_t i = first; i < processes.size() && i - first < rows; ++i) {
    line l(fmt::format("{}{:>10}  {}", i == selected ? ">" : " ", processes[i].pid,
                       printable(processes[i].program, set)));
    l.selected = i == selected;
    lines.push_back(cut(std::move(l), room.columns, set));
  }
  if (processes.empty()) lines.emplace_back("None is left.", style::warn);
  lines.resize(room.rows);
  return lines;
}

}  // namespace asio_pulse::top
