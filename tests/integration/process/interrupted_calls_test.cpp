// SPDX-License-Identifier: BSL-1.0
//
// The program does not notice the signal with which stacks are taken: none of its calls returns
// EINTR.

#include <support/sanitizers.hpp>
#include <support/stuck.hpp>
//
#include "program.hpp"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <ctime>

namespace {

using namespace pulse_test;
using asio_pulse::report;
using asio_pulse::report_kind;
namespace asio = boost::asio;

constexpr int handlers = 900;
constexpr int calls_of_each = 20;

/// The calls that SA_RESTART does not restart, each with a time-out that passes.
class calls {
 public:
  calls() {
    ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends_.data());
    const timeval soon{.tv_sec = 0, .tv_usec = 200};
    ::setsockopt(ends_[0], SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon);
  }
  /// One of them; then computes for a while, a different one each time.
  void make() {
    errno = 0;
    const timespec soon{.tv_sec = 0, .tv_nsec = 50'000};
    switch (made_++ % 6) {
      case 0:
        (void)::poll(nullptr, 0, 0);
        break;
      case 1: {
        timeval timeout{.tv_sec = 0, .tv_usec = 50};
        (void)::select(0, nullptr, nullptr, nullptr, &timeout);
        break;
      }
      case 2: {
        epoll_event event{};
        (void)::epoll_wait(epoll_, &event, 1, 0);
        break;
      }
      case 3:
        (void)::nanosleep(&soon, nullptr);
        break;
      case 4: {
        char byte = 0;
        (void)!::recv(ends_[0], &byte, 1, 0);
        break;
      }
      default:
        (void)::ppoll(nullptr, 0, &soon, nullptr);
    }
    if (errno == EINTR) ++interrupted_;
    for (int i = 0; i != 3'000 + made_ % 11 * 1'500; ++i) asm volatile("");
  }
  [[nodiscard]] int made() const { return made_; }
  [[nodiscard]] int interrupted() const { return interrupted_; }

 private:
  std::array<int, 2> ends_{-1, -1};
  int epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
  int made_ = 0;
  int interrupted_ = 0;
};

int calls_beside_stalls() {
  std::atomic<int> with_stack{0};
  asio_pulse::options o;
  o.stall_threshold = 1ms;
  o.report_interval = 0ns;
  o.reports_per_second = 0;
  o.on_report = [&](const report& r) {
    if (r.kind == report_kind::stall && !r.stack.empty()) ++with_stack;
  };
  asio_pulse::io_context io{o};
  calls c;
  for (int n = 0; n != handlers; ++n) {
    // Computes until the watchdog is about to look, and then makes its calls.
    asio::post(io, [&c, n] {
      burn(std::chrono::microseconds{700 + n % 10 * 60});
      for (int i = 0; i != calls_of_each; ++i) c.make();
    });
  }
  io.run();
  std::printf("%d of %d calls returned EINTR, beside %d stacks\n", c.interrupted(), c.made(),
              with_stack.load());
  require(c.made() >= 16'000, "that many calls");
  require(with_stack >= 20, "stacks are taken at all");
  require(c.interrupted() == 0, "no EINTR");
  return 0;
}
const program beside_stalls{"calls_beside_stalls", &calls_beside_stalls};

TEST(system_calls, are_not_interrupted_by_the_watchdog) {
  if (thread_sanitizer) GTEST_SKIP() << "ThreadSanitizer itself puts signals off to the next call";
  const outcome o = beside_stalls.run();
  EXPECT_TRUE(succeeded(o));
  std::printf("%s", o.out.c_str());
}

}  // namespace
