// SPDX-License-Identifier: BSL-1.0
//
// Describes the machine, and whether it was quiet enough.

#pragma once

#include <boost/json/object.hpp>

#include <filesystem>
#include <string>
#include <vector>

namespace pulse_bench {

/// Figures that show whether other processes used the machine. Read before the first run and after
/// the last.
struct disturbance {
  double load = 0;         ///< load average of the last minute
  double stolen = 0;       ///< ticks that the hypervisor gave to others, all CPUs
  double busy = 0;         ///< ticks in which a CPU of this machine worked, all CPUs
  double own = 0;          ///< of these: this process and what it has started and waited for
  double ticks = 0;        ///< all ticks, all CPUs
  double spin_spread = 0;  ///< p90 over the least of a fixed piece of work; 1 is perfect
};

disturbance look_around();

/// The reasons why the machine was noisy; none: it was not.
std::vector<std::string> noise(const disturbance& before, const disturbance& after);

/// "machine" of the result.
boost::json::object describe_machine(const disturbance& before, const disturbance& after,
                                     const std::filesystem::path& source,
                                     const std::string& command);

/// Now, as 2026-11-21T22:50:00Z.
std::string timestamp();

}  // namespace pulse_bench
