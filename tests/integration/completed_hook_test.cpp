// SPDX-License-Identifier: BSL-1.0

// The hook `completed` on a running context: each task ends once, with its totals, wherever that
// happens.

#include <support/fibers.hpp>
#include <support/scenario.hpp>
//
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <gmock/gmock.h>

#include <map>
#include <mutex>
#include <optional>
#include <stdexcept>

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using namespace pulse_test;
using asio_pulse::hooks::completion_event;
using asio_pulse::hooks::hook_set;
using asio_pulse::hooks::registry;
using asio_pulse::hooks::task_event;

/// The tasks that began and ended.
struct lives {
  struct life {
    std::string name;
    std::uint64_t parent = 0;
    int ends = 0;
    std::uint64_t polls = 0;
    std::chrono::nanoseconds cpu{0};
    std::thread::id ended_on;
  };

  hook_set hooks() {
    return {.task_spawned =
                [this](const task_event& e) {
                  const std::lock_guard lock(mutex);
                  life& l = tasks[e.task_id];
                  l.name = e.task_name;
                  l.parent = e.parent_id;
                },
            .completed =
                [this](const completion_event& e) {
                  const std::lock_guard lock(mutex);
                  ASSERT_TRUE(tasks.contains(e.task_id)) << "it began";
                  life& l = tasks[e.task_id];
                  EXPECT_EQ(e.task_name, l.name);
                  EXPECT_EQ(e.parent_id, l.parent);
                  ++l.ends;
                  l.polls = e.polls;
                  l.cpu = e.cpu;
                  l.ended_on = std::this_thread::get_id();
                }};
  }
  [[nodiscard]] bool all_ended_once() const {
    return std::ranges::all_of(tasks, [](const auto& t) { return t.second.ends == 1; });
  }
  const life& of(std::string_view name) const {
    const auto found = std::ranges::find(tasks, name, [](const auto& t) { return t.second.name; });
    EXPECT_NE(found, tasks.end()) << name;
    static const life none;
    return found != tasks.end() ? found->second : none;
  }

  std::mutex mutex;
  std::map<std::uint64_t, life> tasks;
};

class completed_hook : public testing::TestWithParam<std::size_t> {
 protected:
  std::size_t threads() const { return GetParam(); }
  asio_pulse::io_context io{steady()};
  lives seen;
};
INSTANTIATE_TEST_SUITE_P(threads, completed_hook, testing::Values(1, 2),
                         testing::PrintToStringParamName());
class completed_hook_one_thread : public testing::Test {
 protected:
  asio_pulse::io_context io{steady()};
  lives seen;
};

TEST_P(completed_hook, has_the_totals_that_the_task_gave) {
  const auto c = io.hooks().install(seen.hooks());
  std::optional<asio_pulse::task> t;
  t.emplace(io, unlimited("t"));
  for (int i = 0; i < 50; ++i) asio_pulse::post(*t, [] { burn(20us); });
  run_on(io, threads());
  EXPECT_EQ(seen.of("t").ends, 0) << "there is a handle";
  const asio_pulse::task_statistics totals = t->stats();
  t.reset();
  EXPECT_EQ(seen.of("t").ends, 1);
  EXPECT_EQ(seen.of("t").polls, totals.polls);
  EXPECT_EQ(seen.of("t").cpu, totals.cpu);
  // A charge that is under way when the second worker enters may be lost.
  EXPECT_GE(totals.polls, 50 - (threads() - 1));
  EXPECT_GT(totals.cpu, 500us);
  EXPECT_EQ(io.stats().tasks, 0U);
}

TEST_P(completed_hook, is_called_when_the_last_operation_has_run) {
  const auto c = io.hooks().install(seen.hooks());
  {
    const asio_pulse::task t{io, unlimited("t")};
    for (int i = 0; i < 50; ++i) asio_pulse::post(t, [] { burn(20us); });
  }
  EXPECT_EQ(seen.of("t").ends, 0) << "there are operations";
  run_on(io, threads());
  EXPECT_EQ(seen.of("t").ends, 1);
  EXPECT_GE(seen.of("t").polls, 50 - (threads() - 1));
  EXPECT_LE(seen.of("t").polls, 50U);
}

TEST_P(completed_hook, is_called_once_for_each_of_many_tasks) {
  const auto c = io.hooks().install(seen.hooks());
  std::function<void(int)> again = [&](int left) {
    const asio_pulse::task t{io, unlimited("t")};
    for (int i = 0; i < 3; ++i) asio_pulse::post(t, [] {});
    const asio_pulse::task of_executor{io, unlimited("e")};
    asio::post(of_executor.get_executor(), [] {});
    asio_pulse::co_spawn(
        t, [&]() -> asio::awaitable<void> { co_await asio::post(io, asio::use_awaitable); },
        asio::detached);
    if (left > 0) asio::post(io, [&again, left] { again(left - 1); });
  };
  for (int i = 0; i < 4; ++i) asio::post(io, [&again] { again(100); });
  run_on(io, threads());
  EXPECT_EQ(seen.tasks.size(), 4U * 101 * 2);
  EXPECT_TRUE(seen.all_ended_once());
  EXPECT_EQ(io.stats().tasks, 0U);
}

