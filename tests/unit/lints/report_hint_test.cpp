// SPDX-License-Identifier: BSL-1.0
//
// A report ends with the lint that it is an instance of, where it alone shows it.

#include <asio_pulse/metrics.hpp>
#include <asio_pulse/report.hpp>

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>

#include "blocked_reason.hpp"

namespace {

using asio_pulse::lint_kind;
using asio_pulse::report;
using asio_pulse::report_kind;
using asio_pulse::stack_frame;
using asio_pulse::stack_trace;
using asio_pulse::stall_cause;

// The innermost first, the last one the program's own; what calls it does not count.
stack_trace stack_of(std::initializer_list<const char*> functions) {
  stack_trace stack;
  for (const char* const function : functions) {
    stack.push_back({.function = function, .module = "libc.so.6"});
  }
  stack.push_back({.function = "load()", .file = "load.cpp", .line = 3, .module = "server"});
  stack.push_back({.function = "getaddrinfo", .module = "libc.so.6"});
  return stack;
}

std::string hint_of(const report& r) {
  const std::string line = format(r);
  const auto at = line.rfind(" see=");
  return at == line.npos ? std::string{} : line.substr(at + 1);
}

report stall_in(stall_cause cause, std::string_view call, const stack_trace& stack) {
  return {.kind = report_kind::stall, .cause = cause, .system_call = call, .stack = stack};
}

TEST(report_hint, a_stall_by_its_cause_call_and_stack) {
  const stack_trace plain = stack_of({"clock_gettime"});
  const stack_trace dns = stack_of({"poll", "__res_context_send", "getaddrinfo"});
  const stack_trace lock = stack_of({"__lll_lock_wait", "pthread_mutex_lock"});
  const auto blocked = stall_cause::blocked;
  EXPECT_EQ(hint_of(stall_in(stall_cause::spinning, "", plain)), "see=docs/lints.md#long_poll");
  EXPECT_EQ(hint_of(stall_in(blocked, "poll", dns)), "see=docs/lints.md#blocked_dns");
  EXPECT_EQ(hint_of(stall_in(blocked, "futex", lock)), "see=docs/lints.md#blocked_lock");
  EXPECT_EQ(hint_of(stall_in(blocked, "", lock)), "see=docs/lints.md#blocked_lock");
  EXPECT_EQ(hint_of(stall_in(blocked, "read fd 5", plain)), "see=docs/lints.md#blocked_call");
  EXPECT_EQ(hint_of(stall_in(blocked, "fsync fd 5", {})), "see=docs/lints.md#blocked_call");
}

TEST(report_hint, none_where_the_report_alone_does_not_show_it) {
  EXPECT_EQ(hint_of(stall_in(stall_cause::blocked, "", {})), "") << "nothing is known of it";
  for (const auto cause : {stall_cause::unknown, stall_cause::descheduled, stall_cause::stopped}) {
    EXPECT_EQ(hint_of(stall_in(cause, "", stack_of({}))), "") << "not the handler's doing";
  }
  for (const auto kind : {report_kind::over_budget, report_kind::tier_change,
                          report_kind::stall_ended, report_kind::misuse}) {
    EXPECT_EQ(hint_of({.kind = kind, .cause = stall_cause::spinning}), "");
  }
}

TEST(report_hint, a_report_and_pulse_top_say_the_same) {
  for (const char* const call : {"futex", "poll", "read fd 5", "openat", "nosuchcall", ""}) {
    for (const stack_trace& stack : {stack_of({"__lll_lock_wait"}), stack_of({"getaddrinfo"}),
                                     stack_of({"pthread_cond_wait"}), stack_of({})}) {
      asio_pulse::stall_metrics seen{.cause = stall_cause::blocked};
      seen.system_call = call;
      for (const stack_frame& f : stack) {
        seen.stack.push_back(
            "  #" + std::to_string(seen.stack.size()) + " " + f.function +
            (f.file.empty() ? " in " + f.module + "+0x1" : " at " + f.file + ":3"));
      }
      seen.blamed = asio_pulse::blamed_frame(stack);
      const auto in_report =
          asio_pulse::detail::lint_of(stall_in(stall_cause::blocked, call, stack));
      ASSERT_TRUE(in_report) << call;
      EXPECT_EQ(to_string(*in_report), to_string(asio_pulse::detail::why_blocked(seen).kind));
    }
  }
}

TEST(report_hint, the_heading_is_there) {
  std::ostringstream text;
  text << std::ifstream(ASIO_PULSE_LINTS_MD).rdbuf();
  for (const auto kind : {lint_kind::long_poll, lint_kind::blocked_lock, lint_kind::blocked_dns,
                          lint_kind::blocked_call}) {
    const std::string heading = "\n## " + std::string{to_string(kind)} + "\n";
    EXPECT_NE(text.str().find(heading), std::string::npos) << heading;
  }
}

}  // namespace
