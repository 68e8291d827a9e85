// SPDX-License-Identifier: BSL-1.0
//
// Compares two results: what is different, and whether that is more than chance.

#pragma once

#include <boost/json/object.hpp>

#include <string>
#include <vector>

namespace pulse_bench {

enum class verdict {
  same,       ///< no significant difference, or one below the limit
  better,     ///< significantly, and by more than the limit
  worse,      ///< the same, the other way
  undecided,  ///< too few repetitions to tell
};

struct difference {
  std::string scenario;
  std::string variant;
  std::string metric;  ///< its label
  std::string unit;
  std::string arm;
  bool ours = false;  ///< an arm of asio-pulse, in which a worse result is a regression
  double before = 0;  ///< medians
  double after = 0;
  double change = 0;   ///< in percent of before
  double p_value = 1;  ///< by the Mann-Whitney U test
  verdict is = verdict::same;
};

struct comparison {
  std::vector<difference> differences;
  std::vector<std::string>
      warnings;  ///< reasons why the two are hard to compare, and figures that only one has
  bool regression = false;
};

/// \param limit  In percent. A smaller change does not count.
comparison compare(const boost::json::object& a, const boost::json::object& b, double limit);

}  // namespace pulse_bench
