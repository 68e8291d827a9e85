// SPDX-License-Identifier: BSL-1.0
//
// A report's remedy is the lint that describes it, if the report alone shows which that is.

#include "blocked_reason.hpp"

#include <asio_pulse/lints.hpp>
#include <asio_pulse/report.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>

namespace {

using asio_pulse::lint_kind;
using asio_pulse::report;
using asio_pulse::report_kind;
using asio_pulse::stack_frame;
using asio_pulse::stack_trace;
using asio_pulse::stall_cause;

// Innermost frame first. The last frame belongs to the program; its callers do not count.
stack_trace stack_of(std::initializer_list<const char*> functions) {
  stack_trace stack;
  for (const char* const function : functions) {
    stack.push_back({.function = function, .module = "libc.so.6"});
  }
  stack.push_back({.function = "load()", .file = "load.cpp", .line = 3, .module = "server"});
  stack.push_back({.function = "getaddrinfo", .module = "libc.so.6"});
  return stack;
}

// As a context sends it.
std::string hint_of(report r) {
  r.remedy = asio_pulse::detail::remedy_of(r);
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
  EXPECT_EQ(hint_of(stall_in(stall_cause::spinning, "", plain)),
            "see=asio_pulse/docs/lints.md#long_poll");
  EXPECT_EQ(hint_of(stall_in(blocked, "poll", dns)), "see=asio_pulse/docs/lints.md#blocked_dns");
  EXPECT_EQ(hint_of(stall_in(blocked, "futex", lock)), "see=asio_pulse/docs/lints.md#blocked_lock");
  EXPECT_EQ(hint_of(stall_in(blocked, "", lock)), "see=asio_pulse/docs/lints.md#blocked_lock");
  EXPECT_EQ(hint_of(stall_in(blocked, "read fd 5", plain)),
            "see=asio_pulse/docs/lints.md#blocked_call");
  EXPECT_EQ(hint_of(stall_in(blocked, "fsync fd 5", {})),
            "see=asio_pulse/docs/lints.md#blocked_call");
}

TEST(report_hint, a_stack_that_could_be_had_comes_first) {
  using asio_pulse::no_stack;
  for (const auto why :
       {no_stack::signal_blocked, no_stack::handler_replaced, no_stack::not_permitted,
        no_stack::small_stack, no_stack::no_descriptor, no_stack::filtered}) {
    for (const auto cause : {stall_cause::spinning, stall_cause::blocked, stall_cause::unknown}) {
      report r = stall_in(cause, "poll", {});
      r.why_no_stack = why;
      EXPECT_EQ(hint_of(r), "see=asio_pulse/docs/lints.md#no_stack");
      EXPECT_NE(format(r).find(" no_stack=\"" + std::string(to_string(why)) + '"'),
                std::string::npos)
          << format(r);
    }
  }
  // There is no remedy for these.
  for (const auto why : {no_stack::switched_off, no_stack::moved_on, no_stack::no_answer,
                         no_stack::no_memory, no_stack::unreadable, no_stack::unsupported}) {
    report r = stall_in(stall_cause::blocked, "poll", {});
    r.why_no_stack = why;
    EXPECT_EQ(hint_of(r), "see=asio_pulse/docs/lints.md#blocked_call");
    EXPECT_NE(format(r).find(" no_stack=\""), std::string::npos) << format(r);
  }
}

TEST(report_hint, none_where_the_report_alone_does_not_show_it) {
  EXPECT_EQ(hint_of(stall_in(stall_cause::blocked, "", {})), "") << "nothing is known about it";
  for (const auto cause : {stall_cause::unknown, stall_cause::descheduled, stall_cause::stopped}) {
    EXPECT_EQ(hint_of(stall_in(cause, "", stack_of({}))), "") << "the handler is not responsible";
  }
  for (const auto kind : {report_kind::over_budget, report_kind::critical_overstay,
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
      seen.stack = stack;
      seen.blamed = asio_pulse::blamed_frame(stack);
      asio_pulse::process_metrics process;
      process.contexts.emplace_back().stalls.push_back(seen);
      const auto found = asio_pulse::lints(process);
      const auto by_stall = std::find_if(found.begin(), found.end(), [](const auto& l) {
        return l.kind != lint_kind::no_watchdog && l.kind != lint_kind::not_collected;
      });
      ASSERT_NE(by_stall, found.end()) << call;
      EXPECT_EQ(hint_of(stall_in(stall_cause::blocked, call, stack)),
                "see=asio_pulse/docs/lints.md#" + std::string{by_stall->anchor});
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
  EXPECT_NE(text.str().find("\n## no_stack\n"), std::string::npos);
}

}  // namespace
