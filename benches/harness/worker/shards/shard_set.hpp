// SPDX-License-Identifier: BSL-1.0
//
// Shards, or in stock one context that as many threads run.

#pragma once

#include "../../../annotations.hpp"

#include <boost/asio/executor_work_guard.hpp>

#include <cstddef>
#include <thread>
#include <vector>

#if !defined(BENCH_STOCK)
#include <asio_pulse/sharded_context.hpp>
#endif

namespace worker {

#if defined(BENCH_STOCK)
class shard_set {
 public:
  explicit shard_set(std::size_t threads) : io_{static_cast<int>(threads)}, threads_{threads} {}

  std::size_t size() const { return threads_; }
  boost::asio::io_context& of(std::size_t) { return io_; }
  void run() {
    std::vector<std::thread> others;
    for (std::size_t i = 1; i != threads_; ++i) others.emplace_back([this] { io_.run(); });
    io_.run();
    for (std::thread& t : others) t.join();
  }
  void stop() { io_.stop(); }

 private:
  boost::asio::io_context io_;
  std::size_t threads_;
};
#else
class shard_set {
 public:
  explicit shard_set(std::size_t threads, asio_pulse::shard_options o = {})
      : shards_{threads, std::move(o)} {}

  std::size_t size() const { return shards_.size(); }
  asio_pulse::io_context& of(std::size_t i) { return shards_.shard(i % shards_.size()); }
  asio_pulse::sharded_context& all() { return shards_; }
  void run() { shards_.run(); }
  void stop() { shards_.stop(); }

 private:
  asio_pulse::sharded_context shards_;
};
#endif

}  // namespace worker
