// SPDX-License-Identifier: BSL-1.0

// A server with spare workers, whose handlers get stuck in all known ways. There must be as many
// answers as requests.
//
//   ASIO_PULSE_SOAK_SECONDS   how long it runs (3)

#include <support/scenario.hpp>
//
#include <asio_pulse/preemptible.hpp>

#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/write.hpp>

#include <array>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <memory>
#include <mutex>
#include <random>
#include <stdexcept>

namespace {

using namespace pulse_test;
namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

/// The kinds of requests; the answer is the same letter.
constexpr char quick = 'q';
constexpr char spin = 's';
constexpr char wait = 'w';
constexpr char lock = 'l';
constexpr char fiber = 'f';
constexpr char fail = 'e';
constexpr char strand = 't';
constexpr std::array kinds{quick, spin, wait, lock, fiber, fail, strand};

struct failed : std::runtime_error {
  failed() : std::runtime_error("a handler's") {}
};

struct server {
  explicit server(asio_pulse::options o) : io(std::move(o)) {}
  asio_pulse::io_context io;
  asio::strand<asio::io_context::executor_type> one_at_a_time{io.get_executor()};
  std::mutex contended;
  std::atomic<std::uint64_t> thrown{0};
  std::atomic<std::uint64_t> caught{0};
};

class session : public std::enable_shared_from_this<session> {
 public:
  session(server& s, tcp::socket socket)
      : server_(s),
        socket_(std::move(socket)),
        random_(static_cast<unsigned>(socket_.native_handle())) {}
  void read() {
    asio::async_read(socket_, asio::buffer(&letter_, 1),
                     [self = shared_from_this()](error_code ec, std::size_t) {
                       if (!ec) self->serve();
                     });
  }

 private:
  [[nodiscard]] std::chrono::microseconds some_time() {
    return std::chrono::microseconds{std::uniform_int_distribution(500, 20'000)(random_)};
  }
  void serve() {
    switch (letter_) {
      case spin:
        burn(some_time());
        break;
      case wait:
        std::this_thread::sleep_for(some_time());
        break;
      case lock: {
        const std::lock_guard guard(server_.contended);
        std::this_thread::sleep_for(some_time());
        break;
      }
      case fiber:
        asio::post(server_.io, asio_pulse::preemptible([self = shared_from_this()] {
                     const auto end = std::chrono::steady_clock::now() + self->some_time();
                     while (std::chrono::steady_clock::now() < end) {
                       burn(20us);
                       asio_pulse::this_fiber::checkpoint();
                     }
                     self->answer();
                   }));
        return;
      case strand:
        asio::post(server_.one_at_a_time, [self = shared_from_this()] {
          burn(self->some_time() / 4);
          self->answer();
        });
        return;
      case fail:
        answer();
        ++server_.thrown;
        throw failed();
      default:
        break;
    }
    answer();
  }
  void answer() {
    asio::async_write(socket_, asio::buffer(&letter_, 1),
                      [self = shared_from_this()](error_code ec, std::size_t) {
                        if (!ec) self->read();
                      });
  }

  server& server_;
  tcp::socket socket_;
  std::minstd_rand random_;
  char letter_ = 0;
};

void accept(server& s, tcp::acceptor& acceptor) {
  acceptor.async_accept([&](error_code ec, tcp::socket socket) {
    if (ec) return;
    std::make_shared<session>(s, std::move(socket))->read();
    accept(s, acceptor);
  });
}

struct tally {
  std::uint64_t requests = 0;
  std::uint64_t answers = 0;
  std::uint64_t wrong = 0;
};

tally ask_until(const std::function<bool()>& enough, std::uint16_t port, unsigned seed) {
  tally t;
  asio::io_context io;
  tcp::socket socket(io);
  socket.connect({asio::ip::address_v4::loopback(), port});
  std::minstd_rand random(seed);
  while (!enough()) {
    // Nine in ten are quick, as in a usable server.
    const bool stuck = std::uniform_int_distribution(0, 9)(random) == 0;
    const char question =
        stuck ? kinds[std::uniform_int_distribution<std::size_t>(0, kinds.size() - 1)(random)]
              : quick;
    char said = 0;
    ++t.requests;
    asio::write(socket, asio::buffer(&question, 1));
    asio::read(socket, asio::buffer(&said, 1));
    ++t.answers;
    t.wrong += said != question ? 1U : 0U;
  }
  return t;
}

std::chrono::seconds duration() {
  const char* const s = std::getenv("ASIO_PULSE_SOAK_SECONDS");  // NOLINT(concurrency-mt-unsafe)
  return std::chrono::seconds{s != nullptr ? std::atoi(s) : 3};
}

class soak : public testing::TestWithParam<std::size_t> {};

TEST_P(soak, as_many_answers_as_requests) {
  auto o = steady();
  o.stall_threshold = 2ms;
  o.spare_workers = 2;
  o.spare_cooldown = 50ms;
  o.quantum = 100us;
  std::atomic<std::uint64_t> begun{0};
  std::atomic<std::uint64_t> ended{0};
  o.on_report = [&](const asio_pulse::report& r) {
    if (r.kind == asio_pulse::report_kind::stall) ++begun;
    if (r.kind == asio_pulse::report_kind::stall_ended) ++ended;
    EXPECT_NE(r.kind, asio_pulse::report_kind::misuse) << asio_pulse::format(r);
  };
  server s(o);
  tcp::acceptor acceptor(s.io, {asio::ip::address_v4::loopback(), 0});
  const std::uint16_t port = acceptor.local_endpoint().port();
  accept(s, acceptor);

  std::vector<std::thread> workers;
  for (std::size_t n = 0; n < GetParam(); ++n) {
    workers.emplace_back([&s] {
      for (;;) {
        try {
          s.io.run();
          return;
        } catch (const failed&) {
          ++s.caught;
        }
      }
    });
  }
  constexpr unsigned clients = 8;
  // On a busy machine, longer than that, so that a stall is reported at all.
  const auto start = std::chrono::steady_clock::now();
  const auto enough = [&, end = start + duration(), at_last = start + duration() + 30s] {
    const auto now = std::chrono::steady_clock::now();
    return now >= at_last || (now >= end && begun > 0);
  };
  std::array<tally, clients> tallies;
  on_threads(clients, [&](std::size_t n) {
    tallies[n] = ask_until(enough, port, static_cast<unsigned>(n) + 1);
  });
  tally all;
  for (const tally& t : tallies) {
    all.requests += t.requests;
    all.answers += t.answers;
    all.wrong += t.wrong;
  }
  // The clients have closed their connections. The server runs out of work when it stops accepting.
  asio::post(s.io, [&acceptor] { acceptor.close(); });
  for (std::thread& t : workers) t.join();

  EXPECT_EQ(all.answers, all.requests);
  EXPECT_EQ(all.wrong, 0U);
  EXPECT_EQ(s.caught, s.thrown);
  EXPECT_GT(s.thrown, 0U);
  EXPECT_GT(begun, 0U);
  std::cout << all.requests << " requests, " << all.answers << " answers, " << s.thrown
            << " exceptions, " << begun << " reports of stalls, "
            << asio_pulse::detail::service_of(s.io).spares()->snapshot().activated
            << " times a spare took over\n";
}

INSTANTIATE_TEST_SUITE_P(workers, soak, testing::Values(1U, 2U));

}  // namespace
