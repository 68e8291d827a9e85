// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <gtest/gtest.h>

#include <iostream>

namespace pulse_test {

/// Runs a measured scenario until it holds, `tries` times at the most.
///
/// For what can only be measured: a busy host spoils a measurement for a while, a fault of ours
/// spoils it every time. Not for what is certain. The scenario returns a testing::AssertionResult
/// and starts from scratch each time; a try that failed is printed.
template <class Scenario>
testing::AssertionResult holds_in_one_of(int tries, Scenario scenario) {
  for (int n = 1;; ++n) {
    testing::AssertionResult result = scenario();
    if (result || n >= tries) return result;
    std::cerr << "  try " << n << " of " << tries << ": " << result.message() << std::endl;
  }
}

}  // namespace pulse_test
