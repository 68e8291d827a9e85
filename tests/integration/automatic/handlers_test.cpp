// SPDX-License-Identifier: BSL-1.0

// options::preemptible: which handlers run on a fiber, and that nothing else about them changes.

#include "automatic.hpp"
//
#include <asio_pulse/spawn.hpp>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context_strand.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include <sys/mman.h>

#include <array>
#include <functional>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace automatic;
using asio::ip::tcp;
using asio_pulse::preemptible_handlers;
using asio_pulse::statistics;

asio_pulse::options whose(preemptible_handlers p) {
  auto o = eager();
  o.preemptible = p;
  return o;
}

bool on_a_fiber() { return asio_pulse::detail::fiber_here() != nullptr; }

/// A connection whose server reads a byte, loops until another handler has run, and answers.
struct served {
  explicit served(asio_pulse::io_context& context) : io(context) {}

  void start() {
    acceptor.async_accept([this](boost::system::error_code ec, tcp::socket s) {
      ASSERT_FALSE(ec);
      accept_on_fiber = on_a_fiber();
      peer.emplace(std::move(s));
      asio::async_read(*peer, asio::buffer(in),
                       [this](boost::system::error_code error, std::size_t n) {
                         EXPECT_FALSE(error);
                         EXPECT_EQ(n, 1U);
                         read_on_fiber = on_a_fiber();
                         asio::post(io, [this] { ++others; });
                         if (read_on_fiber) {
                           EXPECT_TRUE(checked_until_changed(others));
                         } else {
                           checked_loop();
                           EXPECT_EQ(others, 0);
                         }
                         asio::async_write(*peer, asio::buffer(in),
                                           [](boost::system::error_code, std::size_t) {});
                       });
    });
    client.async_connect(acceptor.local_endpoint(), [this](boost::system::error_code ec) {
      ASSERT_FALSE(ec);
      asio::async_write(client, asio::buffer(out), [this](boost::system::error_code, std::size_t) {
        asio::async_read(client, asio::buffer(back),
                         [this](boost::system::error_code e, std::size_t) {
                           EXPECT_FALSE(e);
                           client_on_fiber = on_a_fiber();
                         });
      });
    });
  }

  asio_pulse::io_context& io;
  tcp::acceptor acceptor{io, tcp::endpoint(asio::ip::address_v4::loopback(), 0)};
  tcp::socket client{io};
  std::optional<tcp::socket> peer;
  std::array<char, 1> in{}, out{'x'}, back{};
  int others = 0;
  bool accept_on_fiber = true, read_on_fiber = false, client_on_fiber = false;
};

TEST(preemptible_handlers_option, only_declared_handlers_by_default) {
  asio_pulse::io_context io{eager()};
  served s{io};
  s.start();
  io.run();
  EXPECT_FALSE(s.read_on_fiber);
  EXPECT_EQ(s.back[0], 'x');
}

TEST(preemptible_handlers_option, connections_are_suspended_and_other_handlers_are_not) {
  asio_pulse::io_context io{whose(preemptible_handlers::connections)};
  served s{io};
  s.start();
  bool posted_on_fiber = true;
  asio::post(io, [&] { posted_on_fiber = on_a_fiber(); });
  io.run();
  EXPECT_FALSE(s.accept_on_fiber);
  EXPECT_TRUE(s.read_on_fiber);
  EXPECT_TRUE(s.client_on_fiber);
  EXPECT_FALSE(posted_on_fiber);
  EXPECT_EQ(s.back[0], 'x');
}

TEST(preemptible_handlers_option, all_are_suspended) {
  asio_pulse::io_context io{whose(preemptible_handlers::all)};
  int others = 0;
  std::string order;
  asio::post(io, [&] {
    EXPECT_TRUE(on_a_fiber());
    order += 'a';
    asio::post(io, [&] {
      order += 'b';
      ++others;
    });
    EXPECT_TRUE(checked_until_changed(others));
    order += 'c';
  });
  io.run();
  EXPECT_EQ(order, "abc");
}

