// SPDX-License-Identifier: BSL-1.0

#include "stack_capture.hpp"

#include "stack_copy.hpp"
#include "support/stalls.hpp"
#include "support/stuck_poll.hpp"

#include <support/sanitizers.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <numeric>
#include <span>
#include <stdexcept>
#include <thread>
#include <vector>

namespace {

using asio_pulse::detail::captured_stack;
using asio_pulse::detail::copy_mapped;
using asio_pulse::detail::memory_reader;
using asio_pulse::detail::stack_capture;
using pulse_test::stuck_poll;
using namespace std::chrono_literals;
using status = stack_capture::result::status;

// Only on a broken machine does this take so long.
constexpr std::chrono::seconds ample{60};

#if defined(PULSE_TEST_TSAN)
// ThreadSanitizer delays a signal until its thread next calls an intercepted function, and gives
// the handler the registers from when the signal came. They no longer match the stack.
constexpr bool stacks_are_true = false;
#else
constexpr bool stacks_are_true = true;
#endif

/// Installs a handler, and restores the previous one afterwards.
class captured_signal {
 public:
  explicit captured_signal(int number) : number_(number) {
    ::sigaction(number_, nullptr, &before_);
    EXPECT_TRUE(stack_capture::install(number_));
  }
  ~captured_signal() { ::sigaction(number_, &before_, nullptr); }
  captured_signal(const captured_signal&) = delete;
  captured_signal& operator=(const captured_signal&) = delete;

