// SPDX-License-Identifier: BSL-1.0

#include "interrupted_call.hpp"

#include "stack_capture.hpp"
#include "stack_copy.hpp"
#include "support/sanitizers.hpp"
#include "support/stuck_poll.hpp"
#include "threads/thread_usage.hpp"

#include <gtest/gtest.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <ctime>
#include <functional>
#include <ostream>
#include <string>
#include <thread>
#include <vector>

namespace {

using asio_pulse::detail::call_number;
using asio_pulse::detail::calls_can_be_made_again;
using asio_pulse::detail::make_interrupted_call_again;
using asio_pulse::detail::may_be_made_again;
using asio_pulse::detail::stack_capture;
using namespace std::chrono_literals;

#if defined(__x86_64__)

// ---- how the number is found

struct sequence {
  const char* what;
  std::vector<std::uint8_t> code;
  long number;  ///< -1: none
  friend void PrintTo(const sequence& s, std::ostream* to) { *to << s.what; }
};

class call_sequence : public testing::TestWithParam<sequence> {};

TEST_P(call_sequence, has_its_number) {
  EXPECT_EQ(call_number(GetParam().code).value_or(-1), GetParam().number);
}

INSTANTIATE_TEST_SUITE_P(
    of_the_c_library, call_sequence,
    testing::Values(
        sequence{"poll", {0x74, 0x17, 0xb8, 7, 0, 0, 0, 0x0f, 0x05}, 7},
        sequence{
            "poll with threads", {0x48, 0x8b, 0x7c, 0x24, 0x08, 0xb8, 7, 0, 0, 0, 0x0f, 0x05}, 7},
        sequence{"pselect: an argument behind the number",
                 {0x20, 0xb8, 0x0e, 1, 0, 0, 0x8b, 0x7c, 0x24, 0x1c, 0x0f, 0x05},
                 270},
        sequence{"recvfrom: two of them",
                 {0x00, 0xb8, 0x2d, 0, 0, 0, 0x48, 0x8b, 0x54, 0x24, 0x10, 0x48, 0x8b, 0x74, 0x24,
                  0x08, 0x0f, 0x05},
                 45},
        sequence{"an argument at the stack pointer itself",
                 {0x00, 0xb8, 0xe6, 0, 0, 0, 0x8b, 0x3c, 0x24, 0x0f, 0x05},
                 230},
        sequence{"read", {0x74, 0x17, 0x31, 0xc0, 0x0f, 0x05}, 0},
        sequence{"no call", {0x74, 0x17, 0xb8, 7, 0, 0, 0, 0x90, 0x90}, -1},
        sequence{"mov to %r8d", {0x00, 0x41, 0xb8, 7, 0, 0, 0, 0x0f, 0x05}, -1},
        sequence{"xor of %r8d", {0x00, 0x45, 0x31, 0xc0, 0x0f, 0x05}, -1},
        sequence{"the number from the stack",
                 {0x00, 0xb8, 7, 0, 0, 0, 0x8b, 0x44, 0x24, 0x08, 0x0f, 0x05},
                 -1},
        sequence{"a number of 64 bits", {0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05}, -1},
        sequence{"glibc 2.41: the number was overwritten",
                 {0x4d, 0x89, 0xca, 0x4c, 0x8b, 0x44, 0x24, 0x08, 0x4c, 0x8b,
                  0x4c, 0x24, 0x10, 0x4c, 0x89, 0x5c, 0x24, 0x08, 0x0f, 0x05},
                 -1},
        sequence{"cut off", {7, 0, 0, 0, 0x0f, 0x05}, -1}, sequence{"too short", {0x05}, -1}));

TEST(interrupted_call, only_what_did_nothing_is_made_again) {
  const std::array<std::uint64_t, 6> none{};
  for (const long number : std::initializer_list<long>{
           SYS_poll, SYS_select, SYS_pselect6, SYS_epoll_wait, SYS_nanosleep, SYS_clock_nanosleep,
           SYS_recvfrom, SYS_accept4, SYS_pause}) {
    EXPECT_TRUE(may_be_made_again(number, none)) << number;
  }
  for (const long number : std::initializer_list<long>{SYS_close, SYS_rt_sigsuspend, SYS_exit,
                                                       SYS_fork, SYS_execve, -1}) {
    EXPECT_FALSE(may_be_made_again(number, none)) << number;
  }
}

TEST(interrupted_call, who_waits_for_signals_is_told_of_each) {
  const sigset_t mask{};
  std::array<std::uint64_t, 6> arguments{};
  arguments[3] = reinterpret_cast<std::uint64_t>(&mask);
  EXPECT_FALSE(may_be_made_again(SYS_ppoll, arguments));
  arguments = {};
  arguments[4] = reinterpret_cast<std::uint64_t>(&mask);
  EXPECT_FALSE(may_be_made_again(SYS_epoll_pwait, arguments));
  arguments = {};
  std::array<std::uint64_t, 2> pair{reinterpret_cast<std::uint64_t>(&mask), 8};
  arguments[5] = reinterpret_cast<std::uint64_t>(pair.data());
  EXPECT_FALSE(may_be_made_again(SYS_pselect6, arguments));
  pair[0] = 0;
  EXPECT_TRUE(may_be_made_again(SYS_pselect6, arguments));
}

#endif

// ---- real calls

/// A descriptor that becomes readable on request.
class event {
 public:
  ~event() { ::close(fd_); }
  void set() const { EXPECT_EQ(::write(fd_, &one, sizeof one), 8); }
  [[nodiscard]] int fd() const { return fd_; }

