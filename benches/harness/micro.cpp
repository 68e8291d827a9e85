// SPDX-License-Identifier: BSL-1.0
//
// The parts of the poll path separately, for Google Benchmark. Each checks its result, and reports
// an error instead of a time if that is wrong.

#include "../annotations.hpp"
#include "../poll_loops.hpp"

#include <asio_pulse/asio_pulse.hpp>
#include <asio_pulse/preemptible.hpp>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>

#include <benchmark/benchmark.h>
#include <time.h>

#include <cstdint>

namespace {

namespace timing = asio_pulse::timing;
using benchmark::State;
using namespace std::chrono_literals;

void loop(State& state) {
  std::uint64_t n = 0;
  for (auto _ : state) benchmark::DoNotOptimize(++n);
}
BENCHMARK(loop);

void clock_chained(State& state) {
  timing::poll_clock clock;
  clock.attach(timing::default_clock().kind);
  clock.stamp();
  timing::ticks cost = 0;
  for (auto _ : state) benchmark::DoNotOptimize(cost += clock.take().cost);
  if (cost == 0) state.SkipWithError("the clock did not count");
}
BENCHMARK(clock_chained);

void clock_two_reads(State& state) {
  timing::poll_clock clock;
  clock.attach(timing::default_clock().kind);
  timing::ticks cost = 0;
  for (auto _ : state) {
    clock.stamp();
    benchmark::DoNotOptimize(cost += clock.take().cost);
  }
  if (cost == 0) state.SkipWithError("the clock did not count");
}
BENCHMARK(clock_two_reads);

void clock_thread_cputime(State& state) {
  timespec now{};
  for (auto _ : state) benchmark::DoNotOptimize(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now));
  if (now.tv_sec == 0 && now.tv_nsec == 0) state.SkipWithError("the clock did not count");
}
BENCHMARK(clock_thread_cputime);

/// A tenth of the CPU; each charge is of \p cost in 1000 ticks.
void charge(State& state, timing::ticks cost, bool expected) {
  asio_pulse::task_budget budget;
  budget.configure(1'000'000, 10'000'000);
  std::uint64_t now = 0;
  bool over = false;
  for (auto _ : state) benchmark::DoNotOptimize(over = budget.charge(now += 1000, cost));
  // In debt only after its burst is spent.
  if (over != expected && now > 2'000'000) state.SkipWithError("over budget, or not, wrongly");
}
void budget_charge(State& state) { charge(state, 90, false); }
void budget_charge_over(State& state) { charge(state, 900, true); }
BENCHMARK(budget_charge);
BENCHMARK(budget_charge_over);

/// No thresholds and no watchdog, so that nothing happens however long the measurement takes.
asio_pulse::options calm() {
  asio_pulse::options o;
  o.stall_threshold = o.yield_threshold = o.isolate_threshold = 0ns;
  o.quantum = 1h;
  o.watchdog = false;
  o.inspectable = false;
  return o;
}

/// One operation of a chain of posts in a task with that budget, in batches.
template <class Check>
void chain(State& state, asio_pulse::options o, std::chrono::nanoseconds budget,
           std::chrono::nanoseconds per, Check check) {
  constexpr std::int64_t batch = 1000;
  o.on_report = [](const asio_pulse::report&) {};
  bench::io_context io{std::move(o), 1};
  const bench::task task{io, budget, per};
  const asio_pulse::task_scope scope{task};
  std::uint64_t ran = bench::post_chain(io, batch);  // and the task is in the tier that it comes to
  while (state.KeepRunningBatch(batch)) {
    io.restart();
    ran += bench::post_chain(io, batch);
  }
  if (ran == 0 || task.polls() < ran || !check(io.stats(), ran)) {
    state.SkipWithError("not what was to be measured");
  }
}

/// The hooks of one poll: created, begun, accounted for, ended; Asio's own share included.
void hook_poll(State& state) {
  chain(state, calm(), 5ms, 5ms, [](const auto& did, auto) { return did.yields == 0; });
}
BENCHMARK(hook_poll);

void hook_fire(State& state) {
  asio_pulse::hooks::registry registry;
  std::uint64_t fired = 0;
  const auto installed = registry.install({.after_poll = [&fired](const auto&) { ++fired; }});
  const asio_pulse::hooks::poll_event event{.task_id = 1};
  for (auto _ : state) registry.after_poll(event);
  if (fired < static_cast<std::uint64_t>(state.iterations()))
    state.SkipWithError("a hook was not called");
}
BENCHMARK(hook_fire);

void should_yield(State& state) {
  asio_pulse::io_context io{calm(), 1};
  const asio_pulse::task task{io, {.name = "asked", .budget = 1s, .per = 1s}};
  asio_pulse::post(task, [&state] {
    bool wanted = false;
    for (auto _ : state) benchmark::DoNotOptimize(wanted |= asio_pulse::should_yield());
    if (wanted) state.SkipWithError("a yield was wanted where none was due");
  });
  io.run();
}
BENCHMARK(should_yield);

boost::asio::awaitable<void> checkpoints(State& state) {
  for (auto _ : state) co_await asio_pulse::checkpoint();
}

void checkpoint(State& state) {
  asio_pulse::io_context io{calm(), 1};
  const asio_pulse::task task{io, {.name = "asked", .budget = 1s, .per = 1s}};
  asio_pulse::co_spawn(task, checkpoints(state), boost::asio::detached);
  io.run();
  if (io.stats().checkpoint_yields != 0) state.SkipWithError("a yield where none was due");
}
BENCHMARK(checkpoint);

void fiber_switch(State& state) {
  namespace detail = asio_pulse::detail;
  detail::fiber_block* const b = detail::take_fiber(detail::fiber_size_class(65536));
  if (b == nullptr) return state.SkipWithError("no fiber");
  if (b->discard == nullptr) detail::make_fiber(*b);
  benchmark::IterationCount switched = 0;
  detail::fiber_machine& m = detail::machine_of(*b);
  m.argument = &switched;
  m.job = [](detail::fiber_block& self, void* counter) {
    while (!self.unwinding) {
      ++*static_cast<benchmark::IterationCount*>(counter);
      detail::leave_fiber(self);
    }
  };
  for (auto _ : state) detail::enter_fiber(*b);
  if (switched != state.iterations()) state.SkipWithError("switches were lost");
  detail::unwind_fiber(*b);
}
BENCHMARK(fiber_switch);

void decide(State& state, timing::ticks cost, asio_pulse::tier expected) {
  const auto limits = asio_pulse::make_tier_limits(asio_pulse::options{});
  asio_pulse::task_budget budget;
  budget.configure(1'000'000, 10'000'000);
  asio_pulse::tier_state task;
  timing::ticks now = 0;
  for (auto _ : state) {
    now += 1000;
    benchmark::DoNotOptimize(
        asio_pulse::tier_manager::on_poll(task, budget, {.now = now, .cost = cost}, limits));
  }
  if (task.level != expected) state.SkipWithError("not in the tier that was expected");
}
void tier_calm(State& state) { decide(state, 100, asio_pulse::tier::monitor); }
void tier_offence(State& state) {
  const auto limits = asio_pulse::make_tier_limits(asio_pulse::options{});
  decide(state, limits.slow_poll + 1, asio_pulse::tier::warn);
}
BENCHMARK(tier_calm);
BENCHMARK(tier_offence);

}  // namespace

BENCHMARK_MAIN();