 private:
  int number_;
  struct sigaction before_ = {};
};

stack_capture::result take(stack_capture& capture, stuck_poll& poll, int signal = SIGURG,
                           std::chrono::nanoseconds timeout = ample,
                           std::size_t bytes = stack_capture::default_bytes) {
  auto r = capture.take(poll.tid(), signal, poll.state(), poll.start(), timeout, bytes);
  if (r.task != nullptr) {
    EXPECT_EQ(r.task, &poll.task());
    asio_pulse::hooks::release(*r.task);
  }
  return r;
}

class stack_capture_test : public testing::Test {
 protected:
  stack_capture_test() { stalls::released = false; }
  static void release(stuck_poll& poll) {
    stalls::released = true;
    poll.let_go();
  }
  captured_signal urgent_{SIGURG};
  stack_capture capture_;
};

TEST_F(stack_capture_test, takes_what_the_poll_is) {
  stuck_poll poll([] { stalls::spin(); });
  const auto before = poll.task().references.load();
  const auto r = capture_.take(poll.tid(), SIGURG, poll.state(), poll.start(), ample, 4096);
  ASSERT_EQ(r.how, status::taken);
  EXPECT_EQ(r.task, &poll.task());
  EXPECT_EQ(poll.task().references.load(), before + 1);
  asio_pulse::hooks::release(poll.task());
  EXPECT_EQ(r.site, &poll.site());
  EXPECT_EQ(r.arbiter, &poll.arbiter());
  EXPECT_GT(r.taken_for, 0ns);
  const captured_stack& stack = capture_.stack();
  EXPECT_NE(stack.pc(), 0U);
  EXPECT_GE(stack.stack_pointer(), stack.address);
  EXPECT_LE(stack.stack_pointer() - stack.address, 128U);
  EXPECT_EQ(stack.bytes.size(), 4096U);
  EXPECT_TRUE(stack.truncated);
  release(poll);
}

TEST_F(stack_capture_test, copies_the_stack_byte_by_byte) {
  if (!stacks_are_true) GTEST_SKIP() << "ThreadSanitizer delays signals";
  static std::atomic<const unsigned char*> pattern{nullptr};
  pattern = nullptr;
  stuck_poll poll([] {
    std::array<unsigned char, 2000> local{};
    std::iota(local.begin(), local.end(), static_cast<unsigned char>(1));
    asm volatile("" ::"r"(local.data()) : "memory");
    pattern = local.data();
    stalls::spin();
    asm volatile("" ::"r"(local.data()) : "memory");
  });
  while (pattern == nullptr) std::this_thread::yield();
  ASSERT_EQ(take(capture_, poll).how, status::taken);
  const captured_stack& stack = capture_.stack();
  const auto at = reinterpret_cast<std::uintptr_t>(pattern.load()) - stack.address;
  ASSERT_LT(at + 2000, stack.bytes.size());
  for (std::size_t i = 0; i != 2000; ++i) {
    ASSERT_EQ(std::to_integer<unsigned>(stack.bytes[at + i]), (i + 1) % 256) << i;
  }
  release(poll);
}

TEST_F(stack_capture_test, of_a_poll_that_has_ended_is_none) {
  stuck_poll poll([] { stalls::spin(); });
  auto r = capture_.take(poll.tid(), SIGURG, poll.state(), poll.start() + 1, ample);
  EXPECT_EQ(r.how, status::ended);  // another poll than the one that was seen
  EXPECT_EQ(r.task, nullptr);
  EXPECT_TRUE(capture_.stack().bytes.empty());
  const asio_pulse::hooks::thread_state other;
  r = capture_.take(poll.tid(), SIGURG, other, poll.start(), ample);
  EXPECT_EQ(r.how, status::ended);  // another thread was given the number
  stalls::released = true;
  while (poll.state().top.load() != nullptr) std::this_thread::yield();
  EXPECT_EQ(take(capture_, poll).how, status::ended);
  poll.let_go();
}

TEST_F(stack_capture_test, between_two_fibers_is_refused) {
  static std::atomic<bool> switching{false};
  switching = false;
  stuck_poll poll([] {
    asio_pulse::hooks::this_thread().switching = true;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    switching = true;
    stalls::spin();
    asio_pulse::hooks::this_thread().switching = false;
  });
  while (!switching) std::this_thread::yield();
  EXPECT_EQ(take(capture_, poll).how, status::refused_switching);
  release(poll);
}

TEST_F(stack_capture_test, of_no_thread_is_none) {
  const asio_pulse::hooks::thread_state none;
  EXPECT_EQ(capture_.take(-1, SIGURG, none, 0, ample).how, status::unsupported);
  EXPECT_EQ(capture_.take(1, 0, none, 0, ample).how, status::not_ours);
  EXPECT_EQ(capture_.take(1, SIGUSR2, none, 0, ample).how, status::not_ours);
}

TEST_F(stack_capture_test, sends_nothing_when_the_handler_was_replaced) {
  static std::atomic<int> theirs{0};
  theirs = 0;
  stuck_poll poll([] { stalls::spin(); });
  struct sigaction replacement = {};
  replacement.sa_handler = [](int) { theirs.fetch_add(1); };
  struct sigaction ours = {};
  ASSERT_EQ(::sigaction(SIGURG, &replacement, &ours), 0);
  EXPECT_EQ(take(capture_, poll).how, status::not_ours);
  EXPECT_EQ(theirs, 0);
  ASSERT_EQ(::sigaction(SIGURG, &ours, nullptr), 0);
  EXPECT_EQ(take(capture_, poll).how, status::taken);
  release(poll);
}

TEST_F(stack_capture_test, that_comes_late_does_no_harm) {
  static std::atomic<bool> blocked{false};
  static std::atomic<bool> unblock{false};
  static std::atomic<bool> unblocked{false};
  blocked = unblock = unblocked = false;
  stuck_poll poll([] {
    sigset_t urgent;
    sigemptyset(&urgent);
    sigaddset(&urgent, SIGURG);
    pthread_sigmask(SIG_BLOCK, &urgent, nullptr);
    blocked = true;
    while (!unblock) std::this_thread::yield();
    pthread_sigmask(SIG_UNBLOCK, &urgent, nullptr);
    unblocked = true;
    stalls::spin();
  });
  while (!blocked) std::this_thread::yield();
  const auto before = poll.task().references.load();
  EXPECT_EQ(take(capture_, poll, SIGURG, 2ms).how, status::timed_out);
  EXPECT_EQ(take(capture_, poll, SIGURG, 2ms).how, status::timed_out);
  unblock = true;
  while (!unblocked) std::this_thread::yield();  // the handler has run, and found no armed request
  EXPECT_EQ(poll.task().references.load(), before);
  EXPECT_EQ(take(capture_, poll).how, status::taken);
  release(poll);
}

TEST_F(stack_capture_test, leaves_errno_alone) {
  static std::atomic<bool> kept{false};
  static std::atomic<bool> set{false};
  kept = set = false;
  stuck_poll poll([] {
    errno = 1234;
    set = true;
    stalls::spin();
    kept = errno == 1234;
  });
  while (!set) std::this_thread::yield();
  for (int i = 0; i != 100; ++i) EXPECT_EQ(take(capture_, poll).how, status::taken);
  release(poll);
  while (poll.state().top.load() != nullptr) std::this_thread::yield();
  EXPECT_TRUE(kept);
}

using stack_capture_timing = stack_capture_test;

TEST_F(stack_capture_timing, holds_a_thread_up_for_no_more_than_100_us) {
  stuck_poll poll([] { stalls::spin(); });
  std::vector<std::chrono::nanoseconds> times;
  for (int i = 0; i != 200; ++i) {
    const auto r = take(capture_, poll);
    ASSERT_EQ(r.how, status::taken);
    times.push_back(r.taken_for);
  }
  release(poll);
  std::sort(times.begin(), times.end());
  RecordProperty("median_ns", static_cast<int>(times[100].count()));
  RecordProperty("p99_ns", static_cast<int>(times[198].count()));
  std::printf("in the handler, 64 KiB: median %.1f us, p99 %.1f us\n",
              static_cast<double>(times[100].count()) / 1e3,
              static_cast<double>(times[198].count()) / 1e3);
  // The wall clock, on a machine with other work, so only threads that were never interrupted
  // count.
  EXPECT_LE(times[0], 100us);
}

// ---- signals that the library did not send

std::atomic<int> plain_calls{0};
std::atomic<int> detailed_calls{0};
std::atomic<int> last_code{0};
std::atomic<bool> own_mask{false};

void plain_handler(int) { plain_calls.fetch_add(1); }

void detailed_handler(int number, siginfo_t* info, void* context) {
  detailed_calls.fetch_add(number == SIGUSR2 && context != nullptr ? 1 : 100);
  last_code = info->si_code;
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  own_mask = sigismember(&mask, SIGUSR2) == 1 && sigismember(&mask, SIGHUP) == 1 &&
             sigismember(&mask, SIGTERM) == 0;
}

TEST(chained_handler, is_called_for_foreign_signals_and_only_for_them) {
  plain_calls = 0;
  struct sigaction theirs = {};
  theirs.sa_handler = plain_handler;
  ASSERT_EQ(::sigaction(SIGUSR2, &theirs, nullptr), 0);
  const captured_signal ours(SIGUSR2);
  EXPECT_TRUE(
      stack_capture::install(SIGUSR2));  // again: it must not become its own previous handler
  stalls::released = false;
  stack_capture capture;
  {
    stuck_poll poll([] { stalls::spin(); });
    for (int i = 0; i != 10; ++i) {
      EXPECT_EQ(take(capture, poll, SIGUSR2).how, status::taken);
      ::raise(SIGUSR2);
    }
    stalls::released = true;
    poll.let_go();
  }
  EXPECT_EQ(plain_calls, 10);
}

TEST(chained_handler, gets_the_details_and_the_mask_that_it_asked_for) {
  detailed_calls = 0;
  struct sigaction theirs = {};
  theirs.sa_sigaction = detailed_handler;
  theirs.sa_flags = SA_SIGINFO;
  sigemptyset(&theirs.sa_mask);
  sigaddset(&theirs.sa_mask, SIGHUP);
  ASSERT_EQ(::sigaction(SIGUSR2, &theirs, nullptr), 0);
  const captured_signal ours(SIGUSR2);
  sigval value{};
  value.sival_int = 42;
  ASSERT_EQ(::sigqueue(::getpid(), SIGUSR2, value), 0);
  while (detailed_calls == 0) std::this_thread::yield();
  EXPECT_EQ(detailed_calls, 1);
  EXPECT_EQ(last_code, SI_QUEUE);
  EXPECT_TRUE(own_mask);
  ::raise(SIGUSR2);
  EXPECT_EQ(detailed_calls, 2);
  EXPECT_EQ(last_code, SI_TKILL);
}

TEST(chained_handler, that_was_none_does_what_the_system_does) {
  ::signal(SIGURG, SIG_DFL);
  ::signal(SIGUSR1, SIG_IGN);
  const captured_signal urgent(SIGURG);
  const captured_signal ignored(SIGUSR1);
  ::raise(SIGURG);
  ::raise(SIGUSR1);
  SUCCEED() << "and continued";
}

TEST(chained_handler, that_was_none_ends_the_process_where_the_system_does) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        ::signal(SIGUSR1, SIG_DFL);
        if (stack_capture::install(SIGUSR1)) ::raise(SIGUSR1);
        std::_Exit(1);
      },
      testing::KilledBySignal(SIGUSR1), "");
}