TEST(preemptible_handlers_option, all_kinds_of_handlers_run_once_and_on_fibers) {
  asio_pulse::io_context io{whose(preemptible_handlers::all)};
  int ran = 0, on_fibers = 0;
  const auto note = [&] {
    ++ran;
    on_fibers += on_a_fiber() ? 1 : 0;
    checked_loop(3);
  };
  served s{io};
  s.start();
  asio::post(io, note);
  asio::steady_timer timer(io, 1ms);
  timer.async_wait([&](const auto&) { note(); });
  asio::steady_timer cancelled(io, 1h);
  cancelled.async_wait([&](const auto& ec) {
    EXPECT_EQ(ec, asio::error::operation_aborted);
    note();
  });
  asio::post(io, [&] { cancelled.cancel(); });
  auto strand = asio::make_strand(io);
  for (int i = 0; i < 3; ++i) asio::post(strand, note);
  asio::any_io_executor erased = asio::make_strand(asio::any_io_executor(io.get_executor()));
  for (int i = 0; i < 3; ++i) asio::post(erased, note);
  asio::post(io, asio_pulse::preemptible(note));
  asio_pulse::task t{io, unlimited("t")};
  asio_pulse::post(t, note);
  asio::co_spawn(
      io,
      [&]() -> asio::awaitable<void> {
        note();
        asio::steady_timer wait(io, 1ms);
        co_await wait.async_wait(asio::use_awaitable);
        note();
      },
      asio::detached);
  io.run();
  EXPECT_EQ(ran, 13);
  // The task's executor is a queue of its own, which runs its handlers on the thread's stack.
  EXPECT_GE(on_fibers, 12);
  EXPECT_GE(io.stats().automatic_suspensions, 12U);
  EXPECT_EQ(s.back[0], 'x');
}

