// SPDX-License-Identifier: BSL-1.0
//
// Messages between two shards. In stock they are posts between two contexts, which a thread runs each.

#include "../../../measure.hpp"
#include "shard_set.hpp"
#include "shards.hpp"

#include <boost/asio/post.hpp>

#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <memory>
#include <stdexcept>
#include <system_error>
#include <thread>

namespace worker {

namespace {

namespace asio = boost::asio;

/// Two threads on two CPUs, so that it is not by chance that they wait for each other.
std::array<std::size_t, 2> two_cpus() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  sched_getaffinity(0, sizeof allowed, &allowed);
  std::array<std::size_t, 2> found{};
  std::size_t n = 0;
  for (std::size_t cpu = 0; cpu != CPU_SETSIZE && n != 2; ++cpu) {
    if (CPU_ISSET(cpu, &allowed)) found[n++] = cpu;
  }
  if (n != 2) throw std::runtime_error("two CPUs are needed");
  return found;
}

[[maybe_unused]] void pin_to(std::size_t cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

/// The two ends between which messages go.
class pair {
 public:
#if defined(BENCH_STOCK)
  template <class F>
  bool send(std::size_t to, F f) {
    asio::post(io_[to], std::move(f));
    return true;
  }
  bench::io_context& of(std::size_t i) { return io_[i]; }
  void run() {
    std::array<std::thread, 2> threads;
    for (std::size_t i = 0; i != 2; ++i) {
      threads[i] = std::thread{[this, i] {
        pin_to(two_cpus()[i]);
        const auto work = asio::make_work_guard(io_[i]);
        io_[i].run();
      }};
    }
    for (std::thread& t : threads) t.join();
  }
  void stop() {
    for (auto& io : io_) io.stop();
  }

 private:
  std::array<boost::asio::io_context, 2> io_{boost::asio::io_context{1},
                                             boost::asio::io_context{1}};
#else
  pair() : shards_{2, options()} {}
  template <class F>
  bool send(std::size_t to, F f) {
    return shards_.try_post(to, std::move(f));
  }
  bench::io_context& of(std::size_t i) { return shards_.shard(i); }
  void run() { shards_.run(); }
  void stop() { shards_.stop(); }

 private:
  static asio_pulse::shard_options options() {
    asio_pulse::shard_options o;
    o.pinned = true;
    const auto cpus = two_cpus();
    o.cpus.assign(cpus.begin(), cpus.end());
    return o;
  }
  asio_pulse::sharded_context shards_;
#endif
};

/// Sends bursts, as long as the other one keeps up.
class flood {
 public:
  flood(pair& p, std::uint64_t messages) : pair_{p}, left_{messages}, messages_{messages} {}

  void start() {
    asio::post(pair_.of(0), [this] { burst(); });
  }
  double ns() const {
    return std::chrono::duration<double, std::nano>(ended_ - started_).count() /
           static_cast<double>(messages_);
  }
  bool in_order() const { return in_order_; }

 private:
  void burst() {
    if (left_ == messages_) started_ = clock_type::now();
    // Not more than mailbox and queue hold, also in stock.
    const std::uint64_t open = sent_ - got_.load(std::memory_order_acquire);
    for (std::uint64_t n = open; n < 200 && left_ != 0; ++n) {
      if (!pair_.send(1, [this, number = sent_] { receive(number); })) break;
      ++sent_;
      --left_;
    }
    if (left_ != 0) asio::post(pair_.of(0), [this] { burst(); });
  }
  void receive(std::uint64_t number) {
    const std::uint64_t got = got_.load(std::memory_order_relaxed);
    in_order_ = in_order_ && number == got;
    got_.store(got + 1, std::memory_order_release);
    if (got + 1 != messages_) return;
    ended_ = clock_type::now();
    pair_.stop();
  }

  pair& pair_;
  std::uint64_t left_;
  const std::uint64_t messages_;
  std::uint64_t sent_ = 0;
  bool in_order_ = true;
  clock_type::time_point started_;
  clock_type::time_point ended_;
  alignas(128) std::atomic<std::uint64_t> got_{0};
};

/// To and fro, so that each wakes the other.
double ns_to_wake(std::uint64_t times, outcome& to) {
  pair p;
  std::uint64_t hops = 0;
  clock_type::time_point start;
  clock_type::time_point end;
  struct hop {
    pair& p;
    std::uint64_t& hops;
    std::uint64_t times;
    clock_type::time_point& start;
    clock_type::time_point& end;
    void operator()() {
      if (hops == 100) start = clock_type::now();  // the first ones do not count
      if (++hops == times + 100) {
        end = clock_type::now();
        return p.stop();
      }
      const bool sent = p.send(hops % 2, *this);
      if (!sent) p.stop();
    }
  };
  asio::post(p.of(0), hop{p, hops, times, start, end});
  p.run();
  to.check(hops == times + 100, "each message arrived");
  return std::chrono::duration<double, std::nano>(end - start).count() / static_cast<double>(times);
}

/// The same with two threads that wait in epoll_wait() for an eventfd.
double ns_of_eventfd(std::uint64_t times) {
  struct side {
    int event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    int poll = epoll_create1(EPOLL_CLOEXEC);
    side() {
      epoll_event wanted{};
      wanted.events = EPOLLIN;
      if (event < 0 || poll < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, event, &wanted) != 0) {
        throw std::system_error(errno, std::generic_category());
      }
    }
    ~side() {
      close(event);
      close(poll);
    }
    void wake() const {
      const std::uint64_t one = 1;
      if (write(event, &one, sizeof one) != sizeof one) std::abort();
    }
    void wait() const {
      epoll_event got{};
      while (epoll_wait(poll, &got, 1, -1) != 1) {
      }
      std::uint64_t count = 0;
      if (read(event, &count, sizeof count) != sizeof count) std::abort();
    }
  };
  const std::array<side, 2> sides;
  const auto cpus = two_cpus();
  std::thread other{[&] {
    pin_to(cpus[1]);
    for (std::uint64_t i = 0; i != times / 2; ++i) {
      sides[1].wait();
      sides[0].wake();
    }
  }};
  double ns = 0;
  std::thread{[&] {
    pin_to(cpus[0]);
    const auto start = clock_type::now();
    for (std::uint64_t i = 0; i != times / 2; ++i) {
      sides[1].wake();
      sides[0].wait();
    }
    ns = std::chrono::duration<double, std::nano>(clock_type::now() - start).count() /
         static_cast<double>(times);
  }}.join();
  other.join();
  return ns;
}

}  // namespace

outcome shards_message(const request& r) {
  outcome result;
  std::vector<double> ns;
  for (int round = 0; round != 5; ++round) {
    pair p;
    flood f{p, r.handlers};
    f.start();
    p.run();
    ns.push_back(f.ns());
    result.check(f.in_order(), "messages arrive in order");
  }
  result.values["message_ns"] = bench::median(ns);
  if (result.verified) result.verification = "each message arrived, in order";
  return result;
}

outcome shards_wake(const request& r) {
  outcome result;
  std::vector<double> wake;
  std::vector<double> eventfd;
  std::vector<double> ratio;
  for (int round = 0; round != 5; ++round) {
    eventfd.push_back(ns_of_eventfd(r.handlers));
    wake.push_back(ns_to_wake(r.handlers, result));
    ratio.push_back(wake.back() / eventfd.back());
  }
  result.values["wake_us"] = bench::median(wake) / 1000;
  result.values["eventfd_us"] = bench::median(eventfd) / 1000;
  result.values["over_eventfd"] = bench::median(ratio);
  if (result.verified) result.verification = "each message arrived";
  return result;
}

}  // namespace worker
