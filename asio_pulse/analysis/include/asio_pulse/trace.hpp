// SPDX-License-Identifier: BSL-1.0
//
// A recording as a trace for Perfetto. Link asio_pulse::analysis.

#pragma once

#include <asio_pulse/recording.hpp>

#include <iosfwd>
#include <span>

namespace asio_pulse {

/// Writes a trace for Perfetto and chrome://tracing: one track for each worker, polls as slices
/// named by their site, tiers, yields, hints and queue delays as instants and counters, and stalls
/// with their stacks.
///
/// \par Errors  The state of the stream; std::bad_alloc.
void write_trace(const recording&, std::ostream&);

/// The same for several recordings that were made at the same time, such as those of the shards that
/// sharded_context::traces() returns. Each has a lane of its own, in the order of the recordings, on
/// a common axis of time. What is in the head of the file is that of the first one.
void write_trace(std::span<const recording>, std::ostream&);

}  // namespace asio_pulse
