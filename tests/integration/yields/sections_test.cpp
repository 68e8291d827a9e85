// SPDX-License-Identifier: BSL-1.0

// Critical sections, no_yield_scopes and tracked locks that are used against their rules are
// noticed and reported, and do not affect others.

#include <support/captured_stderr.hpp>
#include <support/scenario.hpp>
//
#include <asio_pulse/preemptible.hpp>

#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <memory>
#include <mutex>

namespace {

namespace asio = boost::asio;
using namespace pulse_test;
using asio_pulse::report;
using asio_pulse::report_kind;

/// Counts the reports of each kind that matter here.
struct counted {
  std::atomic<int> misuse{0};
  std::atomic<int> overstay{0};
  std::atomic<int> refused{0};

  asio_pulse::options options(std::chrono::nanoseconds max_critical = 0ns) {
    auto o = steady();
    o.quantum = o.min_slice = 1us;
    o.max_critical = max_critical;
    o.on_report = [this](const report& r) {
      misuse += r.kind == report_kind::misuse;
      overstay += r.kind == report_kind::critical_overstay;
      refused += r.kind == report_kind::yield_refused;
    };
    return o;
  }
};

/// Whether a checkpoint would yield now. It would unless something forbids it.
bool may_yield() {
  burn(5us);
  bool wanted = false;
  for (int i = 0; i < 64 && !wanted; ++i) wanted = asio_pulse::should_yield();
  return wanted;
}

TEST(critical_section, nested_over_stays_are_reported_once) {
  counted seen;
  asio_pulse::io_context io{seen.options(1us)};
  asio::post(io, [] {
    const asio_pulse::critical_section outer;
    {
      const asio_pulse::critical_section middle;
      const asio_pulse::critical_section inner;
      burn(50us);
    }
    EXPECT_FALSE(may_yield()) << "the outer one lasts";
  });
  io.run();
  EXPECT_EQ(seen.overstay.load(), 1);
  EXPECT_EQ(seen.misuse.load(), 0);
}

TEST(critical_section, left_in_another_handler_is_reported_and_changes_nothing) {
  counted seen;
  asio_pulse::io_context io{seen.options()};
  bool yields_in_between = false;
  bool protected_still = false;
  bool yields_after = false;
  asio::co_spawn(
      io,
      [&]() -> asio::awaitable<void> {
        auto old = std::make_unique<asio_pulse::critical_section>();
        co_await asio::post(co_await asio::this_coro::executor, asio::use_awaitable);
        // Another poll: the section has ended with the last one.
        yields_in_between = may_yield();
        {
          const asio_pulse::critical_section mine;
          old.reset();
          protected_still = !may_yield();
        }
        yields_after = may_yield();
      },
      asio::detached);
  io.run();
  EXPECT_EQ(seen.misuse.load(), 1);
  EXPECT_TRUE(yields_in_between);
  EXPECT_TRUE(protected_still);
  EXPECT_TRUE(yields_after);
}

TEST(critical_section, left_on_another_thread_is_reported_there) {
  counted seen_here;
  counted seen_there;
  asio_pulse::io_context here{seen_here.options()};
  asio_pulse::io_context there{seen_there.options()};
  std::unique_ptr<asio_pulse::critical_section> section;
  bool protected_here = false;
  bool protected_there = false;
  asio::post(here, [&] {
    section = std::make_unique<asio_pulse::critical_section>();
    asio::post(there, [&] {
      const asio_pulse::critical_section own;
      section.reset();
      protected_there = !may_yield();
    });
    std::thread other([&] { there.run(); });
    other.join();
    protected_here = !may_yield();
  });
  here.run();
  EXPECT_EQ(seen_here.misuse.load(), 0);
  EXPECT_EQ(seen_there.misuse.load(), 1);
  EXPECT_TRUE(protected_here) << "until its handler ends";
  EXPECT_TRUE(protected_there);
}

TEST(critical_section, left_outside_any_context_is_said_on_stderr) {
  counted seen;
  asio_pulse::io_context io{seen.options()};
  std::unique_ptr<asio_pulse::critical_section> section;
  asio::post(io, [&] { section = std::make_unique<asio_pulse::critical_section>(); });
  io.run();
  captured_stderr captured;
  std::thread([&] { section.reset(); }).join();
  EXPECT_NE(captured.end().find("misuse"), std::string::npos);
}

TEST(critical_section, outside_handlers_is_nothing) {
  counted seen;
  asio_pulse::io_context io{seen.options()};
  bool yields = false;
  const asio_pulse::critical_section outside;
  asio::post(io, [&] { yields = may_yield(); });
  io.run();
  EXPECT_TRUE(yields);
}

TEST(critical_section, a_nested_run_function_does_not_confuse_the_outer_one) {
  counted seen;
  asio_pulse::io_context io{seen.options()};
  bool inner_yields = false;
  bool outer_protected = false;
  bool yields_after = false;
  asio::post(io, [&] {
    {
      const asio_pulse::critical_section outer;
      asio::post(io, [&] {
        inner_yields = may_yield();
        const asio_pulse::critical_section inner;
      });
      io.poll();
      outer_protected = !may_yield();
    }
    yields_after = may_yield();
  });
  io.run();
  EXPECT_TRUE(inner_yields);
  EXPECT_TRUE(outer_protected);
  EXPECT_TRUE(yields_after);
  EXPECT_EQ(seen.misuse.load(), 0);
}

TEST(no_yield_scope, left_in_another_handler_is_reported_and_changes_nothing) {
  counted seen;
  asio_pulse::io_context io{seen.options()};
  bool suspended_in_between = false;
  asio::co_spawn(
      io,
      [&]() -> asio::awaitable<void> {
        auto old = std::make_unique<asio_pulse::no_yield_scope>();
        co_await asio::post(co_await asio::this_coro::executor, asio::use_awaitable);
        const auto yields = io.stats().checkpoint_yields;
        const int refused = seen.refused;
        burn(5us);
        for (int i = 0; i < 64; ++i) ASIO_PULSE_CHECKPOINT();
        suspended_in_between = io.stats().checkpoint_yields > yields && seen.refused == refused;
        old.reset();
      },
      asio::detached);
  io.run();
  EXPECT_EQ(seen.misuse.load(), 1);
  EXPECT_TRUE(suspended_in_between) << "it ended with the handler that entered it";
}

TEST(no_yield_scope, refuses_the_checkpoint_of_a_coroutine_too) {
  counted seen;
  asio_pulse::io_context io{seen.options()};
  int others = 0;
  asio::co_spawn(
      io,
      [&]() -> asio::awaitable<void> {
        asio::post(io, [&] { ++others; });
        {
          const asio_pulse::no_yield_scope scope;
          burn(5us);
          for (int i = 0; i < 64; ++i) co_await asio_pulse::checkpoint();
          EXPECT_EQ(others, 0);
          EXPECT_GT(seen.refused, 0);
        }
        burn(5us);
        for (int i = 0; i < 64; ++i) co_await asio_pulse::checkpoint();
        EXPECT_EQ(others, 1);
      },
      asio::detached);
  io.run();
  EXPECT_EQ(others, 1);
}

TEST(mutex, held_into_another_handler_stops_no_yields_there) {
  counted seen;
  asio_pulse::io_context io{seen.options()};
  asio_pulse::mutex m;
  std::unique_lock<asio_pulse::mutex> held;
  asio::post(io, [&] { held = std::unique_lock(m); });
  asio::post(io, [&] {
    burn(5us);
    for (int i = 0; i < 64; ++i) asio_pulse::this_fiber::checkpoint();
    const asio_pulse::no_yield_scope own;
    held.unlock();
    burn(5us);
    for (int i = 0; i < 64; ++i) asio_pulse::this_fiber::checkpoint();
    EXPECT_GT(seen.refused, 0) << "the count of the scope has not changed";
  });
  io.run();
  EXPECT_TRUE(m.try_lock());
  m.unlock();
}

}  // namespace
