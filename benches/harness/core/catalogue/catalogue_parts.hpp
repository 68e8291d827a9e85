// SPDX-License-Identifier: BSL-1.0
//
// Common parts of the files that describe the scenarios.

#pragma once

#include "catalogue.hpp"

#include <fmt/format.h>

namespace pulse_bench {

using words = std::vector<std::string>;

/// The worker's two halves with the same arguments.
std::vector<arm_spec> worker_arms(const settings& with, const words& arguments);

/// The peers that were built, if the user has asked for them, with these arguments.
void add_peers(std::vector<arm_spec>& arms, const settings& with, const words& arguments);

/// The p50, the p99 and the worst of the samples \p key, which are nanoseconds, in ms; the p99 is
/// the headline.
std::vector<metric_spec> lateness_metrics(const std::string& key, const std::string& label);

/// The counters of asio-pulse, by the names of the worker's values.
void add_counts(std::vector<metric_spec>& metrics, const words& names);

/// The whole seconds for which a web server is asked.
long web_seconds(const settings& with, long least);

/// A variant of the web server (benches/http_server.cpp), without its arms and metrics. With \p hogs
/// it gets slow requests as well.
variant_spec web_variant(const std::string& name, const std::string& title, bool hogs,
                         long seconds);

/// The command of an arm of it: one run of the server \p which.
words web_command(const settings& with, const std::string& which, const std::string& threads,
                  bool hogs, long seconds);

scenario_spec starvation(const settings& with);
scenario_spec storm(const settings& with);
scenario_spec liar(const settings& with);
scenario_spec latency(const settings& with);
scenario_spec defaults(const settings& with);
scenario_spec http(const settings& with);
scenario_spec checkpoints(const settings& with);
scenario_spec overhead(const settings& with);
scenario_spec scale(const settings& with);
scenario_spec soak(const settings& with);
scenario_spec shares(const settings& with);
scenario_spec shards(const settings& with);

}  // namespace pulse_bench
