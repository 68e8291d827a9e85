// SPDX-License-Identifier: BSL-1.0
//
// The catalogue of scenarios: which programs run with which arguments, which numbers are taken from
// their output, and the targets for these numbers. Data only.

#pragma once

#include "run_output.hpp"

#include <boost/json/object.hpp>

#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

namespace pulse_bench {

/// The kind of an arm. In a comparison of two results only `ours` can be a regression.
enum class arm_kind { baseline, ours, peer };

struct arm_spec {
  std::string name;
  std::string label;
  arm_kind kind = arm_kind::ours;
  std::vector<std::string> command;
};

/// A metric: one number for each repetition.
struct metric_spec {
  std::string name;
  std::string label;
  std::string unit;
  std::string better;  ///< "lower", "higher" or "none"
  bool headline = false;
  std::string key = {};    ///< of a value, or of samples if \c share is not negative
  double share = -1;       ///< which quantile of the samples
  double divide_by = 1;    ///< what turns the program's unit into this one
  std::string minus = {};  ///< key of a value to subtract first; empty: none
};

/// All samples of all repetitions.
struct distribution_spec {
  std::string name;
  std::string label;
  std::string unit;
  std::string key;
  double divide_by = 1;
};

/// A curve: every value whose key is the prefix and a number; the number is x.
struct series_spec {
  std::string name;
  std::string label;
  std::string x_label;
  std::string y_label;
  std::string prefix;
  bool x_log = true;
};

struct variant_spec {
  std::string name;
  std::string title;
  boost::json::object parameters;
  format output = format::worker;
  std::string verification;  ///< what success means, for programs that do not say so themselves
  std::vector<arm_spec> arms;
  std::vector<metric_spec> metrics;
  std::vector<distribution_spec> distributions;
  std::vector<series_spec> series;
  bool timeline = false;
  int repetitions = 0;  ///< 0: as many as asked for
  bool warm_up = true;  ///< the first round does not count
  int limit_s = 60;     ///< a repetition that takes longer is killed
};

/// How a target's value is computed from a metric.
enum class reading {
  median,      ///< of an arm
  ratio,       ///< arm / stock, pair by pair
  difference,  ///< arm - stock, pair by pair
};

struct target_spec {
  std::string text;
  std::string variant;
  std::string metric;
  std::string arm;
  reading how = reading::median;
  std::string better;  ///< "lower": met where the value is not above the limit
  double limit = 0;
};

struct scenario_spec {
  std::string name;
  std::string title;
  std::string question;
  std::vector<variant_spec> variants;
  std::vector<target_spec> targets;
  std::vector<std::string> notes;
};

/// Where this build's programs are, and where its sources were; what a user may override.
std::filesystem::path built_programs();
std::filesystem::path source_folder();

/// What the user has asked for, and what the machine has.
struct settings {
  std::filesystem::path programs;  ///< where the benches were built
  std::filesystem::path source;    ///< benches/ of the source tree, for the helpers in Python
  int repetitions = 6;
  double seconds = 0;  ///< 0: each scenario's own length
  bool quick = false;
  bool peers = false;
  std::string http_rounds;  ///< how often the slow request hashes; empty: not calibrated

  /// The length of one repetition that usually takes \p usual.
  std::chrono::milliseconds length(std::chrono::milliseconds usual) const;
};

/// The names of the scenarios with their purpose. All except soak, shares and shards are run by default.
struct scenario_name {
  std::string name;
  std::string question;
  bool in_default_set;
};
const std::vector<scenario_name>& scenario_names();

/// \par Errors  std::invalid_argument for a name that is not in scenario_names().
scenario_spec make_scenario(const std::string& name, const settings& with);

}  // namespace pulse_bench
