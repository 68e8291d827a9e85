// SPDX-License-Identifier: BSL-1.0
//
// What a check that the compiler wrote does: it suspends the handler if its time is up and that is
// safe. Otherwise it counts why not, and the next check, 20 us later, tries again.
//
// The check may interrupt the code at any loop. So this file, until the handler is suspended,
// allocates nothing, takes no lock, sends no report and calls no code of the program.
#include "automatic_checkpoint.hpp"

#include "current_poll.hpp"
#include "process/loaded_module.hpp"
#include "threads/lock_count.h"

#include <asio_pulse/auto_checkpoint.h>
#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/detail/fiber_stack.hpp>
#include <asio_pulse/hooks/registry.hpp>

#include <atomic>

// The stub is linked to code with checks, and to no other program.
extern "C" {
// NOLINTBEGIN(readability-redundant-declaration): weak here
__attribute__((weak)) void asio_pulse_set_checkpoint_hook(asio_pulse_checkpoint_hook) noexcept;
__attribute__((weak)) asio_pulse_checkpoint_hook asio_pulse_get_checkpoint_hook() noexcept;
// NOLINTEND(readability-redundant-declaration)
// Of OpenMP's run-time library, whichever the program is linked with.
__attribute__((weak)) int omp_get_level();  // NOLINT(readability-identifier-naming)
}