TEST_P(completed_hook, is_called_for_tasks_that_are_held_back) {
  const auto c = io.hooks().install(seen.hooks());
  for (int round = 0; round < 10; ++round) {
    const offender hog(io);
    for (int i = 0; i < 10; ++i) {
      asio_pulse::post(hog, [] { burn(20us); });
      asio::post(io, [] {});
    }
  }
  run_on(io, threads());
  EXPECT_EQ(seen.tasks.size(), 10U);
  EXPECT_TRUE(seen.all_ended_once());
}

TEST_P(completed_hook, is_called_for_the_tasks_of_connections) {
  const auto c = io.hooks().install(seen.hooks());
  std::atomic<int> served{0};
  {
    const asio_pulse::task listener{io, unlimited("listener")};
    const asio_pulse::task client{io, unlimited("client")};
    tcp::acceptor acceptor(io, {asio::ip::address_v4::loopback(), 0});
    constexpr int connections = 5;
    struct session {
      explicit session(tcp::socket s) : socket(std::move(s)) {}
      tcp::socket socket;
      std::array<char, 1> byte{};
    };
    std::function<void(int)> accept = [&](int left) {
      if (left == 0) return;
      acceptor.async_accept([&, left](error_code ec, tcp::socket s) {
        ASSERT_FALSE(ec);
        accept(left - 1);
        const auto own = std::make_shared<session>(std::move(s));
        own->socket.async_read_some(asio::buffer(own->byte),
                                    [&, own](error_code, std::size_t) { ++served; });
      });
    };
    {
      const asio_pulse::task_scope scope(listener);
      accept(connections);
    }
    // These connections are opened by work of no task.
    for (int i = 0; i < connections; ++i) {
      const auto own = std::make_shared<session>(tcp::socket(io));
      own->socket.async_connect(acceptor.local_endpoint(), [own](error_code ec) {
        ASSERT_FALSE(ec);
        own->socket.async_write_some(asio::buffer(own->byte), [own](error_code, std::size_t) {});
      });
    }
    run_on(io, threads());
    EXPECT_EQ(served, connections);
    // listener, client, and both ends of each connection
    EXPECT_EQ(seen.tasks.size(), 2U + 2 * connections);
    int accepted = 0;
    for (const auto& [id, life] : seen.tasks) {
      if (id == listener.id() || id == client.id()) {
        EXPECT_EQ(life.ends, 0);
        continue;
      }
      EXPECT_EQ(life.ends, 1) << life.name;
      EXPECT_GE(life.polls, 1U) << life.name;
      if (life.parent == listener.id()) ++accepted;
    }
    EXPECT_EQ(accepted, connections);
  }
  EXPECT_TRUE(seen.all_ended_once());
}

TEST_F(completed_hook_one_thread, names_the_task_that_has_opened_the_connection) {
  const auto c = io.hooks().install(seen.hooks());
  tcp::acceptor acceptor(io, {asio::ip::address_v4::loopback(), 0});
  tcp::acceptor second(io, {asio::ip::address_v4::loopback(), 0});
  // The handler of the first connect belongs to that connection, and opens another one.
  tcp::socket a(io);
  tcp::socket b(io);
  a.async_connect(acceptor.local_endpoint(),
                  [&](error_code) { b.async_connect(second.local_endpoint(), [](error_code) {}); });
  io.run();
  a.close();
  b.close();
  ASSERT_EQ(seen.tasks.size(), 2U);
  EXPECT_TRUE(seen.all_ended_once());  // and with the parent that task_spawned named
  const auto first = seen.tasks.begin();
  EXPECT_EQ(first->second.parent, 0U);
  EXPECT_EQ(std::next(first)->second.parent, first->first);
}

TEST_P(completed_hook, is_called_on_the_thread_that_lets_go_last) {
  const auto c = io.hooks().install(seen.hooks());
  std::optional<asio_pulse::task> t;
  t.emplace(io, unlimited("t"));
  asio_pulse::post(*t, [] {});
  run_on(io, threads());
  std::thread other([&] { t.reset(); });
  const std::thread::id id = other.get_id();
  other.join();
  EXPECT_EQ(seen.of("t").ends, 1);
  EXPECT_EQ(seen.of("t").ended_on, id);
}

