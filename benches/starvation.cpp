// SPDX-License-Identifier: BSL-1.0
//
// How late a 1 ms timer fires beside a storm of small handlers on the same thread. Four storms that
// freeze plain Boost.Asio, one source, built as starvation_stock and starvation_pulse. The storm is
// a task with a budget of 0.5 ms in 5 ms; the timer is nobody's.

#include "annotations.hpp"
#include "measure.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;
using clock_type = std::chrono::steady_clock;

constexpr auto work = 10us;

/// Counts the storm's handlers and sees that they ran in the order in which they were started.
struct progress {
  unsigned total;
  unsigned done = 0;
  bool ordered = true;

  bool over() const { return done == total; }

  void step(unsigned number) {
    bench::spin(work);
    ordered = ordered && number == done;
    ++done;
  }
};

/// Sleeps 1 ms at a time until the storm is over, and keeps how late each wake-up was.
class probe {
 public:
  probe(bench::io_context& io, const progress& storm) : timer_{io}, storm_{storm} {}

  void arm() {
    due_ = clock_type::now() + 1ms;
    timer_.expires_at(due_);
    timer_.async_wait([this](const boost::system::error_code& error) {
      if (error) return;
      const std::chrono::duration<double, std::milli> late = clock_type::now() - due_;
      lateness_ms_.push_back(late.count());
      if (!storm_.over()) arm();
    });
  }

  const std::vector<double>& lateness_ms() const { return lateness_ms_; }

 private:
  asio::steady_timer timer_;
  const progress& storm_;
  clock_type::time_point due_;
  std::vector<double> lateness_ms_;
};

template <class Executor>
void storm_of_posts(const Executor& executor, progress& storm) {
  for (unsigned i = 0; i < storm.total; ++i) {
    asio::post(executor, [&storm, i] { storm.step(i); });
  }
}

/// A handler that dispatches the next one: Asio calls it at once, inside the first, and so on down
/// the stack.
void recurse(bench::io_context& io, progress& storm) {
  storm.step(storm.done);
  if (storm.over()) return;
  auto next = [&io, &storm] { recurse(io, storm); };
  if (bench::should_yield()) {
    asio::post(io, std::move(next));
  } else {
    asio::dispatch(io, std::move(next));
  }
}

asio::awaitable<void> child(progress& storm) {
  storm.step(storm.done);
  co_return;
}

asio::awaitable<void> storm_of_children(progress& storm) {
  while (!storm.over()) {
    co_await child(storm);
    ASIO_PULSE_CHECKPOINT();
  }
}

void start_storm(bench::io_context& io, const std::string& scenario, progress& storm) {
  const bench::task_scope scope{bench::task{io, 500us, 5ms}};
  if (scenario == "posts") {
    storm_of_posts(io.get_executor(), storm);
  } else if (scenario == "strand") {
    storm_of_posts(asio::make_strand(io), storm);
  } else if (scenario == "dispatch") {
    asio::post(io, [&io, &storm] { recurse(io, storm); });
  } else if (scenario == "children") {
    asio::co_spawn(io, storm_of_children(storm), asio::detached);
  } else {
    throw std::invalid_argument("no scenario called " + scenario);
  }
}

void run(const std::string& scenario, unsigned handlers) {
  bench::io_context io{1};
  progress storm{handlers};
  probe timer{io, storm};
  start_storm(io, scenario, storm);
  timer.arm();  // after the storm was queued: to queue it is not what is measured
  const auto start = clock_type::now();
  io.run();
  const std::chrono::duration<double, std::milli> took = clock_type::now() - start;

  if (!storm.over() || !storm.ordered || timer.lateness_ms().empty()) {
    throw std::runtime_error(scenario + ": handlers were lost or out of order");
  }
  std::printf(R"({"scenario":"%s","fired":%zu,"p50_ms":%.4f,"max_ms":%.4f,"took_ms":%.1f,)"
              R"("pulse":%s})"
              "\n",
              scenario.c_str(), timer.lateness_ms().size(), bench::median(timer.lateness_ms()),
              *std::max_element(timer.lateness_ms().begin(), timer.lateness_ms().end()),
              took.count(), bench::stats_json(io).c_str());
}

struct arguments {
  std::string scenario;
  unsigned handlers;
};

/// Plain Asio needs the stack: the recursion is as deep as the storm is long.
void* run_with_deep_stack(void* raw) try {
  const auto& args = *static_cast<const arguments*>(raw);
  run(args.scenario, args.handlers);
  return nullptr;
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return raw;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 || std::atoi(argv[2]) <= 0) {
    std::fprintf(stderr, "usage: %s posts|strand|dispatch|children HANDLERS\n", argv[0]);
    return 2;
  }
  arguments args{argv[1], static_cast<unsigned>(std::atoi(argv[2]))};
  pthread_attr_t attributes;
  pthread_t thread;
  if (pthread_attr_init(&attributes) != 0 ||
      pthread_attr_setstacksize(&attributes, std::size_t{64} << 20) != 0 ||
      pthread_create(&thread, &attributes, &run_with_deep_stack, &args) != 0) {
    std::perror("thread");
    return 1;
  }
  void* failed = nullptr;
  pthread_join(thread, &failed);
  return failed == nullptr ? 0 : 1;
}