namespace asio_pulse::detail {
namespace {

// What the way from the check to another stack needs, a signal handler of the program included. The
// registers are saved already, which takes up to 3 KiB. A guess.
constexpr std::uintptr_t least_stack_left = 6144;
// The same if a hook of the program is called on the way. A guess, too.
constexpr std::uintptr_t least_stack_with_hooks = 3 * least_stack_left;

/// The hook that another copy of the library has installed before. Relaxed: the code that it points
/// to was there before it was installed.
std::atomic<asio_pulse_checkpoint_hook> outer_hook{nullptr};

enum class check_refusal : std::uint8_t {
  none,
  uncounted,
  lock,
  critical,
  exception,
  parallel,
  stack,
  place,
  signal
};

/// Why the handler must not be suspended now. The cheapest questions come first.
check_refusal why_not(const hooks::thread_state& ts, const fiber_block& b, context_core& core,
                      const hooks::poll_frame& frame) noexcept {
  fiber_thread& mine = this_fiber_thread;
  if (asio_pulse_locks_are_counted == 0) return check_refusal::uncounted;
  // The thread was not prepared for fibers, and that takes locks.
  if (mine.locks == nullptr) return check_refusal::place;
  // A coroutine (it has no fiber of ours on its stack) shares the sum with the others of its thread, in
  // which one may have released a lock that another one had taken.
  if (mine.locks->count != 0 || (mine.locks->sum != 0 && b.discard != nullptr)) {
    return check_refusal::lock;
  }
  if (ts.critical.load(std::memory_order_relaxed) != 0 || ts.no_yield != 0 ||
      hooks::registry::calling()) {
    return check_refusal::critical;
  }
  if (mine.exceptions->caught != nullptr || mine.exceptions->uncaught != 0) {
    return check_refusal::exception;
  }
  if (omp_get_level != nullptr && omp_get_level() != 0) return check_refusal::parallel;
  const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  if (here - b.bottom() <
      (core.hooks().wants_yields() ? least_stack_with_hooks : least_stack_left)) {
    return check_refusal::stack;
  }
  if (b.suspend == nullptr || b.holds(&frame) || core.closed() || core.port() == nullptr ||
      !core.port()->locks() || !b.may_suspend(b) || !core.returns_here(ts)) {
    return check_refusal::place;
  }
  if (blocked_signals() != mine.signals) {
    mine.signals_differed = true;
    return check_refusal::signal;
  }
  return check_refusal::none;
}

/// For the metrics of the site, if they are collected. Out of line, and not the same at every call: the
/// thread may be another one than at the beginning of the check.
ASIO_PULSE_DETAIL_NOINLINE void note(std::uint64_t key, check_refusal why,
                                     const void* place) noexcept {
  asm volatile("" ::: "memory");
  hooks::poll_recorder* const recorder = hooks::this_thread().recorder;
  if (recorder == nullptr) return;
  if (why == check_refusal::none) return recorder->note_suspended(key);
  recorder->note_refused(key, why == check_refusal::lock, asio_pulse_lock_taken, place);
}

void count(context_core& core, check_refusal why) noexcept {
  counters& c = core.counted();
  switch (why) {
    case check_refusal::none:
      return c.add<&statistics::automatic_suspensions>();
    case check_refusal::uncounted:
      return c.add<&statistics::automatic_refused_uncounted>();
    case check_refusal::lock:
      return c.add<&statistics::automatic_refused_lock>();
    case check_refusal::critical:
      return c.add<&statistics::automatic_refused_critical>();
    case check_refusal::exception:
      return c.add<&statistics::automatic_refused_exception>();
    case check_refusal::parallel:
      return c.add<&statistics::automatic_refused_parallel>();
    case check_refusal::stack:
      return c.add<&statistics::automatic_refused_stack>();
    case check_refusal::place:
      return c.add<&statistics::automatic_refused_place>();
    case check_refusal::signal:
      return c.add<&statistics::automatic_refused_signal>();
  }
}

/// Out of line: after the switch, what the compiler knows about this thread may be wrong.
ASIO_PULSE_DETAIL_NOINLINE bool suspended(fiber_block& b) noexcept {
  b.pinned = pin_here();
  b.automatic = true;
  const hooks::location_taken_along location;
  bool done = false;
  try {
    done = b.suspend(b);
  } catch (...) {  // NOLINT(bugprone-empty-catch): then it was not suspended
  }
  b.automatic = false;
  b.queued = nullptr;
  return done;
}

void on_check(void* place) noexcept {
  hooks::thread_state& ts = hooks::this_thread();
  if (ts.arbiter == nullptr) {
    if (const auto outer = outer_hook.load(std::memory_order_relaxed)) outer(place);
    return;
  }
  context_core& core = *core_of(ts);
  core.counted().add<&statistics::automatic_checks>();
  fiber_block* const b = fiber_here();
  const hooks::poll_frame* const frame = poll_of(ts);
  // `switching`: in a signal handler that has interrupted a switch of stacks.
  if (b == nullptr || frame == nullptr || b->checking || b->unwinding || ts.switching) return;
  b->checking = true;
  const context_core::slice_verdict verdict =
      core.judge_slice(ts, timing::timebase::get().now(), true);
  if (verdict.wanted) {
    check_refusal why = why_not(ts, *b, core, *frame);
    const std::uint64_t key = hooks::poll_recorder::key_of(current_site(), frame->word());
    if (why == check_refusal::none) {
      core.yields(ts, verdict);
      if (b->task == nullptr && frame->task() != nullptr) {
        hooks::acquire(*frame->task());
        b->task = frame->task();
      }
      // If the context was destroyed meanwhile, it must not be used any more.
      if (!suspended(*b)) {
        why = check_refusal::place;
      } else if (b->unwinding) {
        b->checking = false;
        return;
      }
    }
    // The poll that was interrupted has ended, and so has its frame, if it was suspended.
    note(key, why, place);
    count(core, why);
  }
  b->checking = false;
}

}  // namespace

void install_automatic_checkpoints() noexcept {
  if (asio_pulse_set_checkpoint_hook == nullptr) return;
  static std::atomic<bool> installed{false};
  if (installed.load(std::memory_order_relaxed) || installed.exchange(true)) return;
  keep_this_module();
  outer_hook.store(asio_pulse_get_checkpoint_hook(), std::memory_order_relaxed);
  asio_pulse_set_checkpoint_hook(&on_check);
}

}  // namespace asio_pulse::detail
