// SPDX-License-Identifier: BSL-1.0
//
// Runs the programs in turn, in reverse order in every second round, so that drift affects all arms
// alike.

#pragma once

#include "catalogue/catalogue.hpp"

#include <boost/json/object.hpp>

#include <functional>
#include <string>
#include <vector>

namespace pulse_bench {

/// Called with a line about what runs now, and how much is done, from 0 to 1.
using progress = std::function<void(const std::string& text, double share)>;

/// Runs the scenarios and returns the result. failures() returns what was not verified.
///
/// If a repetition cannot be run, or is wrong, its variant ends and is not verified. The others
/// continue.
///
/// \par Errors  interrupted.
boost::json::object run_scenarios(const std::vector<std::string>& names, const settings& with,
                                  const std::string& command, const progress& tell);

/// What was not verified, one line each; empty if everything was.
std::vector<std::string> failures(const boost::json::object& result);

}  // namespace pulse_bench
