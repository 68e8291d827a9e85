// SPDX-License-Identifier: BSL-1.0

#include "command.hpp"

#include "output.hpp"
#include "process/changing.hpp"
#include "process/targets.hpp"
#include "process/tracing.hpp"
#include "screen/picture.hpp"
#include "text.hpp"

#include <asio_pulse/version.hpp>

#include <CLI/CLI.hpp>
#include <fmt/core.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <iostream>
#include <limits>
#include <optional>
#include <string_view>
#include <thread>

namespace asio_pulse::top {
namespace {

constexpr const char* description =
    "Shows what a running process that uses asio-pulse does: which handlers use the CPU, which are "
    "stuck and where, and what to do about them.\n"
    "It only reads figures, with one request for each interval, unless --enforce, --shadow, "
    "--weight or "
    "--undo asks for a change.";

constexpr const char* statuses =
    "Exit status:\n"
    "  0  success\n"
    "  1  the process has ended, cannot be read or refuses a change, or a file cannot be written\n"
    "  2  wrong usage, or there are several processes and none was chosen";

constexpr std::size_t width_without_terminal = 120;
constexpr std::size_t least_width = 60;
constexpr double most_trace_seconds = 60;  // the limit of inspector::trace()

struct settings {
  std::string who{};
  bool once = false;
  bool json = false;
  std::uint64_t count = 1;
  double interval = 1;
  double trace = 0;
  std::string out{};
  bool enforce = false;
  bool shadow = false;
  bool undo = false;
  std::string weight{};
  std::string context{};
};

// CLI11's own Range accepts "nan".
CLI::Validator within(double least, double most, const char* unit) {
  const std::string rule = fmt::format("must be a number from {:g} to {:g}{}", least, most, unit);
  return {[=](std::string& text) {
            double value = 0;
            const bool number = CLI::detail::lexical_cast(text, value);
            if (number && value >= least && value <= most) return std::string();
            return fmt::format("{}, and is {}", rule, printable(text, charset_of_locale()));
          },
          fmt::format("[{:g} to {:g}{}]", least, most, unit)};
}

std::chrono::milliseconds from_seconds(double seconds) {
  return std::chrono::milliseconds{std::llround(seconds * 1e3)};
}

// Returns false if the output has no reader any more, or the disk is full.
bool print(const std::string& text) {
  return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() &&
         std::fflush(stdout) == 0;
}

std::size_t output_width() {
  winsize w{};
  const bool terminal = ::isatty(STDOUT_FILENO) != 0;
  if (!terminal || ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) != 0 || w.ws_col == 0) {
    return width_without_terminal;
  }
  return std::max<std::size_t>(w.ws_col, least_width);
}

// The process that is meant. Sets `status` and returns zero if there is none.
std::uint64_t choose(machine& m, const std::string& who, int& status) {
  const target found = find_target(m, who);
  if (found.pid) return *found.pid;
  if (found.choice.empty()) {
    status = complain(found.trouble, cannot);
    return 0;
  }
  print(list_of(found.choice, charset_of_locale()));
  status = complain(
      fmt::format("{} processes can be inspected; choose one by its number", found.choice.size()),
      bad_usage);
  return 0;
}

int read_and_print(machine& m, const settings& s) {
  int status = fine;
  const std::uint64_t pid = choose(m, s.who, status);
  if (pid == 0) return status;
  watcher from(m, pid);
  reading before = from.read_first();
  if (!before.metrics) return complain(before.trouble, cannot);
  const std::size_t width = output_width();
  for (std::uint64_t i = 0; i != s.count; ++i) {
    std::this_thread::sleep_for(from_seconds(s.interval));
    reading now = from.read();
    if (!now.metrics) return complain(now.trouble, cannot);
    const picture p = make_picture(*now.metrics, &*before.metrics, now.age);
    std::string text;
    if (s.json) {
      text = json_text(p) + '\n';
    } else {
      if (i != 0) text += '\n';
      text += plain_text(p, width, charset_of_locale());
    }
    if (!print(text)) return complain("the output cannot be written", cannot);
    before = std::move(now);
  }
  return fine;
}

int trace(machine& m, const settings& s) {
  int status = fine;
  const std::uint64_t pid = choose(m, s.who, status);
  if (pid == 0) return status;
  trace_files files;
  if (s.out.empty()) {
    watcher from(m, pid);
    const reading first = from.read();
    if (!first.metrics) return complain(first.trouble, cannot);
    files = free_files(first.metrics->program, pid);
  } else {
    files = files_of(s.out);
  }
  const trace_result result = write_trace_of(m, pid, 0, from_seconds(s.trace), files);
  if (!result.written) return complain(result.text, cannot);
  return print(printable_again(result.text, charset_of_locale()) + '\n')
             ? fine
             : complain("the output cannot be written", cannot);
}

/// Splits "GROUP=N". Returns false if it is not of this form.
bool parse_weight(const std::string& text, context_change& to) {
  const std::size_t sign = text.rfind('=');
  if (sign == std::string::npos || sign == 0) return false;
  const auto weight = number_of(std::string_view(text).substr(sign + 1));
  if (!weight || *weight > std::numeric_limits<unsigned>::max()) return false;
  to.group = text.substr(0, sign);
  to.weight = static_cast<unsigned>(*weight);
  return true;
}

/// The number of the context with this name, or with this number if none has the name. Zero, with a
/// sentence, if there is none or several.
std::uint64_t find_context(const process_metrics& p, const std::string& name,
                           std::string& trouble) {
  std::uint64_t found = 0;
  std::string choice;
  for (const context_metrics& c : p.contexts) {
    choice += fmt::format("{}{} \"{}\"", choice.empty() ? "" : ", ", c.number,
                          printable(c.name, charset_of_locale()));
    if (c.name != name && !name.empty()) continue;
    if (found != 0) {
      trouble = name.empty() ? "there are several contexts; choose one with --context"
                             : "several contexts have this name; choose one by its number";
    }
    found = c.number;
  }
  if (found == 0 && !name.empty()) {
    const auto number = number_of(name);
    for (const context_metrics& c : p.contexts) found = c.number == number ? c.number : found;
  }
  if (found == 0) {
    trouble = fmt::format("no context is named \"{}\"", printable(name, charset_of_locale()));
  }
  if (!trouble.empty()) trouble += fmt::format(": {}", choice.empty() ? "there is none" : choice);
  return trouble.empty() ? found : 0;
}

int change(machine& m, const settings& s) {
  context_change what;
  if (!s.enforce && !s.shadow && !s.undo) {
    what.what = context_change::kind::weight;
    if (!parse_weight(s.weight, what)) {
      return complain("--weight needs GROUP=N, where N is a number", bad_usage);
    }
  } else if (!s.undo) {
    what.what = s.shadow ? context_change::kind::shadow : context_change::kind::enforce;
  }
  int status = fine;
  const std::uint64_t pid = choose(m, s.who, status);
  if (pid == 0) return status;
  watcher from(m, pid);
  const reading now = from.read();
  if (!now.metrics) return complain(now.trouble, cannot);
  std::string trouble;
  const std::uint64_t context = find_context(*now.metrics, s.context, trouble);
  if (context == 0) return complain(trouble, bad_usage);
  const change_result result = change_process(m, pid, context, what);
  if (!result.made) return complain(result.text, cannot);
  return print(printable_again(result.text, charset_of_locale()) + '\n')
             ? fine
             : complain("the output cannot be written", cannot);
}

}  // namespace

