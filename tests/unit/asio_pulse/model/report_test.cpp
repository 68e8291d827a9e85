// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/report.hpp>
// Included first, to check that the header is self-contained.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <latch>
#include <limits>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#if !defined(_WIN32)
#include <support/captured_stderr.hpp>
#endif

namespace {

using namespace std::chrono_literals;
using namespace std::string_literals;
using asio_pulse::escape;
using asio_pulse::reason;
using asio_pulse::report;
using asio_pulse::report_kind;
using asio_pulse::report_limiter;
using asio_pulse::report_slot;
using asio_pulse::tier;
using asio_pulse::timing::clock_kind;

constexpr std::uint64_t most = std::numeric_limits<std::uint64_t>::max();

bool printable_line(std::string_view text) {
  return std::none_of(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte < 0x20 || byte == 0x7f;
  });
}

TEST(report, line_says_everything) {
  const report r{.kind = report_kind::slow_poll,
                 .task = "report",
                 .task_id = 7,
                 .site = "main()::{lambda()#1}",
                 .location = {.file = "server.cpp", .line = 42, .function = "int main()"},
                 .poll = 12'345'678ns,
                 .cpu_or_occupancy = 12'001us,
                 .exact = true,
                 .clock = clock_kind::rseq_tsc,
                 .before = tier::monitor,
                 .after = tier::warn,
                 .why = reason::slow_poll,
                 .suppressed = 3,
                 .detail = "first",
                 .remedy = "asio_pulse/docs/lints.md#long_poll"};
  EXPECT_EQ(format(r),
            "asio-pulse: slow_poll task=\"report\" id=7 site=\"main()::{lambda()#1}\" "
            "at=\"server.cpp:42\" in=\"int main()\" poll=12.345ms cpu=12.001ms clock=rseq_tsc "
            "tier=monitor->warn why=slow_poll suppressed=3 detail=\"first\" "
            "see=asio_pulse/docs/lints.md#long_poll");
}

TEST(report, line_leaves_out_what_is_not_known) {
  const report r{.kind = report_kind::over_budget,
                 .poll = 999ns,
                 .cpu_or_occupancy = 1'500ns,
                 .exact = false,
                 .clock = clock_kind::steady,
                 .before = tier::yield,
                 .after = tier::yield,
                 .why = reason::overrun};
  EXPECT_EQ(format(r),
            "asio-pulse: over_budget id=0 poll=999ns occupancy=1.500us clock=steady tier=yield "
            "why=overrun");
  report named{};
  named.location.file = "";
  named.location.function = "";
  EXPECT_EQ(format(named).find(" at="), std::string::npos);
  EXPECT_EQ(format(named).find(" in="), std::string::npos);
}

TEST(report, durations_of_any_size) {
  report r{};
  r.poll = std::chrono::nanoseconds::max();
  r.cpu_or_occupancy = std::chrono::nanoseconds::min();
  const std::string line = format(r);
  EXPECT_NE(line.find("poll=9223372036.854s"), std::string::npos) << line;
  EXPECT_NE(line.find("cpu=-9223372036.854s"), std::string::npos) << line;
  r.poll = 0ns;
  r.cpu_or_occupancy = 10s;
  EXPECT_NE(format(r).find("poll=0ns cpu=10.000s"), std::string::npos) << format(r);
}

TEST(report, values_that_are_no_enumerators) {
  report r{};
  r.kind = static_cast<report_kind>(99);
  r.before = static_cast<tier>(17);
  r.why = static_cast<reason>(99);
  EXPECT_NE(format(r).find("asio-pulse: unknown"), std::string::npos);
  EXPECT_NE(format(r).find("tier=unknown->monitor why=unknown"), std::string::npos);
}

TEST(report, kinds_have_names) {
  EXPECT_EQ(to_string(report_kind::slow_poll), "slow_poll");
  EXPECT_EQ(to_string(report_kind::over_budget), "over_budget");
  EXPECT_EQ(to_string(report_kind::isolation_refused), "isolation_refused");
  EXPECT_EQ(to_string(report_kind::critical_overstay), "critical_overstay");
  EXPECT_EQ(to_string(report_kind::stall), "stall");
  EXPECT_EQ(to_string(report_kind::stall_ended), "stall_ended");
  EXPECT_EQ(to_string(report_kind::yield_refused), "yield_refused");
  EXPECT_EQ(to_string(report_kind::compensation_refused), "compensation_refused");
  EXPECT_EQ(to_string(report_kind::misuse), "misuse");
}

