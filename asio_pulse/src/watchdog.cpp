// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/detail/watchdog.hpp>

#if defined(__linux__)

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <new>
#include <utility>

#include "background_thread.hpp"
#include "thread_slices.hpp"
#include "watchdog_thread.hpp"

namespace asio_pulse::detail {
namespace {

// Repeated reports about one stall are at most so far apart: between a log that fills, and one that
// forgets a worker that has been stuck for an hour. A guess.
constexpr std::chrono::seconds longest_step{10};
// A stall is looked at at least so often, for its end. Its poll tells of it, as a rule: this is for
// those that cannot. With spare workers, their threads are to be taken back soon.
constexpr std::chrono::milliseconds glance{50};
constexpr std::chrono::milliseconds glance_with_spares{10};

// The watchdog was away for so long while it looked. A guess: above what a busy machine, and a
// receiver of reports that writes to a disk, make of it as a rule.
constexpr std::chrono::milliseconds long_look{20};

// From one CPU to another, at most so often: where all are busy it brings nothing.
constexpr std::chrono::milliseconds between_moves{10};

// Between two looks, at least. The watchdog may have taken the CPU of the very thread that it looks
// at: that thread gets on only while nobody looks.
constexpr std::chrono::microseconds breath{50};

// Below this a stall is a slow poll, reported when it has ended: the watchdog would do nothing but
// look.
constexpr std::chrono::microseconds least_threshold{500};

constexpr int default_signal = SIGURG;

stall_watch::ticks ticks_or_off(std::chrono::nanoseconds value) noexcept {
  return value.count() == 0 ? stall_watch::off
                            : std::max<timing::ticks>(timing::timebase::get().from_ns(value), 1);
}

void futex(std::atomic<std::uint32_t>& word, int operation, std::uint32_t value,
           const timespec* timeout) noexcept {
  static_assert(sizeof word == sizeof(std::uint32_t));
  const int saved = errno;
  ::syscall(SYS_futex, &word, operation | FUTEX_PRIVATE_FLAG, value, timeout, nullptr, 0);
  errno = saved;
}

std::chrono::nanoseconds own_cpu_time() noexcept {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return std::chrono::seconds{t.tv_sec} + std::chrono::nanoseconds{t.tv_nsec};
}

// The watchdog's timer may fire on the CPU of the very thread that spins, which the kernel lets
// finish its slice (EEVDF: some milliseconds) before somebody who asks for as much. Who asks for
// less goes first, and gets no more of the CPU for it. From Linux 6.12 on; older ones ignore it.
// Threads that are started here do without.
void ask_for_short_slices() noexcept {
  constexpr std::chrono::microseconds shortest{100};  // the kernel's own bound
  scheduling_attributes before;
  if (!request_slice(shortest, before)) return;
  scheduling_attributes mine;
  if (!read_scheduling(mine)) return;
  mine.flags |= attribute_reset_on_fork;
  (void)write_scheduling(mine);
}

// Takes the thread out of the registry when it ends, while its thread_state is still there.
struct exit_guard {
  ~exit_guard() {
    if (state != nullptr) watchdog::get().remove(*state);
  }
  hooks::thread_state* state = nullptr;
};
thread_local exit_guard at_exit;

}  // namespace

// ---- the registry

watchdog& watchdog::get() noexcept { return process_wide<watchdog>(); }

void watchdog::add(hooks::thread_state& ts) {
  auto worker = std::make_unique<watched_worker>();
  worker->state = &ts;
  worker->number = static_cast<pid_t>(::syscall(SYS_gettid));
  worker->id = std::this_thread::get_id();
  {
    const std::lock_guard lock(mutex_);
    worker->serial = ++last_serial_;
    worker->seen = ts.clock.last();
    workers_.push_back(std::move(worker));
    ts.registered = true;
    at_exit.state = &ts;
    start();
  }
  ring();
}

void watchdog::remove(hooks::thread_state& ts) noexcept {
  {
    std::unique_lock lock(mutex_);
    const auto here = [&ts](const auto& w) { return w->state == &ts; };
    auto at = std::find_if(workers_.begin(), workers_.end(), here);
    if (at == workers_.end()) return;
    watched_worker& worker = **at;
    done_.wait(lock, [&worker] { return !worker.pinned; });
    if (worker.stall.core == nullptr) {
      at = std::find_if(workers_.begin(), workers_.end(), here);  // others may have gone meanwhile
      workers_.erase(at);
      return;
    }
    // The end of its stall is still to be told: the watchdog does, and forgets it then.
    const bool told = ts.stall.load(std::memory_order_relaxed) != worker.stall.start;
    worker.end =
        told ? ts.stall_end.load(std::memory_order_relaxed) : timing::timebase::get().now();
    worker.state = nullptr;
  }
  ring();
}

void watchdog::add(context_core& core) {
  const options& o = core.opts();
  const auto& base = timing::timebase::get();
  watched_context context;
  context.core = &core;
  context.limits.threshold =
      ticks_or_off(std::max<std::chrono::nanoseconds>(o.stall_threshold, least_threshold));
  context.limits.yield = ticks_or_off(o.yield_threshold);
  context.limits.isolate = ticks_or_off(o.isolate_threshold);
  context.limits.max_critical = ticks_or_off(o.max_critical);
  context.limits.longest_step =
      base.from_ns(std::max<std::chrono::nanoseconds>(longest_step, o.stall_threshold));
  context.limits.glance = base.from_ns(o.spare_workers != 0 ? glance_with_spares : glance);
  context.signal = o.stall_signal == 0 ? default_signal : o.stall_signal;
  if (context.signal > 0 && !stack_capture::install(context.signal)) context.signal = -1;
  const std::lock_guard lock(mutex_);
  contexts_.push_back(context);
  // Nobody is looking: the first poll wakes whoever does, as those of the others will.
  if (armed_ || !running_) arm(core);
}

void watchdog::remove(context_core& core) noexcept {
  std::unique_lock lock(mutex_);
  std::erase_if(contexts_, [&core](const watched_context& c) { return c.core == &core; });
  // Not for itself: then this is a report whose receiver destroys the context.
  if (!on_own_thread()) done_.wait(lock, [this, &core] { return busy_ != &core; });
  for (;;) {
    const auto at = std::find_if(workers_.begin(), workers_.end(),
                                 [&core](const auto& w) { return w->stall.core == &core; });
    if (at == workers_.end()) return;
    watched_worker& worker = **at;
    open_stall left = std::exchange(worker.stall, {});
    worker.watch.dismiss();
    if (left.demoted.changed && worker.state != nullptr) restore(worker.number, left.demoted);
    lock.unlock();
    if (!left.shown) core.hold_back_stall(left.what);
    drop(left);
    lock.lock();
  }
}

void watchdog::drop(open_stall& s) noexcept {
  if (task_state* t = std::exchange(s.what.task, nullptr)) hooks::release(*t);
  if (context_core* core = std::exchange(s.core, nullptr)) core->release();
}

watched_context* watchdog::find(const hooks::path_observer* observer) noexcept {
  if (observer == nullptr) return nullptr;
  for (watched_context& c : contexts_) {
    if (c.core == observer) return &c;
  }
  return nullptr;
}

watched_worker* watchdog::find(std::uint64_t serial) noexcept {
  for (const auto& w : workers_) {
    if (w->serial == serial) return w.get();
  }
  return nullptr;
}

// ---- sleeping and waking

void watchdog::arm(context_core& core) noexcept {
  // Relaxed: see look() for why nobody misses it.
  core.state.fetch_or(hooks::path_state::wake_watchdog, std::memory_order_relaxed);
}

void watchdog::arm_all(bool on) noexcept {
  if (std::exchange(armed_, on) == on) return;
  for (const watched_context& c : contexts_) {
    if (on) {
      arm(*c.core);
    } else {
      c.core->state.fetch_and(~hooks::path_state::wake_watchdog, std::memory_order_relaxed);
    }
  }
}

void watchdog::ring() noexcept {
  bell_.fetch_add(1, std::memory_order_release);
  futex(bell_, FUTEX_WAKE, 1, nullptr);
}

void watchdog::wake() noexcept {
  // Relaxed: a thread that sees the flag of a fork's child has been there since.
  if (!running_.load(std::memory_order_relaxed)) {
    const std::lock_guard lock(mutex_);
    start();
  }
  ring();
}

// Until somebody rings, or `timeout` is over; negative: for good.
void watchdog::wait(std::uint32_t seen, std::chrono::nanoseconds timeout) noexcept {
  if (timeout.count() < 0) {
    futex(bell_, FUTEX_WAIT, seen, nullptr);
    return;
  }
  timespec t{};
  t.tv_sec = static_cast<time_t>(timeout.count() / 1'000'000'000);
  t.tv_nsec = static_cast<long>(timeout.count() % 1'000'000'000);
  futex(bell_, FUTEX_WAIT, seen, &t);
}

// ---- the thread

// The mutex is held.
void watchdog::start() noexcept {
  if (running_.load(std::memory_order_relaxed)) return;
  if (start_background_thread(this)) running_.store(true, std::memory_order_relaxed);
}

bool watchdog::on_own_thread() const noexcept {
  return own_thread_.load(std::memory_order_relaxed) == std::this_thread::get_id();
}

// Off the CPU that a worker could run on now, if the process may use another. A sleeper's timer
// wakes it where it slept, and the kernel does not always look for a CPU that is free.
void watchdog::move_away(timing::ticks now) noexcept {
  if (stall_watch::between(moved_, now) < timing::timebase::get().from_ns(between_moves)) return;
  moved_ = now;
  cpu_set_t allowed;
  // Where the program may run, by its first thread: not by the one that started this, which may
  // have been bound to its CPU.
  if (::sched_getaffinity(::getpid(), sizeof allowed, &allowed) != 0) return;
  const int here = ::sched_getcpu();
  if (here < 0 || here >= CPU_SETSIZE) return;
  CPU_CLR(static_cast<std::size_t>(here), &allowed);
  if (CPU_COUNT(&allowed) != 0) (void)::sched_setaffinity(0, sizeof allowed, &allowed);
}

void watchdog::run() noexcept {
  ::pthread_setname_np(::pthread_self(), "pulse-watch");
  ::prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL);
  ask_for_short_slices();
  own_thread_.store(std::this_thread::get_id(), std::memory_order_relaxed);
  const auto& base = timing::timebase::get();
  timing::ticks planned = 0;
  std::chrono::nanoseconds used = own_cpu_time();
  section_.lock();
  for (;;) {
    // Acquire, pairs with the release in ring(): what was there to see when it rang.
    const std::uint32_t seen = bell_.load(std::memory_order_acquire);
    const bool rung = std::exchange(last_bell_, seen) != seen;
    const timing::ticks now = base.now();
    const timing::ticks overslept = planned != 0 ? stall_watch::between(planned, now) : 0;
    const verdict next = look(now, overslept, rung);
    section_.unlock();
    if (std::exchange(in_the_way_, false)) move_away(now);
    const timing::ticks after = base.now();
    const std::chrono::nanoseconds used_before = std::exchange(used, own_cpu_time());
    if (next.for_good) {
      planned = 0;
      wait(seen, std::chrono::nanoseconds{-1});
    } else {
      // A look takes time, and what was done about it. Where it took long and was not this thread's
      // work, the process may have been stopped.
      const std::chrono::nanoseconds took = base.to_ns(stall_watch::between(now, after));
      const auto lost = took - (used - used_before);
      const std::chrono::nanoseconds left = base.to_ns(stall_watch::between(after, next.at));
      const std::chrono::nanoseconds pause = std::max<std::chrono::nanoseconds>(left, breath);
      planned = after + base.from_ns(pause);
      if (left.count() == 0 && lost >= long_look) planned -= base.from_ns(lost);
      wait(seen, pause);
    }
    section_.lock();
  }
}

// ---- fork

// The child must find the registry whole, and what the watchdog may have locked in its name: a
// core's mutex, the allocator's.
void watchdog::before_fork() noexcept {
  section_.lock();
  mutex_.lock();
}

void watchdog::after_fork(bool child) noexcept {
  if (child) {
    const bool here = on_own_thread();  // a report's receiver forked
    running_.store(here, std::memory_order_relaxed);
    busy_ = here ? busy_ : nullptr;
    // Nobody waits here, whoever did in the parent.
    new (&done_) std::condition_variable;
    const hooks::thread_state& self = hooks::this_thread();
    for (auto& worker : workers_) {
      if (worker->state != &self) {
        // Its thread, with its stall, does not exist here; what the stall refers to is given up.
        worker->stall = {};
        continue;
      }
      worker->number = static_cast<pid_t>(::syscall(SYS_gettid));
      worker->probe = thread_probe{};
      worker->probed = false;
      worker->evidence = {};
      worker->pinned = false;
      worker->watch = {};
      worker->stall = {};
      worker->state->stall.store(0, std::memory_order_relaxed);
    }
    std::erase_if(workers_, [&self](const auto& worker) { return worker->state != &self; });
    if (!here) own_thread_.store({}, std::memory_order_relaxed);
    // Whatever the parent's was in the middle of.
    (void)symbolizer_.release();
    (void)capture_.release();
    armed_ = !here;
    for (const watched_context& c : contexts_) {
      if (!here) arm(*c.core);
    }
  }
  mutex_.unlock();
  section_.unlock();
}

// ---- the interface

void watch_this_thread(hooks::thread_state& ts) noexcept {
  if (ts.registered) return;
  try {
    watchdog::get().add(ts);
  } catch (const std::bad_alloc&) {  // not watched
  }
}

void watch_context(context_core& core) noexcept {
  try {
    watchdog::get().add(core);
  } catch (const std::bad_alloc&) {  // not watched
  }
}

void forget_context(context_core& core) noexcept {
  if (core.watched()) watchdog::get().remove(core);
}

void wake_watchdog() noexcept { watchdog::get().wake(); }

user_code_scope::user_code_scope() noexcept { watchdog::get().leave_section(); }
user_code_scope::~user_code_scope() { watchdog::get().enter_section(); }

}  // namespace asio_pulse::detail

#else

namespace asio_pulse::detail {

// Nothing of this exists elsewhere yet: polls are reported when they end.
void watch_this_thread(hooks::thread_state&) noexcept {}
void watch_context(context_core&) noexcept {}
void forget_context(context_core&) noexcept {}
void wake_watchdog() noexcept {}
user_code_scope::user_code_scope() noexcept = default;
user_code_scope::~user_code_scope() = default;

}  // namespace asio_pulse::detail

#endif
