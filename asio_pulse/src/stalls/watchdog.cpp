// SPDX-License-Identifier: BSL-1.0
#include "watchdog.hpp"

#if defined(__linux__)

#include <fcntl.h>
#include <features.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 32)
#include <sys/single_threaded.h>
#endif
#include "process/errno_kept.hpp"
#include "stack_copy.hpp"
#include "thread_exit.hpp"
#include "threads/background_thread.hpp"
#include "threads/signal_stack.hpp"
#include "threads/thread_name.hpp"
#include "threads/thread_number.hpp"
#include "threads/thread_slices.hpp"
#include "watchdog_thread.hpp"

#include <asio_pulse/hooks/assert.hpp>

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <new>
#include <utility>

namespace asio_pulse::detail {
namespace {

// The longest time between two reports about one stall. A guess: with less, the log fills; with
// more, a reader of the log may miss that a worker is still stuck.
constexpr std::chrono::seconds longest_step{10};
// The longest time between two looks at a stall. Normally the poll itself announces its end; this
// is for polls that cannot. Spare workers also have to be stopped soon after the end.
constexpr std::chrono::milliseconds glance{50};
constexpr std::chrono::milliseconds glance_with_spares{10};

// If a look takes this long, the process may have been stopped. A guess: longer than a look usually
// takes on a busy machine, including a callback that writes reports to a disk.
constexpr std::chrono::milliseconds long_look{20};

// The least time between two moves to another CPU: if all CPUs are busy, moving does not help.
constexpr std::chrono::milliseconds between_moves{10};

// The least time between two looks. The watchdog may run on the CPU of the thread that it looks at,
// which makes progress only between the looks.
constexpr std::chrono::microseconds breath{50};

// The least stall threshold. Shorter polls are reported as slow when they have ended; the watchdog
// would be busy all the time.
constexpr std::chrono::microseconds least_threshold{500};

constexpr int default_signal = SIGURG;

stall_watch::ticks ticks_or_off(std::chrono::nanoseconds value) noexcept {
  return value.count() == 0 ? stall_watch::off
                            : std::max<timing::ticks>(timing::timebase::get().from_ns(value), 1);
}

void futex(std::atomic<std::uint32_t>& word, int operation, std::uint32_t value,
           const timespec* timeout) noexcept {
  static_assert(sizeof word == sizeof(std::uint32_t));
  const errno_kept keep;
  ::syscall(SYS_futex, &word, operation | FUTEX_PRIVATE_FLAG, value, timeout, nullptr, 0);
}

std::chrono::nanoseconds own_cpu_time() noexcept {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return std::chrono::seconds{t.tv_sec} + std::chrono::nanoseconds{t.tv_nsec};
}

// The watchdog's timer may fire on the CPU of a thread that spins. The kernel (EEVDF) lets that
// thread finish its slice of some milliseconds before it runs a thread with a slice of the same
// length. A thread with a shorter slice runs earlier, but gets no more CPU time. This works from
// Linux 6.12 on; older kernels ignore it. Threads that the watchdog starts do not inherit it.
void ask_for_short_slices() noexcept {
  constexpr std::chrono::microseconds shortest{100};  // the kernel's limit
  scheduling_attributes before;
  if (!request_slice(shortest, before)) return;
  scheduling_attributes mine;
  if (!read_scheduling(mine)) return;
  mine.flags |= attribute_reset_on_fork;
  (void)write_scheduling(mine);
}

// Removes the thread from the registry when it ends, while its thread_state still exists.
constinit thread_local void* signal_stack = nullptr;
constinit thread_local thread_exit_hook at_exit{[]() noexcept {
  watchdog::get().remove(hooks::this_thread());
  drop_signal_stack(std::exchange(signal_stack, nullptr));
}};

// Returns false if signal handlers of the calling thread run on its own stack. A seccomp filter may
// end the process for sigaltstack(2), so it is not called under a filter.
bool get_signal_stack() noexcept {
  if (own_seccomp_filters() != 0) return false;
  if (has_signal_stack()) return true;
  signal_stack = make_signal_stack();
  return signal_stack != nullptr;
}

}  // namespace

// ---- the registry

watchdog& watchdog::get() noexcept { return process_wide<watchdog>(); }

void watchdog::add(hooks::thread_state& ts) {
  if (!at_thread_exit(at_exit)) throw std::bad_alloc();
  auto worker = std::make_unique<watched_worker>();
  worker->state = &ts;
  worker->number = this_thread_number();
  worker->id = std::this_thread::get_id();
  worker->probe = thread_probe(worker->number, files_);
  worker->small_stack = has_small_stack() && !get_signal_stack();
  {
    const scoped_lock lock(mutex_);
    worker->serial = ++last_serial_;
    worker->seen = ts.clock.last();
    workers_.push_back(std::move(worker));
    ts.registered = true;
    start(lock);
  }
  notify();
}

void watchdog::remove(hooks::thread_state& ts) noexcept {
  bool notifies = false;
  {
    scoped_lock lock(mutex_);
    const auto here = [&ts](const auto& w) { return w->state == &ts; };
    auto at = std::find_if(workers_.begin(), workers_.end(), here);
    if (at == workers_.end()) return;
    watched_worker& worker = **at;
    done_.wait(lock, [&worker] { return !worker.pinned; });
    // The watchdog has to close the files of this thread.
    notifies = worker.kept;
    if (worker.number == first_.number) notifies = first_.gone = true;
    if (worker.stall.core == nullptr) {
      at = std::find_if(workers_.begin(), workers_.end(), here);  // others may have left meanwhile
      workers_.erase(at);
    } else {
      // The end of its stall was not reported yet. The watchdog does that, and then forgets it.
      const bool told = ts.stall.load(std::memory_order_relaxed) != worker.stall.start;
      worker.end =
          told ? ts.stall_end.load(std::memory_order_relaxed) : timing::timebase::get().now();
      worker.state = nullptr;
      notifies = true;
    }
  }
  if (notifies) notify();
}

namespace {

stall_watch::limits limits_for(const options& o) noexcept {
  if (!wants_watchdog(o)) return {};
  const auto& base = timing::timebase::get();
  return {.threshold =
              ticks_or_off(std::max<std::chrono::nanoseconds>(o.stall_threshold, least_threshold)),
          .yield = ticks_or_off(o.yield_threshold),
          .isolate = ticks_or_off(o.isolate_threshold),
          .longest_step =
              base.from_ns(std::max<std::chrono::nanoseconds>(longest_step, o.stall_threshold)),
          .glance = base.from_ns(o.spare_workers != 0 ? glance_with_spares : glance),
          .max_critical = ticks_or_off(o.max_critical)};
}

}  // namespace

void watchdog::add(context_core& core, const options& o) {
  watched_context context{.core = &core, .limits = limits_for(o)};
  {
    const scoped_lock lock(mutex_);
    if (watched_context* const there = find(lock, &core)) {
      there->limits = context.limits;
      context.core = nullptr;
    }
  }
  if (context.core == nullptr) return wake();  // it may have to look earlier than it planned
  context.signal = o.stall_signal == 0 ? default_signal : o.stall_signal;
  if (context.signal > 0 && !stack_capture::install(context.signal)) context.signal = 0;
  if (exits_heard_of_.load(std::memory_order_relaxed) == 0) hear_of_exit();
  const scoped_lock lock(mutex_);
  contexts_.push_back(context);
  if (first_.number == 0) remember_this_thread();
  // If the watchdog sleeps, the flag is set for this context as well, so that its first poll wakes
  // it.
  if (armed_ || !running_) arm(core);
}

namespace {

// If a process has several threads, the kernel waits 7 to 16 ms (measured) before it uses a larger
// table of descriptors. The thread that opens the 257th, 513th and so on is blocked for that time.
// In a single-threaded process the kernel does not wait, so the table is enlarged before the
// watchdog's thread starts. This takes 13 us, once, and 8 bytes of kernel memory per descriptor.
void grow_descriptor_table([[maybe_unused]] int any) noexcept {
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 32)
  constexpr rlim_t most = 4096;
  if (__libc_single_threaded == 0) return;
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || own_seccomp_filters() != 0) return;
  const errno_kept keep;
  const int last =
      ::fcntl(any, F_DUPFD_CLOEXEC, static_cast<int>(std::min(limit.rlim_cur, most)) - 1);
  if (last >= 0) ::close(last);
#endif
}

}  // namespace

