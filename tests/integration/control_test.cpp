// SPDX-License-Identifier: BSL-1.0

// Changes of a running process through its inspection socket, as pulse_top makes them.

#include <support/inspecting.hpp>
#include <support/sanitizers.hpp>
#include <support/scenario.hpp>
//
#include "inspect_wire.hpp"

#include <asio_pulse/inspect.hpp>
#include <asio_pulse/task_group.hpp>

#include <boost/asio/executor_work_guard.hpp>

#include <gmock/gmock.h>
#include <unistd.h>

#include <condition_variable>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <set>

namespace {

namespace asio = boost::asio;
using namespace pulse_test;
using asio_pulse::context_change;
using asio_pulse::context_metrics;
using asio_pulse::group_options;
using asio_pulse::inspector;
using asio_pulse::task_group;
using testing::HasSubstr;
using kind = asio_pulse::context_change::kind;

const auto self = static_cast<std::uint64_t>(::getpid());

asio_pulse::options named(std::string name) {
  asio_pulse::options o = steady();
  o.name = std::move(name);
  return o;
}

/// A line of the protocol.
std::string request(std::string_view words) {
  return std::string(asio_pulse::detail::protocol) + ' ' + std::string(words) + '\n';
}

/// Sends changes to this process. Waits where the process asks to come back later.
class operating {
 public:
  std::string ask(const context_change& what, std::uint64_t context = 0) {
    for (;;) {
      std::error_code ec;
      if (!in_.connected()) in_.connect(self, ec);
      if (ec) return "not connected: " + in_.detail();
      const std::string said = in_.change(context, what, ec, 30s);
      if (!ec) return said;
      if (ec != std::errc::operation_not_permitted) return "lost: " + in_.detail();
      if (in_.detail().find("too many changes") == std::string::npos) {
        return "refused: " + in_.detail();
      }
      std::this_thread::sleep_for(100ms);
    }
  }
  std::string weigh(std::string group, unsigned weight) {
    return ask({.what = kind::weight, .group = std::move(group), .weight = weight});
  }

