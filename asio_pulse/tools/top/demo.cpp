// SPDX-License-Identifier: BSL-1.0
//
// A server to try pulse_top on. It runs some hundred quick handlers a second and one bad one, which
// the command line chooses and pulse_top finds.
//
//   pulse_top_demo KIND [SECONDS]
//
// KIND is slow, lock, sleep, self, stuck, many, names (such as an attacker would choose), none, or
// dns, which is bad if the name server is slow to answer.

#include <asio_pulse/asio_pulse.hpp>

#include <boost/asio/basic_waitable_timer.hpp>
#include <boost/asio/post.hpp>

#include <netdb.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace demo {

using namespace std::chrono_literals;
using clock = std::chrono::steady_clock;

// Uses the CPU; does not sleep.
void compute(std::chrono::nanoseconds how_long) {
  const auto end = clock::now() + how_long;
  while (clock::now() < end) {
  }
}

void compute_for_ever() {
  for (volatile bool goes_on = true; goes_on;) {
  }
}

void hash_document() {
  const auto end = clock::now() + 60ms;
  std::size_t hash = 0;
  while (clock::now() < end) hash = std::hash<std::size_t>{}(hash) + 1;
}

std::mutex prices_mutex;

// Another thread holds the lock for long, again and again.
void hold_prices() {
  const std::scoped_lock lock(prices_mutex);
  std::this_thread::sleep_for(150ms);
}
void read_prices() { const std::scoped_lock lock(prices_mutex); }

void look_up_peer() {
  addrinfo* found = nullptr;
  // A reserved name (RFC 2606), which is never found.
  if (::getaddrinfo("backend.invalid", "80", nullptr, &found) == 0) ::freeaddrinfo(found);
}

void retry_later() { std::this_thread::sleep_for(80ms); }

// Calls `what` every `period`, as a handler of the task.
template <typename What>
class again : public std::enable_shared_from_this<again<What>> {
 public:
  again(asio_pulse::task& t, std::chrono::milliseconds period, What what)
      : timer_(t.get_executor()), period_(period), what_(std::move(what)) {}

  void go() {
    timer_.expires_after(period_);
    timer_.async_wait([self = this->shared_from_this()](const boost::system::error_code& ec) {
      if (ec) return;
      self->what_();
      self->go();
    });
  }

 private:
  // With the type of the task's executor, since the one of boost::asio::steady_timer hides the
  // handler's type.
  using executor = decltype(std::declval<asio_pulse::task&>().get_executor());
  boost::asio::basic_waitable_timer<clock, boost::asio::wait_traits<clock>, executor> timer_;
  std::chrono::milliseconds period_;
  What what_;
};

template <typename What>
void every(asio_pulse::task& t, std::chrono::milliseconds period, What what) {
  std::make_shared<again<What>>(t, period, std::move(what))->go();
}

// Looks for work all the time instead of waiting for it.
struct poller {
  asio_pulse::io_context::executor_type executor;
  void operator()() const {
    compute(5us);
    boost::asio::post(executor, *this);
  }
};

bool add_bad_one(std::string_view kind, asio_pulse::io_context& io, asio_pulse::task& t,
                 std::list<std::jthread>& threads) {
  if (kind == "slow") {
    every(t, 200ms, [] { hash_document(); });
  } else if (kind == "lock") {
    every(t, 100ms, [] { read_prices(); });
    threads.emplace_back([](const std::stop_token& stop) {
      while (!stop.stop_requested()) {
        hold_prices();
        std::this_thread::sleep_for(50ms);
      }
    });
  } else if (kind == "dns") {
    every(t, 1000ms, [] { look_up_peer(); });
  } else if (kind == "sleep") {
    every(t, 300ms, [] { retry_later(); });
  } else if (kind == "self") {
    boost::asio::post(io, poller{io.get_executor()});
  } else if (kind == "stuck") {
    every(t, 1000ms, [] { compute_for_ever(); });
  } else if (kind == "names") {
    // Clears a screen, sets a title, reverses the direction, breaks the line, is invalid UTF-8 and
    // long.
    static asio_pulse::task hostile(
        io, {.name = "\x1b[2J\x1b]0;x\a\r\n\u202e\xff" + std::string(10'000, 'a')});
    every(hostile, 100ms, [] { compute(10ms); });
  } else if (kind != "none") {
    return false;
  }
  return true;
}

int run(std::string_view kind, std::chrono::seconds how_long) {
  asio_pulse::io_context io{
      asio_pulse::options{.on_report = [](const asio_pulse::report&) {}, .name = "demo"}};
  std::list<asio_pulse::task> tasks;
  for (int i = 0; i != 20; ++i) {
    tasks.emplace_back(io, asio_pulse::task_options{.name = "session " + std::to_string(i)});
    every(tasks.back(), 10ms, [] { compute(20us); });
  }
  tasks.emplace_back(io, asio_pulse::task_options{.name = "report"});
  std::list<std::jthread> threads;
  if (kind == "many") {
    for (const char* const each : {"slow", "lock", "dns", "sleep", "self"}) {
      add_bad_one(each, io, tasks.back(), threads);
    }
  } else if (!add_bad_one(kind, io, tasks.back(), threads)) {
    std::fprintf(
        stderr, "usage: pulse_top_demo slow|lock|dns|sleep|self|stuck|many|names|none [SECONDS]\n");
    return 2;
  }
  std::jthread([how_long] {
    std::this_thread::sleep_for(how_long);
    std::_Exit(0);
  }).detach();
  for (int i = 0; i != 2; ++i) threads.emplace_back([&io] { io.run(); });
  threads.back().join();
  return 0;
}

}  // namespace demo

int main(int argc, char** argv) {
  const int seconds = argc > 2 ? std::atoi(argv[2]) : 600;
  return demo::run(argc > 1 ? argv[1] : "", std::chrono::seconds{seconds});
}
