// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/requirements.hpp>
//
#include <asio_pulse/options.hpp>
#include <asio_pulse/placement.hpp>
#include <asio_pulse/shard_balance.hpp>

#include <boost/system/error_code.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace asio_pulse {

/// A move that was made, or tried.
struct move_record {
  std::size_t from = 0;
  std::size_t to = 0;
  move_reason why = move_reason::ordered;
  /// Why it was not made. Then the session is where it was.
  boost::system::error_code failure{};
};

/// The options of a sharded_context.
///
/// The order of the members is stable, so that designated initialisers continue to compile.
struct shard_options {
  /// The options of each shard's context. If it has a name, "/0", "/1", ... is added to it.
  options context = {};

  /// Pins the thread of each shard to one CPU. A CPU that other programs use as well is then lost to
  /// its shard for as long as they use it, so this is for machines that run nothing else.
  bool pinned = false;

  /// The CPUs to pin to: shard i to the CPU `cpus[i % cpus.size()]`. Empty: those that the process
  /// may run on. Has no effect without `pinned`.
  std::vector<int> cpus = {};

  /// How many messages one shard may send to another one before the other looks into its mailbox,
  /// and how many of one shard may wait in the queue of the other. From 1 to 65536. Each takes 16
  /// bytes for each of the other shards, whether it is used or not.
  std::size_t mailbox = 256;

  /// How place() chooses a shard.
  placement_rule placement = placement_rule::round_robin;

  /// If it is set, it chooses instead.
  placement_function place = {};

  /// Sessions that may move (movable.hpp) are moved when one shard has more load than others, and taken
  /// over when a handler of their shard does not end. It is on by default because only sessions that
  /// agree to it move. Without such sessions, and with a single shard, nothing is measured.
  bool balance = true;

  /// When sessions are moved; see `balance`.
  balance_settings balancing = {};

  /// The number of spare threads of each shard, which run its handlers while its own thread is stuck in
  /// one (for options::stall_threshold), and for 10 ms after. Zero: none. At most 64. By setting this you
  /// promise that the shard's handlers may run in parallel then: what they share, including
  /// sharded::local(), needs a lock or a strand. Messages that such handlers send are not ordered with
  /// those of the stuck one. A post of a shard to itself takes a lock, which costs about 10 ns.
  std::size_t rescue = 0;

  /// Called for each move that was made, or that failed, on the thread that moves the session. It may run
  /// on several threads at once. No lock is held, and exceptions are ignored.
  std::function<void(const move_record&)> on_move = {};
};

/// What a shard has done since it was made.
struct shard_statistics {
  std::uint64_t received = 0;  ///< messages and answers of other shards
  std::uint64_t wakes = 0;     ///< how often one of them found it asleep, and had to wake it
  bool pinned = false;         ///< its thread is pinned to a CPU; false if the system refused
  std::size_t movables = 0;    ///< sessions that may move and are on this shard
  /// Moves from and to this shard, by move_reason.
  std::array<std::uint64_t, move_reasons> moved_out{};
  std::array<std::uint64_t, move_reasons> moved_in{};
  std::uint64_t move_failures = 0;  ///< moves from this shard that could not be made
  bool draining = false;            ///< see sharded_context::drain()
  /// Of `movables`: those that have stuck a shard, and are kept apart from others. See shards.md.
  std::size_t hogs = 0;
};

}  // namespace asio_pulse
