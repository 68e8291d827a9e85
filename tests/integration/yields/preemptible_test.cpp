// SPDX-License-Identifier: BSL-1.0

// Synchronous code that yields: preemptible() and checkpoint() at any depth. fiber_test.cpp tests
// spawn(), and the state that moves with a suspended handler.

#include <support/fibers.hpp>
//
#include <boost/asio/awaitable.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/io_context_strand.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>

#include <gmock/gmock.h>

#include <memory>
#include <mutex>
#include <optional>

namespace {

namespace asio = boost::asio;
using namespace pulse_test;
using asio_pulse::report;
using asio_pulse::report_kind;

TEST(preemptible, runs_others_in_the_middle) {
  asio_pulse::io_context io{eager()};
  int others = 0;
  std::string order;
  asio::post(io, asio_pulse::preemptible([&] {
               order += 'a';
               asio::post(io, [&] {
                 order += 'b';
                 ++others;
               });
               yield_deep_down(20, others);
               order += 'c';
             }));
  io.run();
  EXPECT_EQ(order, "abc");
}

TEST(preemptible, a_plain_statement_yields_where_checkpoint_is_no_coroutine) {
#if BOOST_VERSION >= 108100
  asio_pulse::io_context io{eager()};
  int others = 0;
  asio::post(io, asio_pulse::preemptible([&] {
               asio::post(io, [&] { ++others; });
               while (others == 0) {
                 burn(2us);
                 asio_pulse::checkpoint();
               }
             }));
  io.run();
  EXPECT_EQ(others, 1);
#endif
}

// A fiber that is destroyed is unwound by an exception, and a coroutine's frames would keep it.
TEST(preemptible, a_coroutine_that_starts_inside_suspends_itself_and_not_the_fiber) {
  asio_pulse::io_context io{eager()};
  std::string order;
  const auto coroutine = [&](bool by_macro) -> asio::awaitable<void> {
    order += 'a';
    const std::size_t before = order.size();
    for (int tries = 0; tries < 1000 && order.size() == before; ++tries) {
      burn(2us);
      if (by_macro) {
        ASIO_PULSE_CHECKPOINT();
      } else {
        co_await asio_pulse::checkpoint();
      }
    }
    order += 'c';
  };
  for (const bool by_macro : {false, true}) {
    asio::post(io, asio_pulse::preemptible([&] {
                 asio::co_spawn(io, coroutine(by_macro), asio::detached);  // at once, in here
                 order += 'b';
               }));
    io.run();
    io.restart();
  }
  EXPECT_EQ(order, "abcabc");
}

TEST(preemptible, does_nothing_on_a_plain_stack) {
  asio_pulse::io_context io{eager()};
  int done = 0;
  asio::post(io, [&] {
    for (int i = 0; i < 100; ++i) {
      burn(2us);
      asio_pulse::this_fiber::checkpoint();
    }
    done = 1;
  });
  EXPECT_EQ(io.run_one(), 1U);
  EXPECT_EQ(done, 1);
  asio_pulse::this_fiber::checkpoint();
}

TEST(preemptible, without_a_context_of_ours_it_is_the_handler) {
  boost::asio::io_context io;
  int done = 0;
  asio::post(io, asio_pulse::preemptible([&] {
               EXPECT_EQ(asio_pulse::detail::fiber_here(), nullptr);
               for (int i = 0; i < 100; ++i) asio_pulse::this_fiber::checkpoint();
               ++done;
             }));
  EXPECT_EQ(io.run(), 1U);
  asio_pulse::preemptible([&] { ++done; })();
  EXPECT_EQ(done, 2);
}

TEST(preemptible, passes_arguments_and_moves_the_handler) {
  asio_pulse::io_context io{eager()};
  asio::steady_timer timer(io, 1ms);
  std::optional<boost::system::error_code> seen;
  timer.async_wait(
      asio_pulse::preemptible([&, only = std::make_unique<int>(7)](boost::system::error_code ec) {
        yield_once();
        if (*only == 7) seen = ec;
      }));
  io.run();
  ASSERT_TRUE(seen.has_value());
  EXPECT_FALSE(*seen);
  // A handler that is called as an lvalue keeps its state: it is copied.
  int calls = 0;
  asio::post(io, [&] {
    auto again = asio_pulse::preemptible([&, text = std::string(100, 'x')]() mutable {
      calls += static_cast<int>(text.size());
      text.clear();
    });
    again();
    again();
  });
  io.restart();
  io.run();
  EXPECT_EQ(calls, 200);
}

TEST(preemptible, keeps_the_handlers_executor_and_allocator) {
  asio_pulse::io_context io{eager()};
  auto strand = asio::make_strand(io);
  auto bound = asio::bind_executor(strand, [] {});
  auto wrapped = asio_pulse::preemptible(bound);
  EXPECT_EQ(asio::get_associated_executor(wrapped), strand);
  static_assert(std::is_same_v<asio::associated_executor_t<decltype(wrapped)>, decltype(strand)>);
  static_assert(std::is_same_v<asio::associated_allocator_t<decltype(wrapped)>,
                               asio::associated_allocator_t<decltype(bound)>>);
  // The rest goes to the strand, from wherever it was started.
  bool inside = false;
  int others = 0;
  asio::post(io, asio_pulse::preemptible(asio::bind_executor(strand, [&] {
               asio::post(io, [&] { ++others; });
               yield_deep_down(0, others);
               inside = strand.running_in_this_thread();
             })));
  io.run();
  EXPECT_TRUE(inside);
}

TEST(preemptible, counts_each_part_as_a_handler) {
  asio_pulse::io_context io{eager()};
  int others = 0;
  asio::post(io, asio_pulse::preemptible([&] {
               asio::post(io, [&] { ++others; });
               while (others == 0) {
                 burn(2us);
                 asio_pulse::this_fiber::checkpoint();
               }
             }));
  std::size_t parts = io.run();
  // The first part, the other handler, and one part or more for the rest.
  EXPECT_GE(parts, 3U);
}

TEST(preemptible, a_thousand_take_turns_and_none_is_lost) {
  asio_pulse::io_context io{eager()};
  const int count = sanitized ? 100 : 1000;
  int ended = 0;
  for (int n = 0; n < count; ++n) {
    asio::post(io, asio_pulse::preemptible([&, n] {
                 for (int i = 0; i < 5; ++i) yield_once();
                 ended += n >= 0;
               }));
  }
  io.run();
  EXPECT_EQ(ended, count);
  for (const auto& stacks : asio_pulse::fiber_stack_usage()) EXPECT_EQ(stacks.in_use, 0U);
}

// ---- where the rest goes

namespace {
// In a function of its own: the address of Asio's thread_local may be kept over a checkpoint in the
// same one (see preemptible()).
[[gnu::noinline]] bool runs_in(const asio::strand<asio::io_context::executor_type>& s) {
  return s.running_in_this_thread();
}
}  // namespace

TEST(preemptible, stays_in_the_strand_that_it_came_from) {
  asio_pulse::io_context io{eager()};
  auto strand = asio::make_strand(io);
  std::atomic<int> inside{0};
  std::atomic<int> overlaps{0};
  std::atomic<int> ended{0};
  const auto plain = [&] {
    if (inside.fetch_add(1) != 0) ++overlaps;
    burn(1us);
    inside.fetch_sub(1);
  };
  const int count = sanitized ? 20 : 200;
  for (int n = 0; n < count; ++n) {
    asio::post(strand, asio_pulse::preemptible([&] {
                 for (int i = 0; i < 10; ++i) {
                   plain();
                   yield_once();
                   if (!runs_in(strand)) ++overlaps;
                 }
                 ++ended;
               }));
    asio::post(strand, plain);
  }
  run_on(io, 3);
  EXPECT_EQ(ended.load(), count);
  EXPECT_EQ(overlaps.load(), 0);
}

TEST(preemptible, in_an_isolatable_task_stays_in_its_executor) {
  asio_pulse::io_context io{eager()};
  auto o = unlimited("t");
  o.isolatable = true;
  const asio_pulse::task t{io, o};
  const auto executor = t.get_executor();
  std::atomic<int> outside{0};
  std::atomic<int> ended{0};
  for (int n = 0; n < 20; ++n) {
    asio_pulse::post(t, asio_pulse::preemptible([&] {
                       for (int i = 0; i < 10; ++i) {
                         yield_once();
                         if (!executor.running_in_this_thread()) ++outside;
                         if (asio_pulse::this_task::id() != t.id()) ++outside;
                       }
                       ++ended;
                     }));
  }
  run_on(io, 2);
  EXPECT_EQ(ended.load(), 20);
  EXPECT_EQ(outside.load(), 0);
}

TEST(preemptible, the_rest_belongs_to_the_task) {
  asio_pulse::io_context io{eager()};
  const asio_pulse::task t{io, unlimited("t")};
  const asio_pulse::task other{io, unlimited("other")};
  std::vector<std::uint64_t> ids;
  asio_pulse::post(t, asio_pulse::preemptible([&] {
                     yield_once();
                     ids.push_back(asio_pulse::this_task::id());
                     {
                       const asio_pulse::task_scope scope(other);
                       yield_once();
                       ids.push_back(asio_pulse::this_task::id());
                     }
                     ids.push_back(asio_pulse::this_task::id());
                     yield_once();
                     ids.push_back(asio_pulse::this_task::id());
                   }));
  io.run();
  EXPECT_THAT(ids, testing::ElementsAre(t.id(), other.id(), t.id(), t.id()));
}

TEST(preemptible, is_not_suspended_inside_a_nested_run_function) {
  asio_pulse::io_context io{eager()};
  boost::asio::io_context plain;
  auto strand = asio::make_strand(io);
  bool in_strand = true;
  std::string order;
  asio::post(io, asio_pulse::preemptible([&] {
               asio::post(io, [&] { order += 'x'; });
               asio::post(plain, [&] {
                 for (int i = 0; i < 5; ++i) yield_once();
                 order += 'p';
               });
               plain.run();
               asio::dispatch(strand, [&] {
                 for (int i = 0; i < 5; ++i) yield_once();
                 order += 's';
               });
               in_strand = strand.running_in_this_thread();
             }));
  io.run();
  EXPECT_EQ(order.substr(0, 2), "ps") << "another handler ran in between";
  EXPECT_FALSE(in_strand);
}

TEST(preemptible, in_a_legacy_strand_runs_through) {
  asio_pulse::io_context io{eager()};
  boost::asio::io_context::strand strand(io);
  std::string order;
  strand.post(asio_pulse::preemptible([&] {
                asio::post(io, [&] { order += 'x'; });
                for (int i = 0; i < 5; ++i) yield_once();
                order += 's';
              }),
              std::allocator<void>());
  io.run();
  EXPECT_EQ(order, "sx");
}

// ---- ends

TEST(preemptible, a_suspended_handler_is_unwound_with_its_context) {
  const auto alive = std::make_shared<int>(0);
  bool stop = false;
  bool finished = false;
  int unwound = 0;
  {
    asio_pulse::io_context io{eager()};
    auto strand = asio::make_strand(io);
    const auto handler = [&, alive] {
      const std::shared_ptr<int> inside = alive;
      try {
        while (!stop) yield_once();
      } catch (...) {
        ++unwound;
        EXPECT_EQ(std::uncaught_exceptions(), 0);
        yield_once();  // no more
        throw;
      }
      finished = true;
    };
    asio::post(io, asio_pulse::preemptible(handler));
    asio::post(strand, asio_pulse::preemptible(handler));
    asio::post(io, asio_pulse::preemptible(asio::bind_executor(strand, handler)));
    for (int i = 0; i < 50; ++i) io.run_one();
    EXPECT_GT(alive.use_count(), 3);
  }
  EXPECT_EQ(unwound, 3);
  EXPECT_FALSE(finished);
  EXPECT_EQ(alive.use_count(), 1);
  for (const auto& stacks : asio_pulse::fiber_stack_usage()) EXPECT_EQ(stacks.in_use, 0U);
}

TEST(preemptible, keeps_run_from_returning) {
  asio_pulse::io_context io{eager()};
  int others = 0;
  bool ended = false;
  asio::post(io, asio_pulse::preemptible([&] {
               asio::post(io, [&] { ++others; });
               yield_deep_down(0, others);
               ended = true;
             }));
  while (io.run_one() != 0) {
  }
  EXPECT_TRUE(ended);
}

// ---- locks

TEST(preemptible, a_hundred_under_a_mutex_are_refused_and_reported) {
  std::atomic<int> refused{0};
  auto o = eager();
  o.on_report = [&](const report& r) { refused += r.kind == report_kind::yield_refused; };
  asio_pulse::io_context io{o};
  asio_pulse::mutex m;
  int inside = 0;
  int ended = 0;
  for (int n = 0; n < 100; ++n) {
    asio::post(io, asio_pulse::preemptible([&] {
                 for (int i = 0; i < 5; ++i) {
                   {
                     const std::lock_guard lock(m);
                     EXPECT_EQ(inside++, 0);
                     burn(5us);
                     for (int k = 0; k < 64; ++k) asio_pulse::this_fiber::checkpoint();
                     --inside;
                   }
                   yield_once();
                 }
                 ++ended;
               }));
  }
  io.run();
  EXPECT_EQ(ended, 100);
  EXPECT_GE(refused.load(), 100);
}

TEST(preemptible, no_yield_scopes_nest) {
  int refused = 0;
  auto o = eager();
  o.on_report = [&](const report& r) { refused += r.kind == report_kind::yield_refused; };
  asio_pulse::io_context io{o};
  int others = 0;
  asio::post(io, asio_pulse::preemptible([&] {
               asio::post(io, [&] { ++others; });
               {
                 const asio_pulse::no_yield_scope outer;
                 {
                   const asio_pulse::no_yield_scope inner;
                   yield_once();
                 }
                 EXPECT_GT(refused, 0);
                 refused = 0;
                 yield_once();
                 EXPECT_GT(refused, 0);
                 EXPECT_EQ(others, 0);
               }
               yield_deep_down(0, others);
             }));
  io.run();
  EXPECT_EQ(others, 1);
}

TEST(preemptible, in_a_critical_section_nothing_yields_or_is_reported) {
  int reports = 0;
  auto o = eager();
  o.on_report = [&](const report&) { ++reports; };
  asio_pulse::io_context io{o};
  int others = 0;
  asio::post(io, asio_pulse::preemptible([&] {
               asio::post(io, [&] { ++others; });
               {
                 const asio_pulse::critical_section guard;
                 for (int i = 0; i < 10; ++i) yield_once();
                 EXPECT_EQ(others, 0);
               }
               yield_deep_down(0, others);
             }));
  io.run();
  EXPECT_EQ(others, 1);
  EXPECT_EQ(reports, 0);
}

TEST(mutex, works_without_fibers) {
  asio_pulse::mutex m;
  int n = 0;
  on_threads(4, [&](std::size_t) {
    for (int i = 0; i < 1000; ++i) {
      const std::lock_guard lock(m);
      ++n;
    }
  });
  EXPECT_EQ(n, 4000);
  ASSERT_TRUE(m.try_lock());
  std::thread([&] { EXPECT_FALSE(m.try_lock()); }).join();
  m.unlock();
}

}  // namespace
