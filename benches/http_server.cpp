// SPDX-License-Identifier: BSL-1.0
//
// The main job: an HTTP server with two kinds of request on the same threads. GET /fast answers a
// small JSON document at once. GET /hog hashes a password the slow way, an iterated SHA-256 that
// takes about 50 ms of CPU, and writes the digest. Built as
//   http_server_stock     plain Boost.Asio
//   http_server_pulse     asio_pulse::io_context, a budget and a checkpoint in the slow loop
//   http_server_isolated  asio_pulse::io_context, the slow loop untouched but spawned as a declared
//                         task that may be moved to the isolation pool
//   http_server_automatic asio_pulse::io_context, the slow loop untouched: compiled with automatic
//                         checkpoints, and handlers of connections run on fibers
//   http_server_budgeted  the same, and the slow request has the budget of http_server_pulse
// The second one can also run as shards: asio_pulse::sharded_context, whose acceptor hands each
// connection to one of them. Prints "listening PORT" when it is ready, and one line of JSON on SIGTERM.

#include "annotations.hpp"

#if !defined(BENCH_STOCK) && !defined(BENCH_ISOLATED) && !defined(BENCH_AUTOMATIC)
#include <asio_pulse/movable.hpp>
#include <asio_pulse/sharded.hpp>
#include <asio_pulse/sharded_acceptor.hpp>
#define BENCH_SHARDS
#endif

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

#include <openssl/evp.h>
#include <sys/resource.h>

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using tcp = asio::ip::tcp;
using namespace std::chrono_literals;

/// SHA-256 of its own output, over and over.
class hash_chain {
 public:
  explicit hash_chain(const std::string& seed) { step(seed.data(), seed.size()); }

  void step() { step(digest_.data(), digest_.size()); }

  std::string hex() const {
    static constexpr char digits[] = "0123456789abcdef";
    std::string text;
    for (const unsigned char byte : digest_) {
      text += digits[byte >> 4];
      text += digits[byte & 15];
    }
    return text;
  }

 private:
  void step(const void* data, std::size_t size) {
    if (EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) != 1 ||
        EVP_DigestUpdate(context_.get(), data, size) != 1 ||
        EVP_DigestFinal_ex(context_.get(), digest_.data(), nullptr) != 1) {
      throw std::runtime_error("SHA-256 failed");
    }
  }

  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_{EVP_MD_CTX_new(),
                                                                   &EVP_MD_CTX_free};
  std::array<unsigned char, 32> digest_{};
};

constexpr const char* seed = "correct horse battery staple";

/// The slow request.
class hog {
 public:
#if defined(BENCH_ISOLATED)
  hog(bench::io_context& io, unsigned rounds)
      : task_{io, {.name = "hog", .budget = 2ms, .per = 10ms, .isolatable = true}},
        rounds_{rounds} {}

  asio::awaitable<std::string> hash() const {
    co_return co_await asio_pulse::co_spawn(task_, run(), asio::use_awaitable);
  }

 private:
  asio::awaitable<std::string> run() const {
    hash_chain chain{seed};
    for (unsigned i = 0; i < rounds_; ++i) chain.step();
    co_return chain.hex();
  }

  asio_pulse::task task_;
#else
  hog(bench::io_context&, unsigned rounds) : rounds_{rounds} {}

  asio::awaitable<std::string> hash() const {
    ASIO_PULSE_PREEMPTION_BUDGET(2ms);
    hash_chain chain{seed};
    for (unsigned i = 0; i < rounds_; ++i) {
      chain.step();
      ASIO_PULSE_CHECKPOINT();
    }
    co_return chain.hex();
  }

 private:
#endif
  unsigned rounds_;
};

/// The slow request without a checkpoint.
[[maybe_unused]] std::string hash_at_once(unsigned rounds) {
  hash_chain chain{seed};
  for (unsigned i = 0; i < rounds; ++i) chain.step();
  return chain.hex();
}

struct counters {
  std::atomic<unsigned long> fast{0};
  std::atomic<unsigned long> hogs{0};
};

using http_request = http::request<http::string_body>;
using http_response = http::response<http::string_body>;

