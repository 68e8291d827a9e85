// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "replay_model.hpp"

#include <asio_pulse/replay.hpp>

namespace asio_pulse::detail {

/// replay() of a recording that was prepared before. The settings must be valid.
[[nodiscard]] replay_result run_replay(const replay_model&, const recorded_settings&,
                                       const replay_options&);

struct replay_figures {
  tuning_figures value{};
  std::size_t others = 0;  ///< polls of tasks that were not held back
};

/// As run_replay(), but computes only these figures.
[[nodiscard]] replay_figures figures_of_replay(const replay_model&, const recorded_settings&,
                                               const replay_options&);

}  // namespace asio_pulse::detail
