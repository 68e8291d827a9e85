// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/timing/clock.hpp>
//
#include "support.hpp"

#include <asio_pulse/timing/poll_clock.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <set>

namespace {

using namespace asio_pulse::timing;

TEST(clock, every_kind_but_none_is_probed_once_and_has_a_reason) {
  std::set<clock_kind> seen;
  for (const clock_status& status : probe_clocks()) {
    EXPECT_TRUE(seen.insert(status.kind).second) << to_string(status.kind);
    EXPECT_FALSE(status.reason.empty()) << to_string(status.kind);
    std::cout << "  " << to_string(status.kind) << (status.available ? ": yes, " : ": no, ")
              << status.reason << '\n';
  }
  EXPECT_EQ(seen.size(), static_cast<std::size_t>(clock_kind::manual));
  EXPECT_EQ(seen.count(clock_kind::none), 0U);
  EXPECT_EQ(&probe_clocks(), &probe_clocks());
}

TEST(clock, steady_always_works_and_attached_sources_never_by_themselves) {
  for (const clock_status& status : probe_clocks()) {
    if (status.kind == clock_kind::steady) {
      EXPECT_TRUE(status.available);
    }
    if (status.kind == clock_kind::manual || status.kind == clock_kind::published) {
      EXPECT_FALSE(status.available);
    }
  }
}

TEST(clock, the_default_is_the_first_available_and_says_what_was_passed_over) {
  const clock_status& chosen = default_clock();
  const auto& all = probe_clocks();
  const auto first =
      std::find_if(all.begin(), all.end(), [](const clock_status& s) { return s.available; });
  ASSERT_NE(first, all.end());
  EXPECT_EQ(chosen.kind, first->kind);
  EXPECT_TRUE(chosen.available);
  EXPECT_NE(chosen.reason.find(first->reason), std::string::npos);
  for (auto passed = all.begin(); passed != first; ++passed) {
    EXPECT_NE(chosen.reason.find(passed->reason), std::string::npos);
  }
}

TEST(clock, names) {
  EXPECT_EQ(to_string(clock_kind::none), "none");
  EXPECT_EQ(to_string(clock_kind::rseq_tsc), "rseq_tsc");
  EXPECT_EQ(to_string(clock_kind::perf_mmap), "perf_mmap");
  EXPECT_EQ(to_string(clock_kind::published), "published");
  EXPECT_EQ(to_string(clock_kind::thread_cputime), "thread_cputime");
  EXPECT_EQ(to_string(clock_kind::steady), "steady");
  EXPECT_EQ(to_string(clock_kind::thread_cycles), "thread_cycles");
  EXPECT_EQ(to_string(clock_kind::mach_thread), "mach_thread");
  EXPECT_EQ(to_string(clock_kind::manual), "manual");
  EXPECT_EQ(to_string(static_cast<clock_kind>(200)), "unknown");
}

// What was probed to work must work when attached, on this thread and on another.
TEST(clock, what_is_available_can_be_attached) {
  for (const clock_status& status : probe_clocks()) {
    poll_clock here;
    here.attach(status.kind);
    EXPECT_EQ(here.kind(), status.available ? status.kind : default_clock().kind)
        << to_string(status.kind);
    here.detach();
    EXPECT_EQ(here.kind(), clock_kind::none);
  }
}

}  // namespace
