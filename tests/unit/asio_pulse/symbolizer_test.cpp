// SPDX-License-Identifier: BSL-1.0

#include "symbolizer.hpp"

#include "stack_capture.hpp"
#include "support/stalls.hpp"
#include "support/stuck_poll.hpp"
#include "threads/thread_usage.hpp"

#include <support/sanitizers.hpp>

#include <dlfcn.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

// The files of this test are built with -O2 -g: see CMakeLists.txt.

namespace {

using asio_pulse::blamed_frame;
using asio_pulse::no_frame;
using asio_pulse::stack_detail;
using asio_pulse::stack_frame;
using asio_pulse::stack_support;
using asio_pulse::stack_trace;
using asio_pulse::detail::captured_stack;
using asio_pulse::detail::stack_capture;
using asio_pulse::detail::symbolizer;
using asio_pulse::detail::thread_probe;
using pulse_test::stuck_poll;
using testing::AnyOf;
using testing::EndsWith;
using testing::StartsWith;
using status = stack_capture::result::status;

class symbolizer_test : public testing::Test {
 protected:
  void SetUp() override {
#if defined(PULSE_TEST_TSAN)
    GTEST_SKIP() << "ThreadSanitizer gives a handler the registers of another moment";
#endif
    if (stack_support() != stack_detail::full) GTEST_SKIP() << "built without libdw";
    ASSERT_TRUE(stack_capture::install(SIGURG));
    stalls::released = false;
  }

  stack_trace trace_of(stuck_poll& poll, std::size_t bytes = stack_capture::default_bytes,
                       std::size_t max_frames = 64) {
    const auto r = capture_.take(poll.tid(), SIGURG, poll.state(), poll.start(),
                                 std::chrono::seconds{60}, bytes);
    EXPECT_EQ(r.how, status::taken);
    if (r.task != nullptr) asio_pulse::hooks::release(*r.task);
    return symbolizer_.trace(capture_.stack(), max_frames);
  }

  static void wait_until_blocked(const stuck_poll& poll) {
    asio_pulse::detail::thread_files files;
    thread_probe probe(poll.tid(), files);
    while (probe.full().state != 'S') std::this_thread::yield();
  }

  /// The index of the frame with this function, or no_frame.
  static std::size_t find(const stack_trace& trace, std::string_view function) {
    const auto at = std::find_if(trace.begin(), trace.end(), [function](const stack_frame& f) {
      return f.function.starts_with(function);
    });
    return at == trace.end() ? no_frame : static_cast<std::size_t>(at - trace.begin());
  }

  template <class Matcher>
  static void expect_blamed(const stack_trace& trace, const Matcher& function) {
    const std::size_t at = blamed_frame(trace);
    ASSERT_LT(at, trace.size()) << asio_pulse::format(trace);
    EXPECT_THAT(trace[at].function, function) << asio_pulse::format(trace);
    EXPECT_THAT(trace[at].file, EndsWith("support/stalls.hpp")) << asio_pulse::format(trace);
    EXPECT_GT(trace[at].line, 0U);
  }

  /// `times` stalls of one kind, seen at whatever instant they are in once `reached` is on the
  /// stack.
  template <class Matcher>
  void expect_blamed(int times, bool blocks, const std::function<void()>& body,
                     const std::function<void()>& release, const Matcher& function,
                     std::string_view reached = "stalls::") {
    for (int i = 0; i != times; ++i) {
      stalls::released = false;
      stuck_poll poll(body);
      if (blocks) wait_until_blocked(poll);
      // Anywhere in the loop, including its first iteration.
      stack_trace trace = trace_of(poll);
      while (!blocks && find(trace, reached) == no_frame) trace = trace_of(poll);
      expect_blamed(trace, function);
      stalls::released = true;
      if (release) release();
      poll.let_go();
    }
  }