TEST_P(completed_hook, is_called_once_if_several_threads_let_go) {
  const auto c = io.hooks().install(seen.hooks());
  constexpr int rounds = 300;
  std::vector<asio_pulse::task> mine;
  for (int i = 0; i < rounds; ++i) mine.emplace_back(io, unlimited("t"));
  std::vector<asio_pulse::task> others = mine;
  std::thread other([&] {
    while (!others.empty()) others.pop_back();
  });
  while (!mine.empty()) mine.pop_back();
  other.join();
  EXPECT_EQ(seen.tasks.size(), static_cast<std::size_t>(rounds));
  EXPECT_TRUE(seen.all_ended_once());
}

// ---- the end of the context

TEST(completed_hook_at_the_end, is_called_for_what_the_destructor_of_the_context_ends) {
  lives seen;
  registry::connection c;
  {
    asio_pulse::io_context io{steady()};
    c = io.hooks().install(seen.hooks());
    asio::post(io, [] { ASIO_PULSE_PREEMPTION_BUDGET(1ms); });
    EXPECT_EQ(io.poll(), 1U);
    const asio_pulse::task t{io, unlimited("queued")};
    asio_pulse::post(t, [] {});
    const asio_pulse::task e{io, unlimited("in an executor")};
    asio::post(e.get_executor(), [] {});
  }
  EXPECT_EQ(seen.tasks.size(), 3U) << "one of them that of the annotated place";
  EXPECT_TRUE(seen.all_ended_once());
}

TEST(completed_hook_at_the_end, is_called_for_a_task_that_outlives_its_context) {
  lives seen;
  registry::connection c;
  std::optional<asio_pulse::task> t;
  {
    asio_pulse::io_context io{steady()};
    c = io.hooks().install(seen.hooks());
    t.emplace(io, unlimited("t"));
    asio_pulse::post(*t, [] {});
    io.run();
  }
  EXPECT_EQ(seen.of("t").ends, 0);
  EXPECT_TRUE(c.connected());
  t.reset();
  EXPECT_EQ(seen.of("t").ends, 1);
  EXPECT_EQ(seen.of("t").polls, 1U);
  c.disconnect();  // the registry is gone
}

TEST(completed_hook_at_the_end, is_not_called_once_it_was_removed) {
  lives seen;
  std::optional<asio_pulse::task> t;
  {
    asio_pulse::io_context io{steady()};
    const auto c = io.hooks().install(seen.hooks());
    t.emplace(io, unlimited("t"));
  }
  t.reset();
  EXPECT_EQ(seen.of("t").ends, 0);
}

// ---- what a hook may do

TEST_P(completed_hook, may_throw) {
  std::atomic<int> calls{0};
  const auto c = io.hooks().install({.completed = [&](const completion_event&) {
    ++calls;
    throw std::runtime_error("of the hook");
  }});
  for (int i = 0; i < 10; ++i) {
    const asio_pulse::task t{io, unlimited("t")};
    asio_pulse::post(t, [] {});
  }
  EXPECT_EQ(run_on(io, threads()), 10U);
  EXPECT_EQ(calls, 10);
  EXPECT_EQ(io.stats().callback_errors, 10U);
  EXPECT_TRUE(c.connected());
}

TEST_P(completed_hook, may_post_make_a_task_and_read_the_figures) {
  std::atomic<int> ends{0};
  std::atomic<int> ran{0};
  const auto c = io.hooks().install({.completed = [&](const completion_event& e) {
    ++ends;
    if (e.task_name != "t") return;
    EXPECT_EQ(asio_pulse::this_task::id(), 0U);
    asio::post(io, [&] {
      EXPECT_EQ(asio_pulse::this_task::id(), 0U) << "work of no task";
      ++ran;
    });
    const asio_pulse::task made{io, unlimited("made")};
    asio_pulse::post(made, [&ran, id = made.id()] {
      EXPECT_EQ(asio_pulse::this_task::id(), id);
      ++ran;
    });
    const asio_pulse::task at_once{io, unlimited("ends inside the call")};
    for (const auto& t : io.metrics({.top_tasks = 100}).tasks) EXPECT_NE(t.id, e.task_id);
  }});
  for (int i = 0; i < 20; ++i) {
    const asio_pulse::task t{io, unlimited("t")};
    asio_pulse::post(t, [] {});
    asio::post(io, [] {});
  }
  // A task that a worker has polled last ends when the worker leaves its run function. What the hook
  // posts then waits for the next one.
  for (int runs = 0; runs < 100 && ends < 60; ++runs) {
    run_on(io, threads());
    io.restart();
  }
  EXPECT_EQ(ran, 40);
  EXPECT_EQ(ends, 60);
  EXPECT_EQ(io.stats().tasks, 0U);
}

