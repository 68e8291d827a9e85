// SPDX-License-Identifier: BSL-1.0
//
// What groups cost: a poll of a task in a group beside one of a task in none, and 10 000 groups.

#include "../../../measure.hpp"
#include "../../../poll_loops.hpp"
#include "../memory.hpp"
#include "../server.hpp"
#include "shares.hpp"

#include <boost/asio/post.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <deque>
#include <memory>
#include <random>

namespace worker {

namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;

constexpr std::uint64_t polls_a_round = 100'000;
constexpr int rounds = 9;

/// Chains of handlers, by turns one of each of \p tasks, which are in groups or in none.
class chains {
 public:
  enum class place { none, one_group, a_group_each };

  chains(const server_options& o, std::size_t count, place where) : server_{o}, left_(count) {
    for (std::size_t n = 0; n < count; ++n) {
      if (where != place::none && (n == 0 || where == place::a_group_each)) {
        groups_.emplace_back(server_.io(), "", 100);
      }
      tasks_.emplace_back(server_.io(), 0ns, 10ms,
                          bench::task_place{.of = groups_.empty() ? nullptr : &groups_.back()});
    }
  }

  /// CPU time of a poll of this thread, in which chains run of every \p apart-th task.
  double round(std::size_t apart, outcome& to) {
    const std::size_t used = left_.size() / apart;
    const std::uint64_t each = polls_a_round / used;
    server_.io().restart();
    for (std::size_t n = 0; n < left_.size(); n += apart) {
      left_[n] = each;
      const bench::task_scope scope{tasks_[n]};
      bench::start_chain(server_.io(), left_[n]);
    }
    const auto before = bench::thread_cpu_time();
    server_.io().run();
    const std::chrono::duration<double, std::nano> cpu = bench::thread_cpu_time() - before;
    for (const std::uint64_t left : left_) to.check(left == 0, "each poll ran");
    return cpu.count() / static_cast<double>(each * used);
  }

  server& of() { return server_; }

 private:
  server server_;
  std::deque<bench::group> groups_;
  std::deque<bench::task> tasks_;
  std::vector<std::uint64_t> left_;
};

/// Chains of handlers in no task, in the order of the queue. The handlers of each use memory of their own,
/// as much as the library keeps for a task that waits and its group, and in no order: what a poll costs
/// because so many wait, whoever chooses the next one.
class plain_chains {
 public:
  explicit plain_chains(std::size_t count) : server_{{}}, sessions_(count), order_(count) {
    for (std::size_t n = 0; n < count; ++n) order_[n] = &sessions_[n];
    std::ranges::shuffle(order_, std::minstd_rand{});
  }

  /// CPU time of a poll of this thread.
  double round(outcome& to) {
    const std::uint64_t each = polls_a_round / sessions_.size();
    server_.io().restart();
    for (session* const s : order_) {
      s->left = each;
      asio::post(server_.io(), handler{server_.io(), *s});
    }
    const auto before = bench::thread_cpu_time();
    server_.io().run();
    const std::chrono::duration<double, std::nano> cpu = bench::thread_cpu_time() - before;
    for (const session& s : sessions_) to.check(s.left == 0, "each poll ran");
    return cpu.count() / static_cast<double>(each * sessions_.size());
  }

 private:
  static constexpr std::size_t lines = 13;  // the sizes of what the library keeps: 780 bytes
  struct alignas(64) line {
    std::uint64_t polls = 0;
  };
  struct session {
    std::array<line, lines> memory;
    std::uint64_t left = 0;
  };
  struct handler {
    bench::io_context& io;
    session& of;

    void operator()() const {
      for (line& each : of.memory) ++each.polls;
      if (--of.left != 0) asio::post(io, handler{*this});
    }
  };

  server server_;
  std::vector<session> sessions_;
  std::vector<session*> order_;
};

struct measured {
  std::string name;
  chains* in;
  std::size_t apart;
};

/// The median of rounds that alternate, so that all are disturbed alike; after one round of each that
/// does not count.
void measure(const std::vector<measured>& all, outcome& to) {
  std::map<std::string, std::vector<double>> found;
  for (int round = -1; round < rounds; ++round) {
    for (const measured& one : all) {
      const double ns = one.in->round(one.apart, to);
      if (round >= 0) found[one.name].push_back(ns);
    }
  }
  for (const auto& [name, values] : found) to.values[name] = bench::median(values);
}

}  // namespace

outcome shares_cost(const request&) {
  outcome result;
  using place = chains::place;
  const server_options by_queue{};
  const server_options fair{.policy = serving::fair};
  const server_options saturated{.policy = serving::fair, .always_saturated = true};
  chains none{by_queue, 1, place::none};
  chains one{by_queue, 1, place::one_group};
  chains fair_one{fair, 1, place::one_group};
  chains none_16{by_queue, 16, place::none};
  chains groups_16{by_queue, 16, place::a_group_each};
  chains saturated_16{saturated, 16, place::a_group_each};
  measure({{"none_ns", &none, 1},
           {"group_ns", &one, 1},
           {"fair_ns", &fair_one, 1},
           {"none_16_ns", &none_16, 1},
           {"group_16_ns", &groups_16, 1},
           {"saturated_16_ns", &saturated_16, 1}},
          result);
  saturated_16.of().add_counts(result, clock_type::now());
  if (result.verified) result.verification = "each poll ran";
  return result;
}

outcome shares_many(const request&) {
  outcome result;
  using place = chains::place;
  const server_options saturated{.policy = serving::fair, .always_saturated = true};
  constexpr std::size_t most = 10'000;
#if !defined(BENCH_STOCK)
  {
    server s{saturated};
    const bench::group first{s.io(), "", 100};
    std::vector<std::unique_ptr<bench::group>> others(2 * most);
    const auto make = [&](std::size_t from) {
      for (std::size_t n = from; n < from + most; ++n)
        others[n] = std::make_unique<bench::group>(s.io(), "", 100);
    };
    make(0);  // what the first ones need is not counted
    const double before = allocated_bytes();
    make(most);
    // Without the handles, which are the program's.
    const double handle = 32;  // a block of the allocator for one pointer
    result.values["bytes_a_group"] = (allocated_bytes() - before) / most - handle;
  }
#endif
  chains few{saturated, 10, place::a_group_each};
  chains many{saturated, most, place::a_group_each};
  measure({{"ns/10", &few, 1}, {"ns_of_10/10000", &many, most / 10}, {"ns/10000", &many, 1}},
          result);
  plain_chains few_plain{10};
  plain_chains many_plain{most};
  std::vector<double> plain_10;
  std::vector<double> plain_10000;
  for (int round = -1; round < rounds; ++round) {
    const double ns_10 = few_plain.round(result);
    const double ns_10000 = many_plain.round(result);
    if (round < 0) continue;
    plain_10.push_back(ns_10);
    plain_10000.push_back(ns_10000);
  }
  result.values["plain_ns/10"] = bench::median(plain_10);
  result.values["plain_ns/10000"] = bench::median(plain_10000);
  result.values["plain_ratio"] = result.values["plain_ns/10000"] / result.values["plain_ns/10"];
  result.values["ratio"] = result.values["ns/10000"] / result.values["ns/10"];
  result.values["ratio_of_10"] = result.values["ns_of_10/10000"] / result.values["ns/10"];
  many.of().add_counts(result, clock_type::now());
  if (result.verified) result.verification = "each poll ran";
  return result;
}

}  // namespace worker
