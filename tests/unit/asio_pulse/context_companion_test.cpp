// SPDX-License-Identifier: BSL-1.0
//
// What a context reports to the parts of the library that are built on contexts, and when.
#include "context_companion.hpp"

#include "empty_port.hpp"
#include "reports/stalled_poll.hpp"

#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/hooks/poll_path.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace asio_pulse::detail {
namespace {

using testing::ElementsAre;

using told = std::vector<std::string>;

bool tell_workers = false;  ///< what options_changed() returns

class fake_companion final : public context_companion {
 public:
  explicit fake_companion(told& to) noexcept : told_(to) {}
  ~fake_companion() override { told_.emplace_back("destroyed"); }

  void opened() noexcept override { told_.emplace_back("opened"); }
  void closing() noexcept override { told_.emplace_back("closing"); }
  void joined(hooks::thread_state&) noexcept override { told_.emplace_back("joined"); }
  void left(hooks::thread_state&) noexcept override { told_.emplace_back("left"); }
  void renew(hooks::thread_state&) noexcept override { told_.emplace_back("renew"); }
  void hinted(hooks::thread_state&, task_state& t, timing::ticks) noexcept override {
    told_.push_back("hinted " + std::to_string(t.id()));
  }
  bool options_changed(const changes&, const options& now) noexcept override {
    told_.push_back("quantum " + std::to_string(now.quantum.count()));
    return tell_workers;
  }
  void woken() noexcept override { told_.emplace_back("woken"); }
  void forked() noexcept override { told_.emplace_back("forked"); }
  void stall_began(const stalled_poll&, const task_state& t) noexcept override {
    told_.push_back("stall_began " + std::to_string(t.id()));
  }
  void stall_described(const stalled_poll&, std::string_view call,
                       std::span<const stack_frame>) noexcept override {
    told_.push_back("stall_described " + std::string(call));
  }
  void stall_over(const stalled_poll&) noexcept override { told_.emplace_back("stall_over"); }
  bool observed() const noexcept override { return true; }
  context_metrics metrics(const metrics_request& what) override {
    context_metrics m;
    m.task_count = what.top_tasks;
    return m;
  }
  recording trace() override { return {.pid = 42}; }

 private:
  told& told_;
};

class context_companion_test : public testing::Test {
 protected:
  /// The events since the last call.
  told now() { return std::exchange(told_, {}); }
  static context_core* make(told& to) {
    return new context_core(options{}, false, std::make_unique<fake_companion>(to));
  }

  /// One poll of a handler of the context. This thread has to be one of its workers.
  void poll() {
    struct operation : hooks::tracked_operation {
      operation() noexcept {}
    };
    static constexpr hooks::site handler{"handler", false};
    operation op;
    const hooks::poll_frame frame(&port_, op, handler);
  }