/// An answer without its body.
http_response answer_to(const http_request& request) {
  http_response response{http::status::ok, request.version()};
  response.set(http::field::server, "asio-pulse-bench");
  response.set(http::field::content_type, "application/json");
  response.keep_alive(request.keep_alive());
  return response;
}

/// Answers a fast request. Returns false if it is not one.
bool answer_fast(const http_request& request, http_response& response, counters& served) {
  if (request.target() != "/fast") return false;
  response.body() = R"({"status":"ok","items":[1,2,3],"method":")";
  response.body() += std::string(request.method_string());
  response.body() += "\"}";
  served.fast.fetch_add(1, std::memory_order_relaxed);
  return true;
}

void answer_slow(const std::string& digest, http_response& response, counters& served) {
  response.body() = R"({"status":"ok","sha256":")" + digest + "\"}";
  served.hogs.fetch_add(1, std::memory_order_relaxed);
}

asio::awaitable<void> session(tcp::socket socket, const hog& slow, counters& served) {
  boost::beast::flat_buffer buffer;
  for (;;) {
    http_request request;
    co_await http::async_read(socket, buffer, request, asio::use_awaitable);

    http_response response = answer_to(request);
    if (request.target() == "/hog") {
      const std::string digest = co_await slow.hash();
      answer_slow(digest, response, served);
    } else if (!answer_fast(request, response, served)) {
      response.result(http::status::not_found);
      response.body() = R"({"status":"no such page"})";
    }
    response.prepare_payload();
    co_await http::async_write(socket, response, asio::use_awaitable);
    if (!response.keep_alive()) break;
  }
}

asio::awaitable<void> listen(tcp::acceptor acceptor, const hog& slow, counters& served) {
  for (;;) {
    auto socket = co_await acceptor.async_accept(asio::use_awaitable);
    socket.set_option(tcp::no_delay{true});
    asio::co_spawn(
        acceptor.get_executor(), session(std::move(socket), slow, served),
        asio::detached);  // a client that closes its connection ends the session with an exception
  }
}

/// How many rounds take \p target on this machine: the best of several runs, because the first ones
/// may be disturbed.
unsigned calibrate(std::chrono::nanoseconds target) {
  constexpr unsigned sample = 20'000;
  auto best = std::chrono::nanoseconds::max();
  for (int run = 0; run < 15; ++run) {
    hash_chain chain{seed};
    const auto start = std::chrono::steady_clock::now();
    for (unsigned i = 0; i < sample; ++i) chain.step();
    best = std::min<std::chrono::nanoseconds>(best, std::chrono::steady_clock::now() - start);
  }
  return static_cast<unsigned>(sample * static_cast<double>(target.count()) /
                               static_cast<double>(best.count()));
}

void report(unsigned long fast, unsigned long hogs, const bench::io_context& io) {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  std::printf(R"({"fast":%lu,"hogs":%lu,"cpu_s":%.6f,"pulse":%s})"
              "\n",
              fast, hogs, seconds(usage.ru_utime) + seconds(usage.ru_stime),
              bench::stats_json(io).c_str());
}

int serve(int threads, unsigned rounds, bool idle_thread) {
  bench::io_context io{threads};
  const hog slow{io, rounds};
  counters served;

  tcp::acceptor acceptor{io, tcp::endpoint{asio::ip::address_v4::loopback(), 0}};
  const auto port = acceptor.local_endpoint().port();
  asio::co_spawn(io, listen(std::move(acceptor), slow, served), asio::detached);

  asio::signal_set signals{io, SIGTERM, SIGINT};
  signals.async_wait([&io](auto, auto) { io.stop(); });

  std::printf("listening %d\n", static_cast<int>(port));
  std::fflush(stdout);

  // A second thread, even an idle one, disables the C library's shortcuts for single-threaded programs.
  std::jthread idle;
  if (idle_thread) {
    idle = std::jthread([](const std::stop_token& stop) {
      std::mutex mutex;
      std::unique_lock lock(mutex);
      std::condition_variable_any().wait(lock, stop, [] { return false; });
    });
  }
  std::vector<std::thread> workers;
  for (int i = 1; i < threads; ++i) workers.emplace_back([&io] { io.run(); });
  io.run();
  for (auto& worker : workers) worker.join();

  report(served.fast, served.hogs, io);
  return 0;
}