TEST_F(completed_hook_one_thread, may_post_while_the_poll_of_the_task_ends) {
  // In a nested run, and at the end of a scope with a budget of its own, the poll's task ends while
  // it is still the task in force.
  std::vector<std::uint64_t> whose;
  int ends = 0;
  const auto c = io.hooks().install({.completed = [&](const completion_event&) {
    ++ends;
    EXPECT_EQ(asio_pulse::this_task::id(), 0U);
    asio::post(io, [&] { whose.push_back(asio_pulse::this_task::id()); });
    const asio_pulse::critical_section inside;
  }});
  asio_pulse::task outer{io, unlimited("outer")};
  asio_pulse::post(outer, [&] {
    {
      const asio_pulse::task inner{io, unlimited("inner")};
      asio_pulse::post(inner, [] {});
    }
    const std::uint64_t before = asio_pulse::this_task::id();
    io.poll();
    EXPECT_EQ(asio_pulse::this_task::id(), before);
    {
      const asio_pulse::task inner{io, unlimited("inline")};
      asio_pulse::dispatch(inner, [] {});
      asio::dispatch(inner.get_executor(), [] {});
    }
    {
      std::optional<asio_pulse::task> scoped;
      scoped.emplace(io, unlimited("scoped"));
      const asio_pulse::task_scope scope(*scoped);
      scoped.reset();
      ASIO_PULSE_PREEMPTION_BUDGET(1ms);
    }
    EXPECT_EQ(asio_pulse::this_task::id(), before);
  });
  io.run();
  EXPECT_EQ(ends, 3);
  EXPECT_EQ(whose, std::vector<std::uint64_t>(3, 0));
}

TEST_F(completed_hook_one_thread, may_poll_the_context) {
  int polled = 0;
  int ran = 0;
  bool inside = false;
  const auto c = io.hooks().install({.completed = [&](const completion_event&) {
    if (inside) return;
    inside = true;
    asio::post(io, [] {});
    polled += static_cast<int>(io.poll_one());
    inside = false;
  }});
  for (int i = 0; i < 20; ++i) {
    const asio_pulse::task t{io, unlimited("t")};
    asio_pulse::post(t, [&] { ++ran; });
  }
  io.run();
  EXPECT_EQ(ran, 20);
  EXPECT_GT(polled, 0);
  EXPECT_EQ(io.stats().tasks, 0U);
}

TEST_P(completed_hook, may_remove_itself) {
  std::atomic<int> calls{0};
  registry::connection self;
  self = io.hooks().install({.completed = [&](const completion_event&) {
    if (++calls == 1) self.disconnect();
  }});
  for (int i = 0; i < 10; ++i) {
    const asio_pulse::task t{io, unlimited("t")};
    asio_pulse::post(t, [] {});
  }
  run_on(io, threads());
  EXPECT_GE(calls, 1);
  EXPECT_LE(calls, static_cast<int>(threads())) << "the other thread may be in it";
  EXPECT_FALSE(io.hooks().wants_completions());
}

TEST_F(completed_hook_one_thread, is_not_suspended_with_the_fiber_that_lets_go) {
  asio_pulse::io_context fibers{eager()};
  int ends = 0;
  int others = 0;
  const auto c = fibers.hooks().install({.completed = [&](const completion_event&) {
    ++ends;
    asio::post(fibers, [&] { ++others; });
    for (int i = 0; i < 64; ++i) {
      burn(2us);
      asio_pulse::this_fiber::checkpoint();
    }
    EXPECT_EQ(others, 0) << "the hook was suspended";
  }});
  asio::post(fibers, asio_pulse::preemptible([&] {
               { const asio_pulse::task t{fibers, unlimited("t")}; }
               yield_once();
             }));
  fibers.run();
  EXPECT_EQ(ends, 1);
  EXPECT_EQ(others, 1);
}

// A reader of the metrics holds no reference, so no task ends in its place, with its locks held.
TEST_P(completed_hook, is_never_called_by_a_reader_of_the_metrics) {
  const std::thread::id reader = std::this_thread::get_id();
  std::atomic<bool> by_reader{false};
  const auto c = io.hooks().install({.completed = [&](const completion_event&) {
    if (std::this_thread::get_id() == reader) by_reader = true;
  }});
  constexpr int rounds = 20;
  constexpr int many = 600;  // several pieces of the list
  std::atomic<int> done{0};
  std::thread other([&] {
    for (int round = 0; round < rounds; ++round) {
      std::vector<asio_pulse::task> tasks;
      for (int i = 0; i < many; ++i) tasks.emplace_back(io, unlimited("t"));
      tasks.clear();
      ++done;
    }
  });
  while (done < rounds) (void)io.metrics();
  other.join();
  EXPECT_FALSE(by_reader);
  EXPECT_EQ(io.stats().tasks, 0U);
}

}  // namespace
