// SPDX-License-Identifier: BSL-1.0
//
// The parts of the scenario `shards`, by their variants. In stock a context takes the place of shards, run by
// as many threads.

#pragma once

#include "../worker.hpp"

namespace worker {

/// 16 chains of posts: handlers a second.
outcome shards_posts(const request& r);
/// The time between handlers of 10 us, and what it consists of.
outcome shards_overhead(const request& r);
/// CPU time of a poll, with 10 to 1 000 000 tasks, on 1 to 8 shards.
outcome shards_polls(const request& r);
/// Memory of shards that have nothing to do.
outcome shards_memory(const request& r);
/// Messages to a shard that runs.
outcome shards_message(const request& r);
/// Messages to a shard that sleeps, and an eventfd.
outcome shards_wake(const request& r);
/// Connections that move while their clients talk to them.
outcome shards_moving(const request& r);
/// The delays of a trace of requests on two shards, and in the simulation.
outcome shards_model(const request& r);
/// Simulations of 2 to 256 shards; `variant` is simulate, simulate-still, simulate-stealing or
/// simulate-queue.
outcome shards_simulate(const request& r);
/// A shard that gets more load than it can serve, simulated.
outcome shards_sticky(const request& r);

}  // namespace worker