// A process that has changed its user may not open this file any more, but may read it if it is
// open.
void watchdog::remember_this_thread() noexcept {
  first_ = {.number = this_thread_number(), .syscall = thread_files::open_own_syscall()};
  if (first_.syscall >= 0) grow_descriptor_table(first_.syscall);
}

void watchdog::remove(context_core& core) noexcept {
  scoped_lock lock(mutex_);
  std::erase_if(contexts_, [&core](const watched_context& c) { return c.core == &core; });
  // On the watchdog's own thread a report's callback destroys the context, so it must not wait.
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

watched_context* watchdog::find([[maybe_unused]] const scoped_lock& lock,
                                const hooks::path_arbiter* arbiter) noexcept {
  ASIO_PULSE_ASSERT(holds(lock, mutex_));
  if (arbiter == nullptr) return nullptr;
  for (watched_context& c : contexts_) {
    if (c.core == arbiter) return &c;
  }
  return nullptr;
}

watched_worker* watchdog::find([[maybe_unused]] const scoped_lock& lock,
                               std::uint64_t serial) noexcept {
  ASIO_PULSE_ASSERT(holds(lock, mutex_));
  for (const auto& w : workers_) {
    if (w->serial == serial) return w.get();
  }
  return nullptr;
}

// ---- sleeping and waking

void watchdog::arm(context_core& core) noexcept {
  // Relaxed: look() explains why no poll misses it.
  core.state.fetch_or(hooks::path_state::wake_watchdog, std::memory_order_relaxed);
}

void watchdog::arm_all([[maybe_unused]] const scoped_lock& lock, bool on) noexcept {
  ASIO_PULSE_ASSERT(holds(lock, mutex_));
  if (std::exchange(armed_, on) == on) return;
  for (const auto& w : workers_) w->at_rest = false;
  for (const watched_context& c : contexts_) {
    if (on) {
      arm(*c.core);
    } else {
      c.core->state.fetch_and(~hooks::path_state::wake_watchdog, std::memory_order_relaxed);
    }
  }
}

void watchdog::notify() noexcept {
  bell_.fetch_add(1, std::memory_order_release);
  futex(bell_, FUTEX_WAKE, 1, nullptr);
}

void watchdog::wake() noexcept {
  // Relaxed: in the child of a fork, only threads that were started after the fork can be here.
  if (!running_.load(std::memory_order_relaxed)) {
    const scoped_lock lock(mutex_);
    start(lock);
  }
  notify();
}

// Waits until notify() is called or `timeout` is over. A negative time-out stands for no limit.
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

void watchdog::start([[maybe_unused]] const scoped_lock& lock) noexcept {
  ASIO_PULSE_ASSERT(holds(lock, mutex_));
  if (running_.load(std::memory_order_relaxed)) return;
  if (start_background_thread(this)) running_.store(true, std::memory_order_relaxed);
}

bool watchdog::on_own_thread() const noexcept {
  return own_thread_.load(std::memory_order_relaxed) == std::this_thread::get_id();
}

bool watchdog::may_call_program() const noexcept {
  return !on_own_thread() || !over_.load(std::memory_order_seq_cst);
}

// Moves the watchdog off the CPU that a worker waits for, if the process may use another one. A
// thread that sleeps with a timer wakes up on the same CPU, and the kernel does not always look for
// an idle one.
void watchdog::move_away(timing::ticks now) noexcept {
  if (stall_watch::between(moved_, now) < timing::timebase::get().from_ns(between_moves)) return;
  moved_ = now;
  cpu_set_t allowed;
  if (own_seccomp_filters() != 0) return;
  // The CPUs of the program's first thread. Those of the thread that started the watchdog may be
  // fewer, because it may be bound to a CPU.
  if (::sched_getaffinity(::getpid(), sizeof allowed, &allowed) != 0) return;
  const int here = ::sched_getcpu();
  if (here < 0 || here >= CPU_SETSIZE) return;
  CPU_CLR(static_cast<std::size_t>(here), &allowed);
  if (CPU_COUNT(&allowed) != 0) (void)::sched_setaffinity(0, sizeof allowed, &allowed);
}

void watchdog::run() noexcept {
  name_this_thread("pulse-watch");
  filters_ = own_seccomp_filters();
  if (filters_ == 0) {
    ::prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL);
    ask_for_short_slices();
  }
  own_thread_.store(std::this_thread::get_id(), std::memory_order_relaxed);
  const auto& base = timing::timebase::get();
  timing::ticks planned = 0;
  std::chrono::nanoseconds used = own_cpu_time();
  section_.lock();
  for (;;) {
    // Acquire, pairs with the release in notify(): this thread sees what was written before the
    // call.
    const std::uint32_t seen = bell_.load(std::memory_order_acquire);
    const bool rung = std::exchange(last_bell_, seen) != seen;
    if (over_.load()) {  // the process is ending: stalls are no longer reported
      section_.unlock();
      wait(seen, std::chrono::nanoseconds{-1});
      section_.lock();
      continue;
    }
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
      // A look, with its consequences, takes time. If it took long and this thread did not use the
      // CPU meanwhile, the process may have been stopped.
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

// ---- exit

// exit() destroys static objects and calls the handlers of atexit() in the reverse order of their
// construction and registration. So an object that was constructed after our last registration is
// destroyed before our handler is called. Hence there are two registrations: one with the first
// context, and one after the first call of user code, which may construct such objects.
void watchdog::hear_of_exit() noexcept {
  constexpr int wanted = 2;
  if (exits_heard_of_.load(std::memory_order_relaxed) >= wanted) return;
  if (std::atexit([] { watchdog::get().process_ends(); }) == 0) {
    exits_heard_of_.fetch_add(1, std::memory_order_relaxed);
  }
}

bool watchdog::begin_user_code() noexcept {
  section_.unlock();
  user_code_running_.store(true);
  return !over_.load();
}

void watchdog::end_user_code() noexcept {
  if (!over_.load()) hear_of_exit();
  user_code_running_.store(false);
  section_.lock();
}

void watchdog::process_ends() noexcept {
  over_.store(true);
  if (on_own_thread()) return;  // a report's callback has called exit()
  for (int tries = 0; user_code_running_.load() && tries != 1000; ++tries) {
    std::this_thread::sleep_for(std::chrono::milliseconds{1});
  }
}

// ---- fork

// In the child the registry must be consistent, and no mutex may be locked that the watchdog uses:
// its own, that of a core, and the allocator's.
void watchdog::before_fork() noexcept {
  section_.lock();
  mutex_.lock();
}

void watchdog::after_fork(bool child) noexcept {
  if (child) {
    const bool here = on_own_thread();  // a report's callback has called fork()
    running_.store(here, std::memory_order_relaxed);
    if (!here) user_code_running_.store(false);
    busy_ = here ? busy_ : nullptr;
    files_.close_all();
    if (first_.syscall >= 0) ::close(first_.syscall);
    if (first_.number != 0) remember_this_thread();
    renew_memory_file();
    // Threads that waited in the parent do not exist here.
    new (&done_) std::condition_variable;
    const hooks::thread_state& self = hooks::this_thread();
    for (auto& worker : workers_) {
      if (worker->state != &self) {
        // Its thread, with its stall, does not exist here. What the stall refers to is leaked.
        worker->stall = {};
        continue;
      }
      worker->number = this_thread_number();
      worker->probe = thread_probe(worker->number, files_);
      worker->kept = false;
      worker->evidence = {};
      worker->pinned = false;
      worker->watch = {};
      worker->stall = {};
      worker->state->stall.store(0, std::memory_order_relaxed);
    }
    std::erase_if(workers_, [&self](const auto& worker) { return worker->state != &self; });
    if (!here) own_thread_.store({}, std::memory_order_relaxed);
    // The parent's watchdog may have been using it, so it is leaked.
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

void watch_context(context_core& core, const options& o) noexcept {
  try {
    watchdog::get().add(core, o);
  } catch (const std::bad_alloc&) {  // not watched
  }
}

void forget_context(context_core& core) noexcept { watchdog::get().remove(core); }

void wake_watchdog() noexcept { watchdog::get().wake(); }

bool may_call_program() noexcept { return watchdog::get().may_call_program(); }

user_code_scope::user_code_scope() noexcept : may_run_(watchdog::get().begin_user_code()) {}
user_code_scope::~user_code_scope() { watchdog::get().end_user_code(); }

}  // namespace asio_pulse::detail

#else

namespace asio_pulse::detail {

// On other systems there is no watchdog, and polls are reported only when they end.
void watch_this_thread(hooks::thread_state&) noexcept {}
void watch_context(context_core&, const options&) noexcept {}
void forget_context(context_core&) noexcept {}
void wake_watchdog() noexcept {}
bool may_call_program() noexcept { return true; }

}  // namespace asio_pulse::detail

#endif
