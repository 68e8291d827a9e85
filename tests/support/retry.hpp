// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <gtest/gtest.h>

#include <iostream>

namespace pulse_test {

/// Runs a measured scenario until it holds, `tries` times at the most.
///
/// Use it only for measurements: a busy host disturbs a measurement for a while, but a bug disturbs
/// it every time. The scenario returns a testing::AssertionResult, and starts from scratch each
/// time. A failed try is printed.
template <class Scenario>
testing::AssertionResult holds_in_one_of(int tries, Scenario scenario) {
  for (int n = 1;; ++n) {
    testing::AssertionResult result = scenario();
    if (result || n >= tries) return result;
    std::cerr << "  try " << n << " of " << tries << ": " << result.message() << std::endl;
  }
}

}  // namespace pulse_test
