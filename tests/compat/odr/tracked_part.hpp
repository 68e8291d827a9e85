// SPDX-License-Identifier: BSL-1.0
#pragma once

/// A library that uses asio-pulse itself, built with the tracking definition.
namespace tracked_part {

void run_a_context();

}  // namespace tracked_part
