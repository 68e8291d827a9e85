// SPDX-License-Identifier: BSL-1.0

// The hook `yielded` on a running context: each reason, and what a hook may do. hints_test.cpp has
// the reasons that need a source of hints.

#include <support/fibers.hpp>
#include <support/scenario.hpp>
//
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>

#include <gmock/gmock.h>

#include <map>
#include <mutex>
#include <optional>
#include <stdexcept>

namespace {

namespace asio = boost::asio;
using namespace pulse_test;
using asio_pulse::hooks::hook_set;
using asio_pulse::hooks::registry;
using asio_pulse::hooks::yield_event;
using asio_pulse::hooks::yield_reason;

/// Counts yields by reason.
struct yield_log {
  hook_set hooks() {
    return {.yielded = [this](const yield_event& e) {
      const std::lock_guard lock(mutex);
      EXPECT_EQ(e.thread, std::this_thread::get_id());
      EXPECT_FALSE(e.site.empty());
      EXPECT_FALSE(e.task_name.empty());
      EXPECT_GE(e.operations, 1U);
      ++events[e.reason];
      operations[e.reason] += e.operations;
      ++by_task[e.task_id];
    }};
  }
  /// What statistics calls `yields`, unless the build always preempts.
  [[nodiscard]] std::uint64_t held_operations() {
    return operations[yield_reason::held] + operations[yield_reason::queued] +
           operations[yield_reason::deferred];
  }
  /// The same for `checkpoint_yields`.
  [[nodiscard]] std::uint64_t at_checkpoints() {
    return events[yield_reason::hint] + events[yield_reason::quantum] +
           events[yield_reason::budget];
  }

