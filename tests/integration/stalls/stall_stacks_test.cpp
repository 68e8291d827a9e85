// SPDX-License-Identifier: BSL-1.0

// Ten ways to be stuck, each in a handler of a running context. The report that comes meanwhile
// must blame the right function, with file and line. This file is built with -O2 -g.

#include <support/sanitizers.hpp>
#include <support/scenario.hpp>
#include <support/stalls.hpp>
//
#include <asio_pulse/stack_trace.hpp>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/strand.hpp>

#include <array>
#include <condition_variable>
#include <exception>
#include <functional>
#include <initializer_list>
#include <latch>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace stalls {

/// A loop over child coroutines: each child works a little and completes; the loop does not
/// suspend.
boost::asio::awaitable<void> child(int rounds = 2'000'000) {
  std::uint64_t x = 1;
  for (int i = 0; i != rounds && !released.load(std::memory_order_relaxed); ++i) {
    x = x * 6364136223846793005U + 1;
    asm volatile("" : "+r"(x));
  }
  co_return;
}

boost::asio::awaitable<void> loop_over_children() {
  while (!released.load(std::memory_order_relaxed)) co_await child();
}

/// Does not end before the test has read its stack: of a coroutine that ends while the watchdog
/// follows those that await it, the watchdog can see only a part.
boost::asio::awaitable<void> stuck_child() {
  while (!released.load(std::memory_order_relaxed)) asm volatile("");
  co_return;
}

boost::asio::awaitable<void> loop_that_gets_stuck() {
  co_await child(100'000);
  while (!released.load(std::memory_order_relaxed)) co_await stuck_child();
}

/// Awaits the loop, beside variables that it keeps.
boost::asio::awaitable<int> session(std::string name) {
  co_await loop_that_gets_stuck();
  co_return static_cast<int>(name.size());
}

boost::asio::awaitable<void> whole_job() { (void)co_await session("of a name that is kept"); }

[[gnu::noinline]] void strand_step(bool last) noexcept {
  while (last && !released.load(std::memory_order_relaxed)) asm volatile("");
}

}  // namespace stalls

namespace {

using namespace pulse_test;
namespace asio = boost::asio;

/// Every report of a stall that has a stack, as the watchdog's thread hands them over.
class mailbox {
 public:
  struct stall {
    std::string task;
    asio_pulse::stall_cause cause;
    std::string system_call;
    asio_pulse::stack_trace stack;
  };
  void put(const asio_pulse::report& r) {
    const std::lock_guard lock(mutex_);
    if (r.kind == asio_pulse::report_kind::stall_ended) {
      over_ = true;
      arrived_.notify_one();
    }
    if (r.kind != asio_pulse::report_kind::stall || r.stack.empty()) return;
    last_ = {std::string(r.task), r.cause, std::string(r.system_call),
             asio_pulse::stack_trace(r.stack.begin(), r.stack.end())};
    full_ = true;
    arrived_.notify_one();
  }
  stall take() {
    std::unique_lock lock(mutex_);
    arrived_.wait(lock, [this] { return full_; });
    full_ = false;
    return std::move(last_);
  }
  /// Until no more reports come of the stall whose stack was taken.
  void wait_for_end() {
    std::unique_lock lock(mutex_);
    arrived_.wait(lock, [this] { return over_; });
    over_ = full_ = false;
  }

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  stall last_;
  bool full_ = false;
  bool over_ = false;
};

class stall_stacks : public testing::Test {
 protected:
  static constexpr int times = 20;

  void SetUp() override {
#if defined(PULSE_TEST_TSAN)
    GTEST_SKIP() << "ThreadSanitizer gives a handler the registers of another moment";
#endif
    if (always_preempt()) GTEST_SKIP() << "every operation is parked once here: other stalls";
    if (asio_pulse::stack_support() != asio_pulse::stack_detail::full) {
      GTEST_SKIP() << "built without libdw";
    }
  }

  static asio_pulse::options watched(mailbox& to) {
    asio_pulse::options o = steady();
    o.watchdog = true;
    o.stall_threshold = 2ms;
    o.on_report = [&to](const asio_pulse::report& r) { to.put(r); };
    return o;
  }

