// SPDX-License-Identifier: BSL-1.0
//
// The cost of synchronous code that yields: a fiber switch and back compared with plain
// Boost.Context, preemptible(handler) compared with the plain handler, the memory of parked fibers,
// and how late a probe is beside a hog on a fiber. Prints one line of JSON. Fails if a result is
// wrong, but not if it is slow.

#include "measure.hpp"

#include <asio_pulse/asio_pulse.hpp>
#include <asio_pulse/preemptible.hpp>

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/context/fiber.hpp>
#include <boost/context/fixedsize_stack.hpp>

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

namespace asio = boost::asio;
namespace detail = asio_pulse::detail;
using namespace std::chrono_literals;
using clock_type = std::chrono::steady_clock;

constexpr std::uint64_t loops = 1'000'000;
constexpr int rounds = 9;

using bench::figures;

void measure_switch(figures& out) {
  std::uint64_t bare = 0;
  {
    boost::context::fiber inside{std::allocator_arg, boost::context::fixedsize_stack(),
                                 [&bare](boost::context::fiber&& outside) {
                                   for (;;) {
                                     ++bare;
                                     outside = std::move(outside).resume();
                                   }
                                   return std::move(outside);
                                 }};
    out["switch there and back, bare Boost.Context"] =
        bench::ns_per_operation(loops, rounds, [&](std::uint64_t count) {
          for (std::uint64_t i = 0; i < count; ++i) inside = std::move(inside).resume();
        });
  }
  detail::fiber_block* const b = detail::take_fiber(detail::fiber_size_class(65536));
  if (b == nullptr) throw std::runtime_error("no fiber");
  if (b->discard == nullptr) detail::make_fiber(*b);
  std::uint64_t ours = 0;
  detail::fiber_machine& m = detail::machine_of(*b);
  m.argument = &ours;
  m.job = [](detail::fiber_block& self, void* counter) {
    while (!self.unwinding) {
      ++*static_cast<std::uint64_t*>(counter);
      detail::leave_fiber(self);
    }
  };
  out["switch there and back"] = bench::ns_per_operation(loops, rounds, [&](std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; ++i) detail::enter_fiber(*b);
  });
  if (ours != bare || ours == 0) throw std::runtime_error("switches were lost");
  detail::unwind_fiber(*b);
}

/// A handler that posts itself again, plain or on a fiber.
template <bool OnFiber>
struct chain {
  asio_pulse::io_context& io;
  std::uint64_t& left;

  void again() const {
    if constexpr (OnFiber) {
      asio::post(io, asio_pulse::preemptible(*this));
    } else {
      asio::post(io, *this);
    }
  }
  void operator()() const {
    if (--left != 0) again();
  }
};

void measure_preemptible(figures& out) {
  asio_pulse::io_context io{1};
  const auto run = [&]<bool OnFiber>() {
    return bench::ns_per_operation(loops, rounds, [&](std::uint64_t count) {
      std::uint64_t left = count;
      chain<OnFiber>{io, left}.again();
      io.restart();
      if (io.run() != count || left != 0) throw std::runtime_error("handlers were lost");
    });
  };
  out["post, plain handler"] = run.operator()<false>();
  out["post, preemptible handler"] = run.operator()<true>();
  out["preemptible over plain"] = out["post, preemptible handler"] - out["post, plain handler"];
}

void measure_yield(figures& out) {
  asio_pulse::io_context io{asio_pulse::options{.stall_threshold = 0ns,
                                                .yield_threshold = 0ns,
                                                .isolate_threshold = 0ns,
                                                .quantum = 1ns,
                                                .min_slice = 1ns},
                            1};
  std::uint64_t yields = 0;
  out["checkpoint that yields: suspended, posted, resumed"] =
      bench::ns_per_operation(loops / 10, rounds, [&](std::uint64_t count) {
        asio::post(io, asio_pulse::preemptible([&yields, count] {
                     for (std::uint64_t i = 0; i < count; ++i) {
                       while (!asio_pulse::should_yield()) {  // fuel
                       }
                       yields += detail::yield_here();
                     }
                   }));
        io.restart();
        io.run();
      });
  if (yields != (loops / 10) * (rounds + 1)) throw std::runtime_error("checkpoints did not yield");
}

double resident_bytes() {
  std::FILE* const f = std::fopen("/proc/self/statm", "r");
  unsigned long total = 0;
  unsigned long resident = 0;
  if (f == nullptr || std::fscanf(f, "%lu %lu", &total, &resident) != 2) {
    throw std::runtime_error("cannot read /proc/self/statm");
  }
  std::fclose(f);
  return static_cast<double>(resident) * static_cast<double>(sysconf(_SC_PAGESIZE));
}

void measure_memory(figures& out) {
  constexpr int count = 10'000;
  asio_pulse::options o;
  o.quantum = o.min_slice = 1ns;
  asio_pulse::io_context io{o, 1};
  bool go = false;
  int parked = 0;
  int ended = 0;
  const double before = resident_bytes();
  for (int n = 0; n < count; ++n) {
    asio::post(io, asio_pulse::preemptible([&] {
                 ++parked;
                 while (!go) asio_pulse::checkpoint();
                 ++ended;
               }));
  }
  double after = 0;
  asio::steady_timer timer(io, 0ms);
  std::function<void()> look = [&] {
    if (parked < count) return asio::post(io, [&] { look(); });
    after = resident_bytes();
    go = true;
  };
  look();
  io.run();
  if (ended != count) throw std::runtime_error("parked handlers were lost");
  out["resident KiB a parked fiber, of 10 000"] = (after - before) / count / 1024;
  for (const auto& stacks : asio_pulse::fiber_stack_usage()) {
    if (stacks.size == 65536) {
      out["deepest stack, bytes"] = static_cast<double>(stacks.high_water);
    }
  }
}

/// A probe that sleeps 1 ms in a loop, beside a hog with turns of 500 ms and a checkpoint every 20
/// us.
void measure_probe(figures& out) {
  asio_pulse::options o;
  o.quantum = 100us;
  o.min_slice = 50us;
  o.stall_threshold = o.yield_threshold = o.isolate_threshold = 0ns;
  asio_pulse::io_context io{o, 1};
  bool over = false;
  int turns = 0;
  std::function<void()> hog = [&] {
    asio::post(io, asio_pulse::preemptible([&] {
                 const auto end = bench::thread_cpu_time() + 500ms;
                 while (bench::thread_cpu_time() < end && !over) {
                   bench::spin(20us);
                   asio_pulse::checkpoint();
                 }
                 ++turns;
                 if (!over) hog();
               }));
  };
  asio::steady_timer timer(io);
  std::vector<double> late_ms;
  clock_type::time_point due;
  std::function<void()> arm = [&] {
    due = clock_type::now() + 1ms;
    timer.expires_at(due);
    timer.async_wait([&](const boost::system::error_code&) {
      const std::chrono::duration<double, std::milli> late = clock_type::now() - due;
      late_ms.push_back(late.count());
      over = late_ms.size() == 3000;
      if (!over) arm();
    });
  };
  hog();
  arm();
  io.run();
  std::sort(late_ms.begin(), late_ms.end());
  out["probe beside the hog: p50 ms"] = late_ms[late_ms.size() / 2];
  out["probe beside the hog: p99 ms"] = late_ms[late_ms.size() * 99 / 100];
  out["probe beside the hog: max ms"] = late_ms.back();
}

}  // namespace

int main() try {
  figures out;
  measure_switch(out);
  measure_preemptible(out);
  measure_yield(out);
  measure_memory(out);
  measure_probe(out);
  bench::print_json(out);
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
