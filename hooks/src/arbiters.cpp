// SPDX-License-Identifier: BSL-1.0
#include "arbiters.hpp"

#include "thread_account.hpp"
#include "thread_exit.hpp"

#include <asio_pulse/hooks/assert.hpp>

#include <chrono>
#include <mutex>
#include <utility>
#include <vector>

namespace asio_pulse::hooks {
namespace {

// How much a thread adds up before it charges the task. With less, a poll costs a few nanoseconds
// more. With more, it is found later that a task is over its budget, which is 300 us by default.
constexpr std::chrono::microseconds longest_pending{20};

// The arbiters of schedulers. A thread looks here only when it polls a scheduler that it does not
// know yet.
class arbiter_table {
 public:
  void add(void* scheduler, path_arbiter& arbiter) {
    const std::lock_guard lock(mutex_);
    entries_.push_back({scheduler, &arbiter});
    arbiter_epoch.fetch_add(1, std::memory_order_relaxed);
  }
  void remove(void* scheduler) noexcept {
    const std::lock_guard lock(mutex_);
    std::erase_if(entries_, [&](const entry& e) { return e.scheduler == scheduler; });
    arbiter_epoch.fetch_add(1, std::memory_order_relaxed);
  }
  /// Attaches while the table is locked, so that the arbiter is still alive when the reference is
  /// taken.
  template <class Attach>
  bool find(void* scheduler, Attach attach) {
    const std::lock_guard lock(mutex_);
    for (const entry& e : entries_) {
      if (e.scheduler == scheduler) {
        attach(*e.arbiter);
        return true;
      }
    }
    return false;
  }

 private:
  struct entry {
    void* scheduler;
    path_arbiter* arbiter;
  };
  std::mutex mutex_;
  std::vector<entry> entries_;
};

// Never destroyed, because contexts may outlive static objects. Not on the heap, so that nothing
// can fail here.
arbiter_table& arbiters() noexcept {
  union forever {
    forever() noexcept : table() {}
    ~forever() {}
    arbiter_table table;
  };
  static forever storage;
  return storage.table;
}

// A thread that runs a context through a base-class reference does not announce that it leaves. It
// is detached here when it ends.
constinit thread_local asio_pulse::detail::thread_exit_hook last_word{[]() noexcept {
  thread_state& ts = this_thread();
  if (!ts.wrapped) detach(ts);
}};

}  // namespace

void add_arbiter(void* scheduler, path_arbiter& arbiter) { arbiters().add(scheduler, arbiter); }
void remove_arbiter(void* scheduler) noexcept { arbiters().remove(scheduler); }

path_arbiter* find_arbiter(void* scheduler) noexcept {
  path_arbiter* found = nullptr;
  arbiters().find(scheduler, [&](path_arbiter& arbiter) { found = &arbiter; });
  return found;
}

void attach_clock(thread_state& ts) noexcept {
  if (ts.published != nullptr) {
    ts.clock.attach(*ts.published);
  } else {
    ASIO_PULSE_ASSERT(ts.arbiter != nullptr);
    ts.clock.resume(ts.arbiter->clock());
  }
}

void attach(thread_state& ts, void* scheduler, path_arbiter& arbiter) noexcept {
  ASIO_PULSE_ASSERT(ts.account == nullptr && ts.cached_refs == 0);
  ASIO_PULSE_ASSERT(ts.top.load(std::memory_order_relaxed) == nullptr);
  ts.owner = scheduler;
  ts.arbiter = &arbiter;
  ts.unnamed = &arbiter.unnamed();
  ts.state = &arbiter.state;
  ts.token = never(arbiter.state.load(std::memory_order_relaxed));
  ts.base = ts.current;
  ts.charging = 0;
  ts.gates_all = arbiter.gates_all;
  ts.pending = 0;
  ts.pending_polls = 0;
  attach_clock(ts);
  show_arbiter(ts);
  ts.longest_pending = timing::to_ticks(longest_pending);
  watch_account(ts);
}

void detach(thread_state& ts) noexcept {
  close_current_account(ts);
  if (path_arbiter* arbiter = std::exchange(ts.arbiter, nullptr)) {
    show_arbiter(ts);
    arbiter->detached(ts);
  }
  ts.owner = nullptr;
  ts.unnamed = nullptr;
  ts.state = &thread_state::no_state;
  ts.token = never(ts.state->load(std::memory_order_relaxed));
}

bool recognise(thread_state& ts, void* owner) noexcept {
  const std::uint32_t epoch = arbiter_epoch.load(std::memory_order_relaxed);
  if (owner == ts.plain_owner && ts.plain_epoch == epoch) return false;
  if (ts.wrapped) {
    // Inside a run function of ours, but between polls. No context can begin to observe the
    // scheduler of that function meanwhile.
    if (owner == ts.plain_owner) ts.plain_epoch = epoch;
    return false;
  }
  if (ts.arbiter != nullptr) {
    if (owner == ts.owner && ts.plain_epoch == epoch) return true;
    detach(ts);
  }
  ts.plain_epoch = epoch;
  ts.plain_owner = nullptr;
  // If the end of the thread would not be noticed, its polls are not observed.
  const bool found =
      at_thread_exit(last_word) && arbiters().find(owner, [&](path_arbiter& arbiter) {
        attach(ts, owner, arbiter);
        arbiter.attached(ts);
      });
  if (!found) ts.plain_owner = owner;
  return found;
}

}  // namespace asio_pulse::hooks
