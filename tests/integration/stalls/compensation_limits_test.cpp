// SPDX-License-Identifier: BSL-1.0

// Compensation together with exceptions, fork, signal masks, nested runs and contexts that refuse
// it; and how the priority of a stuck worker's thread is lowered.

#include <support/sanitizers.hpp>
#include <support/stuck.hpp>
//
#include <asio_pulse/detail/isolation_threads.hpp>

#include <gmock/gmock.h>

#include <mutex>
#include <stdexcept>
#include <string>

#if defined(__linux__)
#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

namespace {

namespace asio = boost::asio;
using namespace pulse_test;
using asio_pulse::isolation_priority;
using asio_pulse::report;
using asio_pulse::report_kind;

struct named_fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// ---- exceptions

/// Calls run() until it returns normally, and collects the exceptions.
std::vector<std::string> thrown_by(asio_pulse::io_context& io) {
  std::vector<std::string> all;
  for (;;) {
    try {
      io.run();
      return all;
    } catch (const named_fault& e) {
      all.emplace_back(e.what());
    }
  }
}

TEST(compensation_exceptions, leave_through_run_when_the_worker_is_free) {
  compensated c{with_spares(2)};
  auto all = std::async(std::launch::async, [&] { return thrown_by(c.io); });
  hog h;
  c.post(h);
  ASSERT_TRUE(c.compensate(1));
  asio::post(c.io, [] { throw named_fault("first"); });
  ASSERT_TRUE(c.in_handler([] {})) << "the spare continues";
  asio::post(c.io, [] { throw named_fault("second"); });
  ASSERT_TRUE(c.in_handler([] {}));
  h.release();
  c.relieved(0);  // the work guard still exists, so run() has to end for another reason
  // It has thrown both when it has thrown a third.
  asio::post(c.io, [] { throw named_fault("third"); });
  ASSERT_TRUE(until([&] { return c.io.stopped() || c.spares().active == 0; }));
  c.work.reset();
  EXPECT_THAT(all.get(), testing::UnorderedElementsAre("first", "second", "third"));
}

TEST(compensation_exceptions, of_the_last_handler_leave_through_the_run_that_ends) {
  compensated c;
  auto all = std::async(std::launch::async, [&] { return thrown_by(c.io); });
  hog h, last;
  c.post(h);
  ASSERT_TRUE(c.compensate(1));
  asio::post(c.io, [run = last.handler()]() mutable {
    run();
    throw named_fault("last");
  });
  last.wait_until_inside();
  c.work.reset();
  h.release();
  ASSERT_TRUE(until([&] { return h.ended.load(); }));
  last.release();
  EXPECT_THAT(all.get(), testing::ElementsAre("last"));
}

TEST(compensation_exceptions, wait_for_the_next_run_after_stop) {
  compensated c;
  hog h;
  auto first = std::async(std::launch::async, [&] {
    try {
      c.io.run();
      return std::string("none");
    } catch (const named_fault& e) {
      return std::string(e.what());
    }
  });
  c.post(h);
  ASSERT_TRUE(c.compensate(1));
  asio::post(c.io, [] { throw named_fault("one"); });
  ASSERT_TRUE(c.in_handler([] {}));
  asio::post(c.io, [] { throw named_fault("two"); });
  ASSERT_TRUE(c.in_handler([] {}));
  c.io.stop();
  h.release();
  EXPECT_EQ(first.get(), "one");
  EXPECT_THROW(c.io.run(), named_fault);
  c.io.restart();
  c.work.reset();
  EXPECT_EQ(c.io.run(), 2U)
      << "the spare's other two handlers; run() threw before it could return their count";
}

TEST(compensation_exceptions, many_with_stalls) {
  compensated c{with_spares(2)};
  constexpr std::size_t total = 200;
  std::atomic<std::size_t> threw{0};
  std::atomic<std::size_t> caught{0};
  for (std::size_t i = 0; i < total; ++i) {
    asio::post(c.io, [&, stuck = i % 20 == 0 && i + 20 < total] {
      if (stuck) c.stuck_until([&, wanted = threw + 5] { return threw >= wanted; });
      ++threw;
      throw named_fault("x");
    });
  }
  c.work.reset();
  {
    const compensated::watched watchdog(c);
    on_threads(2, [&](std::size_t) { caught += thrown_by(c.io).size(); });
    // One run() may have returned before the spare of the other one threw its last exception.
    caught += thrown_by(c.io).size();
  }
  EXPECT_EQ(threw, total);
  EXPECT_EQ(caught, total);
}

// ---- contexts and functions without spares

template <class... Hint>
std::vector<std::string> refusals(Hint... hint) {
  std::vector<std::string> told;
  auto o = with_spares(1);
  o.on_report = [&](const report& r) {
    if (r.kind == report_kind::compensation_refused) told.emplace_back(r.detail);
  };
  asio_pulse::io_context io{o, hint...};
  asio::post(io, [&] {
    for (int i = 0; i < 3; ++i) asio_pulse::detail::service_of(io).compensate(1);
  });
  asio::post(io, [] {});
  EXPECT_EQ(io.run(), 2U);
  EXPECT_EQ(asio_pulse::detail::service_of(io).spares() == nullptr, !told.empty());
  return told;
}

TEST(compensation_refused, for_a_single_threaded_context) {
  const auto single = testing::ElementsAre(testing::HasSubstr("for one thread"));
  EXPECT_THAT(refusals(1), single);
  EXPECT_THAT(refusals(BOOST_ASIO_CONCURRENCY_HINT_UNSAFE), single);
  EXPECT_THAT(refusals(BOOST_ASIO_CONCURRENCY_HINT_UNSAFE_IO), single);
}

TEST(compensation_refused, not_for_any_other) {
  EXPECT_THAT(refusals(), testing::IsEmpty());
  EXPECT_THAT(refusals(2), testing::IsEmpty());
}

TEST(compensation_refused, without_opting_in_and_in_shadow_mode) {
  asio_pulse::io_context plain{with_spares(0)};
  EXPECT_EQ(asio_pulse::detail::service_of(plain).spares(), nullptr);
  auto o = with_spares(1);
  o.enabled = false;
  asio_pulse::io_context off{o};
  EXPECT_EQ(asio_pulse::detail::service_of(off).spares(), nullptr);

  o.enabled = true;
  o.shadow = true;
  compensated c{o};
  hog h;
  auto ran = c.worker();
  c.post(h);
  for (int i = 0; i < 3; ++i) c.service().compensate(1);
  EXPECT_EQ(c.spares().started, 0U);
  c.io.update({.shadow = false});
  EXPECT_TRUE(c.compensate(1));
  h.release();
  c.relieved(0);
  c.work.reset();
  EXPECT_EQ(ran.get(), 1U);
}

TEST(compensation_refused, a_run_through_a_base_class_reference_is_no_caller) {
  compensated c;
  hog h;
  auto ran =
      std::async(std::launch::async, [&] { return static_cast<asio::io_context&>(c.io).run(); });
  c.post(h);
  for (int i = 0; i < 3; ++i) c.service().compensate(1);
  EXPECT_EQ(c.spares().active, 0U);
  h.release();
  c.work.reset();
  EXPECT_EQ(ran.get(), always_preempt() ? 2U : 1U)
      << "the run function of the base class also counts operations that were put back";
}

TEST(compensation_refused, polling_is_no_caller) {
  compensated c;
  hog h;
  asio::post(c.io, h.handler());
  auto ran = std::async(std::launch::async, [&] { return c.io.run_one(); });
  h.wait_until_inside();
  c.service().compensate(1);
  EXPECT_EQ(c.spares().active, 0U);
  h.release();
  EXPECT_EQ(ran.get(), 1U);
}

// ---- on a spare, as on any worker

TEST(compensation_spare, nested_runs_are_part_of_their_handler) {
  compensated c;
  hog h;
  std::size_t inner = 0;
  auto ran = c.worker();
  c.post(h);
  ASSERT_TRUE(c.compensate(1));
  ASSERT_TRUE(c.in_handler([&] {
    for (int i = 0; i < 3; ++i) asio::post(c.io, [] {});
    inner += c.io.poll();
    for (int i = 0; i < 3; ++i) asio::post(c.io, [] {});
    inner += c.io.run_for(1ms);
  }));
  EXPECT_EQ(inner, 6U);
  h.release();
  c.work.reset();
  EXPECT_EQ(ran.get(), 2U);
}

TEST(compensation_spare, accounts_for_tasks) {
  compensated c;
  const asio_pulse::task t{c.io, unlimited("counted")};
  hog h;
  auto ran = c.worker();
  c.post(h);
  ASSERT_TRUE(c.compensate(1));
  for (int i = 0; i < 10; ++i) {
    const asio_pulse::task_scope scope(t);
    ASSERT_TRUE(c.in_handler([&] {
      EXPECT_EQ(asio_pulse::this_task::id(), t.id());
      EXPECT_NE(std::this_thread::get_id(), h.thread);
    }));
  }
  h.release();
  c.work.reset();
  EXPECT_EQ(ran.get(), 11U);
  EXPECT_EQ(t.stats().polls, 10U);
}

#if defined(__linux__)
TEST(compensation_spare, has_the_callers_signal_mask_and_cpus) {
  compensated c;
  hog h;
  sigset_t wanted;
  sigemptyset(&wanted);
  sigaddset(&wanted, SIGUSR2);
  auto ran = std::async(std::launch::async, [&] {
    pthread_sigmask(SIG_SETMASK, &wanted, nullptr);
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<std::size_t>(sched_getcpu()), &one);
    sched_setaffinity(0, sizeof one, &one);
    return c.io.run();
  });
  c.post(h);
  ASSERT_TRUE(c.compensate(1));
  ASSERT_TRUE(c.in_handler([] {
    sigset_t now;
    pthread_sigmask(SIG_SETMASK, nullptr, &now);
    EXPECT_TRUE(sigismember(&now, SIGUSR2));
    EXPECT_FALSE(sigismember(&now, SIGTERM));
    cpu_set_t cpus;
    ASSERT_EQ(sched_getaffinity(0, sizeof cpus, &cpus), 0);
    EXPECT_EQ(CPU_COUNT(&cpus), 1);
  }));
  h.release();
  c.work.reset();
  EXPECT_EQ(ran.get(), 2U);
}