  std::mutex mutex;
  std::map<yield_reason, std::uint64_t> events;
  std::map<yield_reason, std::uint64_t> operations;
  std::map<std::uint64_t, std::uint64_t> by_task;
};

/// Calls should_yield() until it returns true. False if that takes too long.
bool wait_to_yield() {
  for (int n = 0; n < 100'000; ++n) {
    if (asio_pulse::should_yield()) return true;
    burn(20us);
  }
  return false;
}

asio_pulse::options with_quantum(std::chrono::nanoseconds quantum) {
  asio_pulse::options o = steady();
  o.quantum = quantum;
  o.min_slice = std::min(o.min_slice, quantum);
  return o;
}

class yielded_hook : public testing::TestWithParam<std::size_t> {
 protected:
  void SetUp() override {
    if (always_preempt()) GTEST_SKIP() << "everything yields, for no other reason";
  }
  std::size_t threads() const { return GetParam(); }
};
using yielded_hook_one_thread = yielded_hook;
INSTANTIATE_TEST_SUITE_P(threads, yielded_hook, testing::Values(1, 2),
                         testing::PrintToStringParamName());
INSTANTIATE_TEST_SUITE_P(threads, yielded_hook_one_thread, testing::Values(1),
                         testing::PrintToStringParamName());

TEST_P(yielded_hook, says_that_a_checkpoint_is_over_the_quantum) {
  asio_pulse::io_context io{with_quantum(1ms)};
  yield_log log;
  const auto c = io.hooks().install(log.hooks());
  const asio_pulse::task t{io, unlimited("t")};
  for (int i = 0; i < 4; ++i) asio_pulse::post(t, [] { EXPECT_TRUE(wait_to_yield()); });
  run_on(io, threads());
  EXPECT_EQ(log.events[yield_reason::quantum], 4U);
  EXPECT_EQ(log.by_task[t.id()], 4U);
  EXPECT_EQ(log.at_checkpoints(), io.stats().checkpoint_yields);
}

TEST_P(yielded_hook, says_that_the_budget_is_used_up) {
  asio_pulse::io_context io{with_quantum(1h)};
  yield_log log;
  const auto c = io.hooks().install(log.hooks());
  const asio_pulse::task t{io, stingy("t")};
  for (int i = 0; i < 4; ++i) asio_pulse::post(t, [] { EXPECT_TRUE(wait_to_yield()); });
  run_on(io, threads());
  EXPECT_EQ(log.events[yield_reason::budget], 4U);
  EXPECT_EQ(log.by_task[t.id()], 4U);
  EXPECT_EQ(log.at_checkpoints(), io.stats().checkpoint_yields);
}

TEST_P(yielded_hook_one_thread, is_called_again_if_the_handler_goes_on) {
  asio_pulse::io_context io{with_quantum(1ms)};
  yield_log log;
  const auto c = io.hooks().install(log.hooks());
  asio::post(io, [] {
    EXPECT_TRUE(wait_to_yield());
    EXPECT_TRUE(asio_pulse::should_yield());
  });
  io.run();
  EXPECT_EQ(log.events[yield_reason::quantum], 2U);
  EXPECT_EQ(log.by_task[0], 2U) << "work of no task";
}

TEST_P(yielded_hook_one_thread, is_not_called_in_shadow_mode) {
  auto o = with_quantum(100us);
  o.shadow = true;
  asio_pulse::io_context io{o};
  yield_log log;
  const auto c = io.hooks().install(log.hooks());
  const asio_pulse::task t{io, stingy("t")};
  for (int i = 0; i < 10; ++i) {
    asio_pulse::post(t, [] {
      burn(1ms);
      EXPECT_FALSE(asio_pulse::should_yield());
    });
    asio::post(io, [] {});
  }
  io.run();
  EXPECT_TRUE(log.events.empty());
}

TEST_P(yielded_hook, says_that_operations_are_held_back) {
  asio_pulse::io_context io{steady()};
  const offender hog(io);
  const auto before = io.stats();
  yield_log log;
  const auto c = io.hooks().install(log.hooks());
  for (int i = 0; i < 50; ++i) {
    asio_pulse::post(hog, [] { burn(100us); });
    asio::post(io, [] { burn(20us); });
  }
  run_on(io, threads());
  EXPECT_GT(log.events[yield_reason::held], 0U);
  EXPECT_EQ(log.by_task.size(), 1U);
  EXPECT_TRUE(log.by_task.contains(hog.task.id()));
  EXPECT_EQ(log.held_operations(), io.stats().yields - before.yields);
}

TEST_P(yielded_hook_one_thread, says_how_many_operations_were_held_back_together) {
  asio_pulse::io_context io{steady()};
  const offender hog(io);
  yield_log log;
  const auto c = io.hooks().install(log.hooks());
  for (int i = 0; i < 20; ++i) asio_pulse::post(hog, [] { burn(20us); });
  asio::post(io, [] {});
  io.run();
  EXPECT_EQ(log.events[yield_reason::held], 1U);
  EXPECT_EQ(log.operations[yield_reason::held], 20U);
}

TEST_P(yielded_hook, says_that_an_operation_stays_behind_older_ones) {
  asio_pulse::io_context io{steady()};
  const offender hog(io);
  const auto before = io.stats();
  yield_log log;
  const auto c = io.hooks().install(log.hooks());
  for (int i = 0; i < 100; ++i) asio_pulse::post(hog, [] { burn(50us); });
  // Other handlers, each of which posts another one of the hog while the storm waits.
  std::function<void(int)> other = [&](int left) {
    asio_pulse::post(hog, [] { burn(50us); });
    if (left > 0) asio::post(io, [&other, left] { other(left - 1); });
  };
  asio::post(io, [&other] { other(30); });
  run_on(io, threads());
  EXPECT_GT(log.events[yield_reason::held], 0U);
  EXPECT_GT(log.events[yield_reason::queued], 0U);
  EXPECT_EQ(log.held_operations(), io.stats().yields - before.yields);
}

TEST_P(yielded_hook, says_that_the_batch_of_a_strand_was_cut_short) {
  asio_pulse::io_context io{steady()};
  const asio::steady_timer reactor(io);
  const offender hog(io);
  const auto before = io.stats();
  yield_log log;
  const auto c = io.hooks().install(log.hooks());
  const auto strand = asio::make_strand(io);
  {
    const asio_pulse::task_scope scope(hog);
    for (int i = 0; i < 200; ++i) asio::post(strand, [] { burn(30us); });
  }
  run_on(io, threads());
  // With two threads, the other one polls the reactor, and perhaps nothing waits.
  if (threads() == 1) {
    EXPECT_GT(log.events[yield_reason::strand], 0U);
  }
  EXPECT_EQ(log.events[yield_reason::strand], io.stats().strand_breaks - before.strand_breaks);
  EXPECT_EQ(log.held_operations(), io.stats().yields - before.yields);
}

TEST_P(yielded_hook, says_that_a_strand_over_a_tasks_executor_was_cut_short) {
  asio_pulse::io_context io{with_quantum(200us)};
  const asio_pulse::task t{io, unlimited("t")};
  yield_log log;
  const auto c = io.hooks().install(log.hooks());
  const auto strand = asio::make_strand(t.get_executor());
  for (int i = 0; i < 50; ++i) asio::post(strand, [] { burn(100us); });
  run_on(io, threads());
  EXPECT_GT(log.events[yield_reason::strand], 0U);
  EXPECT_EQ(log.events[yield_reason::strand], io.stats().strand_breaks);
  EXPECT_GT(log.events[yield_reason::turn], 0U);
  EXPECT_EQ(log.by_task.size(), 1U);
  EXPECT_TRUE(log.by_task.contains(t.id()));
}

TEST_P(yielded_hook, says_that_the_turn_of_a_tasks_executor_ended_with_handlers_left) {
  asio_pulse::io_context io{with_quantum(500us)};
  const asio_pulse::task t{io, unlimited("t")};
  yield_log log;
  const auto c = io.hooks().install(log.hooks());
  for (int i = 0; i < 10; ++i) asio::post(t.get_executor(), [] { burn(1ms); });
  run_on(io, threads());
  EXPECT_EQ(log.events[yield_reason::turn], 9U) << "each but the last";
  EXPECT_EQ(log.by_task[t.id()], 9U);
}

TEST(yielded_hook_forced, says_that_the_build_always_preempts) {
  if (!always_preempt()) GTEST_SKIP() << "needs ASIO_PULSE_ALWAYS_PREEMPT=1";
  asio_pulse::io_context io{steady()};
  const asio_pulse::task t{io, unlimited("t")};
  yield_log log;
  const auto c = io.hooks().install(log.hooks());
  for (int i = 0; i < 10; ++i) asio_pulse::post(t, [] { EXPECT_TRUE(asio_pulse::should_yield()); });
  io.run();
  const auto s = io.stats();
  EXPECT_EQ(s.yields, 10U);
  EXPECT_EQ(log.operations[yield_reason::forced] + log.operations[yield_reason::queued],
            s.yields + s.checkpoint_yields);
}

// ---- what a hook may do

/// A context in which a hook is called at a checkpoint, at the gate, in a strand and in the turn of
/// an executor.
struct every_place {
  explicit every_place(const hook_set& hooks)
      : io(with_quantum(500us)), hog(io), t(io, unlimited("t")) {
    connection = io.hooks().install(hooks);
  }
  void run(std::size_t threads) {
    io.restart();
    const auto before = io.stats();
    const asio::steady_timer reactor(io);
    const auto strand = asio::make_strand(io);
    for (int i = 0; i < 30; ++i) {
      asio_pulse::post(hog, [this] {
        burn(100us);
        ++ran;
      });
      asio::post(t.get_executor(), [this] {
        burn(300us);
        ++ran;
      });
      const asio_pulse::task_scope scope(hog);
      asio::post(strand, [this] {
        burn(30us);
        ++ran;
      });
    }
    asio_pulse::post(t, [] { EXPECT_TRUE(wait_to_yield()); });
    run_on(io, threads);
    const auto after = io.stats();
    EXPECT_GT(after.yields, before.yields);
    if (threads == 1) {
      EXPECT_GT(after.strand_breaks, before.strand_breaks);
    }
    EXPECT_GT(after.checkpoint_yields, before.checkpoint_yields);
    EXPECT_EQ(ran, 90);
  }

