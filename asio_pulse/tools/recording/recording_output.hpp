// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/replay.hpp>

#include <string>
#include <vector>

namespace asio_pulse::tools {

std::string replay_text(const recording&, const recorded_settings& settings, const replay_options&,
                        const replay_result&);
std::string replay_json(const recording&, const recorded_settings& settings, const replay_options&,
                        const replay_result&);

std::string tune_text(const recording&, const tuning_goal&, const std::vector<proposal>&);
std::string tune_json(const recording&, const tuning_goal&, const std::vector<proposal>&);

}  // namespace asio_pulse::tools