// ThreadSanitizer does not follow a child of a process with several threads.
#if !defined(PULSE_TEST_TSAN)
TEST(compensation_spare, survives_a_fork_in_the_stuck_handler) {
  compensated c;
  pid_t child = -1;
  std::promise<void> inside, may_fork, forked;
  asio::post(c.io, [&] {
    inside.set_value();
    may_fork.get_future().wait();
    c.io.notify_fork(asio::execution_context::fork_prepare);
    child = fork();
    c.io.notify_fork(child == 0 ? asio::execution_context::fork_child
                                : asio::execution_context::fork_parent);
    if (child == 0) {
      bool ran = false;
      asio::post(c.io, [&] { ran = true; });
      c.io.poll();
      _exit(ran && c.spares().alive == 0 ? 0 : 1);
    }
    forked.set_value();
  });
  auto ran = c.worker();
  inside.get_future().wait();
  ASSERT_TRUE(c.compensate(1));
  ASSERT_TRUE(c.in_handler([] {}));
  may_fork.set_value();
  forked.get_future().wait();
  ASSERT_GT(child, 0);
  EXPECT_EQ(c.spares().alive, 0U);
  int status = -1;
  hog h;
  c.post(h);
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  ASSERT_TRUE(c.compensate(1));
  ASSERT_TRUE(c.in_handler([] {}));
  h.release();
  c.work.reset();
  EXPECT_EQ(ran.get(), 4U);
}
#endif