  asio_pulse::io_context io;
  offender hog;
  asio_pulse::task t;
  std::atomic<int> ran{0};
  registry::connection connection;
};

TEST_P(yielded_hook, may_throw) {
  std::atomic<std::uint64_t> calls{0};
  every_place all({.yielded = [&](const yield_event&) {
    ++calls;
    throw std::runtime_error("of the hook");
  }});
  all.run(threads());
  EXPECT_GT(calls, 3U);
  EXPECT_EQ(all.io.hooks().hook_errors(), calls);
  EXPECT_EQ(all.io.stats().callback_errors, calls);
  EXPECT_TRUE(all.connection.connected());
}

TEST_P(yielded_hook, may_post_make_a_task_and_read_the_figures) {
  std::atomic<int> posted{0};
  std::atomic<int> ran{0};
  asio_pulse::io_context* io = nullptr;
  every_place all({.yielded = [&](const yield_event& e) {
    if (posted >= 200) return;  // what is posted may be held back as well
    const asio_pulse::task made{*io, unlimited("made")};
    asio_pulse::post(made, [&] { ++ran; });
    asio::post(*io, [&] { ++ran; });
    posted += 2;
    EXPECT_GT(io->stats().tasks, 2U);
    EXPECT_GT(io->metrics().task_count, 2U);
    EXPECT_FALSE(e.task_name.empty());
  }});
  io = &all.io;
  all.run(threads());
  EXPECT_GT(posted, 6);
  EXPECT_EQ(ran, posted);
}

TEST_P(yielded_hook_one_thread, may_poll_the_context) {
  asio_pulse::io_context* io = nullptr;
  int polled = 0;
  bool inside = false;
  every_place all({.yielded = [&](const yield_event&) {
    if (inside) return;
    inside = true;
    asio::post(*io, [] {});
    polled += static_cast<int>(io->poll_one());
    inside = false;
  }});
  io = &all.io;
  all.run(1);
  EXPECT_GT(polled, 3);
}

TEST_P(yielded_hook, may_remove_itself) {
  std::atomic<int> calls{0};
  every_place all({});
  registry::connection self;
  self = all.io.hooks().install({.yielded = [&](const yield_event&) {
    if (++calls == 1) self.disconnect();
  }});
  all.run(threads());
  EXPECT_GE(calls, 1);
  EXPECT_LE(calls, static_cast<int>(threads())) << "the other thread may be in it";
  EXPECT_FALSE(all.io.hooks().wants_yields());
}

TEST_P(yielded_hook_one_thread, may_let_go_of_the_task_it_is_about) {
  asio_pulse::io_context io{steady()};
  std::optional<offender> hog(io);
  const std::uint64_t id = hog->task.id();
  int calls = 0;
  const auto c = io.hooks().install({.yielded = [&](const yield_event& e) {
    ++calls;
    hog.reset();
    EXPECT_EQ(e.task_id, id);
    EXPECT_EQ(e.task_name, "offender");
  }});
  for (int i = 0; i < 5; ++i) asio_pulse::post(*hog, [] { burn(100us); });
  asio::post(io, [] {});
  io.run();
  EXPECT_GT(calls, 0);
  EXPECT_EQ(io.stats().tasks, 0U);
}

TEST_P(yielded_hook, sees_a_task_that_ends_on_another_thread) {
  // As soon as an operation is held back, another worker may run it, and the task with it ends.
  asio_pulse::io_context io{steady()};
  std::atomic<std::uint64_t> letters{0};
  const auto c = io.hooks().install({.yielded = [&](const yield_event& e) {
    burn(20us);
    letters += e.task_name.size();
    EXPECT_EQ(e.task_name, "offender");
  }});
  for (int round = 0; round < 30; ++round) {
    {
      const offender hog(io);
      for (int i = 0; i < 3; ++i) {
        asio_pulse::post(hog, [] { burn(20us); });
        asio::post(io, [] { burn(20us); });
      }
    }
    run_on(io, threads());
    io.restart();
  }
  EXPECT_GT(letters, 0U);
  EXPECT_EQ(io.stats().tasks, 0U);
}

TEST_P(yielded_hook_one_thread, is_never_told_to_yield_itself) {
  asio_pulse::io_context io{eager()};
  int calls = 0;
  const auto c = io.hooks().install({.yielded = [&](const yield_event&) {
    ++calls;
    EXPECT_TRUE(registry::calling());
    EXPECT_FALSE(asio_pulse::should_yield());
    asio_pulse::this_fiber::checkpoint();  // must not suspend the fiber inside the hook
  }});
  EXPECT_FALSE(registry::calling());
  int others = 0;
  asio::post(io, asio_pulse::preemptible([&] {
               asio::post(io, [&] { ++others; });
               yield_deep_down(20, others);
             }));
  io.run();
  EXPECT_EQ(others, 1);
  EXPECT_GT(calls, 0);
  EXPECT_EQ(static_cast<std::uint64_t>(calls), io.stats().checkpoint_yields);
}

}  // namespace