 private:
  static constexpr std::uint64_t one = 1;
  int fd_ = ::eventfd(0, EFD_CLOEXEC);
};

/// Two sockets that wait for an hour, at the most.
class sockets {
 public:
  sockets() {
    ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends_.data());
    const timeval hour{.tv_sec = 3600, .tv_usec = 0};
    ::setsockopt(ends_[0], SOL_SOCKET, SO_RCVTIMEO, &hour, sizeof hour);
  }
  ~sockets() {
    ::close(ends_[0]);
    ::close(ends_[1]);
  }
  [[nodiscard]] int reader() const { return ends_[0]; }
  void send() const { EXPECT_EQ(::send(ends_[1], "x", 1, 0), 1); }

 private:
  std::array<int, 2> ends_{-1, -1};
};

constexpr timespec hour{.tv_sec = 3600, .tv_nsec = 0};
constexpr timespec moment{.tv_sec = 0, .tv_nsec = 20'000'000};

/// A call that waits, its result after the wait, and the function that ends the wait.
struct waiting_call {
  const char* what;
  std::function<long(event&, sockets&)> call;
  long result;
  std::function<void(event&, sockets&)> end;
  friend void PrintTo(const waiting_call& w, std::ostream* to) { *to << w.what; }
};

long poll_on(int fd, int timeout) {
  pollfd p{.fd = fd, .events = POLLIN, .revents = 0};
  return ::poll(&p, 1, timeout);
}
long ppoll_on(int fd, const timespec* timeout) {
  pollfd p{.fd = fd, .events = POLLIN, .revents = 0};
  return ::ppoll(&p, 1, timeout, nullptr);
}
long select_on(int fd) {
  fd_set set;
  FD_ZERO(&set);
  FD_SET(fd, &set);
  timeval timeout{.tv_sec = 3600, .tv_usec = 0};
  return ::select(fd + 1, &set, nullptr, nullptr, &timeout);
}
long pselect_on(int fd) {
  fd_set set;
  FD_ZERO(&set);
  FD_SET(fd, &set);
  return ::pselect(fd + 1, &set, nullptr, nullptr, &hour, nullptr);
}
template <class Wait>
long epoll_on(int fd, Wait wait) {
  const int e = ::epoll_create1(EPOLL_CLOEXEC);
  epoll_event one{};
  one.events = EPOLLIN;
  ::epoll_ctl(e, EPOLL_CTL_ADD, fd, &one);
  const long result = wait(e, &one);
  ::close(e);
  return result;
}

