// SPDX-License-Identifier: BSL-1.0
//
// Runs the programs: by turns, each round in the other order, so that drift hits all arms alike.

#pragma once

#include "catalogue.hpp"

#include <boost/json/object.hpp>

#include <functional>
#include <string>
#include <vector>

namespace pulse_bench {

/// Gets a line about what runs now, and how much of all is done, 0 to 1.
using progress = std::function<void(const std::string& text, double share)>;

/// The whole result, whatever was verified: see failures().
///
/// A repetition that cannot be run, or is wrong, ends its variant, which is not verified then; the
/// rest goes on.
///
/// \par Errors  interrupted.
boost::json::object run_scenarios(const std::vector<std::string>& names, const settings& with,
                                  const std::string& command, const progress& tell);

/// What was not verified, one line each; none: everything was.
std::vector<std::string> failures(const boost::json::object& result);

}  // namespace pulse_bench
