// SPDX-License-Identifier: BSL-1.0

// Shadow mode, contexts that are switched off, options that are refused by name, and reports.

#include <support/scenario.hpp>
//
#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include <gmock/gmock.h>

#include <limits>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace {

namespace asio = boost::asio;
using namespace pulse_test;
using asio_pulse::options;
using asio_pulse::report;
using asio_pulse::report_kind;
using asio_pulse::task_options;
using asio_pulse::tier;
using testing::ElementsAreArray;
using testing::HasSubstr;

// ---- shadow

// In the always-preempt build, too: users rely on shadow mode to change nothing.
TEST(shadow, decides_and_enforces_nothing) {
  auto o = steady_isolating();
  o.shadow = true;
  asio_pulse::io_context io{o};
  auto movable = stingy("shadowed");
  movable.isolatable = true;
  const asio_pulse::task t{io, movable};
  const auto home = std::this_thread::get_id();
  const auto strand = asio::make_strand(io);
  std::vector<int> order;
  std::vector<int> strand_order;
  std::vector<char> mix;
  climb_to_isolate(io, t);
  for (int i = 0; i < 100; ++i) {
    asio_pulse::post(t, [&, i] {
      EXPECT_EQ(std::this_thread::get_id(), home);
      EXPECT_FALSE(asio_pulse::should_yield());
      order.push_back(i);
    });
    const asio_pulse::task_scope scope(t);
    asio::post(strand, [&, i] { strand_order.push_back(i); });
  }
  asio::post(io, [&] { EXPECT_EQ(order.size(), 100U) << "something was put back"; });
  io.run();
  EXPECT_THAT(order, ElementsAreArray(counting_to(100)));
  EXPECT_THAT(strand_order, ElementsAreArray(counting_to(100)));
  const auto s = io.stats();
  EXPECT_EQ(s.yields, 0U);
  EXPECT_EQ(s.strand_breaks, 0U);
  EXPECT_EQ(s.checkpoint_yields, 0U);
  EXPECT_EQ(s.isolated, 0U);
  EXPECT_EQ(s.isolations_refused, 0U);
  EXPECT_GT(s.promotions, 0U);
}

TEST(shadow, says_what_it_would_have_saved) {
  auto o = steady();
  o.shadow = true;
  asio_pulse::io_context io{o};
  const asio_pulse::task t{io, stingy("hog")};
  const asio_pulse::task quiet{io, unlimited("quiet")};
  climb_to_yield(io, t);
  EXPECT_EQ(io.stats().yields, 0U);
  const auto before = io.stats().shadow_saved;
  for (int i = 0; i < 10; ++i) {
    asio_pulse::post(t, [] { burn(300us); });
    asio_pulse::post(quiet, [] { burn(10us); });
  }
  io.run();
  // Each of the task's was over budget in Yield.
  EXPECT_GE(io.stats().shadow_saved - before, 10 * 290us);
  EXPECT_LE(io.stats().shadow_saved, t.stats().cpu);
}

TEST(shadow, a_loop_is_not_told_to_yield) {
  auto o = steady();
  o.shadow = true;
  asio_pulse::io_context io{o};
  const asio_pulse::task t{io, stingy("hog")};
  int yields = 0;
  asio_pulse::post(t, [&] {
    for (int i = 0; i < 200; ++i) {
      burn(20us);
      yields += asio_pulse::should_yield();
    }
  });
  EXPECT_EQ(io.run(), 1U);
  EXPECT_EQ(yields, 0);
}

// ---- switched off