void set(event& e, sockets&) { e.set(); }
void send(event&, sockets& s) { s.send(); }
void nothing(event&, sockets&) {}

class waiting : public testing::TestWithParam<waiting_call> {};

std::atomic<int> handled{0};

void on_signal(int, siginfo_t*, void* context) {
  const int saved = errno;
  make_interrupted_call_again(context);
  ++handled;
  errno = saved;
}

TEST_P(waiting, goes_on_after_our_signal) {
  if (!calls_can_be_made_again()) GTEST_SKIP() << "this C library's calls are not recognised";
#if defined(PULSE_TEST_TSAN)
  GTEST_SKIP() << "ThreadSanitizer delivers signals elsewhere";
#endif
  (void)asio_pulse::detail::chosen_memory_reader();
  struct sigaction action {};
  struct sigaction before {};
  action.sa_sigaction = &on_signal;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  ASSERT_EQ(::sigaction(SIGURG, &action, &before), 0);
  event e;
  sockets s;
  std::atomic<bool> begun{false};
  std::atomic<bool> ended{false};
  long result = -2;
  int error = 0;
  std::thread thread([&] {
    begun = true;
    result = GetParam().call(e, s);
    error = errno;
    ended = true;
  });
  while (!begun) std::this_thread::yield();
  handled = 0;
  for (int sent = 0; sent != 30 && !ended; ++sent) {
    ::pthread_kill(thread.native_handle(), SIGURG);
    for (int i = 0; i != 20 && handled <= sent && !ended; ++i) std::this_thread::sleep_for(1ms);
  }
  GetParam().end(e, s);
  thread.join();
  EXPECT_EQ(result, GetParam().result) << std::strerror(error);
  EXPECT_GT(handled, 0);
  ::sigaction(SIGURG, &before, nullptr);
}

INSTANTIATE_TEST_SUITE_P(
    calls, waiting,
    testing::Values(
        waiting_call{"poll", [](event& e, sockets&) { return poll_on(e.fd(), -1); }, 1, set},
        waiting_call{"poll with a time-out",
                     [](event& e, sockets&) { return poll_on(e.fd(), 3'600'000); }, 1, set},
        waiting_call{"ppoll", [](event& e, sockets&) { return ppoll_on(e.fd(), nullptr); }, 1, set},
        waiting_call{"ppoll with a time-out",
                     [](event& e, sockets&) { return ppoll_on(e.fd(), &hour); }, 1, set},
        waiting_call{"select", [](event& e, sockets&) { return select_on(e.fd()); }, 1, set},
        waiting_call{"pselect", [](event& e, sockets&) { return pselect_on(e.fd()); }, 1, set},
        waiting_call{"epoll_wait",
                     [](event& e, sockets&) {
                       return epoll_on(e.fd(), [](int fd, epoll_event* to) {
                         return ::epoll_wait(fd, to, 1, 3'600'000);
                       });
                     },
                     1, set},
        waiting_call{"epoll_pwait",
                     [](event& e, sockets&) {
                       return epoll_on(e.fd(), [](int fd, epoll_event* to) {
                         return ::epoll_pwait(fd, to, 1, 3'600'000, nullptr);
                       });
                     },
                     1, set},
        waiting_call{"recv with a time-out",
                     [](event&, sockets& s) {
                       char byte = 0;
                       return ::recv(s.reader(), &byte, 1, 0);
                     },
                     1, send},
        waiting_call{"read with a time-out",
                     [](event&, sockets& s) {
                       char byte = 0;
                       return ::read(s.reader(), &byte, 1);
                     },
                     1, send},
        waiting_call{"recvmsg with a time-out",
                     [](event&, sockets& s) {
                       char byte = 0;
                       iovec one{.iov_base = &byte, .iov_len = 1};
                       msghdr message{};
                       message.msg_iov = &one;
                       message.msg_iovlen = 1;
                       return ::recvmsg(s.reader(), &message, 0);
                     },
                     1, send},
        waiting_call{"nanosleep",
                     [](event&, sockets&) -> long { return ::nanosleep(&moment, nullptr); }, 0,
                     nothing},
        waiting_call{"clock_nanosleep",
                     [](event&, sockets&) -> long {
                       return ::clock_nanosleep(CLOCK_MONOTONIC, 0, &moment, nullptr);
                     },
                     0, nothing}));