TEST(report, kinds_make_sets) {
  using asio_pulse::report_kinds;
  constexpr report_kinds none;
  constexpr report_kinds two{report_kind::stall, report_kind::misuse};
  EXPECT_TRUE(none.empty());
  EXPECT_TRUE(two.contains(report_kind::stall));
  EXPECT_TRUE(two.contains(report_kind::misuse));
  EXPECT_FALSE(two.contains(report_kind::stall_ended));
  EXPECT_NE(two, none);
  EXPECT_EQ(two, report_kinds({report_kind::misuse, report_kind::stall, report_kind::stall}));
  std::size_t kinds = 0;
  for (; to_string(static_cast<report_kind>(kinds)) != "unknown"; ++kinds) {
    const auto kind = static_cast<report_kind>(kinds);
    EXPECT_TRUE(report_kinds::all().contains(kind)) << to_string(kind);
    EXPECT_FALSE(none.contains(kind)) << to_string(kind);
  }
  EXPECT_TRUE(report_kinds::all().valid());
  EXPECT_FALSE(report_kinds::all().contains(static_cast<report_kind>(kinds)));
  EXPECT_FALSE(report_kinds({static_cast<report_kind>(kinds)}).valid());
  EXPECT_FALSE(report_kinds({static_cast<report_kind>(200)}).valid());
}

TEST(escape, plain_text_and_valid_utf8_stay) {
  EXPECT_EQ(escape("", 10), "");
  EXPECT_EQ(escape("GET /index.html?q={}%s", 100), "GET /index.html?q={}%s");
  EXPECT_EQ(escape("caf\xc3\xa9 \xe6\x97\xa5\xe6\x9c\xac \xf0\x9f\x90\xa2", 100),
            "caf\xc3\xa9 \xe6\x97\xa5\xe6\x9c\xac \xf0\x9f\x90\xa2");
}

TEST(escape, what_could_forge_a_line) {
  EXPECT_EQ(escape("a\nb\r\tc", 100), "a\\nb\\r\\tc");
  EXPECT_EQ(escape("a\" id=1 \\", 100), "a\\\" id=1 \\\\");
  EXPECT_EQ(escape("\x1b[2J\x7f"s + '\0', 100), "\\x1b[2J\\x7f\\x00");
  EXPECT_EQ(escape("\xc2\x9b", 100), "\\u{9b}") << "C1: another escape introducer";
  EXPECT_EQ(escape("\xe2\x80\xae", 100), "\\u{202e}") << "right to left from here";
  EXPECT_EQ(escape("\xe2\x80\xa8", 100), "\\u{2028}") << "line separator";
  EXPECT_EQ(escape("\xe2\x80\x8b", 100), "\\u{200b}") << "zero width";
  EXPECT_EQ(escape("\xf3\xa0\x80\x81", 100), "\\u{e0001}") << "a tag";
}

TEST(escape, invalid_utf8_byte_by_byte) {
  EXPECT_EQ(escape("\xff\xfe", 100), "\\xff\\xfe");
  EXPECT_EQ(escape("\x80", 100), "\\x80");
  EXPECT_EQ(escape("\xc3", 100), "\\xc3") << "cut short";
  EXPECT_EQ(escape("\xe6\x97", 100), "\\xe6\\x97");
  EXPECT_EQ(escape("\xc3(", 100), "\\xc3(");
  EXPECT_EQ(escape("\xc0\xaf", 100), "\\xc0\\xaf") << "overlong /";
  EXPECT_EQ(escape("\xe0\x80\xaf", 100), "\\xe0\\x80\\xaf") << "overlong /";
  EXPECT_EQ(escape("\xed\xa0\x80", 100), "\\xed\\xa0\\x80") << "surrogate";
  EXPECT_EQ(escape("\xf4\x90\x80\x80", 100), "\\xf4\\x90\\x80\\x80") << "above U+10FFFF";
}