#if defined(BENCH_SHARDS)
enum class on_shards { still, slow, movable };

/// As session(), but the slow request has no checkpoint. It may move wherever it waits for a request.
asio::awaitable<void> movable_session(tcp::socket socket, unsigned rounds,
                                      asio_pulse::sharded<counters>& served, bool moves) {
  boost::beast::flat_buffer buffer;
  std::optional<asio_pulse::movable> here;
  if (moves) here.emplace(socket);
  for (;;) {
    if (here) co_await here->idle(buffer.size());
    http_request request;
    co_await http::async_read(socket, buffer, request, asio::use_awaitable);
    http_response response = answer_to(request);
    // The counters of the shard on which the session is now.
    if (!answer_fast(request, response, served.local())) {
      answer_slow(hash_at_once(rounds), response, served.local());
    }
    response.prepare_payload();
    co_await http::async_write(socket, response, asio::use_awaitable);
    if (!response.keep_alive()) break;
  }
}

int serve_on_shards(int threads, unsigned rounds, on_shards how) {
  asio_pulse::sharded_context shards{static_cast<std::size_t>(threads)};
  const hog slow{shards.shard(0), rounds};
  asio_pulse::sharded<counters> served{shards};
  // The kernel would deal out the few connections of this bench by chance.
  asio_pulse::sharded_acceptor acceptor{
      shards,
      {asio::ip::address_v4::loopback(), 0},
      [&](tcp::socket socket) {
        socket.set_option(tcp::no_delay{true});
        const auto executor = socket.get_executor();
        if (how == on_shards::still) {
          asio::co_spawn(executor, session(std::move(socket), slow, served.local()),
                         asio::detached);
        } else {
          asio::co_spawn(
              executor,
              movable_session(std::move(socket), rounds, served, how == on_shards::movable),
              asio::detached);
        }
      },
      {.mode = asio_pulse::accept_mode::one_listener}};

  asio::signal_set signals{shards.shard(0), SIGTERM, SIGINT};
  signals.async_wait([&shards](auto, auto) { shards.stop(); });
  std::printf("listening %d\n", static_cast<int>(acceptor.local_endpoint().port()));
  std::fflush(stdout);
  shards.run();

  unsigned long fast = 0;
  unsigned long hogs = 0;
  for (std::size_t i = 0; i != shards.size(); ++i) {
    fast += served.at(i).fast;
    hogs += served.at(i).hogs;
  }
  report(fast, hogs, shards.shard(0));
  return 0;
}
#endif

}  // namespace

int main(int argc, char** argv) try {
  if (argc == 3 && std::strcmp(argv[1], "calibrate") == 0) {
    std::printf("%u\n", calibrate(std::chrono::milliseconds{std::atoi(argv[2])}));
    return 0;
  }
#if defined(BENCH_SHARDS)
  if (argc == 5 && std::strcmp(argv[1], "serve") == 0 && std::atoi(argv[2]) > 0) {
    const auto rounds = static_cast<unsigned>(std::strtoul(argv[3], nullptr, 10));
    const std::string how = argv[4];
    if (how == "shards") return serve_on_shards(std::atoi(argv[2]), rounds, on_shards::still);
    if (how == "shards-slow") return serve_on_shards(std::atoi(argv[2]), rounds, on_shards::slow);
    if (how == "movable") return serve_on_shards(std::atoi(argv[2]), rounds, on_shards::movable);
  }
#endif
  const bool idle = argc == 5 && std::strcmp(argv[4], "idle") == 0;
  if ((argc == 4 || idle) && std::strcmp(argv[1], "serve") == 0 && std::atoi(argv[2]) > 0) {
    return serve(std::atoi(argv[2]), static_cast<unsigned>(std::strtoul(argv[3], nullptr, 10)),
                 idle);
  }
  std::fprintf(
      stderr,
      "usage: %s calibrate MILLISECONDS | serve THREADS ROUNDS [idle|shards|shards-slow|movable]\n",
      argv[0]);
  return 2;
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s: %s\n", argv[0], e.what());
  return 1;
}