// ---- the stuck thread gives way

struct priority {
  int policy = -1;
  int nice = -100;
  bool operator==(const priority&) const = default;
};

priority priority_of(pid_t tid) {
  return {sched_getscheduler(tid), getpriority(PRIO_PROCESS, static_cast<id_t>(tid))};
}

void drop_cap_sys_nice() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};
  syscall(SYS_capget, &header, data);
  data[CAP_TO_INDEX(CAP_SYS_NICE)].effective &= ~CAP_TO_MASK(CAP_SYS_NICE);
  syscall(SYS_capset, &header, data);
}

/// The scheduling of a thread after demote() and after restore(), each called by a thread with or
/// without CAP_SYS_NICE.
struct demotion {
  priority before, during, after;
};
demotion demote_and_restore(
    isolation_priority how, bool privileged, std::function<void()> prepare = [] {}) {
  std::promise<pid_t> ready;
  std::promise<void> end;
  std::thread stuck([&] {
    prepare();
    ready.set_value(::gettid());
    end.get_future().wait();
  });
  demotion seen;
  std::thread watchdog([&, tid = ready.get_future().get()] {
    if (!privileged) drop_cap_sys_nice();
    seen.before = priority_of(tid);
    const auto saved = asio_pulse::detail::demote(tid, how, 7);
    seen.during = priority_of(tid);
    asio_pulse::detail::restore(tid, saved);
    seen.after = priority_of(tid);
  });
  watchdog.join();
  end.set_value();
  stuck.join();
  return seen;
}