  stack_capture capture_;
  symbolizer symbolizer_;
};

TEST_F(symbolizer_test, blames_a_spin) {
  expect_blamed(25, false, stalls::spin, nullptr, "stalls::spin()");
}

TEST_F(symbolizer_test, blames_a_sleep) {
  expect_blamed(5, true, stalls::sleep, nullptr, "stalls::sleep()");
}

TEST_F(symbolizer_test, blames_a_wait_for_a_mutex) {
  for (int i = 0; i != 10; ++i) {
    stalls::contended.lock();
    expect_blamed(
        1, true, stalls::lock_mutex, [] { stalls::contended.unlock(); }, "stalls::lock_mutex()");
  }
}

TEST_F(symbolizer_test, blames_a_read_from_a_pipe) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  expect_blamed(
      10, true, [&] { stalls::read_pipe(ends[0]); },
      [&] { EXPECT_EQ(::write(ends[1], "x", 1), 1); }, "stalls::read_pipe(int)");
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST_F(symbolizer_test, blames_a_storm_of_exceptions) {
  expect_blamed(50, false, stalls::throw_storm, nullptr,
                AnyOf("stalls::throw_storm()", "stalls::fail(int)"));
}

TEST_F(symbolizer_test, blames_a_storm_in_the_allocator) {
  expect_blamed(50, false, stalls::malloc_storm, nullptr, "stalls::malloc_storm()");
}

TEST_F(symbolizer_test, blames_a_destructor) {
  expect_blamed(5, false, stalls::leave_scope, nullptr, StartsWith("stalls::slow_to_destroy::~"));
}

TEST_F(symbolizer_test, blames_what_the_c_library_called) {
  constexpr std::string_view called = "stalls::compare_slowly(";
  expect_blamed(5, false, stalls::sort_slowly, nullptr, StartsWith(std::string(called)), called);
}

TEST_F(symbolizer_test, blames_the_top_of_a_deep_recursion) {
  stuck_poll poll([] { stalls::recurse(2000); });
  stack_trace trace = trace_of(poll);
  // While it is still calling itself, the copy may reach the function that called it.
  const auto deep = [&] {
    return capture_.stack().truncated && !trace.empty() &&
           trace.back().function == "stalls::recurse(int)";
  };
  while (!deep()) trace = trace_of(poll);
  expect_blamed(trace, "stalls::recurse(int)");
  stalls::released = true;
  poll.let_go();
}

TEST_F(symbolizer_test, expands_what_was_inlined) {
  stuck_poll poll([] { stalls::call_inlined(); });
  stack_trace trace = trace_of(poll);
  while (find(trace, "stalls::inlined_spin()") == no_frame) trace = trace_of(poll);
  const std::size_t at = find(trace, "stalls::inlined_spin()");
  ASSERT_LT(at + 1, trace.size());
  EXPECT_TRUE(trace[at].inlined);
  EXPECT_FALSE(trace[at + 1].inlined);
  EXPECT_EQ(trace[at + 1].function, "stalls::call_inlined()");
  EXPECT_EQ(trace[at].address, trace[at + 1].address);
  EXPECT_THAT(trace[at + 1].file, EndsWith("support/stalls.hpp"));
  EXPECT_NE(trace[at].line, trace[at + 1].line);
  EXPECT_EQ(blamed_frame(trace), at);
  stalls::released = true;
  poll.let_go();
}

TEST_F(symbolizer_test, blames_a_lambda_of_nobody_elses_name) {
  stuck_poll poll([] {
    while (stalls::let_signals_in(), !stalls::released.load(std::memory_order_relaxed))
      asm volatile("");
  });
  // Not before it has got there.
  constexpr std::string_view name = "blames_a_lambda_of_nobody_elses_name";
  const auto is_there = [&](const stack_frame& f) {
    return f.function.find(name) != std::string::npos;
  };
  stack_trace trace = trace_of(poll);
  while (std::none_of(trace.begin(), trace.end(), is_there)) trace = trace_of(poll);
  const std::size_t at = blamed_frame(trace);
  ASSERT_LT(at, trace.size());
  EXPECT_TRUE(is_there(trace[at])) << asio_pulse::format(trace);
  EXPECT_THAT(trace[at].file, EndsWith("symbolizer_test.cpp"));
  stalls::released = true;
  poll.let_go();
}

// ---- stacks of another kind

TEST_F(symbolizer_test, sees_the_main_thread_to_its_beginning) {
  // The poll runs on this thread, and another thread takes the stack.
  const bool here = ::gettid() == ::getpid();
  pulse_test::plain_arbiter arbiter;
  char scheduler = 0;
  const asio_pulse::hooks::site site{"operation", false};
  struct operation : asio_pulse::hooks::tracked_operation {};
  stack_trace trace;
  {
    const asio_pulse::hooks::worker_scope worker(&scheduler, arbiter, true);
    operation op;
    op.announce();
    const asio_pulse::hooks::poll_frame frame(&scheduler, op, site);
    auto& ts = asio_pulse::hooks::this_thread();
    const auto start = ts.clock.last();
    std::thread looking([&, tid = ::gettid()] {
      const auto r = capture_.take(tid, SIGURG, ts, start, std::chrono::seconds{60});
      EXPECT_EQ(r.how, status::taken);
      EXPECT_EQ(r.task, nullptr);  // of no task
      stalls::released = true;
    });
    stalls::spin();
    looking.join();
    trace = symbolizer_.trace(capture_.stack());
  }
  if (here && find(trace, "stalls::spin()") != no_frame) {
    EXPECT_NE(find(trace, "main"), no_frame) << asio_pulse::format(trace);
  }
}

std::atomic<bool> in_handler{false};

void stuck_handler(int) {
  in_handler = true;
  stalls::spin();
  asm volatile("" ::: "memory");  // no tail call
}

TEST_F(symbolizer_test, sees_through_a_signal_handler) {
  for (const bool other_stack : {false, true}) {
    stalls::released = false;
    in_handler = false;
    struct sigaction action = {};
    action.sa_handler = stuck_handler;
    action.sa_flags = SA_ONSTACK;
    ASSERT_EQ(::sigaction(SIGUSR2, &action, nullptr), 0);
    std::vector<char> memory(262144);
    stuck_poll poll([&] {
      stack_t alternative{};
      alternative.ss_sp = memory.data();
      alternative.ss_size = memory.size();
      if (other_stack) {
        EXPECT_EQ(::sigaltstack(&alternative, nullptr), 0);
      }
      while (stalls::let_signals_in(), !stalls::released.load(std::memory_order_relaxed))
        ::raise(SIGUSR2);
      alternative.ss_flags = SS_DISABLE;
      ::sigaltstack(&alternative, nullptr);
    });
    while (!in_handler) std::this_thread::yield();
    const stack_trace trace = trace_of(poll);
    expect_blamed(trace, "stalls::spin()");
    const std::size_t handler = find(trace, "(anonymous namespace)::stuck_handler(int)");
    ASSERT_NE(handler, no_frame) << asio_pulse::format(trace);
    // And what the signal interrupted, on the thread's own stack.
    const std::size_t interrupted = find(trace, "raise");
    EXPECT_GT(interrupted, handler) << asio_pulse::format(trace);
    EXPECT_NE(find(trace, "pulse_test::stuck_poll::run"), no_frame) << asio_pulse::format(trace);
    stalls::released = true;
    poll.let_go();
  }
}

ucontext_t outside;
ucontext_t inside;

TEST_F(symbolizer_test, of_a_fiber_ends_where_its_stack_does) {
#if defined(PULSE_TEST_ASAN)
  GTEST_SKIP() << "AddressSanitizer is not notified of this switch";
#endif
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t size = 8 * page;
  void* const memory =
      ::mmap(nullptr, size + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  char* const stack = static_cast<char*>(memory) + page;
  ASSERT_EQ(::mprotect(stack, size, PROT_READ | PROT_WRITE), 0);
  stuck_poll poll([&] {
    ::getcontext(&inside);
    inside.uc_stack.ss_sp = stack;
    inside.uc_stack.ss_size = size;
    inside.uc_link = &outside;
    ::makecontext(
        &inside, +[] { stalls::spin(); }, 0);
    ::swapcontext(&outside, &inside);
  });
  stack_trace trace = trace_of(poll);
  while (find(trace, "stalls::spin()") == no_frame) trace = trace_of(poll);
  expect_blamed(trace, "stalls::spin()");
  EXPECT_LT(capture_.stack().bytes.size(), size);
  EXPECT_FALSE(capture_.stack().truncated);
  EXPECT_LT(trace.size(), 10U) << asio_pulse::format(trace);
  stalls::released = true;
  poll.let_go();
  // The poll has left the stack when its thread waits outside.
  while (poll.state().top.load() != nullptr) std::this_thread::yield();
  ::munmap(memory, size + 2 * page);
}

// ---- modules

void spin_for_plugin() { stalls::spin(); }

class loaded_later : public symbolizer_test, public testing::WithParamInterface<const char*> {};

TEST_P(loaded_later, is_named_as_far_as_it_can_be) {
  const std::string name = GetParam();
  captured_stack here;
  here.registers[captured_stack::program_counter] = reinterpret_cast<std::uint64_t>(&stalls::fail);
  static_cast<void>(symbolizer_.trace(here));  // reads the current modules
  void* const plugin = ::dlopen((ASIO_PULSE_PLUGINS "/" + name).c_str(), RTLD_NOW);
  ASSERT_NE(plugin, nullptr) << ::dlerror();
  const auto entry = reinterpret_cast<void (*)(void (*)())>(::dlsym(plugin, "plugin_entry"));
  ASSERT_NE(entry, nullptr);
  {
    stuck_poll poll([entry] { entry(spin_for_plugin); });
    stack_trace trace = trace_of(poll);
    while (find(trace, "stalls::spin()") == no_frame) trace = trace_of(poll);
    expect_blamed(trace, "stalls::spin()");
    const auto at = std::find_if(trace.begin(), trace.end(),
                                 [&](const stack_frame& f) { return f.module == name; });
    ASSERT_NE(at, trace.end()) << asio_pulse::format(trace);
    EXPECT_EQ(at->function, "plugin_entry");  // exported: even a stripped file has that symbol
    EXPECT_NE(at->offset, 0U);
    if (name.find("debug") != name.npos) {
      EXPECT_THAT(at->file, EndsWith("stall_plugin.cpp"));
      EXPECT_GT(at->line, 0U);
    } else {
      EXPECT_EQ(at->file, "");
      EXPECT_EQ(at->line, 0U);
    }
    EXPECT_NE(find(trace, "pulse_test::stuck_poll::run"), no_frame) << asio_pulse::format(trace);
    stalls::released = true;
    poll.let_go();
  }
  ::dlclose(plugin);
}

INSTANTIATE_TEST_SUITE_P(plugins, loaded_later,
                         testing::Values("libstall_plugin_debug.so", "libstall_plugin_plain.so",
                                         "libstall_plugin_stripped.so"));

TEST_F(symbolizer_test, is_not_misled_by_a_file_that_is_mapped_below_itself) {
  // Maps a file that is only read, again and again, directly below the place where it is loaded.
  Dl_info info{};
  ASSERT_NE(::dladdr(reinterpret_cast<void*>(&::qsort), &info), 0);
  const int file = ::open(info.dli_fname, O_RDONLY | O_CLOEXEC);
  ASSERT_GE(file, 0);
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  auto* const base = static_cast<char*>(info.dli_fbase);
  void* below = MAP_FAILED;
  for (std::size_t pages = 1; pages != 10000 && below == MAP_FAILED; ++pages) {
    below =
        ::mmap(base - pages * page, page, PROT_READ, MAP_PRIVATE | MAP_FIXED_NOREPLACE, file, 0);
  }
  ::close(file);
  if (below == MAP_FAILED) GTEST_SKIP() << "no room below the C library";
  symbolizer fresh;
  stuck_poll poll([] { stalls::sort_slowly(); });
  stack_trace trace = trace_of(poll);
  while (find(trace, "stalls::compare_slowly(") == no_frame) trace = trace_of(poll);
  trace = fresh.trace(capture_.stack());
#if !defined(PULSE_TEST_ASAN)  // which sorts in the C library's place
  EXPECT_NE(find(trace, "qsort_r"), no_frame) << asio_pulse::format(trace);
#endif
  EXPECT_NE(find(trace, "stalls::sort_slowly()"), no_frame) << asio_pulse::format(trace);
  stalls::released = true;
  ::munmap(below, page);
}

// ---- bounds

TEST_F(symbolizer_test, gives_no_more_frames_than_asked_for) {
  stuck_poll poll([] { stalls::recurse(100); });
  stack_trace trace = trace_of(poll);
  while (trace.size() < 64) trace = trace_of(poll);
  EXPECT_EQ(trace.size(), 64U);
  EXPECT_EQ(symbolizer_.trace(capture_.stack(), 3).size(), 3U);
  EXPECT_EQ(symbolizer_.trace(capture_.stack(), 1).size(), 1U);
  EXPECT_EQ(symbolizer_.trace(capture_.stack(), 0).size(), 0U);
  // A copy that ends in the middle of the recursion gives a shorter trace; the rest is not guessed.
  captured_stack cut = capture_.stack();
  cut.bytes = cut.bytes.first(4096);
  cut.truncated = true;
  trace = symbolizer_.trace(cut, 200);
  // Compilers inline some of it into itself; the calls that are not inlined have a stack frame.
  const auto frames =
      std::count_if(trace.begin(), trace.end(), [](const stack_frame& f) { return !f.inlined; });
  EXPECT_GT(frames, 5);
  EXPECT_LT(frames, 60);
  stalls::released = true;
  poll.let_go();
}

TEST_F(symbolizer_test, of_nonsense_is_short_and_harmless) {
  std::mt19937_64 random(7);
  std::vector<std::byte> bytes(4096);
  const auto code = reinterpret_cast<std::uint64_t>(&stalls::fail);
  for (int i = 0; i != 200; ++i) {
    for (std::byte& b : bytes) b = static_cast<std::byte>(random());
    captured_stack stack;
    for (auto& value : stack.registers) value = i % 2 == 0 ? random() : random() % 65536;
    // The address of real code, whose unwind rules lead into random memory.
    if (i % 4 != 0) stack.registers[captured_stack::program_counter] = code + random() % 64;
    stack.address = stack.stack_pointer();
    stack.bytes = bytes;
    EXPECT_LE(symbolizer_.trace(stack).size(), 64U);
  }
  EXPECT_TRUE(symbolizer_.trace({}).empty());
}

TEST(stack_support, says_what_was_built) {
  const captured_stack nothing;
  symbolizer s;
  EXPECT_TRUE(s.trace(nothing).empty());
  captured_stack here;
  here.registers[captured_stack::program_counter] = reinterpret_cast<std::uint64_t>(&stalls::fail);
  const stack_trace trace = s.trace(here);
  ASSERT_FALSE(trace.empty());
  EXPECT_EQ(trace[0].address, here.pc());
  EXPECT_THAT(trace[0].module, testing::Not(testing::IsEmpty()));
  if (stack_support() == stack_detail::full) {
    EXPECT_EQ(trace[0].function, "stalls::fail(int)");
  } else {
    EXPECT_EQ(trace.size(), 1U);
    EXPECT_EQ(trace[0].function, "");
    EXPECT_NE(trace[0].offset, 0U);
  }
}

}  // namespace