  told told_;
  empty_port port_;
  core_ref core_{make(told_)};
};

TEST_F(context_companion_test, hears_of_the_life_of_a_context) {
  EXPECT_THAT(now(), ElementsAre());
  core_->connect(&port_);
  EXPECT_THAT(now(), ElementsAre("opened"));
  core_->close();
  EXPECT_THAT(now(), ElementsAre("closing"));
  core_->connect(nullptr);
  EXPECT_THAT(now(), ElementsAre("closing"));
  EXPECT_EQ(core_->port(), nullptr);
}

TEST(context_companion, ends_with_its_context) {
  told heard;
  auto* const core = new context_core(options{}, false, std::make_unique<fake_companion>(heard));
  core->acquire();
  core->release();
  EXPECT_THAT(heard, ElementsAre());
  core->release();
  EXPECT_THAT(heard, ElementsAre("destroyed"));
}

TEST_F(context_companion_test, hears_of_each_worker) {
  {
    const hooks::worker_scope worker(&port_, *core_, true);
    EXPECT_THAT(now(), ElementsAre("joined"));
    const hooks::worker_scope again(&port_, *core_, true);
    EXPECT_THAT(now(), ElementsAre()) << "it is the same worker";
  }
  EXPECT_THAT(now(), ElementsAre("left"));
}

class resting_workers : public context_companion_test {
 protected:
  resting_workers() { core_->connect(&port_); }
  ~resting_workers() override {
    core_->close();
    core_->connect(nullptr);
  }
  void enter() { const hooks::worker_scope worker(&port_, *core_, true); }
  bool several() const { return (core_->state & hooks::path_state::several_workers) != 0; }
};

// With poll() in a loop, the thread stays the same worker between the calls.
TEST_F(resting_workers, come_back_without_joining_anew) {
  for (int i = 0; i < 3; ++i) enter();
  EXPECT_THAT(now(), ElementsAre("opened", "joined"));
}

TEST_F(resting_workers, are_no_company_for_another) {
  enter();
  std::thread([this] {
    const hooks::worker_scope worker(&port_, *core_, true);
    EXPECT_FALSE(several());
  }).join();
  EXPECT_THAT(now(), ElementsAre("opened", "joined", "joined"));
  const hooks::worker_scope worker(&port_, *core_, true);
  EXPECT_FALSE(several());
  std::thread([this] {
    const hooks::worker_scope second(&port_, *core_, true);
    EXPECT_TRUE(several());
  }).join();
}

TEST_F(resting_workers, do_not_rest_where_there_are_others) {
  const hooks::worker_scope worker(&port_, *core_, true);
  for (int i = 0; i < 2; ++i) std::thread([this] { enter(); }).join();
  EXPECT_THAT(now(), ElementsAre("opened", "joined", "joined", "left", "joined", "left"));
}

TEST_F(resting_workers, see_what_has_changed_meanwhile) {
  struct operation : hooks::tracked_operation {
    operation() noexcept {}
  };
  static constexpr hooks::site handler{"handler", false};
  enter();
  (void)now();
  core_->notify_workers();
  const hooks::worker_scope worker(&port_, *core_, true);
  operation op;
  const hooks::poll_frame frame(&port_, op, handler);
  EXPECT_THAT(now(), ElementsAre("renew"));
}

TEST_F(resting_workers, keep_no_context_alive) {
  enter();
  core_->close();
  core_->connect(nullptr);
  (void)now();
  core_ = core_ref{};
  EXPECT_THAT(now(), ElementsAre("destroyed"));
  core_ = core_ref{make(told_)};
}

TEST_F(resting_workers, are_counted_whoever_comes_and_goes) {
  static constexpr int turns = 20'000;
  const core_ref silent{new context_core(options{}, false)};
  silent->connect(&port_);
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < turns; ++n) const hooks::worker_scope worker(&port_, *silent, true);
    });
  }
  for (std::thread& t : threads) t.join();
  {
    const hooks::worker_scope worker(&port_, *silent, true);
    EXPECT_EQ(silent->state & hooks::path_state::several_workers, 0U);
  }
  silent->close();
  silent->connect(nullptr);
}

TEST_F(context_companion_test, is_asked_by_each_worker_when_there_is_something_new) {
  const hooks::worker_scope worker(&port_, *core_, true);
  poll();
  (void)now();
  poll();
  EXPECT_THAT(now(), ElementsAre());
  core_->notify_workers();
  poll();
  EXPECT_THAT(now(), ElementsAre("renew"));
}

TEST_F(context_companion_test, hears_of_updates_and_says_whether_workers_have_to_look) {
  const hooks::worker_scope worker(&port_, *core_, true);
  poll();
  (void)now();
  EXPECT_EQ(core_->update({.quantum = std::chrono::milliseconds{1}}).text, "");
  poll();
  EXPECT_THAT(now(), ElementsAre("quantum 1000000"));
  tell_workers = true;
  EXPECT_EQ(core_->update({.quantum = std::chrono::milliseconds{2}}).text, "");
  poll();
  tell_workers = false;
  EXPECT_THAT(now(), ElementsAre("quantum 2000000", "renew"));
  EXPECT_EQ(core_->update({.quantum = std::chrono::milliseconds{2}}).text, "");
  EXPECT_THAT(now(), ElementsAre()) << "nothing has changed";
  core_->close();
  (void)now();
  EXPECT_EQ(core_->update({.quantum = std::chrono::milliseconds{3}}).text, "");
  EXPECT_THAT(now(), ElementsAre()) << "after closing";
}

TEST_F(context_companion_test, hears_what_is_for_others) {
  core_->woken();
  core_->forked();
  task_state* const t = core_->make_task({.name = "t"});
  core_->hinted(hooks::this_thread(), *t, 1);
  EXPECT_THAT(now(), ElementsAre("woken", "forked", "hinted " + std::to_string(t->id())));
  hooks::release(*t);
}

TEST_F(context_companion_test, hears_of_stalls) {
  task_state* const t = core_->make_task({.name = "t"});
  const stalled_poll of_nobody{};
  const stalled_poll of_task{.task = t};
  core_->stalled(of_nobody);
  core_->stalled(of_task);
  core_->describe_stall(of_task, "futex", {});
  core_->stall_over(of_task);
  EXPECT_THAT(now(), ElementsAre("stall_began 0", "stall_began " + std::to_string(t->id()),
                                 "stall_described futex", "stall_over"));
  EXPECT_EQ(core_->stats().stalls, 2U);
  EXPECT_TRUE(core_->observed());
  hooks::release(*t);
}

TEST_F(context_companion_test, says_what_the_context_is_asked) {
  EXPECT_EQ(core_->metrics({.top_tasks = 7}).task_count, 7U);
  EXPECT_EQ(core_->trace().pid, 42U);
}

}  // namespace
}  // namespace asio_pulse::detail