bool may_raise() {
  bool may = false;
  std::thread([&] {
    const auto tid = static_cast<id_t>(::gettid());
    const int now = getpriority(PRIO_PROCESS, tid);
    may = setpriority(PRIO_PROCESS, tid, now + 1) == 0 && setpriority(PRIO_PROCESS, tid, now) == 0;
  }).join();
  return may;
}

TEST(demotion, batch_and_back) {
  // Not SCHED_IDLE: the thread will hold Asio's mutex.
  for (const auto how : {isolation_priority::batch, isolation_priority::idle}) {
    for (const bool privileged : {true, false}) {
      const auto seen = demote_and_restore(how, privileged);
      EXPECT_EQ(seen.during, (priority{SCHED_BATCH, seen.before.nice}));
      EXPECT_EQ(seen.after, seen.before);
    }
  }
}

TEST(demotion, only_batch_where_a_nice_value_could_not_be_undone) {
  rlimit limit{};
  getrlimit(RLIMIT_NICE, &limit);
  if (limit.rlim_cur >= 20) GTEST_SKIP() << "with this RLIMIT_NICE any nice value can be undone";
  const auto seen = demote_and_restore(isolation_priority::nice, false);
  EXPECT_EQ(seen.during, (priority{SCHED_BATCH, seen.before.nice}));
  EXPECT_EQ(seen.after, seen.before);
}

TEST(demotion, nice_with_privilege) {
  if (!may_raise()) GTEST_SKIP() << "needs CAP_SYS_NICE or RLIMIT_NICE";
  const auto nice = demote_and_restore(isolation_priority::nice, true);
  EXPECT_EQ(nice.during, (priority{SCHED_OTHER, std::max(7, nice.before.nice)}));
  EXPECT_EQ(nice.after, nice.before);
}

TEST(demotion, leaves_alone_what_somebody_chose) {
  const auto normal = demote_and_restore(isolation_priority::normal, true);
  EXPECT_EQ(normal.during, normal.before);
  for (const int policy : {SCHED_IDLE, SCHED_FIFO}) {
    const auto seen = demote_and_restore(isolation_priority::batch, true, [&] {
      const sched_param p{.sched_priority = policy == SCHED_FIFO ? 1 : 0};
      sched_setscheduler(0, policy, &p);  // without privilege it is refused, and nothing changes
    });
    if (seen.before.policy != policy) continue;
    EXPECT_EQ(seen.during, seen.before);
    EXPECT_EQ(seen.after, seen.before);
  }
}

TEST(demotion, is_not_undone_where_somebody_changed_it_since) {
  const auto tid = ::gettid();
  std::thread([] {
    const auto self = ::gettid();
    const auto saved = asio_pulse::detail::demote(self, isolation_priority::batch, 0);
    ASSERT_TRUE(saved.changed);
    const sched_param none{};
    ASSERT_EQ(sched_setscheduler(0, SCHED_IDLE, &none), 0);
    asio_pulse::detail::restore(self, saved);
    EXPECT_EQ(sched_getscheduler(0), SCHED_IDLE);
  }).join();
  EXPECT_EQ(sched_getscheduler(tid), SCHED_OTHER);
}
#endif

}  // namespace