TEST(switched_off, runs_everything_and_does_nothing) {
  auto o = steady_isolating();
  o.enabled = false;
  asio_pulse::io_context io{o};
  int polls = 0;
  const auto c = io.hooks().install(
      {.before_poll = [&](const auto&) { ++polls; }, .after_poll = [&](const auto&) { ++polls; }});
  auto movable = stingy("free");
  movable.isolatable = true;
  const asio_pulse::task t{io, movable};
  const auto strand = asio::make_strand(io);
  std::vector<int> order;
  int others = 0;
  for (int i = 0; i < 50; ++i) {
    asio_pulse::post(t, [&, i] {
      burn(i == 0 ? isolating + 1ms : 300us);
      EXPECT_FALSE(asio_pulse::should_yield());
      EXPECT_EQ(asio_pulse::this_task::id(), t.id());
      order.push_back(i);
    });
    const asio_pulse::task_scope scope(t);
    asio::post(strand, [&] { ++others; });
    asio::post(t.get_executor(), [&] { ++others; });
  }
  bool coroutine = false;
  asio_pulse::co_spawn(
      t,
      [&]() -> asio::awaitable<void> {
        co_await asio::post(co_await asio::this_coro::executor, asio::use_awaitable);
        co_await asio_pulse::checkpoint();
        coroutine = true;
      },
      [](std::exception_ptr) {});
  io.run();
  EXPECT_THAT(order, ElementsAreArray(counting_to(50)));
  EXPECT_EQ(others, 100);
  EXPECT_TRUE(coroutine);
  EXPECT_EQ(polls, 0);
  EXPECT_EQ(t.stats().polls, 0U);
  EXPECT_EQ(t.current_tier(), tier::monitor);
  const auto s = io.stats();
  EXPECT_EQ(s.yields + s.strand_breaks + s.checkpoint_yields + s.isolated + s.promotions, 0U);
}

TEST(switched_off, on_two_threads_and_through_a_base_reference) {
  auto o = steady();
  o.enabled = false;
  asio_pulse::io_context io{o};
  const asio_pulse::task t{io, stingy("free")};
  std::atomic<int> ran{0};
  for (int i = 0; i < 1000; ++i) asio_pulse::post(t, [&] { ++ran; });
  asio::io_context& base = io;
  std::atomic<std::size_t> counted{0};
  on_threads(2, [&](std::size_t n) { counted += n == 0 ? base.run() : io.run(); });
  EXPECT_EQ(ran, 1000);
  EXPECT_EQ(counted, 1000U);
  EXPECT_EQ(t.stats().polls, 0U);
}

// Their handles are destroyed long before; only operations and the workers' accounts hold
// references.
TEST(switched_off, tasks_end_while_their_operations_run_on_two_threads) {
  auto o = steady();
  o.enabled = false;
  asio_pulse::io_context off{o};
  asio_pulse::io_context on{steady()};
  const auto working = asio::make_work_guard(on);
  const auto strand = asio::make_strand(off);
  constexpr int chains = 200;
  constexpr int links = 20;
  std::atomic<int> ran{0};
  std::atomic<int> wrong{0};
  std::atomic<int> thrown{0};
  // Each link posts the next, of the task that is in force then.
  struct chain {
    asio_pulse::io_context& off;
    asio_pulse::io_context& on;
    asio::strand<asio::io_context::executor_type> strand;
    std::atomic<int>& ran;
    std::atomic<int>& wrong;
    std::atomic<int>& thrown;
    std::uint64_t id;
    int left;
    void operator()() {
      wrong += asio_pulse::this_task::id() != id;
      if (left % 7 == 0) {
        asio_pulse::post(asio_pulse::task{on, unlimited("inner")}, [] {});
        on.poll();
      }
      if (left % 5 == 0) {
        try {
          off.poll_one();
        } catch (int) {
          ++thrown;  // by another chain
        }
      }
      wrong += asio_pulse::this_task::id() != id;
      ++ran;
      if (left-- == 0) {
        if (id % 16 == 0) throw 1;
      } else if (left % 2 == 0) {
        asio::post(strand, *this);
      } else {
        asio::post(off, *this);
      }
    }
  };
  for (int i = 0; i < chains; ++i) {
    const asio_pulse::task t{off, stingy("brief")};
    asio_pulse::post(t, chain{off, on, strand, ran, wrong, thrown, t.id(), links});
  }
  on_threads(2, [&](std::size_t) {
    for (;;) {
      try {
        off.run();
        return;
      } catch (int) {
        ++thrown;
      }
    }
  });
  EXPECT_EQ(ran, chains * (links + 1));
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(thrown, 0);
  EXPECT_EQ(off.stats().tasks, 0U) << "one is left";
}

