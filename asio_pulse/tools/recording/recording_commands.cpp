// SPDX-License-Identifier: BSL-1.0

#include "recording_commands.hpp"

#include "files/replacing_file.hpp"
#include "recording_output.hpp"

#include <asio_pulse/report.hpp>
#include <asio_pulse/trace.hpp>
#include <asio_pulse/version.hpp>

#include <CLI/CLI.hpp>
#include <fmt/core.h>

#include <charconv>
#include <cmath>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <ostream>
#include <string_view>
#include <utility>

namespace asio_pulse::tools {
namespace {

using std::chrono::nanoseconds;

constexpr std::size_t typed_bytes = 200;

struct option_name {
  std::string_view field;
  std::string_view option;
};
constexpr option_name option_names[] = {
    {"asio_pulse::options.stall_threshold", "--stall-threshold"},
    {"asio_pulse::options.yield_threshold", "--yield-threshold"},
    {"asio_pulse::options.isolate_threshold", "--isolate-threshold"},
    {"asio_pulse::options.tiers.yield_after", "--yield-after"},
    {"asio_pulse::task_options.budget", "--budget"},
    {"asio_pulse::task_options.per", "--per"},
    {"asio_pulse::task_options.burst", "--burst"},
};

// The library's message, with the name of the option instead of the field.
std::string as_option(std::string fault) {
  for (const option_name& o : option_names) {
    if (fault.starts_with(o.field)) return fault.replace(0, o.field.size(), o.option);
  }
  return fault;
}

// The parser's message contains what the user typed, so it is escaped. Our own parts of it are
// escaped already.
std::string printable(std::string_view text) {
  std::string line;
  for (const char c : text.substr(0, 4 * typed_bytes)) {
    const bool plain = c >= ' ' && c <= '~';
    line += plain ? std::string(1, c) : fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  }
  return line;
}

int complain(std::ostream& faults, std::string_view command, std::string_view sentence,
             int status) {
  faults << fmt::format("pulse_recording {}: {}\n", command, sentence);
  return status;
}

// Runs the rest of a command after its recording was read.
template <typename Run>
int with_recording(std::string_view command, const std::string& file, std::ostream& out,
                   std::ostream& faults, Run&& run) {
  try {
    std::error_code ec;
    std::string why;
    const recording r = read_recording(file, ec, &why);
    if (ec) return complain(faults, command, why, failed);
    const int status = run(r);
    out.flush();
    if (!out)
      return complain(faults, command, "the result could not be written completely", failed);
    return status;
  } catch (const std::exception& e) {
    return complain(faults, command, escape(e.what(), typed_bytes), failed);
  }
}

// What is wrong with the recording's own settings.
std::string own_fault(const recording& r) {
  const std::string fault = invalid_reason(r.settings);
  return fault.empty() ? fault : fmt::format("recording: settings: {}", fault);
}

std::optional<unsigned> parse_count(std::string_view text) {
  std::uint8_t count = 0;
  const char* const end = text.data() + text.size();
  const auto [at, ec] = std::from_chars(text.data(), end, count);
  return ec == std::errc() && at == end ? std::optional<unsigned>(count) : std::nullopt;
}

CLI::Option* add_duration(CLI::App& app, const std::string& name,
                          std::function<void(nanoseconds)> take, const std::string& what) {
  // A transform and not a conversion, so that the message names the option and escapes the value.
  const auto rule = [](std::string& text) {
    if (parse_duration(text).has_value()) return std::string();
    return fmt::format(
        "must be a number with a unit (ns, us, ms, s), from 0 to 1h, such as 5ms (got \"{}\")",
        escape(text, typed_bytes));
  };
  return app
      .add_option_function<std::string>(
          name, [take = std::move(take)](const std::string& text) { take(*parse_duration(text)); },
          what)
      ->check(CLI::Validator(rule, ""))
      ->type_name("DURATION");
}

void add_file(CLI::App& app, std::string& file) {
  app.add_option("file", file, "a recording (.pulse)")->required()->type_name("FILE");
}

[[noreturn]] void end(int status) { throw CLI::RuntimeError(status); }

void add_replay(CLI::App& app, std::ostream& out, std::ostream& faults) {
  CLI::App* const sub =
      app.add_subcommand("replay", "show what other settings would have done to a recording");
  const auto args = std::make_shared<replay_arguments>();
  add_file(*sub, args->file);
  const auto duration = [&](const std::string& name, std::optional<nanoseconds>& where,
                            const std::string& what) {
    // The callback below keeps the arguments alive.
    add_duration(
        *sub, name, [&where](nanoseconds value) { where = value; }, what);
  };
  duration("--stall-threshold", args->stall_threshold, "as options::stall_threshold");
  duration("--yield-threshold", args->yield_threshold, "as options::yield_threshold");
  duration("--isolate-threshold", args->isolate_threshold, "as options::isolate_threshold");
  sub->add_option_function<std::string>(
         "--yield-after",
         [args](const std::string& text) { args->yield_after = parse_count(text); },
         "as tier_policy::yield_after")
      ->check(CLI::Validator(
          [](std::string& text) {
            if (parse_count(text).has_value()) return std::string();
            return fmt::format("must be a whole number from 0 to 255 (got \"{}\")",
                               escape(text, typed_bytes));
          },
          ""))
      ->type_name("COUNT");
  duration("--budget", args->how.budget, "of each task that has one, as task_options::budget");
  duration("--per", args->how.per, "of each task that has a budget, as task_options::per");
  duration("--burst", args->how.burst, "of each task that has a budget, as task_options::burst");
  sub->add_flag("--json", args->json, "print the result as JSON");
  sub->callback([args, &out, &faults] {
    if (const int status = replay_command(*args, out, faults); status != fine) end(status);
  });
}

void add_tune(CLI::App& app, std::ostream& out, std::ostream& faults) {
  CLI::App* const sub = app.add_subcommand("tune", "propose settings that would have done better");
  const auto args = std::make_shared<tune_arguments>();
  add_file(*sub, args->file);
  add_duration(
      *sub, "--goal-p99", [args](nanoseconds value) { args->goal.others_p99 = value; },
      "the longest acceptable wait for 99 of 100 polls of tasks that are not held back [1ms]");
  sub->add_flag("--json", args->json, "print the result as JSON");
  sub->callback([args, &out, &faults] {
    if (const int status = tune_command(*args, out, faults); status != fine) end(status);
  });
}

void add_trace(CLI::App& app, std::ostream& out, std::ostream& faults) {
  CLI::App* const sub = app.add_subcommand(
      "trace", "convert a recording into a trace for Perfetto and chrome://tracing");
  const auto args = std::make_shared<trace_arguments>();
  add_file(*sub, args->file);
  sub->add_option("--out", args->out, "the trace (.json); -: standard output")
      ->required()
      ->type_name("FILE");
  sub->callback([args, &out, &faults] {
    if (const int status = trace_command(*args, out, faults); status != fine) end(status);
  });
}

}  // namespace

std::optional<nanoseconds> parse_duration(std::string_view text) {
  struct unit {
    std::string_view name;
    double ns;
  };
  constexpr unit units[] = {{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}};
  constexpr double most = 3600e9;
  if (text == "0") return nanoseconds{0};
  double number = 0;
  const auto [end, ec] =
      std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  if (ec != std::errc()) return std::nullopt;
  const std::string_view rest(end, static_cast<std::size_t>(text.data() + text.size() - end));
  for (const unit& u : units) {
    if (rest != u.name) continue;
    const double ns = number * u.ns;
    if (!(ns >= 0 && ns <= most)) return std::nullopt;  // also false for NaN
    return nanoseconds{std::llround(ns)};
  }
  return std::nullopt;
}

int replay_command(const replay_arguments& args, std::ostream& out, std::ostream& faults) {
  return with_recording("replay", args.file, out, faults, [&](const recording& r) {
    if (const std::string fault = own_fault(r); !fault.empty()) {
      return complain(faults, "replay", fault, failed);
    }
    recorded_settings settings = r.settings;
    settings.stall_threshold = args.stall_threshold.value_or(settings.stall_threshold);
    settings.yield_threshold = args.yield_threshold.value_or(settings.yield_threshold);
    settings.isolate_threshold = args.isolate_threshold.value_or(settings.isolate_threshold);
    settings.tiers.yield_after = args.yield_after.value_or(settings.tiers.yield_after);
    if (const std::string fault = invalid_reason(settings, args.how); !fault.empty()) {
      return complain(faults, "replay", as_option(fault), bad_usage);
    }
    const replay_result result = replay(r, settings, args.how);
    out << (args.json ? replay_json : replay_text)(r, settings, args.how, result);
    return fine;
  });
}

int tune_command(const tune_arguments& args, std::ostream& out, std::ostream& faults) {
  return with_recording("tune", args.file, out, faults, [&](const recording& r) {
    if (const std::string fault = own_fault(r); !fault.empty()) {
      return complain(faults, "tune", fault, failed);
    }
    if (const std::string fault = too_short(r); !fault.empty()) {
      return complain(faults, "tune", fault, failed);
    }
    const std::vector<proposal> found = tune(r, args.goal);
    out << (args.json ? tune_json : tune_text)(r, args.goal, found);
    return fine;
  });
}

int trace_command(const trace_arguments& args, std::ostream& out, std::ostream& faults) {
  return with_recording("trace", args.file, out, faults, [&](const recording& r) {
    if (args.out == "-") {
      write_trace(r, out);
      return fine;
    }
    std::error_code ec;
    const std::string fault = detail::replace_file(
        args.out, "--out", [&r](std::ostream& file) { write_trace(r, file); }, ec);
    return ec ? complain(faults, "trace", fault, failed) : fine;
  });
}

int run_command(int argc, const char* const* argv, std::ostream& out,
                std::ostream& faults) noexcept {
  try {
    CLI::App app{"Evaluates a recording (.pulse) of a program that uses asio-pulse."};
    app.name("pulse_recording");
    app.set_version_flag("--version", std::string(ASIO_PULSE_VERSION));
    app.require_subcommand(1);
    add_replay(app, out, faults);
    add_tune(app, out, faults);
    add_trace(app, out, faults);
    try {
      app.parse(argc, argv);
      return fine;
    } catch (const CLI::RuntimeError& e) {
      return e.get_exit_code();  // from a command, which has printed the reason
    } catch (const CLI::ParseError& e) {
      if (e.get_exit_code() == 0) {  // --help, --version
        app.exit(e, out, faults);
        if (out.flush()) return fine;
        faults << "pulse_recording: the result could not be written completely\n";
        return failed;
      }
      faults << fmt::format("pulse_recording: {}; see --help\n", printable(e.what()));
      return bad_usage;
    }
  } catch (const std::exception& e) {
    faults << "pulse_recording: " << e.what() << '\n';
    return failed;
  }
}

}  // namespace asio_pulse::tools
