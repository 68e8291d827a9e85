// SPDX-License-Identifier: BSL-1.0
//
// The commands for recordings: replay, tune and trace.
//
// They write their answer to one stream and faults to another, a sentence each, and return an exit
// status:
//   0  fine
//   1  the recording cannot be read, does not allow to judge, or the answer cannot be written
//   2  bad usage

#pragma once

#include <asio_pulse/replay.hpp>

#include <chrono>
#include <iosfwd>
#include <optional>
#include <string>
#include <string_view>

namespace CLI {
class App;
}

namespace asio_pulse::tools {

inline constexpr int fine = 0;
inline constexpr int failed = 1;
inline constexpr int bad_usage = 2;

struct replay_arguments {
  std::string file{};
  std::optional<std::chrono::nanoseconds> stall_threshold{};
  std::optional<std::chrono::nanoseconds> yield_threshold{};
  std::optional<std::chrono::nanoseconds> isolate_threshold{};
  std::optional<unsigned> yield_after{};
  replay_options how{};
  bool json = false;
};

/// Says what other settings would have done; without any, what the recording's own do.
int replay_command(const replay_arguments&, std::ostream& out, std::ostream& faults);

struct tune_arguments {
  std::string file{};
  tuning_goal goal{};
  bool json = false;
};

/// Proposes settings. Nothing better to be found is fine, too.
int tune_command(const tune_arguments&, std::ostream& out, std::ostream& faults);

struct trace_arguments {
  std::string file{};
  std::string out{};  ///< "-": `out`
};

/// Writes a trace for Perfetto.
int trace_command(const trace_arguments&, std::ostream& out, std::ostream& faults);

/// Adds the subcommands `replay`, `tune` and `trace`; the one that was asked for runs while the
/// command line is parsed. A status other than `fine` is thrown as CLI::RuntimeError, for which
/// CLI::App::exit() returns it and prints nothing. Other CLI::ParseErrors are bad usage; their
/// texts hold what was typed, unescaped.
void add_replay_commands(CLI::App&);
void add_replay_commands(CLI::App&, std::ostream& out, std::ostream& faults);

/// A duration as it is typed, "1.5ms": a number and ns, us, ms or s, from 0 to 1 h; "0" alone is
/// one. Nothing if it is none.
std::optional<std::chrono::nanoseconds> parse_duration(std::string_view text);

}  // namespace asio_pulse::tools