 private:
  inspector in_;
};

TEST(control, enforcement_and_shadow_mode) {
  asio_pulse::io_context io(named("shop"));
  pulse_test::let_run(io);
  std::mutex mutex;
  std::vector<std::string> changed;
  std::set<std::thread::id> threads;
  const auto hooks = io.hooks().install({.options_changed = [&](const auto& event) {
    const std::lock_guard lock(mutex);
    changed.emplace_back(event.changed);
    threads.insert(std::this_thread::get_id());
  }});
  operating op;
  EXPECT_EQ(op.ask({kind::shadow}), "context \"shop\" is in shadow mode now");
  EXPECT_TRUE(io.get_options().shadow);
  EXPECT_EQ(op.ask({kind::shadow}), "context \"shop\" is in shadow mode already");
  EXPECT_EQ(op.ask({kind::enforce}), "context \"shop\" enforces now");
  EXPECT_FALSE(io.get_options().shadow);
  EXPECT_EQ(op.ask({kind::enforce}), "context \"shop\" enforces already");
  EXPECT_EQ(io.stats().updates, 2U);
  // An answer is sent after the hooks of the change before it.
  const std::lock_guard lock(mutex);
  EXPECT_THAT(changed, testing::ElementsAre("shadow", "shadow"));
  EXPECT_EQ(threads.size(), 1U);
  EXPECT_FALSE(threads.contains(std::this_thread::get_id()));
}

TEST(control, weights_of_groups_of_any_name) {
  asio_pulse::io_context io(named("shop"));
  pulse_test::let_run(io);
  std::mutex mutex;
  std::vector<std::string> groups;
  const auto hooks = io.hooks().install({.options_changed = [&](const auto& event) {
    const std::lock_guard lock(mutex);
    groups.push_back(std::string(event.group) + ":" + std::string(event.changed));
  }});
  const task_group tenant(io, {.name = "tenant"});
  const task_group user(io, {.name = "user", .parent = tenant});
  const task_group odd(io, {.name = "a/b\\c d%\n\xff\x01", .parent = tenant});
  const task_group nameless(io);
  operating op;
  EXPECT_EQ(op.weigh("tenant", 200), "group \"tenant\" has a weight of 200 now; it was 100");
  EXPECT_EQ(op.weigh("tenant/user", 7), "group \"tenant/user\" has a weight of 7 now; it was 100");
  EXPECT_EQ(op.weigh("tenant/user", 7), "group \"tenant/user\" has a weight of 7 already");
  EXPECT_THAT(op.weigh("tenant/a\\/b\\\\c d%\n\xff\x01", 9), HasSubstr("has a weight of 9 now"));
  EXPECT_THAT(op.weigh("", 11), HasSubstr("has a weight of 11 now"));
  EXPECT_EQ(tenant.weight(), 200U);
  EXPECT_EQ(user.weight(), 7U);
  EXPECT_EQ(odd.weight(), 9U);
  EXPECT_EQ(nameless.weight(), 11U);
  EXPECT_EQ(op.ask({kind::enforce}), "context \"shop\" enforces already");
  {
    const std::lock_guard lock(mutex);
    EXPECT_THAT(groups, testing::ElementsAre("tenant:weight", "tenant/user:weight",
                                             "tenant/a\\/b\\\\c d%\n\xff\x01:weight", ":weight"));
  }
  // The program's own changes are events, too.
  user.set_weight(8);
  EXPECT_EQ(groups.size(), 5U);
  EXPECT_EQ(io.stats().updates, 5U);
}

TEST(control, weights_that_are_refused) {
  asio_pulse::io_context io(named("shop"));
  pulse_test::let_run(io);
  const task_group one(io, {.name = "twin"});
  const task_group other(io, {.name = "twin"});
  const task_group single(io, {.name = "single"});
  std::optional<task_group> gone(std::in_place, io, group_options{.name = "gone"});
  gone.reset();
  operating op;
  EXPECT_EQ(op.weigh("nobody", 200), "refused: context \"shop\" has no group \"nobody\"");
  EXPECT_EQ(op.weigh("gone", 200), "refused: context \"shop\" has no group \"gone\"");
  EXPECT_THAT(op.weigh("twin", 200), HasSubstr("refused: context \"shop\" has several groups"));
  for (const unsigned weight : {0U, 10001U, ~0U}) {
    EXPECT_THAT(op.weigh("single", weight),
                HasSubstr("refused: asio_pulse::group_options.weight must be between 1 and 10000"));
  }
  EXPECT_THAT(op.weigh(std::string(5000, 'x'), 1), HasSubstr("too long"));
  EXPECT_EQ(one.weight(), 100U);
  EXPECT_EQ(single.weight(), 100U);
  EXPECT_EQ(io.stats().updates, 0U);
}

TEST(control, undo_takes_back_the_last_change_that_is_left) {
  asio_pulse::io_context io(named("shop"));
  pulse_test::let_run(io);
  const task_group tenant(io, {.name = "tenant"});
  operating op;
  const context_change undo{};
  EXPECT_THAT(op.ask(undo), HasSubstr("refused: there is nothing to undo"));
  (void)op.weigh("tenant", 200);
  (void)op.ask({kind::shadow});
  (void)op.ask({kind::shadow});  // changes nothing
  (void)op.weigh("tenant", 300);
  EXPECT_EQ(op.ask(undo), "group \"tenant\" has a weight of 200 again");
  EXPECT_EQ(tenant.weight(), 200U);
  EXPECT_EQ(op.ask(undo), "context \"shop\" enforces again");
  EXPECT_FALSE(io.get_options().shadow);
  EXPECT_EQ(op.ask(undo), "group \"tenant\" has a weight of 100 again");
  EXPECT_EQ(tenant.weight(), 100U);
  EXPECT_THAT(op.ask(undo), HasSubstr("refused: there is nothing to undo"));
  EXPECT_EQ(io.stats().updates, 6U);
}

TEST(control, undo_leaves_alone_what_was_changed_since) {
  asio_pulse::io_context io(named("shop"));
  pulse_test::let_run(io);
  std::optional<task_group> tenant(std::in_place, io, group_options{.name = "tenant"});
  operating op;
  const context_change undo{};
  (void)op.weigh("tenant", 200);
  (void)op.ask({kind::shadow});
  io.update({.shadow = false});
  tenant->set_weight(5);
  EXPECT_THAT(op.ask(undo),
              HasSubstr("refused: context \"shop\" enforces: that was changed since"));
  EXPECT_THAT(op.ask(undo), HasSubstr("has a weight of 5: that was changed since"));
  EXPECT_EQ(tenant->weight(), 5U);
  (void)op.weigh("tenant", 300);
  tenant.reset();
  EXPECT_THAT(op.ask(undo), HasSubstr("has no group \"tenant\""));
  (void)op.ask({kind::enforce});
  tenant.emplace(io, group_options{.name = "tenant"});
  (void)op.weigh("tenant", 300);
  tenant.reset();
  tenant.emplace(io, group_options{.name = "tenant", .weight = 300});
  EXPECT_THAT(op.ask(undo), HasSubstr("is another group than the one whose weight was changed"));
  EXPECT_EQ(tenant->weight(), 300U);
  EXPECT_THAT(op.ask(undo), HasSubstr("there is nothing to undo"));
}

TEST(control, the_last_sixteen_changes_can_be_taken_back) {
  asio_pulse::io_context io(named("shop"));
  pulse_test::let_run(io);
  const task_group tenant(io, {.name = "tenant"});
  operating op;
  for (unsigned weight = 1; weight <= 18; ++weight) (void)op.weigh("tenant", weight);
  for (int i = 0; i != 16; ++i) (void)op.ask({});
  EXPECT_EQ(tenant.weight(), 2U);
  EXPECT_THAT(op.ask({}), HasSubstr("there is nothing to undo"));
}

TEST(control, only_contexts_that_agree) {
  asio_pulse::options o = named("closed");
  o.controllable = false;
  asio_pulse::io_context closed(o);
  pulse_test::let_run(closed);
  o.inspectable = false;
  o.controllable = true;
  asio_pulse::io_context hidden(o);
  pulse_test::let_run(hidden);
  operating op;
  EXPECT_EQ(op.ask({kind::shadow}), "refused: no context can be changed (options::controllable)");
  asio_pulse::io_context first(named("first"));
  pulse_test::let_run(first);
  EXPECT_EQ(op.ask({kind::shadow}), "context \"first\" is in shadow mode now");
  asio_pulse::io_context second(named("second"));
  EXPECT_THAT(op.ask({kind::shadow}), HasSubstr("there are several contexts"));
  inspector in;
  std::error_code ec;
  in.connect(self, ec);
  for (const context_metrics& c : in.fetch({}, ec, 20s).contexts) {
    const std::string said = op.ask({kind::shadow}, c.number);
    if (c.name == "closed") {
      EXPECT_THAT(said, HasSubstr("or it cannot be changed"));
    } else {
      EXPECT_THAT(said, HasSubstr("is in shadow mode"));
    }
  }
  EXPECT_THAT(op.ask({kind::shadow}, 1'000'000), HasSubstr("no context has the number 1000000"));
  EXPECT_FALSE(closed.get_options().shadow);
  EXPECT_FALSE(hidden.get_options().shadow);
  EXPECT_TRUE(second.get_options().shadow);
}

// A daemon that gives up its rights for a while, and takes them back.
TEST(control, a_user_as_whom_the_process_does_not_act_any_more) {
  if (thread_sanitizer) GTEST_SKIP() << "it does not follow threads into a fork";
  if (::geteuid() != 0) GTEST_SKIP() << "only root can act as another user";
  const std::string said = forked([](int) -> std::string {
                             if (::seteuid(12345) != 0) return "no other user";
                             asio_pulse::io_context io(named("daemon"));
                             io.notify_fork(asio::execution_context::fork_child);
                             pulse_test::let_run(io);
                             inspector in;
                             std::error_code ec;
                             const auto pid = static_cast<std::uint64_t>(::getpid());
                             in.connect(pid, ec);
                             if (!ec) (void)in.change(0, {kind::shadow}, ec, 30s);
                             if (ec) return "not changed before: " + in.detail();
                             if (::seteuid(0) != 0) return "not root again";
                             (void)in.change(0, {kind::enforce}, ec, 30s);
                             if (!ec || !io.get_options().shadow) return "changed";
                             return in.detail();
                           }).said();
  EXPECT_THAT(said, HasSubstr("acts as another user since you connected"));
}

TEST(control, nonsense_is_refused_and_changes_nothing) {
  asio_pulse::io_context io(named("shop"));
  pulse_test::let_run(io);
  const task_group tenant(io, {.name = "tenant"});
  for (const std::string_view nonsense : {"change",
                                          "change ",
                                          "change 0",
                                          "change 0 ",
                                          "change x enforce",
                                          "change -1 enforce",
                                          "change 0 enforce 1",
                                          "change 0 ENFORCE",
                                          "change 0 enforce ",
                                          "change 0 undo x",
                                          "change 0 weight",
                                          "change 0 weight 5",
                                          "change 0 weight x tenant",
                                          "change 0 weight -5 tenant",
                                          "change 0 weight 4294967296 tenant",
                                          "change 0 weight 5 tenant x",
                                          "change 0 weight 5 ten%",
                                          "change 0 weight 5 ten%4",
                                          "change 0 weight 5 ten%zz",
                                          "change 0 weight 5 t%65nant",
                                          "change 0 weight 5 %FF",
                                          "change 0 weight 5 \x01",
                                          "change 0 weight 5 \xff",
                                          "change 99999999999999999999 undo"}) {
    const raw_client client(self);
    ASSERT_TRUE(client.connected());
    client.say(request(nonsense));
    const std::string answer = client.hear();
    EXPECT_TRUE(answer.find(" error ") != std::string::npos) << nonsense << ": " << answer;
    EXPECT_TRUE(answer.ends_with('\n'));
  }
  EXPECT_EQ(io.stats().updates, 0U);
}

TEST(control, several_clients_at_once) {
  asio_pulse::io_context io(named("shop"));
  pulse_test::let_run(io);
  const task_group tenant(io, {.name = "tenant"});
  std::atomic<std::uint64_t> made{0};
  on_threads(3, [&](std::size_t thread) {
    operating op;
    for (unsigned i = 0; i != 10; ++i) {
      const auto weight = static_cast<unsigned>(1 + 3 * i + thread);
      const std::string said = op.weigh("tenant", weight);
      EXPECT_THAT(said, HasSubstr("has a weight of " + std::to_string(weight)));
      if (said.find("now") != std::string::npos) ++made;
    }
  });
  EXPECT_EQ(io.stats().updates, made);
}

// A thousand a second, from a client that does not wait.
TEST(control, a_flood_is_refused) {
  asio_pulse::io_context io(named("shop"));
  pulse_test::let_run(io);
  const auto begin = std::chrono::steady_clock::now();
  int refused = 0;
  for (int i = 0; i != 200; ++i) {
    const raw_client client(self);
    client.say(request(i % 2 == 0 ? "change 0 shadow" : "change 0 enforce"));
    // After an answer the process waits for another request.
    const std::string line = client.hear_line();
    if (line.find("too many changes") != std::string::npos) ++refused;
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  EXPECT_LE(io.stats().updates, 21 + static_cast<std::uint64_t>(10 * took.count()));
  EXPECT_TRUE(refused > 0 || took > 10s);
  inspector in;
  std::error_code ec;
  in.connect(self, ec);
  (void)in.fetch({}, ec, 20s);
  EXPECT_FALSE(ec) << "the figures are still answered: " << in.detail();
}

/// A hook that waits until it may return.
struct stuck_hook {
  std::promise<void> entered;
  std::promise<void> leave;
};

TEST(control, the_end_of_a_context_waits_for_its_hook_and_a_fork_does_not) {
  auto io = std::make_unique<asio_pulse::io_context>(named("shop"));
  pulse_test::let_run(*io);
  stuck_hook hook;
  std::atomic<bool> left{false};
  const auto hooks = io->hooks().install({.options_changed = [&](const auto&) {
    hook.entered.set_value();
    hook.leave.get_future().wait();
    std::this_thread::sleep_for(20ms);
    left = true;
  }});
  std::thread client([] {
    operating op;
    (void)op.ask({kind::shadow});
  });
  hook.entered.get_future().wait();
  // The child has no such thread, so its context can end.
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(20);
    io.reset();
    ::_exit(0);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_TRUE(io->get_options().shadow) << "the hook does not keep other threads waiting";
  hook.leave.set_value();
  io.reset();
  EXPECT_TRUE(left);
  client.join();
}

TEST(control, a_hook_may_destroy_the_context) {
  auto io = std::make_unique<asio_pulse::io_context>(named("shop"));
  pulse_test::let_run(*io);
  std::promise<void> destroyed;
  auto hooks = io->hooks().install({.options_changed = [&](const auto&) {
    io.reset();
    destroyed.set_value();
  }});
  operating op;
  (void)op.ask({kind::shadow});
  destroyed.get_future().wait();
  EXPECT_EQ(io, nullptr);
}

TEST(control, contexts_come_and_go_while_they_are_changed) {
  std::atomic<bool> over{false};
  std::thread client([&] {
    operating op;
    while (!over) (void)op.ask({kind::shadow});
  });
  for (int i = 0; i != 100; ++i) {
    asio_pulse::io_context io(named("brief"));
    pulse_test::let_run(io);
    asio::post(io, [] { burn(100us); });
    io.run();
  }
  over = true;
  asio_pulse::io_context last(named("last"));
  client.join();
}

// The handlers of the storm are parked, released, and parked again.
TEST(control, while_workers_hold_a_storm_back) {
  asio_pulse::io_context io(named("busy"));
  pulse_test::let_run(io);
  const offender storm(io);
  std::atomic<bool> over{false};
  std::atomic<int> ran{0};
  std::function<void()> again = [&] {
    ++ran;
    if (!over) asio_pulse::post(storm.task, again);
  };
  for (int i = 0; i != 20; ++i) asio_pulse::post(storm.task, again);
  auto work = asio::make_work_guard(io);
  std::thread worker([&] { io.run(); });
  while (ran == 0) std::this_thread::yield();
  operating op;
  for (int i = 0; i != 10; ++i) {
    EXPECT_THAT(op.ask({i % 2 == 0 ? kind::shadow : kind::enforce}), HasSubstr("now"));
  }
  const int before = ran;
  while (ran == before) std::this_thread::yield();  // and goes on
  over = true;
  work.reset();
  worker.join();
  EXPECT_EQ(io.stats().parked, 0U);
}

TEST(control, a_process_that_ends_meanwhile) {
  if (thread_sanitizer) GTEST_SKIP() << "it does not follow threads into a fork";
  for (int i = 0; i != 5; ++i) {
    auto process = std::make_unique<forked>(serving({}, {}));
    char ready[5];
    ASSERT_EQ(::recv(process->socket(), ready, sizeof ready, MSG_WAITALL), 5);
    inspector in;
    std::error_code ec;
    in.connect(process->pid(), ec);
    ASSERT_FALSE(ec) << in.detail();
    EXPECT_EQ(in.change(0, {kind::shadow}, ec, 20s), "context \"served\" is in shadow mode now");
    std::thread end([&] { process.reset(); });
    for (int k = 0; k != 1000 && !ec; ++k) {
      (void)in.change(0, {k % 2 == 0 ? kind::enforce : kind::shadow}, ec, 20s);
      // Refused as one too many: the connection is closed, and the process may still live.
      if (ec == std::errc::operation_not_permitted) in.connect(self, ec);
    }
    end.join();
  }
}

// ---- fork

/// Threads that call functions again and again, until the end of the scope.
class busy_threads {
 public:
  busy_threads() = default;
  ~busy_threads() {
    over_ = true;
    for (std::thread& t : threads_) t.join();
  }
  busy_threads(const busy_threads&) = delete;
  busy_threads& operator=(const busy_threads&) = delete;
  template <class Function>
  void repeat(Function f) {
    threads_.emplace_back([this, f] {
      for (unsigned i = 0; !over_; ++i) f(i);
    });
  }

 private:
  std::atomic<bool> over_{false};
  std::vector<std::thread> threads_;
};

/// Forks `times` times. The child, in which only this thread exists, does `job`, and must not wait.
void fork_often(asio_pulse::io_context& io, int times, const std::function<bool()>& job) {
  for (int i = 0; i != times; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::alarm(20);  // ends a child that waits for a lock
      // It starts a thread, which this sanitizer forbids.
      if (!thread_sanitizer) io.notify_fork(asio::execution_context::fork_child);
      ::_exit(job() ? 0 : 1);
    }
    ASSERT_GT(child, 0);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  }
}

// Other threads change options, groups and the classification of connections all the time. The child
// can do so, too.
TEST(fork_while_options_change, the_child_can_change_them) {
  if (address_sanitizer) GTEST_SKIP() << "its allocator takes no locks around a fork";
  asio_pulse::io_context io(named("forks"));
  pulse_test::let_run(io);
  const task_group tenant(io, {.name = "tenant"});
  // Made here, because Asio locks its table of services for that, also around a fork.
  std::vector<task_group> ending;
  for (int i = 0; i != 20'000; ++i) ending.emplace_back(io, group_options{.parent = tenant});
  busy_threads others;
  others.repeat(
      [&](unsigned i) { io.update({.shadow = i % 2 == 0, .quantum = 100us * (1 + i % 5)}); });
  others.repeat([&](unsigned i) {
    tenant.set_weight(1 + i % 100);
    if (!ending.empty()) ending.pop_back();
  });
  others.repeat([&](unsigned) {
    io.classify([](const asio_pulse::accepted_connection&) { return asio_pulse::group_ref(); });
  });
  fork_often(io, 100, [&] {
    io.update({.shadow = true});
    io.update({.shadow = false, .quantum = 1ms});
    const task_group own(io, {.name = "own", .parent = tenant});
    own.set_weight(3);
    io.classify({});
    return io.get_options().quantum == 1ms && asio_pulse::admit(own);
  });
}

// As before, with changes through the socket.
TEST(fork_while_options_change, through_the_socket) {
  if (address_sanitizer) GTEST_SKIP() << "its allocator takes no locks around a fork";
  asio_pulse::io_context io(named("forks"));
  pulse_test::let_run(io);
  operating op;
  busy_threads others;
  others.repeat([&](unsigned i) { (void)op.ask({i % 2 == 0 ? kind::shadow : kind::enforce}); });
  fork_often(io, 50, [&] {
    io.update({.quantum = 2ms});
    return io.get_options().quantum == 2ms;
  });
}

}  // namespace