  /// Stalls `times` times in what `start` posts; the innermost user function must be one of
  /// `names`.
  template <class Start>
  void blames(std::initializer_list<std::string_view> names, Start start,
              const std::function<void()>& hold = {}, const std::function<void()>& let_go = {}) {
    mailbox reports;
    asio_pulse::io_context io(watched(reports));
    const asio_pulse::task job{io, unlimited("job")};
    auto work = asio::make_work_guard(static_cast<asio::io_context&>(io));
    std::thread worker([&io] { io.run(); });
    for (int i = 0; i != times; ++i) {
      stalls::released = false;
      if (hold) hold();
      std::latch ended{1};
      start(io, job, [&ended] { ended.count_down(); });
      mailbox::stall seen = reports.take();
      std::size_t at = asio_pulse::blamed_frame(seen.stack);
      // Between two resumptions of a coroutine only Asio is on the stack; between two rounds of
      // anything else never.
      while (at == asio_pulse::no_frame && names.begin()->starts_with("stalls::child")) {
        seen = reports.take();
        at = asio_pulse::blamed_frame(seen.stack);
      }
      stalls::released = true;
      if (let_go) let_go();
      ended.wait();
      reports.wait_for_end();
      EXPECT_EQ(seen.task, "job");
      if (at == asio_pulse::no_frame) {
        ADD_FAILURE() << "no frame is blamed:\n" << asio_pulse::format(seen.stack);
        continue;
      }
      const asio_pulse::stack_frame& blamed = seen.stack[at];
      EXPECT_TRUE(std::any_of(names.begin(), names.end(), [&](std::string_view n) {
        return blamed.function.starts_with(n);
      })) << asio_pulse::format(seen.stack);
      EXPECT_TRUE(blamed.file.ends_with("stalls.hpp") ||
                  blamed.file.ends_with("stall_stacks_test.cpp"))
          << asio_pulse::format(seen.stack);
      EXPECT_GT(blamed.line, 0U);
      // The handler that called it is on the stack, too. Readers look for it next.
      EXPECT_GT(seen.stack.size(), at + 1) << asio_pulse::format(seen.stack);
      causes_[static_cast<std::size_t>(seen.cause)]++;
      if (also) also(seen.stack, at);
      if (!seen.system_call.empty()) system_call_ = seen.system_call;
    }
    work.reset();
    worker.join();
  }

  template <class Body>
  void blames_handler(std::initializer_list<std::string_view> names, Body body,
                      const std::function<void()>& hold = {},
                      const std::function<void()>& let_go = {}) {
    blames(
        names,
        [body](asio_pulse::io_context&, const asio_pulse::task& job, auto done) {
          asio_pulse::post(job, [body, done] {
            body();
            done();
          });
        },
        hold, let_go);
  }

  int causes(asio_pulse::stall_cause which) const {
    return causes_[static_cast<std::size_t>(which)];
  }