TEST(install, refuses_signals_that_report_faults_or_cannot_be_caught) {
  for (const int bad :
       {SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT, 0, -1, 32, 33, 1000}) {
    EXPECT_FALSE(stack_capture::install(bad)) << bad;
  }
}

// ---- storms

TEST_F(stack_capture_test, survives_exceptions_under_a_storm_of_requests) {
#if defined(PULSE_TEST_TSAN) || defined(PULSE_TEST_ASAN)
  // Each throw unpoisons or re-traces the stack there: 20 times as slow.
  constexpr int throws = 10'000;
#else
  constexpr int throws = 100'000;
#endif
  static std::atomic<bool> ended{false};
  static std::atomic<int> caught{0};
  ended = false;
  caught = 0;
  stuck_poll poll([] {
    for (int i = 0; i != throws; ++i) {
      try {
        stalls::fail(3);
      } catch (const std::runtime_error&) {
        caught.fetch_add(1, std::memory_order_relaxed);
      }
    }
    ended = true;
  });
  int taken = 0;
  auto next = std::chrono::steady_clock::now();
  while (!ended) {
    const auto r = take(capture_, poll);
    if (r.how == status::taken) {
      ++taken;
    } else {
      EXPECT_EQ(r.how, status::ended);
    }
    next += 1ms;
    std::this_thread::sleep_until(next);  // the storm's rate; nothing is asserted on it
  }
  poll.let_go();
  EXPECT_EQ(caught, throws);
  EXPECT_GT(taken, 0);
  std::printf("%d stacks during %d exceptions\n", taken, throws);
}

