// SPDX-License-Identifier: BSL-1.0
//
// The loops that poll_path measures. Each runs \p count operations in the context with run(), and
// returns how many have run.

#pragma once

#include "annotations.hpp"

#include <cstdint>

namespace bench {

/// A handler that posts itself again: the shortest poll there is.
std::uint64_t post_chain(io_context& io, std::uint64_t count);
/// The same through strand<io_context::executor_type>.
std::uint64_t strand_chain(io_context& io, std::uint64_t count);
/// The same through strand<any_io_executor>.
std::uint64_t any_strand_chain(io_context& io, std::uint64_t count);
/// \p count calls of poll() that find nothing, and of post() and poll(): a program with a loop of its
/// own, such as a game. A timer is waiting, so each call asks the reactor.
std::uint64_t idle_polls(io_context& io, std::uint64_t count);
std::uint64_t posts_and_polls(io_context& io, std::uint64_t count);
/// Only starts such a chain, of \p left operations; it counts down.
void start_chain(io_context& io, std::uint64_t& left);
/// A coroutine that awaits post().
std::uint64_t co_await_post(io_context& io, std::uint64_t count);
/// Two coroutines over a socket pair; \p count round trips.
std::uint64_t ping_pong(io_context& io, std::uint64_t count);

}  // namespace bench