TEST(escape, every_byte_and_every_pair_of_bytes) {
  for (int a = 0; a < 256; ++a) {
    for (int b = 0; b < 256; ++b) {
      const std::string text{static_cast<char>(a), static_cast<char>(b)};
      const std::string result = escape(text, 100);
      ASSERT_TRUE(printable_line(result)) << a << ' ' << b;
      ASSERT_EQ(escape(result, 100).size() >= result.size(), true);
    }
  }
}

TEST(escape, long_text_is_cut_and_says_by_how_much) {
  EXPECT_EQ(escape("0123456789", 10), "0123456789");
  EXPECT_EQ(escape("0123456789", 4), "0123...(+6 bytes)");
  EXPECT_EQ(escape("\n\n\n", 3), "\\n...(+2 bytes)") << "an escape is not cut in two";
  EXPECT_EQ(escape("\xc3\xa9\xc3\xa9", 3), "\xc3\xa9...(+2 bytes)") << "nor a code point";
  EXPECT_EQ(escape("abc", 0), "...(+3 bytes)");
  EXPECT_EQ(escape(std::string(10'240, 'x'), 128), std::string(128, 'x') + "...(+10112 bytes)");
}

TEST(report, hostile_names_of_any_length_make_one_bounded_line) {
  std::string junk;
  for (int i = 0; i < 10'240; ++i) {
    junk += static_cast<char>(i * 37 % 256);
  }
  const std::string controls(10'240, '\x1b');
  const std::string bidi = [] {
    std::string text;
    for (int i = 0; i < 3'000; ++i) {
      text += "\xf3\xa0\x80\x81";
    }
    return text;
  }();
  for (const std::string& name : {junk, controls, bidi, std::string(10'240, '"')}) {
    const std::string terminated = name;  // the C strings of the location
    const report r{.task = name,
                   .task_id = most,
                   .site = name,
                   .location = {.file = terminated.c_str(),
                                .line = std::numeric_limits<std::uint32_t>::max(),
                                .function = terminated.c_str()},
                   .poll = std::chrono::nanoseconds::min(),
                   .cpu_or_occupancy = std::chrono::nanoseconds::min(),
                   .suppressed = most,
                   .detail = name};
    const std::string line = format(r);
    EXPECT_TRUE(printable_line(line));
    EXPECT_LT(line.size(), 4'000U);
    // Each value ends where it should: the quotes that are not escaped come in pairs.
    std::size_t quotes = 0;
    for (std::size_t i = 0; i < line.size(); ++i) {
      if (line[i] == '\\') {
        ++i;
      } else if (line[i] == '"') {
        ++quotes;
      }
    }
    EXPECT_EQ(quotes % 2, 0U);
  }
}

#if !defined(_WIN32)
TEST(report, default_sink_writes_one_line_to_stderr_and_keeps_errno) {
  pulse_test::captured_stderr captured;
  errno = EDOM;
  write_to_stderr(report{.task = "a\nb"});
  const int error = errno;
  const std::string text = captured.end();
  EXPECT_EQ(error, EDOM);
  EXPECT_EQ(text, format(report{.task = "a\nb"}) + "\n");
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
}
#endif

constexpr std::uint64_t second = 1'000'000;  // ticks

TEST(report_limiter, one_report_an_interval_and_an_exact_count) {
  report_limiter limiter{second, 0, second};
  report_slot slot;
  auto v = limiter.admit(slot, 5 * second);
  EXPECT_TRUE(v.send);
  EXPECT_EQ(v.suppressed, 0U);
  for (std::uint64_t i = 0; i < 123; ++i) {
    EXPECT_FALSE(limiter.admit(slot, 5 * second + i).send);
  }
  EXPECT_FALSE(limiter.admit(slot, 6 * second - 1).send);
  v = limiter.admit(slot, 6 * second);
  EXPECT_TRUE(v.send);
  EXPECT_EQ(v.suppressed, 124U);
  v = limiter.admit(slot, 7 * second);
  EXPECT_TRUE(v.send);
  EXPECT_EQ(v.suppressed, 0U);
  EXPECT_EQ(limiter.sent(), 3U);
  EXPECT_EQ(limiter.suppressed(), 124U);
}

TEST(report_limiter, tasks_have_intervals_of_their_own) {
  report_limiter limiter{second, 0, second};
  report_slot a;
  report_slot b;
  EXPECT_TRUE(limiter.admit(a, 0).send);
  EXPECT_TRUE(limiter.admit(b, 0).send);
  EXPECT_FALSE(limiter.admit(a, 1).send);
}

TEST(report_limiter, so_many_a_second_over_all_tasks) {
  report_limiter limiter{0, 10, second};
  int sent = 0;
  for (int i = 0; i < 100; ++i) {
    report_slot slot;
    sent += limiter.admit(slot, 3 * second).send ? 1 : 0;
  }
  EXPECT_EQ(sent, 10);
  report_slot slot;
  EXPECT_FALSE(limiter.admit(slot, 3 * second + second / 10 - 1).send);
  EXPECT_TRUE(limiter.admit(slot, 3 * second + second / 10).send);
  EXPECT_FALSE(limiter.admit(slot, 3 * second + second / 10).send);
  sent = 0;
  for (std::uint64_t i = 0; i < 10 * second; i += second / 1000) {
    sent += limiter.admit(slot, 10 * second + i).send ? 1 : 0;
  }
  EXPECT_EQ(sent, 10 + 99) << "a full bucket, then one each tenth of a second";
}

TEST(report_limiter, uneven_rates_never_exceed_the_limit) {
  for (std::uint64_t per_second : {1ULL, 3ULL, 7ULL, 999'999ULL}) {
    report_limiter limiter{0, per_second, second};
    report_slot slot;
    std::uint64_t sent = 0;
    for (std::uint64_t i = 0; i < per_second + 5; ++i) {
      sent += limiter.admit(slot, second).send ? 1U : 0U;
    }
    EXPECT_EQ(sent, per_second);
  }
}

TEST(report_limiter, refused_by_the_total_leaves_the_task_its_turn) {
  report_limiter limiter{second, 1, second};
  report_slot a;
  report_slot b;
  EXPECT_TRUE(limiter.admit(a, 0).send);
  EXPECT_FALSE(limiter.admit(b, second - 1).send);
  const auto v = limiter.admit(b, second);
  EXPECT_TRUE(v.send);
  EXPECT_EQ(v.suppressed, 1U);
}

TEST(report_limiter, zero_means_no_limit) {
  report_limiter limiter{0, 0, second};
  report_slot slot;
  for (int i = 0; i < 1000; ++i) {
    ASSERT_TRUE(limiter.admit(slot, 0).send);
  }
}

TEST(report_limiter, new_limits_apply_at_once) {
  report_limiter limiter{1000 * second, 1, second};
  report_slot a;
  report_slot b;
  EXPECT_TRUE(limiter.admit(a, 5 * second).send);
  EXPECT_FALSE(limiter.admit(b, 5 * second).send) << "the total";
  limiter.configure(1000 * second, 2, second);
  EXPECT_TRUE(limiter.admit(b, 5 * second).send);
  EXPECT_FALSE(limiter.admit(a, 10 * second).send) << "the interval";
  limiter.configure(4 * second, 2, second);
  EXPECT_TRUE(limiter.admit(a, 10 * second).send);
  EXPECT_FALSE(limiter.admit(a, 14 * second - 1).send);
  EXPECT_TRUE(limiter.admit(a, 14 * second).send);
}

// Otherwise a program that updates other options all the time would have no limit.
TEST(report_limiter, the_same_limits_again_change_nothing) {
  report_limiter limiter{0, 1, second};
  report_slot slot;
  EXPECT_TRUE(limiter.admit(slot, second).send);
  limiter.configure(second, 1, second);
  EXPECT_FALSE(limiter.admit(slot, second).send);
}

TEST(report_limiter, wild_times_and_settings_are_harmless) {
  for (const std::uint64_t interval : {std::uint64_t{0}, std::uint64_t{1}, second, most}) {
    for (const std::uint64_t per_second : {std::uint64_t{0}, std::uint64_t{1}, most}) {
      for (const std::uint64_t rate : {std::uint64_t{0}, std::uint64_t{1}, second, most}) {
        report_limiter limiter{interval, per_second, rate};
        report_slot slot;
        std::uint64_t calls = 0;
        for (const std::uint64_t now :
             {std::uint64_t{0}, second, most, most - 1, std::uint64_t{5}}) {
          limiter.admit(slot, now);
          ++calls;
        }
        EXPECT_EQ(limiter.sent() + limiter.suppressed(), calls);
      }
    }
  }
}

TEST(report_limiter, time_that_runs_backwards_does_not_silence_for_good) {
  report_limiter limiter{second, 10, second};
  report_slot slot;
  EXPECT_TRUE(limiter.admit(slot, 1000 * second).send);
  EXPECT_TRUE(limiter.admit(slot, 3 * second).send || limiter.admit(slot, 5 * second).send);
}

TEST(report_limiter, counts_are_exact_from_several_threads) {
  constexpr std::uint64_t threads = 4;
  constexpr std::uint64_t calls = 20'000;
  constexpr std::size_t tasks = 3;
  report_limiter limiter{second / 100, 500, second};
  std::vector<report_slot> slots(tasks);
  std::vector<std::uint64_t> sent(threads);
  std::vector<std::uint64_t> told(threads);
  std::latch ready{static_cast<std::ptrdiff_t>(threads)};
  std::vector<std::thread> pool;
  for (std::size_t t = 0; t < threads; ++t) {
    pool.emplace_back([&, t] {
      ready.arrive_and_wait();
      for (std::uint64_t i = 0; i < calls; ++i) {
        const auto v = limiter.admit(slots[i % tasks], second + i * 50);
        sent[t] += v.send ? 1 : 0;
        told[t] += v.suppressed;
      }
    });
  }
  for (auto& thread : pool) {
    thread.join();
  }
  std::uint64_t all_sent = 0;
  std::uint64_t accounted = 0;
  for (std::size_t t = 0; t < threads; ++t) {
    all_sent += sent[t];
    accounted += told[t];
  }
  for (const auto& slot : slots) {
    accounted += slot.suppressed.load();
  }
  EXPECT_EQ(limiter.sent(), all_sent);
  EXPECT_EQ(limiter.sent() + limiter.suppressed(), threads * calls);
  EXPECT_EQ(accounted, limiter.suppressed()) << "told in a report, or still pending";
  EXPECT_GT(all_sent, 0U);
}

TEST(report_limiter, one_of_many_threads_reports) {
  constexpr int threads = 4;
  for (std::uint64_t round = 0; round < 200; ++round) {
    report_limiter limiter{second, 0, second};
    report_slot slot;
    std::atomic<int> sent{0};
    std::atomic<std::uint64_t> told{
        0};  // the one that is sent has the number of those held back before it
    std::latch ready{threads};
    std::vector<std::thread> pool;
    for (int t = 0; t < threads; ++t) {
      pool.emplace_back([&] {
        ready.arrive_and_wait();
        const auto verdict = limiter.admit(slot, second);
        sent += verdict.send ? 1 : 0;
        told += verdict.suppressed;
      });
    }
    for (auto& thread : pool) {
      thread.join();
    }
    ASSERT_EQ(sent.load(), 1);
    ASSERT_EQ(told.load() + slot.suppressed.load(), static_cast<std::uint64_t>(threads - 1));
  }
}

TEST(short_type, leaves_the_handler) {
  EXPECT_EQ(
      asio_pulse::short_type(
          "boost::asio::detail::executor_op<boost::asio::detail::binder0<main()::<lambda()> >, "
          "std::allocator<void>, boost::asio::detail::scheduler_operation_tracked_by_asio_pulse>"),
      "main()::<lambda()>");
  EXPECT_EQ(asio_pulse::short_type(
                "boost::asio::detail::wait_handler<on_timer, boost::asio::any_io_executor>"),
            "on_timer");
}

TEST(short_type, leaves_what_is_not_asios) {
  EXPECT_EQ(asio_pulse::short_type("my::handler<int>"), "my::handler<int>");
  EXPECT_EQ(asio_pulse::short_type(""), "");
}

}  // namespace
