// SPDX-License-Identifier: BSL-1.0

// The report of a stall that the watchdog sees in a check's slow path: the stack goes through it, and
// the function that has the check is blamed.

#include "automatic.hpp"
//
#include <asio_pulse/stack_trace.hpp>

#include <algorithm>
#include <atomic>
#include <iterator>
#include <latch>
#include <mutex>
#include <string>
#include <string_view>

namespace in_check {

std::atomic<bool> reported{false};

void wait_for_report(void*) {
  while (!reported.load(std::memory_order_acquire)) asm volatile("");
}

[[gnu::noinline]] void function_with_a_check() {
  asio_pulse_out_of_fuel();
  asm volatile("");  // not a tail call
}

[[gnu::noinline]] void caller_of_it() {
  function_with_a_check();
  asm volatile("");
}

}  // namespace in_check

namespace {

using namespace automatic;

TEST(stall_in_check, blames_the_function_that_has_the_check) {
#if defined(PULSE_TEST_TSAN)
  GTEST_SKIP() << "ThreadSanitizer gives a handler the registers of another moment";
#endif
  if (asio_pulse::stack_support() != asio_pulse::stack_detail::full)
    GTEST_SKIP() << "built without libdw";
  in_check::reported = false;
  asio_pulse::stack_trace stack;  // written before `reported` is set, read after the thread saw it
  auto o = steady();
  o.watchdog = true;
  o.stall_threshold = 2ms;
  o.on_report = [&](const asio_pulse::report& r) {
    if (r.kind != asio_pulse::report_kind::stall || r.stack.empty()) return;
    if (in_check::reported.load(std::memory_order_relaxed)) return;
    stack.assign(r.stack.begin(), r.stack.end());
    in_check::reported.store(true, std::memory_order_release);
  };
  asio_pulse::io_context io{o};
  asio::post(io, asio_pulse::preemptible([] {
               const auto own = asio_pulse_get_checkpoint_hook();
               asio_pulse_set_checkpoint_hook(&in_check::wait_for_report);
               in_check::caller_of_it();
               asio_pulse_set_checkpoint_hook(own);
             }));
  io.run();
  const auto at = [&](std::string_view name) {
    return std::distance(stack.begin(),
                         std::find_if(stack.begin(), stack.end(),
                                      [&](const auto& f) { return f.function.starts_with(name); }));
  };
  const std::string text = asio_pulse::format(stack);
  const auto check = at("asio_pulse_out_of_fuel");
  ASSERT_LT(check + 2, static_cast<std::ptrdiff_t>(stack.size())) << text;
  EXPECT_EQ(at("in_check::function_with_a_check"), check + 1) << text;
  EXPECT_EQ(at("in_check::caller_of_it"), check + 2) << text;
  // The hook is this file's, so it is user code.
  const auto hook = at("in_check::wait_for_report");
  EXPECT_EQ(asio_pulse::blamed_frame(stack), static_cast<std::size_t>(hook)) << text;
  stack.erase(stack.begin(), stack.begin() + hook + 1);
  EXPECT_EQ(asio_pulse::blamed_frame(stack),
            static_cast<std::size_t>(at("in_check::function_with_a_check")))
      << text;
}

}  // namespace
