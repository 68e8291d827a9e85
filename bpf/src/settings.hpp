// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "program/policies.h"
#include "program/scx_pulse.h"

#include <asio_pulse/bpf/protocol.h>

#include <chrono>
#include <optional>
#include <span>
#include <string>
#include <string_view>

/// \file
/// The valid range of each setting, for the command line and for requests that change them.

namespace asio_pulse::scx {

/// A duration that can be set, with its bounds (both allowed).
struct duration_rule {
  std::string_view option;
  std::chrono::nanoseconds least;
  std::chrono::nanoseconds most;
};

/// Below 0.1 ms switches cost too much (a guess). Above a second the waits in a queue may become so
/// long that the kernel's watchdog ends the scheduler, which it does after 30 s at most.
inline constexpr duration_rule slice_rule{"--slice-ms", std::chrono::microseconds{100},
                                          std::chrono::seconds{1}};
/// Zero: escalation as soon as the next check finds the hint ignored.
inline constexpr duration_rule grace_rule{"--grace-ms", std::chrono::nanoseconds{0},
                                          std::chrono::minutes{1}};
/// Zero: a critical section protects nothing.
inline constexpr duration_rule max_critical_rule{"--max-critical-ms", std::chrono::nanoseconds{0},
                                                 std::chrono::seconds{1}};
inline constexpr duration_rule throttle_rule{"--throttle-ms", std::chrono::milliseconds{1},
                                             std::chrono::minutes{1}};
inline constexpr std::uint32_t least_throttle_percent = 1;
inline constexpr std::uint32_t most_throttle_percent = 100;

/// A sentence that names the option and the rule; empty if the value is valid.
std::optional<std::string> broken(const duration_rule& rule, std::chrono::nanoseconds value);

/// Applies `change` to `settings`. If a value is out of range, returns a sentence and changes
/// nothing.
std::optional<std::string> apply(const asio_pulse_set_request& change,
                                 scx_pulse_settings& settings);

std::string_view mode_name(std::uint32_t mode) noexcept;

/// All policies in the order of policies.h, by the number of their enumerators.
std::span<const std::string_view> local_policy_names() noexcept;
std::string_view local_policy_name(scx_pulse_local_policy policy) noexcept;
/// Empty if no policy has this name.
std::optional<scx_pulse_local_policy> local_policy_of(std::string_view name) noexcept;

/// "5ms", "0.1ms": without trailing zeros.
std::string in_ms(std::chrono::nanoseconds value);

}  // namespace asio_pulse::scx
