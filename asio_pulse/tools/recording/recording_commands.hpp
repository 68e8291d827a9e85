// SPDX-License-Identifier: BSL-1.0
//
// pulse_recording: the commands replay, tune and trace.
//
// They write their result to one stream and error messages to another, and return an exit status:
//   0  success
//   1  the recording cannot be read or judged, or the result cannot be written
//   2  wrong usage

#pragma once

#include <asio_pulse/replay.hpp>

#include <chrono>
#include <iosfwd>
#include <optional>
#include <string>
#include <string_view>

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

/// Prints what other settings would have done; without any, what the recording's own settings do.
int replay_command(const replay_arguments&, std::ostream& out, std::ostream& faults);

struct tune_arguments {
  std::string file{};
  tuning_goal goal{};
  bool json = false;
};

/// Proposes settings. It is not an error if there are none that are better.
int tune_command(const tune_arguments&, std::ostream& out, std::ostream& faults);

struct trace_arguments {
  std::string file{};
  std::string out{};  ///< a file; "-" stands for the stream `out`
};

/// Writes a trace for Perfetto.
int trace_command(const trace_arguments&, std::ostream& out, std::ostream& faults);

/// Runs the whole program, and returns its exit status.
///
/// \par Errors  None (noexcept). Error messages go to `faults`.
int run_command(int argc, const char* const* argv, std::ostream& out,
                std::ostream& faults) noexcept;

/// Parses a duration such as "1.5ms": a number with ns, us, ms or s, from 0 to 1 h; "0" needs no
/// unit. Empty if the text is not a duration.
std::optional<std::chrono::nanoseconds> parse_duration(std::string_view text);

}  // namespace asio_pulse::tools