TEST(preemptible_handlers_option, a_strand_excludes_and_keeps_its_order) {
  asio_pulse::io_context io{whose(preemptible_handlers::all)};
  auto strand = asio::make_strand(io);
  int inside = 0;
  std::vector<int> starts;
  for (int i = 0; i < 10; ++i) {
    asio::post(strand, [&, i] {
      EXPECT_TRUE(strand.running_in_this_thread());
      starts.push_back(i);
      ++inside;
      checked_loop(5);
      EXPECT_TRUE(strand.running_in_this_thread());
      --inside;
    });
  }
  std::thread other([&] { io.run(); });
  io.run();
  other.join();
  EXPECT_EQ(inside, 0);
  EXPECT_EQ(starts, (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
}

TEST(preemptible_handlers_option, a_legacy_strand_runs_on_the_threads_stack) {
  asio_pulse::io_context io{whose(preemptible_handlers::all)};
  asio::io_context::strand strand(io);
  int ran = 0;
  for (int i = 0; i < 3; ++i) {
    asio::post(strand, [&] {
      checked_loop(3);
      ++ran;
    });
  }
  io.run();
  EXPECT_EQ(ran, 3);
}

TEST(preemptible_handlers_option, an_exception_leaves_through_run) {
  asio_pulse::io_context io{whose(preemptible_handlers::all)};
  for (const bool suspended : {false, true}) {
    asio::post(io, [&] {
      if (suspended) checked_loop();
      throw std::runtime_error("out");
    });
    EXPECT_THROW(io.run(), std::runtime_error);
    io.restart();
  }
  asio::post(io, [] {});
  EXPECT_EQ(io.run(), 1U);
}

TEST(preemptible_handlers_option, the_programs_own_checkpoint_keeps_the_thread_and_never_throws) {
  int ended = 0;
  {
    asio_pulse::io_context io{whose(preemptible_handlers::all)};
    asio::post(io, [&] {
      io.stop();
      [&]() noexcept { yield_once(); }();
      ++ended;
    });
    io.run();
    EXPECT_EQ(ended, 0);
    EXPECT_GE(io.stats().checkpoint_yields, 1U);
  }
  EXPECT_EQ(ended, 1);
}

TEST(preemptible_handlers_option, counts_of_run_are_those_of_handlers_that_need_no_second_turn) {
  auto o = steady();
  o.preemptible = preemptible_handlers::all;
  asio_pulse::io_context io{o};
  for (int i = 0; i < 10; ++i) asio::post(io, [] {});
  EXPECT_EQ(io.run_one(), 1U);
  EXPECT_EQ(io.poll_one(), 1U);
  EXPECT_EQ(io.run(), 8U);
}

TEST(preemptible_handlers_option, works_with_a_gate_that_holds_operations_back) {
  auto o = whose(preemptible_handlers::all);
  o.order = asio_pulse::handler_order::per_task;
  asio_pulse::io_context io{o};
  asio_pulse::task t{io, stingy("storm")};
  climb_to_yield(io, t);
  int ran = 0;
  {
    const asio_pulse::task_scope scope(t);
    for (int i = 0; i < 50; ++i) {
      asio::post(io, [&] {
        checked_loop(2);
        ++ran;
      });
    }
  }
  for (int i = 0; i < 50; ++i) asio::post(io, [&] { ++ran; });
  io.restart();
  io.run();
  EXPECT_EQ(ran, 100);
  EXPECT_GE(io.stats().yields, 1U);
}

TEST(preemptible_handlers_option, a_deep_handler_has_a_stack_like_a_threads) {
  if (sanitized) GTEST_SKIP() << "its frames are larger";
  asio_pulse::io_context io{whose(preemptible_handlers::all)};
  std::size_t depth = 0;
  std::function<void()> deeper = [&] {
    char frame[1024];
    asm volatile("" : : "r"(frame) : "memory");
    if (++depth < 4000) deeper();
    asm volatile("" : : "r"(frame) : "memory");
  };
  asio::post(io, [&] {
    EXPECT_TRUE(on_a_fiber());
    deeper();
  });
  io.run();
  EXPECT_EQ(depth, 4000U);
}

// Of what a stack has used once, not more than 64 KiB stay when it is returned to the pool.
TEST(preemptible_handlers_option, stacks_are_trimmed_in_the_pool) {
  if (sanitized) GTEST_SKIP() << "a sanitizer has memory of its own";
  asio_pulse::io_context io{whose(preemptible_handlers::all)};
  int others = 0;
  std::set<std::uintptr_t> stacks;
  for (int i = 0; i < 3; ++i) {  // at the same time: two go to the pool, one stays with the thread
    asio::post(io, [&] {
      stacks.insert(asio_pulse::detail::fiber_here()->bottom());
      [] {
        char used[1 << 20];
        for (std::size_t at = 0; at < sizeof used; at += 4096) used[at] = 1;
        asm volatile("" : : "r"(used) : "memory");
      }();
      ++others;
      const auto give_up = std::chrono::steady_clock::now() + 60s;
      while (others < 3 && std::chrono::steady_clock::now() < give_up) {
        burn(2us);
        check();
      }
    });
  }
  io.run();
  EXPECT_EQ(others, 3);
  EXPECT_EQ(stacks.size(), 3U);
  const std::size_t page = 4096, size = std::size_t{8} << 20;
  int deep = 0;
  for (const std::uintptr_t stack : stacks) {
    std::vector<unsigned char> resident(size / page);
    ASSERT_EQ(mincore(reinterpret_cast<void*>(stack), size, resident.data()), 0);
    std::size_t pages = 0;
    for (const unsigned char r : resident) pages += r & 1U;
    deep += pages > 17 ? 1 : 0;
  }
  EXPECT_LE(deep, 1);
}

}  // namespace
