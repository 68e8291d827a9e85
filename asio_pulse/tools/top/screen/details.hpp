// SPDX-License-Identifier: BSL-1.0
//
// A selected row in full, as Enter shows it.

#pragma once

#include "picture.hpp"
#include "styled.hpp"

#include <chrono>
#include <cstddef>
#include <vector>

namespace asio_pulse::top {

std::vector<line> details_of(const task_view&, const context_view&, std::size_t width, charset);
std::vector<line> details_of(const group_view&, const context_view&, std::size_t width, charset);
std::vector<line> details_of(const context_view& shard, std::size_t width, charset);
std::vector<line> details_of(const site_view&, std::size_t width, charset);
/// A stall with its stack. The frame to blame is marked.
std::vector<line> details_of(const stall_metrics&, std::chrono::system_clock::time_point now,
                             std::size_t width, charset);
std::vector<line> details_of(const lint&, std::size_t width, charset);

}  // namespace asio_pulse::top
