// SPDX-License-Identifier: BSL-1.0
//
// Recordings: what the workers did, event by event, 16 bytes each.

#pragma once

#include <asio_pulse/metrics.hpp>
#include <asio_pulse/options.hpp>

#include <chrono>
#include <cstdint>
#include <iosfwd>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace asio_pulse {

enum class event_kind : std::uint8_t {
  poll,        ///< a handler ran
  tier,        ///< a task changed its tier; value: from * 4 + to
  parked,      ///< an operation was put back
  yielded,     ///< a checkpoint was told to yield
  isolated,    ///< a handler runs on the isolation pool
  hint,        ///< a hint of the operating system was acted upon
  stall,       ///< the watchdog found a poll stuck; value: index in recording::stalls
  queue_delay  ///< a probe was ready at the start and ran at the end
};

/// The enumerator's name; "unknown" for a value that is none of them.
std::string_view to_string(event_kind) noexcept;

/// One event. 16 bytes, in memory and in a file (little-endian).
///
/// first:  bits 0-3 kind, 4 `coarse` (the duration counts in units of 1024 ns), 5-15 site, 16-63
/// start second: bits 0-31 task (its id's low bits), 32-63 duration (polls), or value (other kinds)
struct recorded_event {
  std::uint64_t first = 0;
  std::uint64_t second = 0;

  static constexpr std::uint32_t no_site = 0x7ff;

  [[nodiscard]] constexpr event_kind kind() const noexcept {
    return static_cast<event_kind>(first & 15);
  }
  /// Since recording::begin.
  [[nodiscard]] constexpr std::chrono::nanoseconds start() const noexcept {
    return std::chrono::nanoseconds{static_cast<std::int64_t>(first >> 16)};
  }
  /// Index in recording::sites; no_site: not known.
  [[nodiscard]] constexpr std::uint32_t site() const noexcept {
    return static_cast<std::uint32_t>(first >> 5) & no_site;
  }
  [[nodiscard]] constexpr std::uint32_t task() const noexcept {
    return static_cast<std::uint32_t>(second);
  }
  /// Of a poll (its CPU time) or a queue delay.
  [[nodiscard]] constexpr std::chrono::nanoseconds duration() const noexcept {
    return std::chrono::nanoseconds{
        static_cast<std::int64_t>(second >> 32 << ((first & 16) != 0 ? 10 : 0))};
  }
  /// Of the other kinds.
  [[nodiscard]] constexpr std::uint32_t value() const noexcept {
    return static_cast<std::uint32_t>(second >> 32);
  }
  /// Durations above 4.29 s are kept to 1024 ns, those above 73 min are cut.
  [[nodiscard]] static recorded_event make(event_kind kind, std::chrono::nanoseconds start,
                                           std::uint32_t site, std::uint32_t task,
                                           std::chrono::nanoseconds duration) noexcept;
  [[nodiscard]] static recorded_event make(event_kind kind, std::chrono::nanoseconds start,
                                           std::uint32_t site, std::uint32_t task,
                                           std::uint32_t value) noexcept;
  friend bool operator==(const recorded_event&, const recorded_event&) = default;
};
static_assert(sizeof(recorded_event) == 16);

struct recorded_site {
  std::string type{};
  source_place place{};
  friend bool operator==(const recorded_site&, const recorded_site&) = default;
};

struct recorded_task {
  std::uint64_t id = 0;
  std::string name{};
  std::chrono::nanoseconds budget{0};
  std::chrono::nanoseconds per{0};
  std::chrono::nanoseconds burst{0};
  friend bool operator==(const recorded_task&, const recorded_task&) = default;
};

/// What one worker did, in the order of start. Polls inside polls (a nested run) overlap.
struct recorded_worker {
  std::uint64_t thread = 0;  ///< the kernel's number
  std::uint64_t lost = 0;    ///< events that were written over before they were read
  std::vector<recorded_event> events{};
  friend bool operator==(const recorded_worker&, const recorded_worker&) = default;
};

/// The part of options that decides about tiers: what a recording was made with, and what a replay
/// is asked about.
struct recorded_settings {
  std::chrono::nanoseconds stall_threshold{0};
  std::chrono::nanoseconds yield_threshold{0};
  std::chrono::nanoseconds isolate_threshold{0};
  tier_policy tiers{};
  bool shadow = false;
  friend bool operator==(const recorded_settings&, const recorded_settings&) = default;
};

/// A piece of a context's life.
struct recording {
  std::uint64_t pid = 0;
  std::string program{};
  std::string context{};                          ///< options::name
  std::chrono::system_clock::time_point begin{};  ///< what event times count from
  std::chrono::nanoseconds length{0};
  timing::clock_kind clock = timing::clock_kind::none;
  recorded_settings settings{};
  std::vector<recorded_site> sites{};
  std::vector<recorded_task> tasks{};  ///< those that were alive when it was taken
  std::vector<recorded_worker> workers{};
  std::vector<stall_metrics> stalls{};
  friend bool operator==(const recording&, const recording&) = default;
};

/// Reads and writes a recording's file (extension .pulse). Written beside it first and renamed: a
/// full disk leaves no half of one.
///
/// \par Errors  `ec`: std::errc::bad_message (foreign, truncated, or of another version) or the
/// system's;
///              `why`, if not null, gets a sentence that names the field and the rule.
[[nodiscard]] recording read_recording(const std::string& path, std::error_code& ec,
                                       std::string* why = nullptr);
void write_recording(const recording&, const std::string& path, std::error_code& ec,
                     std::string* why = nullptr);

/// The same as bytes: a file's content, and what goes through a socket.
[[nodiscard]] std::string encode(const recording&);
[[nodiscard]] recording decode_recording(std::string_view bytes, std::error_code& ec,
                                         std::string* why = nullptr);

/// Writes what Perfetto and chrome://tracing read: one track a worker, polls as slices named by
/// site, tiers, yields, hints and queue delays as instants and counters, stalls with their stacks.
///
/// \par Errors  Those of the stream.
void write_trace(const recording&, std::ostream&);

}  // namespace asio_pulse
