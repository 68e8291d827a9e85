// SPDX-License-Identifier: BSL-1.0
//
// Turns the output of the repetitions into the result. Pure functions.

#pragma once

#include "catalogue/catalogue.hpp"
#include "run_output.hpp"

#include <boost/json/object.hpp>

#include <map>
#include <string>
#include <vector>

namespace pulse_bench {

/// The repetitions of each arm, in the order they ran: the same number for every arm
/// unless one went wrong.
using repetitions = std::map<std::string, std::vector<run_output>>;

/// One element of "variants".
boost::json::object collect_variant(const variant_spec& spec, const repetitions& runs);

/// One element of "scenarios", its variants already collected.
boost::json::object collect_scenario(const scenario_spec& spec, boost::json::array variants);

}  // namespace pulse_bench
