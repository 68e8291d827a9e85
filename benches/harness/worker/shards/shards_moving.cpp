// SPDX-License-Identifier: BSL-1.0
//
// Connections that move between shards while their clients talk to them.

#if !defined(BENCH_STOCK)

#include "../../../measure.hpp"
#include "shard_set.hpp"
#include "shards.hpp"

#include <asio_pulse/movable.hpp>
#include <asio_pulse/sharded_acceptor.hpp>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include <array>
#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

namespace worker {

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

struct moves {
  std::mutex mutex;
  std::vector<std::int64_t> ns;
  std::atomic<std::uint64_t> wrong_thread{0};
};

/// Answers each number, and moves to the other shard before each fourth.
asio::awaitable<void> session(tcp::socket socket, asio_pulse::sharded_context& shards, moves& all) {
  asio_pulse::movable here{socket};
  std::vector<std::int64_t> mine;
  boost::system::error_code ec;
  for (std::uint64_t n = 0;; ++n) {
    if (n % 4 == 3) {
      const auto start = clock_type::now();
      co_await here.move_to(1 - here.shard());
      mine.push_back((clock_type::now() - start).count());
      if (shards.this_shard() != here.shard()) ++all.wrong_thread;
    }
    co_await here.idle();
    std::uint64_t number = 0;
    co_await asio::async_read(socket, asio::buffer(&number, sizeof number),
                              asio::redirect_error(asio::use_awaitable, ec));
    if (ec) break;
    co_await asio::async_write(socket, asio::buffer(&number, sizeof number),
                               asio::redirect_error(asio::use_awaitable, ec));
    if (ec) break;
  }
  const std::lock_guard lock{all.mutex};
  all.ns.insert(all.ns.end(), mine.begin(), mine.end());
}

struct client_result {
  std::uint64_t answered = 0;
  std::uint64_t wrong = 0;
};

asio::awaitable<void> client(tcp::socket socket, std::uint64_t requests, client_result& to) {
  for (std::uint64_t n = 0; n != requests; ++n) {
    co_await asio::async_write(socket, asio::buffer(&n, sizeof n), asio::use_awaitable);
    std::uint64_t answer = ~n;
    co_await asio::async_read(socket, asio::buffer(&answer, sizeof answer), asio::use_awaitable);
    ++to.answered;
    to.wrong += answer != n;
  }
}

}  // namespace

outcome shards_moving(const request& r) {
  outcome result;
  constexpr std::size_t connections = 16;
  const std::uint64_t requests = r.handlers / connections;
  asio_pulse::shard_options o;
  o.balance = false;
  std::atomic<std::uint64_t> failed{0};
  o.on_move = [&failed](const asio_pulse::move_record& m) { failed += m.failure ? 1U : 0U; };
  shard_set set{2, o};
  moves all;
  asio_pulse::sharded_acceptor acceptor{
      set.all(),
      {asio::ip::address_v4::loopback(), 0},
      [&](tcp::socket s) {
        s.set_option(tcp::no_delay{true});
        const auto executor = s.get_executor();
        asio::co_spawn(executor, session(std::move(s), set.all(), all), asio::detached);
      },
      {.mode = asio_pulse::accept_mode::one_listener}};
  std::thread runner{[&set] { set.run(); }};

  std::array<client_result, connections> clients;
  boost::asio::io_context io{1};
  for (client_result& c : clients) {
    tcp::socket s{io};
    s.connect(acceptor.local_endpoint());
    s.set_option(tcp::no_delay{true});
    asio::co_spawn(io, client(std::move(s), requests, c), asio::detached);
  }
  const auto start = clock_type::now();
  io.run();
  const std::chrono::duration<double> took = clock_type::now() - start;
  acceptor.close();
  set.all().finish();
  runner.join();

  std::uint64_t answered = 0;
  for (const client_result& c : clients) {
    answered += c.answered;
    result.check(c.wrong == 0, "each answer is that of its request");
  }
  result.check(answered == requests * connections, "each request was answered");
  result.check(all.wrong_thread == 0, "a session is on the thread of its shard");
  result.check(failed == 0, "no move failed");
  result.check(!all.ns.empty(), "sessions moved");
  result.values["moves"] = static_cast<double>(all.ns.size());
  result.values["requests_per_s"] = static_cast<double>(answered) / took.count();
  result.samples_ns["move"] = std::move(all.ns);
  if (result.verified) {
    result.verification = "each request was answered once, in order, on the thread of its shard";
  }
  return result;
}

}  // namespace worker

#endif
