// SPDX-License-Identifier: BSL-1.0
//
// The client of slow_server.cpp, on plain Boost.Asio: 18 connections send "ping" 50 times a second
// each, one asks for a report every 400 ms, and one looks up a name every 500 ms. Prints how long
// the answers took, measured from when the request was due. So a late answer makes the next one
// late, too.
//
//   guide_client PORT [SECONDS]

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

namespace asio = boost::asio;
using asio::ip::tcp;
using namespace std::chrono_literals;
using clock_type = std::chrono::steady_clock;

namespace {

struct answers {
  std::vector<double> ms;
  std::string text;  ///< the same for all of them
};

asio::awaitable<void> ask(tcp::endpoint where, std::string request, clock_type::time_point due,
                          clock_type::duration every, clock_type::time_point end, answers& got) {
  tcp::socket socket(co_await asio::this_coro::executor);
  co_await socket.async_connect(where, asio::use_awaitable);
  socket.set_option(tcp::no_delay(true));
  asio::steady_timer timer(socket.get_executor());
  request += '\n';
  std::string in;
  for (; due < end; due += every) {
    timer.expires_at(due);
    co_await timer.async_wait(asio::use_awaitable);
    co_await asio::async_write(socket, asio::buffer(request), asio::use_awaitable);
    const std::size_t size = co_await asio::async_read_until(socket, asio::dynamic_buffer(in, 1000),
                                                             '\n', asio::use_awaitable);
    if (got.text.empty()) got.text = in.substr(0, size - 1);
    if (in.compare(0, size - 1, got.text) != 0) throw std::runtime_error("answers differ");
    in.erase(0, size);
    got.ms.push_back(std::chrono::duration<double, std::milli>(clock_type::now() - due).count());
  }
}

void print(const char* request, answers& got) {
  if (got.ms.empty()) throw std::runtime_error(std::string("no answer to ") + request);
  std::sort(got.ms.begin(), got.ms.end());
  const auto quantile = [&](double q) {
    return got.ms[static_cast<std::size_t>(q * static_cast<double>(got.ms.size() - 1))];
  };
  const auto late = got.ms.end() - std::upper_bound(got.ms.begin(), got.ms.end(), 10.0);
  std::printf("%-7s %6zu %9.2f %9.2f %9.2f %9.2f %9.1f %%\n", request, got.ms.size(), quantile(0.5),
              quantile(0.9), quantile(0.99), got.ms.back(),
              100.0 * static_cast<double>(late) / static_cast<double>(got.ms.size()));
}

unsigned number(const std::string& text, unsigned most) {
  unsigned value = 0;
  const auto end = std::from_chars(text.data(), text.data() + text.size(), value);
  if (end.ec != std::errc() || end.ptr != text.data() + text.size() || value < 1 || value > most) {
    throw std::invalid_argument("usage: guide_client PORT [SECONDS (1 to 3600)]");
  }
  return value;
}

}  // namespace

int main(int argc, char** argv) try {
  const tcp::endpoint where(asio::ip::address_v4::loopback(),
                            static_cast<unsigned short>(number(argc > 1 ? argv[1] : "", 65535)));
  const std::chrono::seconds length(number(argc > 2 ? argv[2] : "10", 3600));
  asio::io_context io;
  answers pings, reports, lookups;
  const auto begin = clock_type::now() + 100ms;
  const auto start = [&](const char* request, clock_type::duration after,
                         clock_type::duration every, answers& got) {
    asio::co_spawn(io, ask(where, request, begin + after, every, begin + length, got),
                   [](const std::exception_ptr& e) {
                     if (e) std::rethrow_exception(e);
                   });
  };
  for (int i = 0; i != 18; ++i) start("ping", i * 20ms / 18, 20ms, pings);
  start("report", 0ms, 400ms, reports);
  start("lookup backend.example", 100ms, 500ms, lookups);
  io.run();
  std::printf("ms        count       p50       p90       p99       max    > 10 ms\n");
  print("ping", pings);
  print("report", reports);
  print("lookup", lookups);
  return 0;
} catch (const std::exception& e) {
  std::fprintf(stderr, "guide_client: %s\n", e.what());
  return 1;
}