  std::array<int, 5> causes_{};
  std::string system_call_;
  /// Looks at the stack too, and at the blamed frame's place in it.
  std::function<void(const asio_pulse::stack_trace&, std::size_t)> also;
};

TEST_F(stall_stacks, spin) {
  blames_handler({"stalls::spin()"}, [] { stalls::spin(); });
  EXPECT_EQ(causes(asio_pulse::stall_cause::blocked), 0);
}

TEST_F(stall_stacks, sleep) {
  blames_handler({"stalls::sleep()"}, [] { stalls::sleep(); });
  EXPECT_EQ(causes(asio_pulse::stall_cause::spinning), 0);
}

TEST_F(stall_stacks, mutex) {
  blames_handler(
      {"stalls::lock_mutex()"}, [] { stalls::lock_mutex(); }, [] { stalls::contended.lock(); },
      [] { stalls::contended.unlock(); });
  EXPECT_TRUE(system_call_.empty() || system_call_ == "futex") << system_call_;
}

TEST_F(stall_stacks, read_of_a_pipe) {
#if defined(PULSE_TEST_ASAN)
  GTEST_SKIP() << "its read() uses a frame pointer, which is not known for a blocked thread";
#endif
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  blames_handler(
      {"stalls::read_pipe(int)"}, [from = ends[0]] { stalls::read_pipe(from); }, {},
      [&] { EXPECT_EQ(::write(ends[1], "x", 1), 1); });
  EXPECT_TRUE(system_call_.empty() || system_call_ == "read fd " + std::to_string(ends[0]))
      << system_call_;
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST_F(stall_stacks, getaddrinfo) {
  const stalls::slow_name_server server;
  blames_handler(
      {"stalls::resolve_name("},
      [&server] {
        server.serve_this_thread();
        EXPECT_FALSE(stalls::resolve_name("asio-pulse.test"));
      },
      {}, [&server] { server.answer(); });
}

TEST_F(stall_stacks, storm_of_exceptions) {
  blames_handler({"stalls::throw_storm()", "stalls::fail(int)"}, [] { stalls::throw_storm(); });
}

TEST_F(stall_stacks, storm_of_allocations) {
  blames_handler({"stalls::malloc_storm()"}, [] { stalls::malloc_storm(); });
}

TEST_F(stall_stacks, deep_recursion) {
  blames_handler({"stalls::recurse(int)"}, [] { stalls::recurse(2000); });
}

TEST_F(stall_stacks, coroutine_over_children) {
  blames({"stalls::child(", "stalls::loop_over_children("},
         [](asio_pulse::io_context&, const asio_pulse::task& job, auto done) {
           asio_pulse::co_spawn(job, stalls::loop_over_children(),
                                [done](const std::exception_ptr&) { done(); });
         });
}

TEST_F(stall_stacks, coroutines_that_await_it) {
  int seen_in_stuck_child = 0;
  also = [&](const asio_pulse::stack_trace& stack, std::size_t at) {
    // The report may be of the first child, which ends meanwhile.
    if (stack[at].function.starts_with("stalls::child(")) return;
    std::vector<std::string_view> awaiting;
    for (const asio_pulse::stack_frame& f : stack) {
      if (!f.awaiting) continue;
      awaiting.emplace_back(f.function);
      EXPECT_TRUE(f.file.ends_with("stall_stacks_test.cpp")) << asio_pulse::format(stack);
      EXPECT_GT(f.line, 0U);
    }
    if (stack[at].function.starts_with("stalls::stuck_child(")) {
      ++seen_in_stuck_child;
      ASSERT_EQ(awaiting.size(), 3U) << asio_pulse::format(stack);
      EXPECT_TRUE(awaiting[0].starts_with("stalls::loop_that_gets_stuck("));
      awaiting.erase(awaiting.begin());
    } else if (awaiting.empty()) {
      return;  // the loop itself, which has gone on to the next child meanwhile
    }
    ASSERT_EQ(awaiting.size(), 2U) << asio_pulse::format(stack);
    EXPECT_TRUE(awaiting[0].starts_with("stalls::session("));
    EXPECT_TRUE(awaiting[1].starts_with("stalls::whole_job("));
    EXPECT_TRUE(stack[at + 1].awaiting) << asio_pulse::format(stack);
  };
  blames({"stalls::child(", "stalls::stuck_child(", "stalls::loop_that_gets_stuck("},
         [](asio_pulse::io_context&, const asio_pulse::task& job, auto done) {
           asio_pulse::co_spawn(job, stalls::whole_job(),
                                [done](const std::exception_ptr&) { done(); });
         });
  EXPECT_GE(seen_in_stuck_child, times / 2);
}

TEST_F(stall_stacks, batch_of_a_strand) {
  blames({"stalls::strand_step("},
         [](asio_pulse::io_context& io, const asio_pulse::task& job, auto done) {
           // From a handler of the task's: what it creates is the task's, and the strand runs it in
           // one go.
           asio_pulse::post(job, [&io, done] {
             const auto strand = asio::make_strand(static_cast<asio::io_context&>(io));
             for (int i = 0; i != 8; ++i) {
               asio::post(strand, [i, done] {
                 stalls::strand_step(i == 5);
                 if (i == 7) done();
               });
             }
           });
         });
}

}  // namespace