TEST(switched_off, beside_one_that_is_on) {
  auto o = steady();
  o.enabled = false;
  asio_pulse::io_context off{o};
  asio_pulse::io_context on{steady()};
  const asio_pulse::task t_off{off, unlimited("off")};
  const asio_pulse::task t_on{on, unlimited("on")};
  asio_pulse::post(t_on, [&] {
    asio_pulse::post(t_off, [&] { EXPECT_EQ(asio_pulse::this_task::id(), t_off.id()); });
    EXPECT_EQ(off.poll(), 1U);
    EXPECT_EQ(asio_pulse::this_task::id(), t_on.id());
  });
  asio_pulse::post(t_off, [&] {
    asio_pulse::post(t_on, [] {});
    EXPECT_EQ(on.poll(), 2U);
    EXPECT_EQ(asio_pulse::this_task::id(), t_off.id());
  });
  EXPECT_EQ(off.run(), 1U);
  EXPECT_EQ(off.poll(), 0U);
  EXPECT_EQ(t_on.stats().polls, 2U);
  EXPECT_EQ(t_off.stats().polls, 0U);
}

// ---- refused at construction, by name

template <class Change>
std::string refused_options(Change change) {
  options o = steady();
  change(o);
  try {
    asio_pulse::io_context io{o};
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
  return "accepted";
}
template <class Change>
std::string refused_task(Change change) {
  asio_pulse::io_context io{steady()};
  task_options o;
  change(o);
  try {
    const asio_pulse::task t{io, o};
  } catch (const std::invalid_argument& e) {
    EXPECT_EQ(io.stats().tasks, 0U);
    return e.what();
  }
  return "accepted";
}

TEST(refused, options_by_field_and_rule) {
  const auto expect = [](const std::string& what, const char* field) {
    EXPECT_THAT(what, HasSubstr(std::string("asio_pulse::options.") + field + " must "));
  };
  expect(refused_options([](options& o) { o.quantum = 0ns; }), "quantum");
  expect(refused_options([](options& o) { o.quantum = -1ns; }), "quantum");
  expect(refused_options([](options& o) { o.min_slice = o.quantum + 1ns; }), "min_slice");
  expect(refused_options([](options& o) { o.min_slice = 0ns; }), "min_slice");
  expect(refused_options([](options& o) { o.stall_threshold = -1ns; }), "stall_threshold");
  expect(refused_options([](options& o) {
           o.stall_threshold = 5ms;
           o.yield_threshold = 4ms;
         }),
         "yield_threshold");
  expect(refused_options([](options& o) {
           o.yield_threshold = 5ms;
           o.isolate_threshold = 4ms;
         }),
         "isolate_threshold");
  expect(refused_options([](options& o) { o.isolation_threads = 257; }), "isolation_threads");
  expect(refused_options([](options& o) { o.isolation_nice = 20; }), "isolation_nice");
  expect(refused_options([](options& o) { o.isolation_nice = -1; }), "isolation_nice");
  expect(refused_options([](options& o) {
           o.isolation_priority = static_cast<asio_pulse::isolation_priority>(77);
         }),
         "isolation_priority");
  expect(refused_options([](options& o) { o.report_interval = -1ns; }), "report_interval");
  expect(refused_options([](options& o) { o.reports_per_second = 1'000'001; }),
         "reports_per_second");
  expect(refused_options([](options& o) { o.clock = asio_pulse::timing::clock_kind::manual; }),
         "clock");
  expect(refused_options([](options& o) { o.tiers.clean_window = 0ns; }), "tiers.clean_window");
  expect(refused_options([](options& o) { o.tiers.yield_after = 256; }), "tiers.yield_after");
  expect(refused_options([](options& o) { o.max_critical = -1ns; }), "max_critical");
  expect(refused_options([](options& o) { o.accepted.per = 0ns; }), "accepted.per");
  expect(refused_options([](options& o) { o.unnamed.budget = -1ns; }), "unnamed.budget");
}

TEST(refused, task_options_by_field_and_rule) {
  const auto expect = [](const std::string& what, const char* field) {
    EXPECT_THAT(what, HasSubstr(std::string("asio_pulse::task_options.") + field + " must "));
  };
  expect(refused_task([](task_options& o) { o.budget = -1ns; }), "budget");
  expect(refused_task([](task_options& o) { o.budget = 1ns; }), "budget");
  expect(refused_task([](task_options& o) { o.budget = o.per + 1ns; }), "budget");
  expect(refused_task([](task_options& o) { o.per = 61s; }), "per");
  expect(refused_task([](task_options& o) { o.per = -1ms; }), "per");
  expect(refused_task([](task_options& o) { o.burst = 1h; }), "burst");
}

TEST(refused, the_context_goes_on_after_a_refused_task) {
  asio_pulse::io_context io{steady()};
  EXPECT_THROW((asio_pulse::task{io, {.budget = -1ns}}), std::invalid_argument);
  const asio_pulse::task t{io, unlimited("fine")};
  int ran = 0;
  asio_pulse::post(t, [&] { ++ran; });
  EXPECT_EQ(io.run(), 1U);
  EXPECT_EQ(ran, 1);
}

TEST(refused, the_extremes_that_are_allowed_work) {
  for (const auto& o : {
           options{.stall_threshold = 1h, .yield_threshold = 1h, .isolate_threshold = 1h},
           options{.stall_threshold = 1ns,
           .yield_threshold = 1ns,
           .isolate_threshold = 1ns,
           .report_interval = 1h},
           options{.stall_threshold = 0ns,
           .yield_threshold = 0ns,
           .isolate_threshold = 0ns,
           .quantum = 1ns,
           .min_slice = 1ns,
           .isolation_threads = 0},
           options{.unnamed = {.budget = 1us, .per = 60ms}},
       }) {
    auto quiet = o;
    quiet.on_report = [](const report&) {};
    asio_pulse::io_context io{quiet};
    const asio_pulse::task t{io, {.budget = 1us, .per = 60ms, .isolatable = true}};
    std::vector<int> order;
    for (int i = 0; i < 200; ++i) {
      asio_pulse::post(t, [&, i] {
        order.push_back(i);
        (void)asio_pulse::should_yield();
      });
    }
    io.run();
    EXPECT_THAT(order, ElementsAreArray(counting_to(200)));
  }
}

// ---- every clock

TEST(clocks, each_one_accounts_for_polls) {
  using asio_pulse::timing::clock_kind;
  for (const auto& status : asio_pulse::timing::probe_clocks()) {
    if (status.kind == clock_kind::manual || status.kind == clock_kind::none ||
        status.kind == clock_kind::published || !status.available) {
      continue;
    }
    auto o = steady();
    o.clock = status.kind;
    asio_pulse::io_context io{o};
    const offender hog(io);
    const asio_pulse::task t{io, unlimited("t")};
    std::vector<int> order;
    for (int i = 0; i < 100; ++i) {
      asio_pulse::post(hog, [&order, i] { order.push_back(i); });
      asio_pulse::post(t, [] { burn(10us); });
    }
    EXPECT_EQ(io.run(), 200U);
    EXPECT_THAT(order, ElementsAreArray(counting_to(100)));
    EXPECT_EQ(t.stats().polls, 100U);
    EXPECT_GE(t.stats().cpu, 900us) << asio_pulse::timing::to_string(status.kind);
    EXPECT_EQ(io.stats().clock, status.kind) << asio_pulse::timing::to_string(status.kind);
  }
}

// ---- reports

class reports : public testing::Test {
 protected:
  options with_reports() {
    options o = steady();
    o.watchdog = false;  // what is reported when a poll has ended
    o.on_report = [this](const report& r) {
      got.push_back({r.kind, std::string(r.task), r.task_id, std::string(r.site), r.location.line,
                     r.location.file != nullptr, r.poll, r.cpu_or_occupancy, r.before, r.after,
                     r.why, r.suppressed, r.clock, asio_pulse::format(r)});
    };
    return o;
  }
  struct copy {
    report_kind kind;
    std::string task;
    std::uint64_t id;
    std::string site;
    std::uint32_t line;
    bool has_file;
    std::chrono::nanoseconds poll;
    std::chrono::nanoseconds cpu;
    tier before;
    tier after;
    asio_pulse::reason why;
    std::uint64_t suppressed;
    asio_pulse::timing::clock_kind clock;
    std::string line_of_text;
  };
  /// If the clock is disturbed, one poll may not be judged. So handlers are posted until one is.
  template <class Fill>
  void run_until_reported(asio_pulse::io_context& io, Fill fill) {
    for (int n = 0; n < 100 && got.empty(); ++n) {
      fill();
      io.run();
      io.restart();
    }
    ASSERT_FALSE(got.empty());
  }
  std::vector<copy> got;
};

struct named_handler {
  void operator()() const { burn(3ms); }
};

TEST_F(reports, a_slow_poll_with_all_that_is_known) {
  auto o = with_reports();
  o.stall_threshold = 2ms;
  asio_pulse::io_context io{o};
  const asio_pulse::task t{io, unlimited("slow one")};
  ASSERT_NO_FATAL_FAILURE(run_until_reported(io, [&] { asio_pulse::post(t, named_handler{}); }));
  const copy& r = got.front();
  EXPECT_EQ(r.kind, report_kind::slow_poll);
  EXPECT_EQ(r.task, "slow one");
  EXPECT_EQ(r.id, t.id());
  EXPECT_THAT(r.site, HasSubstr("named_handler"));
  EXPECT_GE(r.cpu, 2900us);
  EXPECT_GE(r.poll + 100us, r.cpu);
  EXPECT_EQ(r.before, tier::monitor);
  EXPECT_EQ(r.after, tier::warn);
  EXPECT_EQ(r.why, asio_pulse::reason::slow_poll);
  EXPECT_EQ(r.clock, io.stats().clock);
  EXPECT_THAT(r.line_of_text, HasSubstr("slow one"));
}

TEST_F(reports, a_task_that_is_over_its_budget_alone_is_not_reported) {
  asio_pulse::io_context io{with_reports()};
  const asio_pulse::task t{io, stingy("alone")};
  for (int i = 0; i < 30; ++i) asio_pulse::post(t, [] { burn(300us); });
  io.run();
  EXPECT_GT(io.stats().promotions, 0U);
  EXPECT_EQ(io.stats().yields, always_preempt() ? 30U : 0U);
  if (always_preempt()) return;  // it is held back whether other work waits or not
  for (const copy& r : got) ADD_FAILURE() << r.line_of_text;
}

TEST_F(reports, a_task_that_is_held_back_because_others_wait_is) {
  auto o = with_reports();
  o.report_interval = 0ns;
  o.reports_per_second = 0;
  asio_pulse::io_context io{o};
  const asio_pulse::task t{io, stingy("in the way")};
  for (int i = 0; i < 30; ++i) {
    asio_pulse::post(t, [] { burn(300us); });
    asio::post(io, [] {});
  }
  io.run();
  EXPECT_GT(io.stats().yields, 0U);
  ASSERT_FALSE(got.empty());
  for (const copy& r : got) {
    EXPECT_EQ(r.kind, report_kind::over_budget);
    EXPECT_EQ(r.task, "in the way");
  }
}

// Clients at full speed are not reported: the program has set no budget for them, and their turns
// do no harm.
TEST_F(reports, connections_that_are_held_back_in_favour_of_others_are_not) {
  using tcp = asio::ip::tcp;
  auto o = with_reports();
  o.report_interval = 0ns;
  o.reports_per_second = 0;
  o.order = asio_pulse::handler_order::per_task;
  o.accepted.budget = 200us;
  o.accepted.per = 10s;
  asio_pulse::io_context io{o};
  tcp::acceptor acceptor{io, {asio::ip::address_v4::loopback(), 0}};
  struct session {
    tcp::socket socket;
    char byte = 0;
    static void serve(const std::shared_ptr<session>& s) {
      s->socket.async_receive(
          asio::buffer(&s->byte, 1), [s](boost::system::error_code ec, std::size_t) {
            if (ec) return;
            burn(50us);
            asio::async_write(s->socket, asio::buffer(&s->byte, 1),
                              [s](boost::system::error_code failed, std::size_t) {
                                if (!failed) serve(s);
                              });
          });
    }
  };
  constexpr int connections = 3;
  for (int i = 0; i < connections; ++i) {
    acceptor.async_accept([](boost::system::error_code ec, tcp::socket socket) {
      if (!ec) session::serve(std::make_shared<session>(std::move(socket)));
    });
  }
  std::thread clients([to = acceptor.local_endpoint()] {
    asio::io_context plain;
    std::vector<tcp::socket> sockets;
    for (int i = 0; i < connections; ++i) sockets.emplace_back(plain).connect(to);
    char byte = 'x';
    for (int n = 0; n < 300; ++n) {
      for (tcp::socket& s : sockets) asio::write(s, asio::buffer(&byte, 1));
      for (tcp::socket& s : sockets) asio::read(s, asio::buffer(&byte, 1));
    }
  });
  io.run();
  clients.join();
  EXPECT_GT(io.stats().yields, 0U);
  for (const copy& r : got) ADD_FAILURE() << r.line_of_text;
}

TEST_F(reports, are_limited_and_the_remainder_is_counted) {
  auto o = with_reports();
  o.report_interval = 1h;
  o.stall_threshold = 200us;
  o.watchdog = false;
  asio_pulse::io_context io{o};
  const asio_pulse::task t{io, stingy("noisy")};
  for (int i = 0; i < 30; ++i) asio_pulse::post(t, [] { burn(300us); });
  io.run();
  EXPECT_EQ(got.size(), 1U);
  EXPECT_EQ(io.stats().reports, 1U);
  EXPECT_GT(io.stats().reports_suppressed, 10U);
}

TEST_F(reports, name_the_handler_of_a_strand_and_of_a_nested_poll) {
  auto o = with_reports();
  o.stall_threshold = 2ms;
  asio_pulse::io_context io{o};
  const asio_pulse::task t{io, unlimited("in a strand")};
  const auto strand = asio::make_strand(io);
  ASSERT_NO_FATAL_FAILURE(run_until_reported(io, [&] {
    const asio_pulse::task_scope scope(t);
    for (int i = 0; i < 5; ++i) asio::post(strand, named_handler{});
  }));
  for (const copy& r : got) EXPECT_THAT(r.site, HasSubstr("named_handler"));
  got.clear();
  struct outer_handler {
    asio_pulse::io_context* io;
    const asio_pulse::task* inner;
    void operator()() const {
      asio::post(inner->get_executor(), [] {});
      io->poll();
      burn(3ms);
    }
  };
  const asio_pulse::task inner{io, unlimited("inner")};
  ASSERT_NO_FATAL_FAILURE(run_until_reported(io, [&] {
    for (int i = 0; i < 5; ++i) asio_pulse::post(t, outer_handler{&io, &inner});
  }));
  for (const copy& r : got) {
    EXPECT_EQ(r.task, "in a strand");
    EXPECT_THAT(r.site, HasSubstr("outer_handler"));
  }
}

using reports_timing = reports;

TEST_F(reports_timing, a_descheduled_or_blocked_handler_is_not_reported_as_slow) {
  auto o = with_reports();
  o.stall_threshold = 50ms;
  if (asio_pulse::io_context{o}.stats().clock == asio_pulse::timing::clock_kind::steady) {
    GTEST_SKIP() << "this machine has no CPU clock";
  }
  EXPECT_TRUE(holds_in_one_of(5, [&]() -> testing::AssertionResult {
    asio_pulse::io_context io{o};
    const asio_pulse::task t{io, unlimited("blocked")};
    asio_pulse::post(t, [] {
      // Another thread keeps it blocked for longer than the threshold.
      std::thread([] { burn(60ms); }).join();
    });
    io.run();
    EXPECT_TRUE(got.empty());
    // Charged by the wall where the clock cannot vouch for the poll, and not reported then either.
    if (t.stats().cpu < 50ms) return testing::AssertionSuccess();
    return testing::AssertionFailure() << t.stats().cpu.count() << " ns of CPU time";
  }));
}

}  // namespace
