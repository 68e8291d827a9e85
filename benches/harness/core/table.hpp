// SPDX-License-Identifier: BSL-1.0
//
// Results for a terminal: plain text, at most 100 columns wide.

#pragma once

#include "compare.hpp"

#include <boost/json/object.hpp>

#include <string>

namespace pulse_bench {

/// A table for each scenario, its targets, and disturbances of the measurement.
std::string tables(const boost::json::object& result);

/// The differences, the worst first, and the verdict.
std::string table(const comparison& c, double limit);

/// A number with three significant digits and no exponent: "0.0123", "12.3", "1 234 567".
std::string number(double value);

}  // namespace pulse_bench
