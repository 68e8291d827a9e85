// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/replay.hpp>

#include "replay_model.hpp"

namespace asio_pulse::detail {

/// replay() of a recording that was made ready before. The settings are valid.
[[nodiscard]] replay_result run_replay(const replay_model&, const recorded_settings&,
                                       const replay_options&);

struct replay_figures {
  tuning_figures value{};
  std::size_t others = 0;  ///< polls of tasks that were not touched
};

/// As run_replay(), and less of it.
[[nodiscard]] replay_figures figures_of_replay(const replay_model&, const recorded_settings&,
                                               const replay_options&);

}  // namespace asio_pulse::detail