TEST_F(stack_capture_test, survives_a_storm_in_the_allocator) {
  stuck_poll poll([] { stalls::malloc_storm(); });
  for (int i = 0; i != 500; ++i) EXPECT_EQ(take(capture_, poll).how, status::taken);
  release(poll);
}

TEST_F(stack_capture_test, of_polls_that_come_and_go) {
  // Every request may come while the poll ends. The stack is taken or the poll has ended, and no
  // reference is lost.
  for (int i = 0; i != 50; ++i) {
    stalls::released = false;
    stuck_poll poll([] { stalls::spin(); });
    std::thread releasing([] { stalls::released = true; });
    // ThreadSanitizer may never deliver a signal to a thread that makes no more calls.
    const auto how =
        take(capture_, poll, SIGURG, stacks_are_true ? std::chrono::nanoseconds{ample} : 20ms).how;
    EXPECT_TRUE(how == status::taken || how == status::ended ||
                (!stacks_are_true && how == status::timed_out));
    releasing.join();
    while (poll.state().top.load() != nullptr) std::this_thread::yield();
    poll.let_go();
  }
}

TEST_F(stack_capture_test, works_in_a_forked_child) {
#if defined(PULSE_TEST_TSAN)
  GTEST_SKIP() << "ThreadSanitizer: no threads after a fork with threads";
#endif
  stuck_poll before([] { stalls::spin(); });
  ASSERT_EQ(take(capture_, before).how, status::taken);
  const pid_t child = ::fork();
  if (child == 0) {
    bool good = false;
    {
      stuck_poll poll([] { stalls::spin(); });
      good = take(capture_, poll).how == status::taken;
      stalls::released = true;
      poll.let_go();
    }
    std::_Exit(good ? 0 : 1);
  }
  int result = -1;
  ASSERT_EQ(::waitpid(child, &result, 0), child);
  EXPECT_EQ(result, 0);
  EXPECT_EQ(take(capture_, before).how, status::taken);
  release(before);
}

// ---- reading memory

class copy_mapped_test : public testing::TestWithParam<memory_reader> {};

TEST_P(copy_mapped_test, stops_where_nothing_is_mapped) {
  if (GetParam() == memory_reader::file) {
    ASSERT_TRUE(asio_pulse::detail::open_memory_file());
  }
  if (asio_pulse::detail::chosen_memory_reader() == memory_reader::none) {
    GTEST_SKIP() << "this system does not permit to read memory in this way";
  }
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  void* const memory =
      ::mmap(nullptr, 4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  std::memset(memory, 7, 4 * page);
  auto* const bytes = static_cast<std::byte*>(memory);
  ASSERT_EQ(::munmap(bytes + 3 * page, page), 0);
  const auto address = reinterpret_cast<std::uintptr_t>(memory);
  std::vector<std::byte> to(4 * page);
  EXPECT_EQ(copy_mapped(address + 100, to, GetParam()), 3 * page - 100);
  EXPECT_EQ(to[0], std::byte{7});
  EXPECT_EQ(to[3 * page - 101], std::byte{7});
  EXPECT_EQ(to[3 * page - 100], std::byte{0});
  EXPECT_EQ(copy_mapped(address + 3 * page, to, GetParam()), 0U);
  EXPECT_EQ(copy_mapped(0, to, GetParam()), 0U);
  EXPECT_EQ(copy_mapped(~std::uintptr_t{0} - 10, to, GetParam()), 0U);
  EXPECT_EQ(copy_mapped(address, std::span(to).first(5), GetParam()), 5U);
  EXPECT_EQ(copy_mapped(address, std::span(to).first(0), GetParam()), 0U);
  ::munmap(memory, 3 * page);
}

INSTANTIATE_TEST_SUITE_P(readers, copy_mapped_test,
                         testing::Values(memory_reader::process_vm, memory_reader::file));

TEST(copy_mapped, reads_a_megabyte) {
  std::vector<std::byte> from(stack_capture::max_bytes, std::byte{3});
  from.back() = std::byte{4};
  std::vector<std::byte> to(from.size());
  EXPECT_EQ(
      copy_mapped(reinterpret_cast<std::uintptr_t>(from.data()), to, memory_reader::process_vm),
      from.size());
  EXPECT_EQ(from, to);
}

}  // namespace
