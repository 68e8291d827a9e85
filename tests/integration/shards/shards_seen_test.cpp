// SPDX-License-Identifier: BSL-1.0
//
// What is seen of shards: their metrics, as an inspector reads them.
#include <asio_pulse/detail/shards/shard_figures.hpp>
#include <asio_pulse/metrics.hpp>
#include <asio_pulse/sharded_context.hpp>

#include <boost/asio/post.hpp>
#include <boost/asio/use_future.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <latch>
#include <string>
#include <thread>

namespace shards_seen {

using namespace std::chrono_literals;
using asio_pulse::context_metrics;
using asio_pulse::move_reason;
using asio_pulse::shard_metrics;
using asio_pulse::sharded_context;
namespace detail = asio_pulse::detail;

TEST(shards_seen, a_shard_names_its_set_and_a_context_is_none) {
  asio_pulse::io_context plain;
  EXPECT_EQ(plain.metrics().shard, shard_metrics{});
  sharded_context one(2);
  sharded_context other(3);
  const shard_metrics first = one.shard(1).metrics().shard;
  EXPECT_EQ(first.index, 1U);
  EXPECT_EQ(first.shards, 2U);
  EXPECT_NE(first.set, 0U);
  EXPECT_EQ(one.shard(0).metrics().shard.set, first.set);
  EXPECT_NE(other.shard(0).metrics().shard.set, first.set);
  EXPECT_FALSE(first.pinned);
}

TEST(shards_seen, the_load_and_the_messages_of_shards_are_in_their_metrics) {
  sharded_context shards(2);
  std::latch measured(1);
  constexpr int messages = 10;
  int got = 0;
  // Long enough for a load of the shard, whatever else runs on the machine.
  const auto burn = [] {
    const auto end = detail::thread_cpu_time() + 20ms;
    while (detail::thread_cpu_time() < end) {
    }
  };
  boost::asio::post(shards.shard(0), [&] {
    for (int i = 0; i != messages; ++i) {
      shards.post(1, [&] {
        if (++got != messages) return;
        burn();
        measured.count_down();
      });
    }
    (void)shards.load(1);
  });
  std::thread runner([&] { shards.run(); });
  measured.wait();
  // A measurement that begins now ends behind that handler. One may have begun before it, and ended in the
  // middle of the messages; then the next window has nothing in it.
  while (shards.shard(1).metrics().shard.cpu_permille == 0) {
    shards.on(1, burn, boost::asio::use_future).get();
    (void)shards.load(1);
    shards
        .on(
            1, [] {}, boost::asio::use_future)
        .get();
  }
  const shard_metrics seen = shards.shard(1).metrics().shard;
  EXPECT_GE(seen.received, static_cast<std::uint64_t>(messages));
  EXPECT_GE(seen.wakes, 1U);
  EXPECT_EQ(shards.shard(0).metrics().shard.received, 0U);
  shards.stop();
  runner.join();
}

TEST(shards_seen, what_has_moved_is_counted_on_both_sides_and_named_on_the_side_that_got_it) {
  detail::shard_figures a(0, 2, 1);
  detail::shard_figures b(1, 2, 1);
  const std::string name(100, 'x');
  for (int i = 0; i != 10; ++i) note_move(a, b, move_reason::imbalance, name, 30us, 5s + i * 1s);
  note_move(a, b, move_reason::drain, "peer", 40us, 20s);
  EXPECT_EQ(a.moves_out[static_cast<std::size_t>(move_reason::imbalance)], 10U);
  EXPECT_EQ(b.moves_in[static_cast<std::size_t>(move_reason::imbalance)], 10U);
  EXPECT_EQ(b.moves_in[static_cast<std::size_t>(move_reason::drain)], 1U);
  EXPECT_EQ(b.load.read().moved_in, 14s) << "a drain is no reason to keep what has come";
  std::array<detail::noted_move, detail::shard_figures::remembered> moves;
  ASSERT_EQ(a.last_moves(moves), 0U);
  ASSERT_EQ(b.last_moves(moves), moves.size());
  EXPECT_EQ(std::string(moves.back().who.data()), "peer");
  EXPECT_EQ(moves.back().why, move_reason::drain);
  EXPECT_EQ(moves.back().took, 40us);
  EXPECT_EQ(std::string(moves.front().who.data()), std::string(47, 'x'));
  EXPECT_EQ(moves.front().at, 8s);
}

TEST(shards_seen, moves_are_noted_by_several_threads_while_they_are_read) {
  detail::shard_figures a(0, 2, 1);
  detail::shard_figures b(1, 2, 1);
  constexpr int each = 2000;
  std::vector<std::thread> threads;
  for (int t = 0; t != 2; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i != each; ++i) note_move(a, b, move_reason::stuck, "who", 1us, 1s);
    });
  }
  std::array<detail::noted_move, detail::shard_figures::remembered> moves;
  while (b.last_moves(moves) < moves.size()) std::this_thread::yield();
  for (std::thread& t : threads) t.join();
  for (const detail::noted_move& m : moves) EXPECT_EQ(std::string(m.who.data()), "who");
  EXPECT_EQ(b.moves_in[static_cast<std::size_t>(move_reason::stuck)], 2U * each);
  EXPECT_EQ(a.moves_out[static_cast<std::size_t>(move_reason::stuck)], 2U * each);
}

}  // namespace shards_seen