// ---- threads whose stacks are taken

/// Calls that time out after a few hundred microseconds, and computing in between.
struct storm {
  std::atomic<int> calls{0};
  std::atomic<int> interrupted{0};

  void run() {
    const sockets s;
    const timeval soon{.tv_sec = 0, .tv_usec = 300};
    ::setsockopt(s.reader(), SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon);
    const timespec short_time{.tv_sec = 0, .tv_nsec = 100'000};
    unsigned round = 0;
    while (stalls::let_signals_in(), !stalls::released.load(std::memory_order_relaxed)) {
      for (unsigned i = 0; i != 200'000 + round % 7 * 300'000; ++i) asm volatile("");
      errno = 0;
      switch (round++ % 4) {
        case 0:
          (void)::poll(nullptr, 0, 1);
          break;
        case 1:
          (void)::nanosleep(&short_time, nullptr);
          break;
        case 2: {
          char byte = 0;
          (void)!::recv(s.reader(), &byte, 1, 0);
          break;
        }
        default: {
          timeval timeout{.tv_sec = 0, .tv_usec = 200};
          (void)::select(0, nullptr, nullptr, nullptr, &timeout);
        }
      }
      ++calls;
      if (errno == EINTR) ++interrupted;
    }
  }
};

class delivered : public testing::TestWithParam<stack_capture::delivery> {
 protected:
  void SetUp() override { ASSERT_TRUE(stack_capture::install(SIGURG)); }
};

TEST_P(delivered, ends_no_system_call_early) {
  if (GetParam() == stack_capture::delivery::at_once && !calls_can_be_made_again()) {
    GTEST_SKIP() << "this C library's calls are not recognised";
  }
#if defined(PULSE_TEST_TSAN)
  GTEST_SKIP() << "ThreadSanitizer delivers signals elsewhere";
#endif
  stalls::released = false;
  storm s;
  int taken = 0;
  const auto end = std::chrono::steady_clock::now() + 60s;  // on a busy machine
  {
    pulse_test::stuck_poll poll([&s] { s.run(); });
    stack_capture capture(GetParam());
    asio_pulse::detail::thread_files files;
    asio_pulse::detail::thread_probe probe(poll.tid(), files);
    while ((s.calls < 1'000 || taken < 100) && std::chrono::steady_clock::now() < end) {
      const auto place = probe.where();
      if (place.known && place.blocked) {
        std::this_thread::yield();
        continue;
      }
      const auto r = capture.take(poll.tid(), SIGURG, poll.state(), poll.start(), 100ms, 4096);
      if (r.how == stack_capture::result::status::taken) ++taken;
      if (r.task != nullptr) asio_pulse::hooks::release(*r.task);
    }
  }
  EXPECT_GE(s.calls, 200);
  EXPECT_GE(taken, 20);
  EXPECT_EQ(s.interrupted, 0) << "of " << s.calls << " calls, beside " << taken << " stacks";
  std::printf("%d calls, %d stacks\n", s.calls.load(), taken);
}

INSTANTIATE_TEST_SUITE_P(ways, delivered,
                         testing::Values(stack_capture::delivery::at_once,
                                         stack_capture::delivery::by_timer));

}  // namespace
