// SPDX-License-Identifier: BSL-1.0

// Random load, slow handlers, ordered moves, drains, stops and exceptions on 2 to 8 shards: every request
// is answered exactly once, and descriptors, sessions and memory are back afterwards. By default 10 s; ASIO_PULSE_CHAOS_SECONDS=600 is the long version, and ASIO_PULSE_CHAOS_SEED repeats one.

#include <support/io_uring.hpp>
#include <support/moving_sessions.hpp>
//
#include <boost/asio/steady_timer.hpp>

#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <random>
#include <string>

namespace {

using namespace pulse_test;
using namespace pulse_test::moving;
using std::chrono::steady_clock;

long chaos_setting(const char* name, long otherwise) {
  const char* const text = std::getenv(name);
  return text != nullptr ? std::atol(text) : otherwise;
}

struct chaos_exception {};

struct chaos_server {
  sharded_context& shards;
  handles& all;
  std::atomic<int>& sessions;
  bool hogs;
};

asio::awaitable<void> chaos_session(tcp::socket socket, chaos_server& server, std::uint32_t seed) {
  struct alive {
    explicit alive(std::atomic<int>& counter) : n(counter) { ++n; }
    ~alive() { --n; }
    std::atomic<int>& n;
  } const counted(server.sessions);
  asio::steady_timer timer(socket.get_executor());
  movable here(socket, timer);
  server.all.add(here.handle());
  std::minstd_rand random(seed);
  boost::system::error_code ec;
  for (;;) {
    switch (random() % 8) {
      case 0:
        co_await here.async_move_to(random() % (server.shards.size() + 1),
                                    asio::redirect_error(asio::use_awaitable, ec));
        break;
      case 1:
        co_await here.move_point();
        break;
      case 2:
        // It ends by time, and goes on.
        co_await here.async_idle(steady_clock::now() + std::chrono::microseconds(random() % 2000),
                                 asio::redirect_error(asio::use_awaitable, ec));
        break;
      default:
        co_await here.idle();
    }
    answer a;
    co_await asio::async_read(socket, asio::buffer(&a.number, sizeof a.number),
                              asio::redirect_error(asio::use_awaitable, ec));
    if (ec) co_return;
    a.shard = static_cast<std::uint32_t>(server.shards.this_shard().value());
    if (a.shard != here.shard()) {
      ADD_FAILURE() << "on shard " << a.shard << ", not " << here.shard();
    }
    const std::uint32_t dice = static_cast<std::uint32_t>(random() % 1000);
    if (dice < 3 && server.hogs) {
      burn(std::chrono::milliseconds(3 + random() % 12));
    } else if (dice < 100) {
      burn(std::chrono::microseconds(random() % 300));
    } else if (dice < 150) {
      timer.expires_after(std::chrono::microseconds(random() % 2000));
      co_await timer.async_wait(asio::use_awaitable);
      co_await here.move_point();
    }
    co_await asio::async_write(socket, asio::buffer(&a, sizeof a),
                               asio::redirect_error(asio::use_awaitable, ec));
    if (ec) co_return;
  }
}

asio::awaitable<void> chaos_client(tcp::endpoint server, std::atomic<bool>& ends,
                                   std::atomic<std::uint64_t>& answered, std::uint32_t seed) {
  std::minstd_rand random(seed);
  const auto ex = co_await asio::this_coro::executor;
  asio::steady_timer pause(ex);
  while (!ends) {
    tcp::socket socket(ex);
    co_await socket.async_connect(server, asio::use_awaitable);
    const std::uint32_t requests = static_cast<std::uint32_t>(1 + random() % 300);
    std::uint32_t asked = 0;
    std::uint32_t number = 0;
    while (number != requests && !ends) {
      // Several at once, now and then.
      std::array<std::uint32_t, 4> batch{};
      const std::size_t n = random() % 8 == 0 ? 4 : 1;
      for (std::size_t i = 0; i != n; ++i) batch[i] = asked++;
      co_await asio::async_write(socket, asio::buffer(batch.data(), n * sizeof batch[0]),
                                 asio::use_awaitable);
      for (std::size_t i = 0; i != n; ++i) {
        answer a;
        co_await asio::async_read(socket, asio::buffer(&a, sizeof a), asio::use_awaitable);
        if (a.number != batch[i]) {
          ADD_FAILURE() << "answer " << a.number << " to request " << batch[i];
          co_return;
        }
        ++answered;
      }
      number = asked >= requests ? requests : asked;
      if (random() % 16 == 0) {
        pause.expires_after(std::chrono::microseconds(random() % 3000));
        co_await pause.async_wait(asio::use_awaitable);
      }
    }
    // Nothing more comes.
    socket.shutdown(tcp::socket::shutdown_send);
    char more = 0;
    boost::system::error_code ec;
    const std::size_t extra = co_await asio::async_read(
        socket, asio::buffer(&more, 1), asio::redirect_error(asio::use_awaitable, ec));
    EXPECT_EQ(extra, 0U);
  }
}

std::size_t open_descriptors() {
  std::size_t n = 0;
  for ([[maybe_unused]] const auto& e : std::filesystem::directory_iterator("/proc/self/fd")) ++n;
  return n;
}

/// One set of shards, for that long. Returns how many requests were answered.
std::uint64_t one_chaos(std::uint32_t seed, steady_clock::duration lasts) {
  std::mt19937 random(seed);
  constexpr std::size_t counts[] = {2, 3, 5, 8};
  asio_pulse::shard_options o;
  o.context = steady();
  o.balance = random() % 4 != 0;
  o.balancing.lasting = 5ms;
  o.mailbox = 16;
  std::atomic<std::uint64_t> moves{0};
  o.on_move = [&](const asio_pulse::move_record&) {
    if (++moves % 500 == 0) throw std::runtime_error("ignored");
  };
  std::atomic<int> sessions{0};
  std::atomic<std::uint64_t> answered{0};
  {
    sharded_context shards(counts[random() % 4], o);
    handles all;
    chaos_server server{shards, all, sessions, random() % 2 == 0};
    std::atomic<std::uint32_t> next{seed};
    asio_pulse::sharded_acceptor acceptor(
        shards, {asio::ip::address_v4::loopback(), 0},
        [&](tcp::socket s) {
          const auto ex = s.get_executor();
          asio::co_spawn(ex, chaos_session(std::move(s), server, next++), asio::detached);
        },
        {.mode = random() % 2 == 0 ? asio_pulse::accept_mode::one_listener
                                   : asio_pulse::accept_mode::reuse_port});
    std::atomic<bool> ends{false};
    std::atomic<bool> last{false};
    std::atomic<int> thrown{0};
    std::thread running([&] {
      for (;;) {
        try {
          shards.run();
          if (!shards.stopped()) return;
          shards.restart();
          if (last) shards.finish();
        } catch (const chaos_exception&) {
          ++thrown;
        }
      }
    });
    std::thread clients([&] {
      asio::io_context io;
      for (std::uint32_t i = 0; i != 16; ++i) {
        asio::co_spawn(io, chaos_client(acceptor.local_endpoint(), ends, answered, seed + i),
                       [](std::exception_ptr e) {
                         if (e) std::rethrow_exception(e);
                       });
      }
      io.run();
    });
    const auto until = steady_clock::now() + lasts;
    while (steady_clock::now() < until) {
      const std::size_t shard = random() % shards.size();
      const std::uint32_t dice = static_cast<std::uint32_t>(random() % 1000);
      if (dice < 3) {
        shards.stop();
      } else if (dice < 8) {
        shards.post(shard, [] { throw chaos_exception(); });
      } else if (dice < 20) {
        shards.drain(shard, [](boost::system::error_code) {});
      } else if (dice < 50) {
        shards.undrain(shard);
      } else if (dice < 55 && server.hogs) {
        shards.post(shard, [] { burn(10ms); });
      } else if (dice < 80) {
        shards.broadcast([&shards] {
          (void)shards.try_post((shards.this_shard().value() + 1) % shards.size(), [] {});
        });
      } else {
        const auto known = all.wait_for(1);
        const movable_ref& m =
            known[known.size() - 1 - random() % std::min<std::size_t>(known.size(), 40)];
        if (random() % 50 == 0) {
          (void)m.shard();
        } else {
          (void)m.move_to(shard);
        }
      }
      std::this_thread::sleep_for(std::chrono::microseconds(100 + random() % 400));
    }
    for (std::size_t i = 0; i != shards.size(); ++i) shards.undrain(i);
    ends = true;
    clients.join();
    acceptor.close();
    last = true;
    shards.finish();
    running.join();
    EXPECT_EQ(sessions, 0);
    for (std::size_t i = 0; i != shards.size(); ++i) EXPECT_EQ(shards.stats(i).movables, 0U);
    std::cout << "seed " << seed << ": " << shards.size() << " shards, " << answered << " answers, "
              << moves << " moves, " << thrown << " exceptions\n";
  }
  EXPECT_EQ(sessions, 0);
  return answered;
}

TEST(shards_chaos, every_request_is_answered_once) {
  const auto seconds = std::chrono::seconds(chaos_setting("ASIO_PULSE_CHAOS_SECONDS", 10));
  auto seed = static_cast<std::uint32_t>(chaos_setting("ASIO_PULSE_CHAOS_SEED", 1));
  const auto until = steady_clock::now() + seconds;
  (void)one_chaos(seed++, 200ms);  // what the process makes once
  const std::size_t before = open_descriptors();
  constexpr std::size_t watchdogs = 3;
  do {
    EXPECT_GT(one_chaos(seed++, std::min<steady_clock::duration>(seconds / 4, 5s)), 0U);
    EXPECT_LE(open_descriptors(), before + watchdogs);
  } while (steady_clock::now() < until && !HasFailure());
}

}  // namespace