void tell(const std::string& what) noexcept try {
  const std::string text =
      fmt::format("pulse_top: {}\n", printable_again(what, charset_of_locale()));
  // Not fmt::print, which throws if stderr is closed or full.
  std::fputs(text.c_str(), stderr);
} catch (const std::exception&) {  // there is no memory for the sentence
}

int complain(const std::string& what, int status) noexcept {
  tell(what);
  return status;
}

int run_command(int argc, char** argv, machine& m) {
  settings s;
  CLI::App app(description, "pulse_top");
  app.footer(statuses);
  app.set_version_flag("--version", "pulse_top " ASIO_PULSE_VERSION);
  app.add_option("process", s.who,
                 "the id or the name of the process; may be omitted if there is only one");
  CLI::Option* const once =
      app.add_flag("--once", s.once, "print a plain table after one interval, and exit");
  CLI::Option* const as_json =
      app.add_flag("--json", s.json, "print a JSON object after one interval, and exit");
  CLI::Option* const count =
      app.add_option("--count", s.count, "with --json or --once: print this many, one per interval")
          ->check(within(1, 1e9, ""))
          ->capture_default_str();
  CLI::Option* const interval =
      app.add_option("--interval", s.interval, "seconds between two readings")
          ->check(within(0.1, 60, " s"))
          ->capture_default_str();
  CLI::Option* const tracing =
      app.add_option("--trace", s.trace,
                     "record for this many seconds and write the files; 0: write the events that a "
                     "process with options::trace = on has kept")
          ->check(within(0, most_trace_seconds, " s"));
  CLI::Option* const out =
      app.add_option("--out", s.out,
                     "with --trace: the file of the recording; a .json for Perfetto is written "
                     "beside it (default: PROGRAM.PID.NUMBER.pulse in the current folder)");
  CLI::Option* const enforce = app.add_flag("--enforce", s.enforce, "end the shadow mode");
  CLI::Option* const shadow =
      app.add_flag("--shadow", s.shadow, "from now on decide and report, but enforce nothing");
  CLI::Option* const weight =
      app.add_option("--weight", s.weight,
                     "GROUP=N: give a group this weight, from 1 to 10000; GROUP is tenant/user");
  CLI::Option* const undo =
      app.add_flag("--undo", s.undo, "take back the last such change that is left, of the last 16");
  CLI::Option* const context =
      app.add_option("--context", s.context, "with these: the name or the number of the context");
  const std::array changes{enforce, shadow, weight, undo};
  for (CLI::Option* const one : changes) {
    for (CLI::Option* const other : changes) {
      if (one != other) one->excludes(other);
    }
    one->excludes(once)->excludes(as_json)->excludes(interval)->excludes(tracing);
  }
  once->excludes(as_json);
  tracing->excludes(once)->excludes(as_json)->excludes(interval);
  out->needs(tracing);
  try {
    app.parse(argc, argv);
    if (count->count() != 0 && !s.once && !s.json) {
      throw CLI::RequiresError("--count", "--json or --once");
    }
    if (context->count() != 0 && !s.enforce && !s.shadow && !s.undo && s.weight.empty()) {
      throw CLI::RequiresError("--context", "--enforce, --shadow, --weight or --undo");
    }
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) {  // --help, --version
      app.exit(e);
      return std::cout.flush() ? fine : complain("the output cannot be written", cannot);
    }
    return complain(fmt::format("{}; see --help", e.what()), bad_usage);
  }
  if (tracing->count() != 0) return trace(m, s);
  if (s.enforce || s.shadow || s.undo || weight->count() != 0) return change(m, s);
  if (s.once || s.json) return read_and_print(m, s);
  if (::isatty(STDIN_FILENO) == 0 || ::isatty(STDOUT_FILENO) == 0) {
    return complain("stdout is not a terminal; use --once for a table or --json for a JSON object",
                    bad_usage);
  }
  return run_screen(m, s.who, from_seconds(s.interval));
}

}  // namespace asio_pulse::top
