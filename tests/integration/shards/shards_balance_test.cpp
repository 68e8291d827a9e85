// SPDX-License-Identifier: BSL-1.0

// Shards that are drained, overloaded or stuck, and the policies of shards.

#include <support/io_uring.hpp>
#include <support/moving_sessions.hpp>
//
#include <asio_pulse/task.hpp>

#include <boost/asio/bind_executor.hpp>
#include <boost/asio/system_executor.hpp>
#include <boost/asio/use_future.hpp>

#include <gmock/gmock.h>

#include <algorithm>
#include <future>
#include <memory>
#include <set>
#include <span>
#include <string>

namespace {

using namespace pulse_test;
using namespace pulse_test::moving;
using asio_pulse::error;

constexpr auto by_drain = static_cast<std::size_t>(move_reason::drain);
constexpr auto by_stuck = static_cast<std::size_t>(move_reason::stuck);
constexpr auto by_imbalance = static_cast<std::size_t>(move_reason::imbalance);

/// The error with which the drain ends. (An exception in a future is freed by libstdc++.so, which
/// ThreadSanitizer does not see.)
std::future<boost::system::error_code> drained(sharded_context& shards, std::size_t shard) {
  auto ended = std::make_shared<std::promise<boost::system::error_code>>();
  auto result = ended->get_future();
  shards.drain(
      shard, asio::bind_executor(asio::system_executor(),
                                 [ended](boost::system::error_code ec) { ended->set_value(ec); }));
  return result;
}

TEST(shards_drain, everything_that_may_move_leaves_and_the_shard_gets_nothing_new) {
  sharded_context shards(3, unmoved());
  handles all;
  auto acceptor = accepting(shards, all);
  runner r(shards);
  std::vector<std::unique_ptr<client>> clients;
  for (int i = 0; i != 30; ++i)
    clients.push_back(std::make_unique<client>(acceptor.local_endpoint()));
  (void)all.wait_for(30);
  for (auto& c : clients) c->ask(1);
  EXPECT_EQ(shards.stats(1).movables, 10U);
  EXPECT_FALSE(drained(shards, 1).get());
  EXPECT_EQ(shards.stats(1).movables, 0U);
  EXPECT_EQ(shards.stats(1).moved_out[by_drain], 10U);
  EXPECT_TRUE(shards.stats(1).draining);
  for (int i = 0; i != 10; ++i)
    clients.push_back(std::make_unique<client>(acceptor.local_endpoint()));
  for (auto& c : clients) EXPECT_NE(c->ask(2), 1U);
  for (int i = 0; i != 20; ++i) EXPECT_NE(shards.place_index(), 1U);
  for (std::uint64_t key = 0; key != 50; ++key) EXPECT_NE(shards.place_index(key), 1U);
  // Draining it again completes at once; all but one may be drained.
  EXPECT_FALSE(drained(shards, 1).get());
  EXPECT_FALSE(drained(shards, 0).get());
  for (auto& c : clients) EXPECT_EQ(c->ask(3), 2U);
  EXPECT_EQ(drained(shards, 2).get(), error::shard_drained);
  EXPECT_FALSE(shards.draining(2));
  shards.undrain(1);
  shards.undrain(0);
  std::set<std::size_t> placed;
  for (int i = 0; i != 9; ++i) placed.insert(shards.place_index());
  EXPECT_EQ(placed.size(), 3U);
  clients.clear();
  acceptor.close();
  shards.join();
  r.get();
}

TEST(shards_drain, waits_for_what_cannot_move_and_undrain_ends_the_wait) {
  sharded_context shards(2, unmoved());
  std::promise<tcp::socket*> accepted;
  std::optional<tcp::socket> kept;
  asio_pulse::sharded_acceptor acceptor(shards, {asio::ip::address_v4::loopback(), 0},
                                        [&](tcp::socket s) {
                                          kept.emplace(std::move(s));
                                          accepted.set_value(&*kept);
                                        },
                                        {.mode = asio_pulse::accept_mode::one_listener});
  runner r(shards);
  client c(acceptor.local_endpoint());
  accepted.get_future().wait();
  auto ended = drained(shards, 0);
  shards.undrain(0);
  EXPECT_EQ(ended.get(), asio::error::operation_aborted) << "it was not empty";
  ended = drained(shards, 0);
  shards.post(0, [&] { kept->close(); });
  EXPECT_FALSE(ended.get());
  kept.reset();
  acceptor.close();
  shards.join();
  r.get();
}

TEST(shards_drain, names_the_key_of_a_drained_shard_elsewhere_and_no_other) {
  sharded_context shards(4, unmoved());
  std::vector<std::size_t> before;
  for (std::uint64_t key = 0; key != 200; ++key) before.push_back(shards.place_index(key));
  shards.drain(2, [](boost::system::error_code) {});
  for (std::uint64_t key = 0; key != 200; ++key) {
    const std::size_t now = shards.place_index(key);
    if (before[key] == 2) {
      EXPECT_NE(now, 2U);
    } else {
      EXPECT_EQ(now, before[key]);
    }
  }
  EXPECT_THROW(shards.drain(4, asio::use_future), std::out_of_range);
  EXPECT_THROW(shards.undrain(4), std::out_of_range);
}

TEST(shards_drain, ends_also_if_only_a_coroutine_of_another_shard_waits) {
  sharded_context shards(2, unmoved());
  bool ended = false;
  asio::co_spawn(
      shards.shard(0),
      [&]() -> asio::awaitable<void> {
        co_await shards.drain(1, asio::use_awaitable);
        ended = true;
      },
      asio::detached);
  shards.finish();
  shards.run();
  EXPECT_TRUE(ended);
}

TEST(shards_balance, idle_sessions_of_a_stuck_shard_are_taken_over) {
  asio_pulse::shard_options o = unmoved();
  o.balance = true;
  o.balancing.stuck_after = 200ms;  // a thread that gets no CPU for a while is not stuck
  sharded_context shards(2, o);
  handles all;
  auto acceptor = accepting(shards, all);
  runner r(shards);
  std::vector<std::unique_ptr<client>> clients;
  for (int i = 0; i != 20; ++i)
    clients.push_back(std::make_unique<client>(acceptor.local_endpoint()));
  (void)all.wait_for(20);
  for (auto& c : clients) c->ask(1);
  two_turns(shards, 0);
  std::promise<void> started;
  std::promise<void> go;
  // It holds the shard until all others were served: without the takeover this would not end.
  shards.post(0, [&] {
    started.set_value();
    go.get_future().wait();
  });
  started.get_future().wait();
  for (auto& c : clients) EXPECT_EQ(c->ask(2), 1U);
  go.set_value();
  EXPECT_GE(shards.stats(0).moved_out[by_stuck], 1U);
  EXPECT_EQ(shards.stats(1).move_failures, 0U);
  clients.clear();
  acceptor.close();
  shards.join();
  r.get();
}

/// A session that uses CPU time for each request.
asio::awaitable<void> burning(tcp::socket socket, std::chrono::microseconds each, handles& all) {
  movable here(socket);
  all.add(here.handle());
  boost::system::error_code ec;
  for (;;) {
    char c = 0;
    co_await here.idle();
    co_await asio::async_read(socket, asio::buffer(&c, 1),
                              asio::redirect_error(asio::use_awaitable, ec));
    if (ec) co_return;
    burn(each);
    co_await asio::async_write(socket, asio::buffer(&c, 1),
                               asio::redirect_error(asio::use_awaitable, ec));
    if (ec) co_return;
  }
}

TEST(shards_balance, an_overloaded_shard_gives_sessions_away) {
  asio_pulse::shard_options o = unmoved();
  o.balance = true;
  o.balancing.stuck_after = 1h;    // a thread that gets no CPU is not stuck here
  o.balancing.least_permille = 0;  // nor has it nothing to do
  // All begin on one shard.
  o.place = [](const asio_pulse::placement_view&) -> std::size_t { return 0; };
  sharded_context shards(2, o);
  handles all;
  std::atomic<bool> ends{false};
  asio_pulse::sharded_acceptor acceptor(shards, {asio::ip::address_v4::loopback(), 0},
                                        [&](tcp::socket s) {
                                          const auto ex = s.get_executor();
                                          asio::co_spawn(ex, burning(std::move(s), 200us, all),
                                                         asio::detached);
                                        },
                                        {.mode = asio_pulse::accept_mode::one_listener});
  runner r(shards);
  constexpr std::size_t sessions = 8;
  std::vector<std::thread> clients;
  for (std::size_t i = 0; i != sessions; ++i) {
    clients.emplace_back([&] {
      asio::io_context io;
      tcp::socket s(io);
      s.connect(acceptor.local_endpoint());
      char c = 'x';
      while (!ends) {
        asio::write(s, asio::buffer(&c, 1));
        asio::read(s, asio::buffer(&c, 1));
      }
    });
  }
  const auto known = all.wait_for(sessions);
  const auto end = std::chrono::steady_clock::now() + 60s;
  // They may go on moving: all figures are those of one moment.
  std::ptrdiff_t on_the_other = 0;
  std::uint64_t moved = 0;
  bool seen = false;
  while (!seen && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(5ms);
    on_the_other = std::count_if(known.begin(), known.end(),
                                 [](const movable_ref& m) { return m.shard() == 1U; });
    moved = shards.stats(0).moved_out[by_imbalance];
    seen = on_the_other >= 2 && on_the_other <= 6 && moved >= 2;
  }
  EXPECT_TRUE(seen) << on_the_other << " are on the other one, " << moved << " have moved";
  ends = true;
  for (auto& t : clients) t.join();
  acceptor.close();
  shards.join();
  r.get();
}

constexpr std::uint32_t slow = 0;

/// As serve(), but the answer to `slow` takes 40 ms of CPU time without a break.
asio::awaitable<void> sometimes_slow(tcp::socket socket, handles& all) {
  movable here(socket);
  all.add(here.handle());
  boost::system::error_code ec;
  for (;;) {
    answer a;
    co_await here.idle();
    co_await asio::async_read(socket, asio::buffer(&a.number, sizeof a.number),
                              asio::redirect_error(asio::use_awaitable, ec));
    if (ec) co_return;
    if (a.number == slow) burn(40ms);
    a.shard = static_cast<std::uint32_t>(here.shard());
    co_await asio::async_write(socket, asio::buffer(&a, sizeof a),
                               asio::redirect_error(asio::use_awaitable, ec));
    if (ec) co_return;
  }
}

TEST(shards_balance, sessions_that_stick_shards_are_put_together_and_others_leave_them) {
  asio_pulse::shard_options o = unmoved();
  o.balance = true;
  o.balancing.stuck_after = 20ms;
  o.balancing.least_permille = 1000;  // nothing moves because of load
  sharded_context shards(2, o);
  handles all;
  asio_pulse::sharded_acceptor acceptor(shards, {asio::ip::address_v4::loopback(), 0},
                                        [&](tcp::socket s) {
                                          const auto ex = s.get_executor();
                                          asio::co_spawn(ex, sometimes_slow(std::move(s), all),
                                                         asio::detached);
                                        },
                                        {.mode = asio_pulse::accept_mode::one_listener});
  runner r(shards);
  std::vector<std::unique_ptr<client>> clients;
  for (int i = 0; i != 8; ++i) {
    clients.push_back(std::make_unique<client>(acceptor.local_endpoint()));
  }
  (void)all.wait_for(8);
  const auto hogs = std::span(clients).first(2);  // one on each shard, at first
  const auto others = std::span(clients).subspan(2);
  const auto end = std::chrono::steady_clock::now() + 60s;
  const auto hogs_on = [&](std::size_t shard) { return shards.stats(shard).hogs; };
  std::size_t home = 0;
  bool apart = false;
  while (!apart && std::chrono::steady_clock::now() < end) {
    for (auto& c : hogs) c->send(slow);
    std::size_t away = 0;
    const std::uint32_t elsewhere = hogs_on(0) == 2 ? 1 : 0;
    for (auto& c : others) away += c->ask(1) == elsewhere ? 1U : 0U;
    for (auto& c : hogs) (void)c->receive(slow);
    for (auto& c : others) (void)c->ask(2);
    apart = (hogs_on(0) == 2 || hogs_on(1) == 2) && away == others.size();
    home = hogs_on(0) == 2 ? 0 : 1;
  }
  EXPECT_TRUE(apart) << hogs_on(0) << " and " << hogs_on(1) << " hogs";
  // Now they wait for each other, and nobody else waits for them.
  for (auto& c : hogs) EXPECT_EQ(c->ask(slow), home);
  for (auto& c : others) EXPECT_EQ(c->ask(3), 1 - home);
  // One that has no slow requests any more is none.
  for (auto& c : hogs) {
    for (std::uint32_t i = 0; i <= asio_pulse::shard_balancer::short_turns_of_hog; ++i) c->ask(4);
  }
  EXPECT_EQ(hogs_on(0) + hogs_on(1), 0U);
  clients.clear();
  acceptor.close();
  shards.join();
  r.get();
}

TEST(shards_balance, nothing_moves_while_it_is_off_or_forbidden) {
  for (const bool on : {false, true}) {
    asio_pulse::shard_options o = unmoved();
    o.balance = on;
    sharded_context shards(2, o);
    std::promise<std::size_t> before;
    asio::io_context other;
    tcp::acceptor a(other, {asio::ip::address_v4::loopback(), 0});
    tcp::socket peer(other);
    peer.connect(a.local_endpoint());
    tcp::socket mine(shards.shard(0));
    mine.assign(tcp::v4(), a.accept().release());
    std::promise<void> waiting;
    asio::co_spawn(
        shards.shard(0),
        [](tcp::socket socket, bool stays, std::promise<void>& waits) -> asio::awaitable<void> {
          movable here(socket);
          std::optional<movable::stay> stay;
          if (stays) stay.emplace(here);
          waits.set_value();
          co_await here.idle();
          EXPECT_EQ(here.shard(), 0U);
        }(std::move(mine), on, waiting),
        asio::detached);
    runner r(shards);
    waiting.get_future().wait();
    std::promise<void> stuck_now;
    shards.post(0, [&] {
      stuck_now.set_value();
      burn(30ms);
    });
    stuck_now.get_future().wait();
    asio::write(peer, asio::buffer("x", 1));
    shards.join();
    r.get();
    EXPECT_EQ(shards.stats(0).moved_out[by_stuck], 0U);
  }
}

/// Options with which a stall is noticed.
asio_pulse::shard_options rescued() {
  asio_pulse::shard_options o = unmoved();
  o.context.stall_threshold = 2ms;
  o.context.stall_signal = -1;
  o.rescue = 1;
  return o;
}

TEST(shards_rescue, a_spare_thread_runs_the_queue_of_a_stuck_shard) {
  sharded_context shards(2, rescued());
  runner r(shards);
  std::promise<void> started;
  std::promise<void> go;
  shards.post(0, [&] {
    started.set_value();
    go.get_future().wait();
  });
  started.get_future().wait();
  // Messages of other threads, of another shard, and of the spare thread itself; requests, and answers.
  EXPECT_EQ(shards
                .on(
                    0, [&] { return shards.this_shard(); }, asio::use_future)
                .get(),
            0U);
  std::promise<int> sum;
  asio::co_spawn(
      shards.shard(1),
      [&]() -> asio::awaitable<void> {
        int n = 0;
        for (int i = 0; i != 100; ++i) n += co_await shards.on(0, [] { return 1; });
        sum.set_value(n);
      },
      asio::detached);
  EXPECT_EQ(sum.get_future().get(), 100);
  std::promise<int> from_spare;
  asio::co_spawn(
      shards.shard(0),
      [&]() -> asio::awaitable<void> {
        int n = 0;
        for (int i = 0; i != 100; ++i) {
          n += co_await shards.on(1, [] { return 1; });
          EXPECT_EQ(shards.this_shard(), 0U);
        }
        from_spare.set_value(n);
      },
      asio::detached);
  EXPECT_EQ(from_spare.get_future().get(), 100);
  go.set_value();
  shards.join();
  r.get();
  EXPECT_GE(shards.shard(0).stats().spares_started, 1U);
}

TEST(shards_rescue, sessions_of_a_rescued_shard_go_on_and_what_a_spare_throws_leaves_run) {
  sharded_context shards(2, rescued());
  handles all;
  auto acceptor = accepting(shards, all);
  runner r(shards);
  client c(acceptor.local_endpoint());  // round robin: on shard 0
  c.ask(1);
  std::promise<void> started;
  std::promise<void> go;
  shards.post(0, [&] {
    started.set_value();
    go.get_future().wait();
  });
  started.get_future().wait();
  for (std::uint32_t i = 0; i != 20; ++i) EXPECT_EQ(c.ask(i), 0U);
  EXPECT_FALSE(all.wait_for(1)[0].move_to(1));
  while (c.ask(5) != 1) {
  }
  shards.post(0, [] { throw std::runtime_error("on a spare"); });
  go.set_value();
  EXPECT_THROW(r.get(), std::runtime_error);
  runner again(shards);
  EXPECT_EQ(c.ask(7), 1U);
  c.close();
  acceptor.close();
  shards.join();
  again.get();
}

TEST(shards_policy, each_shard_serves_by_its_policy) {
  if (always_preempt()) GTEST_SKIP() << "every operation is put back, so the order says nothing";
  asio_pulse::shard_options o = unmoved();
  o.context.policy = asio_pulse::scheduling::priority;
  o.context.saturation = 0ns;
  sharded_context shards(2, o);
  for (std::size_t i = 0; i != 2; ++i) {
    EXPECT_EQ(shards.shard(i).get_options().policy, asio_pulse::scheduling::priority);
  }
  // Of what waits on a shard, the urgent tasks go first. The other shard has an order of its own.
  std::array<std::vector<int>, 2> order;
  std::vector<asio_pulse::task> tasks;
  for (std::size_t shard = 0; shard != 2; ++shard) {
    for (const unsigned priority : {1U, 6U}) {
      asio_pulse::task_options t = unlimited("class " + std::to_string(priority));
      t.priority = priority;
      tasks.emplace_back(shards.shard(shard), t);
    }
  }
  for (std::size_t shard = 0; shard != 2; ++shard) {
    asio::post(shards.shard(shard), [&, shard] {
      for (int n = 0; n != 20; ++n) {
        for (std::size_t kind = 0; kind != 2; ++kind) {
          asio_pulse::post(tasks[2 * shard + kind], [&order, shard, kind] {
            order[shard].push_back(static_cast<int>(kind));
            burn(20us);
          });
        }
      }
    });
  }
  shards.finish();
  shards.run();
  for (const std::vector<int>& of : order) {
    ASSERT_EQ(of.size(), 40U);
    // It takes a few operations until the queue has been seen.
    EXPECT_GE(std::count(of.begin(), of.begin() + 24, 1), 18);
  }
  EXPECT_GT(shards.shard(0).stats().policy_turns, 0U);
}

TEST(shards_balance, settings_out_of_range_are_refused_by_name) {
  asio_pulse::shard_options o = unmoved();
  o.balancing.imbalance_permille = 1;
  EXPECT_THAT(refused_by_name([&] { sharded_context(2, o); }),
              testing::HasSubstr("balance_settings.imbalance_permille"));
}

}  // namespace
