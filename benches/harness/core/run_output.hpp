// SPDX-License-Identifier: BSL-1.0
//
// The output of one repetition of an arm, for any program.

#pragma once

#include <boost/json/object.hpp>

#include <map>
#include <string>
#include <vector>

namespace pulse_bench {

struct run_output {
  std::string label;  ///< the name that the program prints for itself; empty if there is none
  std::map<std::string, std::vector<double>> samples_ns;
  std::map<std::string, double> values;
  boost::json::object timeline;
  bool verified = false;
  std::string verification;
};

/// How a program prints its figures.
enum class format {
  worker,   ///< one line of JSON, as bench_worker and the peers print it: see SCHEMA.md
  figures,  ///< the last line is a flat JSON object; the program fails if a result is wrong
  google_benchmark,  ///< --benchmark_format=json
};

/// \par Errors  std::runtime_error that says what is wrong with the text.
run_output parse_output(const std::string& text, format how);

}  // namespace pulse_bench
