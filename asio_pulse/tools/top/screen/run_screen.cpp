// SPDX-License-Identifier: BSL-1.0

#include "command.hpp"
#include "process/changing.hpp"
#include "process/sampler.hpp"
#include "process/targets.hpp"
#include "process/tracing.hpp"
#include "screen.hpp"

#include <fmt/core.h>

#include <cstdlib>
#include <optional>
#include <string>
#include <utility>

namespace asio_pulse::top {
namespace {

using namespace std::chrono_literals;

// How long to wait for a key. A new reading is shown at most this late.
constexpr std::chrono::milliseconds patience = 50ms;
// How long the key t records.
constexpr std::chrono::milliseconds trace_length = 5s;

// Empty if the user has quit.
std::optional<std::uint64_t> choose(screen& terminal, machine& m, const std::string& who,
                                    charset set) {
  target found = find_target(m, who);
  std::size_t selected = 0;
  auto looked = std::chrono::steady_clock::now();
  while (true) {
    if (const auto now = std::chrono::steady_clock::now(); now - looked >= 1s) {
      found = find_target(m, who);
      looked = now;
    }
    if (selected >= found.choice.size()) {
      selected = found.choice.empty() ? 0 : found.choice.size() - 1;
    }
    terminal.draw(chooser_frame(found.choice, selected, terminal.room(), set));
    const key_press pressed = terminal.wait(patience);
    if (pressed.code == key::up && selected != 0) --selected;
    if (pressed.code == key::down) ++selected;
    if (pressed.code == key::enter && selected < found.choice.size()) {
      return found.choice[selected].pid;
    }
    if (pressed.code == key::hang_up) return std::nullopt;
    if (pressed.code == key::escape || pressed.text == "q") return std::nullopt;
  }
}

// Shows one process on the screen.
class show {
 public:
  show(screen& terminal, machine& m, std::uint64_t pid, std::chrono::milliseconds interval,
       watcher from, const reading& first, charset set)
      : terminal_(terminal),
        machine_(m),
        pid_(pid),
        set_(set),
        last_(*first.metrics),
        picture_(make_picture(last_, nullptr, first.age)),
        sampler_(std::move(from), interval) {
    ui_.interval = interval;
    ui_.message = "The first figures come after one interval.";
  }

  /// Until the user quits.
  void run() {
    bool drawn = false;
    size before{};
    while (true) {
      const bool news = take_news();
      const size now = terminal_.room();
      if (!drawn || news || now.rows != before.rows || now.columns != before.columns) {
        terminal_.draw(frame(picture_, history_, ui_, now, set_));
        drawn = true;
        before = now;
      }
      const key_press pressed = terminal_.wait(patience);
      if (pressed.code == key::other) continue;
      drawn = false;
      if (obey(press(ui_, pressed, picture_.contexts.size()))) return;
    }
  }

  [[nodiscard]] bool recording() const { return tracer_.running(); }

 private:
  bool take_news() {
    bool news = false;
    if (std::optional<reading> r = sampler_.take()) {
      news = true;
      if (r->metrics) {
        ui_.message.clear();
        picture_ = make_picture(*r->metrics, &last_, r->age);
        last_ = std::move(*r->metrics);
        remember(history_, picture_);
      } else {
        // The last picture remains visible.
        ui_.message = r->trouble;
        ui_.ended = r->ended;
      }
    }
    if (const std::optional<trace_result> result = tracer_.take()) {
      news = true;
      say(result->text);
    }
    if (const std::optional<change_result> result = changer_.take()) {
      news = true;
      say(result->text);
    }
    // Such a result stays visible for some readings.
    if (!said_.empty() && !ui_.ended && news) {
      ui_.message = std::chrono::steady_clock::now() < until_ ? said_ : std::string{};
      if (ui_.message.empty()) said_.clear();
    }
    return news;
  }

  // For some readings.
  void say(std::string text) {
    if (ui_.ended) return;
    said_ = std::move(text);
    until_ = std::chrono::steady_clock::now() + 20s;
  }

  bool obey(wish what) {
    switch (what) {
      case wish::quit:
        return true;
      case wish::new_interval:
        sampler_.set_interval(ui_.interval);
        break;
      case wish::freeze:
        sampler_.pause(ui_.frozen);
        break;
      case wish::trace:
        if (ui_.ended) break;
        if (tracer_.running()) {
          said_ = "A recording is already in progress.";
        } else {
          const std::uint64_t context = ui_.context < picture_.contexts.size()
                                            ? picture_.contexts[ui_.context].now.number
                                            : 0;
          start_trace(tracer_, machine_, pid_, context, trace_length,
                      free_files(picture_.program, pid_));
          said_ = "Recording for 5 s ...";
        }
        until_ = std::chrono::steady_clock::now() + 20s;
        ui_.message = said_;
        break;
      case wish::ask_change:
        begin_change(ui_, picture_);
        break;
      case wish::change:
        if (ui_.ended) break;
        if (changer_.running()) {
          say("The change before was not answered yet");
        } else {
          start_change(changer_, machine_, pid_, ui_.change.context, ui_.change.what);
          say("Asking the process ...");
        }
        ui_.message = said_;
        break;
      case wish::nothing:
        said_.clear();  // a key was pressed, so the user has read it
        break;
    }
    return false;
  }

  screen& terminal_;
  machine& machine_;
  std::uint64_t pid_;
  charset set_;
  ui_state ui_{};
  history history_{};
  process_metrics last_;
  picture picture_;
  std::string said_{};
  std::chrono::steady_clock::time_point until_{};
  sampler sampler_;
  background<trace_result> tracer_{};
  background<change_result> changer_{};
};

}  // namespace

int run_screen(machine& m, const std::string& who, std::chrono::milliseconds interval) {
  const charset set = charset_of_locale();
  target found = find_target(m, who);
  if (!found.pid && found.choice.empty()) return complain(found.trouble, cannot);
  std::unique_ptr<screen> terminal;
  const auto open = [&] {
    if (terminal == nullptr) terminal = screen::open();
    return terminal != nullptr;
  };
  const std::string unknown = fmt::format(
      "the terminal's type \"{}\" (TERM) is not known, or cannot move the cursor; use --once for a "
      "table",
      std::getenv("TERM") == nullptr ? "" : printable(std::getenv("TERM"), set));
  if (!found.pid) {
    if (!open()) return complain(unknown, bad_usage);
    found.pid = choose(*terminal, m, who, set);
    if (!found.pid) return fine;
  }
  watcher from(m, *found.pid);
  reading first = from.read_first();
  if (!first.metrics) {
    terminal.reset();
    return complain(first.trouble, cannot);
  }
  if (!open()) return complain(unknown, bad_usage);
  show s(*terminal, m, *found.pid, interval, std::move(from), first, set);
  s.run();
  terminal.reset();
  if (s.recording()) {
    tell("waiting for the recording; press Ctrl-C to cancel it");
  }
  return fine;
}

}  // namespace asio_pulse::top
