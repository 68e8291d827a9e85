// SPDX-License-Identifier: BSL-1.0
//
// Recordings: the events of the workers, 16 bytes each.

#pragma once

#include <asio_pulse/hooks/requirements.hpp>
//
#include <asio_pulse/metrics.hpp>
#include <asio_pulse/options.hpp>

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace asio_pulse {

enum class event_kind : std::uint8_t {
  poll,         ///< a handler ran
  tier,         ///< a task changed its tier; value: see recorded_event::tier_change()
  parked,       ///< an operation was put back
  yielded,      ///< a checkpoint was told to yield
  isolated,     ///< a handler runs on the isolation pool
  hint,         ///< a worker reacted to a hint of the operating system
  stall,        ///< the watchdog found a poll stuck; value: index in recording::stalls
  queue_delay,  ///< a probe became ready at the start, and ran at the end
  updated,      ///< the worker uses new options; value: the number of the update
  refused       ///< admit() refused a request, or would have; value: the asio_pulse::refusal
};

/// The enumerator's name; "unknown" for a value that is not an enumerator.
std::string_view to_string(event_kind) noexcept;

/// One event. 16 bytes, in memory and in a file (little-endian).
///
///     first:   bits 0-3    kind
///                   4      the duration counts in units of 1024 ns
///                   5-15   site
///                   16-63  start
///     second:  bits 0-31   task (the low bits of its id)
///                   32-63  duration (polls and queue delays), or value (other kinds)
struct recorded_event {
  std::uint64_t first = 0;
  std::uint64_t second = 0;

  static constexpr std::uint32_t no_site = 0x7ff;

  [[nodiscard]] constexpr event_kind kind() const noexcept {
    return static_cast<event_kind>(first & 15);
  }
  /// The start of the event, since recording::begin.
  [[nodiscard]] constexpr std::chrono::nanoseconds start() const noexcept {
    return std::chrono::nanoseconds{static_cast<std::int64_t>(first >> 16)};
  }
  /// The index in recording::sites, or no_site if the site is not known.
  [[nodiscard]] constexpr std::uint32_t site() const noexcept {
    return static_cast<std::uint32_t>(first >> 5) & no_site;
  }
  [[nodiscard]] constexpr std::uint32_t task() const noexcept {
    return static_cast<std::uint32_t>(second);
  }
  /// The CPU time of a poll, or the length of a queue delay.
  [[nodiscard]] constexpr std::chrono::nanoseconds duration() const noexcept {
    return std::chrono::nanoseconds{
        static_cast<std::int64_t>(second >> 32 << ((first & 16) != 0 ? 10 : 0))};
  }
  /// The value of an event of another kind.
  [[nodiscard]] constexpr std::uint32_t value() const noexcept {
    return static_cast<std::uint32_t>(second >> 32);
  }
  /// The value of an event of kind `tier`. The tiers have four bits each: bits 0-3 of the value are
  /// `from * 4 + to` of their low two bits, and bits 4-7 the same of their high two bits.
  [[nodiscard]] static constexpr std::uint32_t tier_change(tier from, tier to) noexcept {
    const auto f = static_cast<std::uint32_t>(from);
    const auto t = static_cast<std::uint32_t>(to);
    return (f & 3) << 2 | (t & 3) | (f >> 2 & 3) << 6 | (t >> 2 & 3) << 4;
  }
  [[nodiscard]] constexpr tier tier_before() const noexcept {
    return static_cast<tier>((value() >> 2 & 3) | (value() >> 6 & 3) << 2);
  }
  [[nodiscard]] constexpr tier tier_after() const noexcept {
    return static_cast<tier>((value() & 3) | (value() >> 4 & 3) << 2);
  }
  /// Makes an event. Durations above 4.29 s are kept in units of 1024 ns; those above 73 min are
  /// cut.
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
  std::string name{};  ///< with its group, if it is in one: "request (in tenant/user)"
  std::chrono::nanoseconds budget{0};
  std::chrono::nanoseconds per{0};
  std::chrono::nanoseconds burst{0};
  friend bool operator==(const recorded_task&, const recorded_task&) = default;
};

/// The events of one worker, in the order of their start. Polls inside polls (nested calls of a run
/// function) overlap.
struct recorded_worker {
  std::uint64_t thread = 0;  ///< the kernel's id of the thread
  std::uint64_t lost = 0;    ///< events that were overwritten before they were read
  std::vector<recorded_event> events{};
  friend bool operator==(const recorded_worker&, const recorded_worker&) = default;
};

/// The options that decide about tiers. A recording contains those it was made with; a replay gets
/// those to try.
struct recorded_settings {
  std::chrono::nanoseconds stall_threshold{0};
  std::chrono::nanoseconds yield_threshold{0};
  std::chrono::nanoseconds isolate_threshold{0};
  tier_policy tiers{};
  bool shadow = false;
  friend bool operator==(const recorded_settings&, const recorded_settings&) = default;
};

/// A recording of a context.
struct recording {
  std::uint64_t pid = 0;
  std::string program{};
  std::string context{};                          ///< options::name
  std::chrono::system_clock::time_point begin{};  ///< the times of events count from here
  std::chrono::nanoseconds length{0};
  timing::clock_kind clock = timing::clock_kind::none;
  recorded_settings settings{};
  std::vector<recorded_site> sites{};
  std::vector<recorded_task> tasks{};  ///< those that were alive when the recording was taken
  std::vector<recorded_worker> workers{};
  std::vector<stall_metrics> stalls{};
  friend bool operator==(const recording&, const recording&) = default;
};

/// Reads or writes the file of a recording (extension .pulse). The file is written under a
/// temporary name and then renamed, so that a full disk leaves no incomplete file.
///
/// \par Errors  `ec` is std::errc::bad_message (not a recording, truncated, or of another version)
///              or an error of the system. `why`, if it is not null, is set to a sentence that
///              names the field and the rule.
[[nodiscard]] recording read_recording(const std::string& path, std::error_code& ec,
                                       std::string* why = nullptr);
void write_recording(const recording&, const std::string& path, std::error_code& ec,
                     std::string* why = nullptr);

/// A recording as bytes: the content of its file, and what is sent through a socket.
[[nodiscard]] std::string encode(const recording&);
[[nodiscard]] recording decode_recording(std::string_view bytes, std::error_code& ec,
                                         std::string* why = nullptr);

}  // namespace asio_pulse
