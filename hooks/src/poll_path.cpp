// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/bpf/control_block.h>

#include <algorithm>
#include <asio_pulse/hooks/poll_path.hpp>
#include <asio_pulse/hooks/poll_recorder.hpp>
#include <chrono>
#include <mutex>
#include <utility>
#include <vector>

namespace asio_pulse::hooks {

constinit const std::atomic<std::uint32_t> thread_state::no_state{~std::uint32_t{0}};
constinit const std::atomic<std::uint64_t> thread_state::no_hint{0};
constinit thread_local thread_state this_thread_state ASIO_PULSE_DETAIL_TLS_MODEL;

namespace {

// A worker that creates many operations of one task takes references this many at a time. A guess,
// between one locked instruction per operation and a count that overstates the references in use.
constexpr std::uint32_t reference_batch = 64;

/// No word of an observer ever equals the token made of it by this.
constexpr std::uint32_t never(std::uint32_t state) noexcept { return ~state; }

// What is added up on a thread before it is charged: between a few nanoseconds more a poll, and how
// late a task is found to be over its budget (see task_options::budget for what that is compared
// with).
constexpr std::chrono::microseconds longest_pending{20};

/// Whom the pending ticks belong to. Only while the thread has an observer: then one of the two is
/// set.
task_record& account_of(thread_state& ts) noexcept {
  task_record* const t = ts.account != nullptr ? ts.account : ts.unnamed;
  // NOLINTNEXTLINE(clang-analyzer-core.*): one of the two is set, see above
  return *t;
}

/// Charges what is pending to the account. Returns whether it is over its budget now.
bool settle(thread_state& ts, timing::ticks now) noexcept {
  task_record& t = account_of(ts);
  const timing::ticks cost = std::exchange(ts.pending, 0);
  const std::uint64_t polls = std::exchange(ts.pending_polls, 0);
  // Under pressure a budget buys less: half as much at the most.
  const timing::ticks charged = cost + cost * ts.pressure / 100;
  if (ts.shared) {
    t.polls.fetch_add(polls, std::memory_order_relaxed);
    t.cost.fetch_add(cost, std::memory_order_relaxed);
    return t.budget.charge_shared(now, charged);
  }
  t.polls.store(t.polls.load(std::memory_order_relaxed) + polls, std::memory_order_relaxed);
  t.cost.store(t.cost.load(std::memory_order_relaxed) + cost, std::memory_order_relaxed);
  return t.budget.charge(now, charged);
}

void watch_account(thread_state& ts) noexcept {
  const task_record& t = account_of(ts);
  ts.settle_at = std::min(ts.longest_pending, t.attention.load(std::memory_order_relaxed));
  set_recorder(ts, ts.recorder);
  ts.watched_account.store(ts.account, std::memory_order_relaxed);
}

/// What a scheduler may see of critical sections.
void show_critical(thread_state& ts, bool inside) noexcept {
  if (ts.block == nullptr) return;
  std::atomic_ref(ts.block->critical).store(inside ? 1 : 0, std::memory_order_relaxed);
}

/// The observer that the watchdog is to see.
void show_observer(thread_state& ts) noexcept {
  ts.watched.store(ts.observer, std::memory_order_relaxed);
}

/// Charges what is pending and gives the references back. What is left belongs to no task.
void close_current_account(thread_state& ts) noexcept {
  if (ts.observer != nullptr && (ts.pending_polls | ts.pending) != 0) settle(ts, ts.clock.last());
  if (task_record* t = std::exchange(ts.account, nullptr)) {
    ts.watched_account.store(nullptr, std::memory_order_relaxed);
    release(*t, static_cast<std::uint32_t>(1 + ts.spare));
  }
  ts.spare = 0;
}

// Schedulers and their observers. Looked up when a thread meets a scheduler that it does not know,
// never on the way of a poll that it does know.
class observer_table {
 public:
  void add(void* scheduler, path_observer& observer) {
    const std::lock_guard lock(mutex_);
    entries_.push_back({scheduler, &observer});
    observer_epoch.fetch_add(1, std::memory_order_relaxed);
  }
  void remove(void* scheduler) noexcept {
    const std::lock_guard lock(mutex_);
    std::erase_if(entries_, [&](const entry& e) { return e.scheduler == scheduler; });
    observer_epoch.fetch_add(1, std::memory_order_relaxed);
  }
  /// Attaches while the table is locked, so that the observer is alive when it takes its reference.
  template <class Attach>
  bool find(void* scheduler, Attach attach) {
    const std::lock_guard lock(mutex_);
    for (const entry& e : entries_) {
      if (e.scheduler == scheduler) {
        attach(*e.observer);
        return true;
      }
    }
    return false;
  }

 private:
  struct entry {
    void* scheduler;
    path_observer* observer;
  };
  std::mutex mutex_;
  std::vector<entry> entries_;
};

observer_table& observers() {
  static auto* const table =
      new observer_table;  // never destroyed: contexts may outlive static objects
  return *table;
}

void detach(thread_state& ts) noexcept {
  close_current_account(ts);
  if (path_observer* observer = std::exchange(ts.observer, nullptr)) {
    show_observer(ts);
    observer->detached(ts);
  }
  ts.owner = nullptr;
  ts.unnamed = nullptr;
  ts.state = &thread_state::no_state;
}

// A thread that runs a context through a base-class reference never says that it leaves. Its last
// word is here.
struct exit_guard {
  ~exit_guard() {
    thread_state& ts = this_thread();
    if (!ts.wrapped) detach(ts);
  }
  bool armed = false;
};
thread_local exit_guard at_exit;

void attach(thread_state& ts, void* scheduler, path_observer& observer) noexcept {
  ts.owner = scheduler;
  ts.observer = &observer;
  ts.unnamed = &observer.unnamed();
  ts.state = &observer.state;
  ts.token = never(observer.state.load(std::memory_order_relaxed));
  ts.base = ts.current;
  ts.shared = false;
  ts.pending = 0;
  ts.pending_polls = 0;
  attach_clock(ts);
  show_observer(ts);
  ts.longest_pending = timing::timebase::get().from_ns(longest_pending);
  watch_account(ts);
}

/// Finds out whether `owner` is observed. True: this thread is attached to its observer now.
bool recognise(thread_state& ts, void* owner) noexcept {
  const std::uint32_t epoch = observer_epoch.load(std::memory_order_relaxed);
  if (owner == ts.plain_owner && ts.plain_epoch == epoch) return false;
  if (ts.wrapped) {
    // Inside our own run function, but between polls: not a worker's operation. Nobody can begin to
    // observe the scheduler of that function meanwhile.
    if (owner == ts.plain_owner) ts.plain_epoch = epoch;
    return false;
  }
  if (ts.observer != nullptr) {
    if (owner == ts.owner && ts.plain_epoch == epoch) return true;
    detach(ts);
  }
  ts.plain_epoch = epoch;
  ts.plain_owner = nullptr;
  const bool found = observers().find(owner, [&](path_observer& observer) {
    attach(ts, owner, observer);
    observer.attached(ts);
  });
  if (found) {
    at_exit.armed = true;
  } else {
    ts.plain_owner = owner;
  }
  return found;
}

}  // namespace

void release(task_record& t, std::uint32_t n) noexcept {
  if (t.references.fetch_sub(n, std::memory_order_acq_rel) == n) t.home->destroy(t);
}

void add_observer(void* scheduler, path_observer& observer) {
  observers().add(scheduler, observer);
}
void remove_observer(void* scheduler) noexcept { observers().remove(scheduler); }

// ---- operations

void tracked_operation::capture_slow(thread_state& ts, task_record& t) noexcept {
  if (&t == ts.account) {
    acquire(t, reference_batch);
    ts.spare += reference_batch - 1;
  } else {
    acquire(t);
  }
}

void tracked_operation::drop() noexcept {
  if (task_record* t = task_in(take())) release(*t);
}

void tracked_operation::assign(task_record* t) noexcept {
  task_record* old = task();
  word_ = (word_ & ~task_bits) | reinterpret_cast<std::uintptr_t>(t);
  if (old != nullptr) release(*old);
}

void reactor_registered(std::uintptr_t descriptor_data) noexcept {
  reinterpret_cast<tracked_operation*>(descriptor_data)->assign(nullptr);
}

void accept_created(tracked_operation& op) noexcept {
  op.set(tracked_operation::accepts);
  task_record* t = op.task();
  if (t == nullptr) return;
  // Accepting goes on inside the handler that got a connection. The new accept is the listener's,
  // not the connection's.
  task_record* listener = t->home->listener_of(t);
  if (listener == t) return;
  if (listener != nullptr) acquire(*listener);
  op.assign(listener);
}

bool gate(void* owner, void* operation, tracked_operation& op) noexcept {
  if (op.has(tracked_operation::released)) return false;
  thread_state& ts = this_thread();
  if (ts.top.load(std::memory_order_relaxed) == nullptr) {
    if ((owner != ts.owner || !ts.wrapped) && !recognise(ts, owner)) return false;
  } else if (owner == ts.owner || ts.observer == nullptr) {
    return false;  // completes inside another handler of the same scheduler: it has no turn of its
                   // own to give up
  }
  return ts.observer->hold_back(ts, op, operation, owner);
}

// ---- frames

void poll_frame::clear_extras(thread_state& ts) noexcept {
  hooked_ = saved_account_ = false;
  outer_shared_ = ts.shared;
  held_ = assigned_ = born_ = nullptr;
  judged_ = 0;
}

void poll_frame::begin_slow(void* owner, const site& what) noexcept {
  thread_state& ts = this_thread();
  task_ = tracked_operation::task_in(word_);
  saved_current_ = ts.current;
  if ((task_ == nullptr || what.drains) && ts.wrapped && ts.observer == nullptr &&
      owner == ts.plain_owner) {
    // In a context that is switched off. A drain's own work is nobody's, as in others (see
    // enter()).
    if (task_ != nullptr) release(*task_);
    mode_ = mode::nobodys;
    ts.current = nullptr;
    return;
  }
  accrued_ = 0;
  inner_polls_ = 0;
  outer_ = ts.top.load(std::memory_order_relaxed);
  outer_site_ = ts.poll_site.load(std::memory_order_relaxed);
  const bool plain = (word_ & tracked_operation::flag_bits) == 0;
  if (plain && outer_ != nullptr && outer_->mode_ == mode::drain && task_ == ts.account &&
      owner != nullptr && owner != &no_scheduler) {
    // A strand's handler: its drain is a few instructions, so its time starts where the drain's
    // did.
    mode_ = mode::drained;
    ++ts.spare;
    ++outer_->inner_polls_;
    start(ts, what, task_);
    return;
  }
  if (plain && outer_ == nullptr && owner == ts.owner && !what.drains) {
    const std::uint32_t state = ts.state->load(std::memory_order_relaxed);
    if (state == ts.token && ts.clock.undisturbed() &&
        (task_ == nullptr ||
         (task_->home == ts.observer && !task_->shared.load(std::memory_order_relaxed)))) {
      // The fast path but for its account: another task was polled before.
      mode_ = mode::outermost;
      close_current_account(ts);
      ts.account = task_;
      ts.shared = (state & path_state::several_workers) != 0;
      watch_account(ts);
      start(ts, what, task_);
      return;
    }
  }
  if (plain && task_ != nullptr && ts.label != thread_state::label_closed && owner != nullptr) {
    // The short way of a context that is switched off, but for its account.
    close_current_account(ts);
    ts.account = task_;
    name(ts, task_);
    return;
  }
  clear_extras(ts);
  if (owner == nullptr) {
    mode_ = mode::destroyed;
    held_ = task_;
    return;
  }
  if (owner != &no_scheduler) {
    const bool ours = ts.observer != nullptr &&
                      (owner == ts.owner ? (ts.wrapped || recognise(ts, owner))
                                         : ts.top.load(std::memory_order_relaxed) != nullptr);
    if (ours || recognise(ts, owner)) return enter(ts, what);
  }
  mode_ = mode::labelled;
  held_ = task_;
  ts.current = task_;
}

void poll_frame::enter(thread_state& ts, const site& what) noexcept {
  mode_ = mode::measured;
  if ((word_ & tracked_operation::resumes) != 0) ++ts.extra_turns;
  std::uint32_t state = ts.state->load(std::memory_order_relaxed);
  if ((state & path_state::wake_watchdog) != 0) [[unlikely]] {
    // acq_rel: the flag came with the watchdog's decision to sleep. Of several polls one wakes it.
    path_observer& observer = *ts.observer;
    if ((observer.state.fetch_and(~path_state::wake_watchdog, std::memory_order_acq_rel) &
         path_state::wake_watchdog) != 0) {
      observer.woken();
    }
    state = ts.state->load(std::memory_order_relaxed);
  }
  hooked_ = (state & path_state::poll_hooks) != 0;
  bool shared = (state & path_state::several_workers) != 0;
  if (outer_ != nullptr) {
    ++outer_->inner_polls_;
    if ((outer_->word_ & tracked_operation::names) != 0 && task_ != outer_->task_) {
      // A strand over a task's executor: the executor's word counts for more than the scope's.
      if (task_ != nullptr) release(*task_);
      task_ = outer_->task_;
      acquire(*task_);
    }
    if (outer_site_->drains) {
      // A drain's time goes to its first handler. What it creates after its handlers (its own next
      // turn) belongs to nobody: the next handler may be another task's.
      saved_current_ = nullptr;
    } else {
      outer_->split();  // it has run user code by now, which is its own
    }
  } else {
    if (ts.service_epoch != service_epoch.load(std::memory_order_relaxed)) [[unlikely]] {
      ts.observer->renew(ts);
    }
    const bool chains = ts.clock.chains();
    if (state != ts.token || !chains || !ts.clock.undisturbed()) ts.clock.waited();
    // With a clock that shows every loss of the CPU, stamps chain whoever else polls: who waited
    // was seen to wait.
    ts.token = chains && ts.wrapped && (state & path_state::poll_hooks) == 0 ? state : never(state);
  }
  if (task_ != nullptr && task_->home != ts.observer &&
      !task_->shared.exchange(true, std::memory_order_relaxed)) {
    // Its own workers may be charging it by plain stores: send them through here.
    task_->home->state.fetch_add(path_state::generation, std::memory_order_relaxed);
  }
  shared = shared || (task_ != nullptr && task_->shared.load(std::memory_order_relaxed));
  if (what.drains) {
    held_ = task_;
  } else {
    open_account(ts);
    if (shared != ts.shared && ts.pending_polls != 0) settle(ts, ts.clock.last());
    ts.shared = shared;
    watch_account(ts);
  }
  if ((word_ & tracked_operation::accepts) != 0) born_ = ts.observer->accepted(task_);
  start(ts, what, born_ != nullptr ? born_ : task_);
  if (hooked_ && !what.drains) ts.observer->before_poll(*this);
}

void poll_frame::start(thread_state& ts, const site& what, task_record* current) noexcept {
  ts.current = current;
  ts.top.store(this, std::memory_order_relaxed);
  ts.fuel = 0;
  ts.poll_site.store(&what, std::memory_order_relaxed);
}

// Makes the task the thread's account; its reference is the account's. A poll outside goes on with
// its own afterwards.
void poll_frame::open_account(thread_state& ts) noexcept {
  if (task_ == ts.account) {
    ++ts.spare;
    return;
  }
  // A drain has no account to come back to, unless it runs inside another poll itself.
  const bool in_outermost_drain = outer_ != nullptr && outer_site_->drains &&
                                  (outer_->mode_ == mode::drain || outer_->outer_ == nullptr);
  if (outer_ != nullptr && !in_outermost_drain) {
    if ((ts.pending_polls | ts.pending) != 0) settle(ts, ts.clock.last());
    outer_account_ = ts.account;
    outer_spare_ = ts.spare;
    saved_account_ = true;
  } else {
    close_current_account(ts);
  }
  ts.account = task_;
  ts.spare = 0;
  watch_account(ts);
}

void poll_frame::close_account(thread_state& ts) noexcept {
  if (saved_account_) {
    close_current_account(ts);
    ts.account = outer_account_;
    ts.spare = outer_spare_;
    watch_account(ts);
  }
  ts.shared = outer_ != nullptr ? outer_shared_ : ts.shared;
}

void poll_frame::split() noexcept {
  thread_state& ts = this_thread();
  if (mode_ > mode::measured || mode_ == mode::unobserved || ts.observer == nullptr) return;
  const timing::lap last = ts.clock.take();
  if (accrued_ == 0) started_ = last.start;
  accrued_ += last.cost;
  ts.pending += last.cost;
}

// Leaves the fast path: from here on the end of the poll has more to undo.
void poll_frame::slow_down(thread_state& ts) noexcept {
  const bool inside = mode_ == mode::drained;
  if (mode_ != mode::outermost && !inside) return;
  clear_extras(ts);
  if (!inside) {
    outer_ = nullptr;
    outer_site_ = nullptr;
  }
  saved_current_ = inside ? nullptr : ts.base;
  mode_ = mode::measured;
}

void poll_frame::critical_entered(timing::ticks now) noexcept {
  thread_state& ts = this_thread();
  slow_down(ts);
  if (ts.critical.load(std::memory_order_relaxed) == 0) {
    ts.critical_since.store(now, std::memory_order_relaxed);
  }
}

void poll_frame::reassign(task_record* t) noexcept {
  thread_state& ts = this_thread();
  slow_down(ts);
  if (mode_ != mode::measured) return;
  // What the poll was until now ends here: it is charged, and looked at, as a poll of its own.
  ts.settle_at = 0;
  end_poll(ts, ts.clock.take(), false, true);
  judged_ = accrued_;
  if (t != nullptr) acquire(*t, 2);  // the frame's, and the account's
  if (!saved_account_ && outer_ != nullptr) {
    outer_account_ = ts.account;
    outer_spare_ = ts.spare;
    saved_account_ = true;
  } else {
    close_current_account(ts);
  }
  ts.account = t;
  ts.spare = 0;
  ts.shared = ts.shared || (t != nullptr &&
                            (t->home != ts.observer || t->shared.load(std::memory_order_relaxed)));
  watch_account(ts);
  task_ = t;
  if (task_record* before = std::exchange(assigned_, t)) release(*before);
}

/// Adds the last segment to the account, and looks at the poll if there may be something to see.
void poll_frame::end_poll(thread_state& ts, const timing::lap& last, bool look,
                          bool part) noexcept {
  ts.pending += last.cost;
  ++ts.pending_polls;
  const bool stalled =
      ts.stall.load(std::memory_order_relaxed) == last.start && stall_ended(ts, last);
  if (ts.recorder != nullptr) {
    record(ts, started(last.start), accrued_ + last.cost - (mode_ == mode::measured ? judged_ : 0));
  }
  if (!look && ts.pending < ts.settle_at) {
    accrued_ += last.cost;
    return;
  }
  task_record& t = task_ != nullptr ? *task_ : *ts.unnamed;
  const bool over = settle(ts, last.now);
  const timing::ticks start = started(last.start);
  accrued_ += last.cost;
  started_ = start;
  const timing::ticks total = mode_ == mode::measured ? accrued_ - judged_ : accrued_;
  if (over || look || total >= t.attention.load(std::memory_order_relaxed)) {
    ts.observer->after_poll(
        *this, t, last,
        {.total = total, .started = start, .over_budget = over, .part = part, .stalled = stalled});
  }
  if (!part && (ts.pressured || ts.hint->load(std::memory_order_relaxed) != ts.hint_seen))
      [[unlikely]] {
    ts.observer->hinted(ts, t, last.now);
  }
  watch_account(ts);
}

// The watchdog has been waiting for this.
bool poll_frame::stall_ended(thread_state& ts, const timing::lap& last) noexcept {
  timing::ticks start = last.start;
  if (start == 0) return false;
  // Either this thread takes the mark away or the watchdog does, which then tells nobody of the
  // poll: exactly one of the two reports it.
  ts.stall_end.store(last.now, std::memory_order_relaxed);
  if (!ts.stall.compare_exchange_strong(start, 0, std::memory_order_release,
                                        std::memory_order_relaxed)) {
    return false;
  }
  if (ts.observer != nullptr) ts.observer->woken();
  return true;
}

void poll_frame::record(thread_state& ts, timing::ticks start, timing::ticks cost) const noexcept {
  const site& what = *ts.poll_site.load(std::memory_order_relaxed);
  ts.recorder->note(start, cost, poll_recorder::key_of(what, word_), task_);
}

void poll_frame::record_batch(thread_state& ts, timing::ticks cost) const noexcept {
  if (mode_ != mode::outermost && outer_ != nullptr && outer_site_->drains) {
    ts.recorder->note_batch(outer_->inner_polls_ == 1, cost);
  }
}

void poll_frame::end_noticed(bool known, timing::ticks cost) noexcept {
  thread_state& ts = this_thread();
  const timing::ticks pending = ts.pending + cost;
  if (!known || pending >= ts.settle_at || mode_ != mode::outermost) [[unlikely]] {
    return end_looked_at(known, cost);
  }
  // Nothing but the recorder wants to know: without one flush_at is settle_at, and this not
  // reached.
  ts.pending = pending;
  ++ts.pending_polls;
  const site& what = *ts.poll_site.load(std::memory_order_relaxed);
  ts.recorder->note_short(ts.clock.last() - cost, cost, poll_recorder::key_of(what, word_), task_);
}

void poll_frame::end_looked_at(bool known, timing::ticks cost) noexcept {
  thread_state& ts = this_thread();
  if (known && ts.pending + cost < ts.settle_at) {
    ts.pending += cost;
    ++ts.pending_polls;
    if (ts.recorder == nullptr) return;
    record(ts, ts.clock.last() - cost, cost);
    record_batch(ts, cost);
    return;
  }
  end_poll(ts, known ? ts.clock.confirm(ts.pending + cost, cost) : ts.clock.take(), false, false);
}

void poll_frame::end_slow() noexcept {
  thread_state& ts = this_thread();
  if (mode_ == mode::nobodys) {
    ts.current = saved_current_;
    return;
  }
  if (mode_ == mode::drained) {
    timing::ticks cost;
    const bool known = ts.clock.try_take(cost);
    if (known && ts.pending + cost < ts.flush_at) {
      ts.pending += cost;
      ++ts.pending_polls;
    } else {
      end_noticed(known, cost);
    }
    ts.poll_site.store(outer_site_, std::memory_order_relaxed);
    ts.top.store(outer_, std::memory_order_relaxed);
    ts.current = nullptr;  // see enter(): a drain's own work is nobody's
    return;
  }
  if (mode_ == mode::measured) {
    // A critical section, or a lock, that outlives its poll says nothing about the next.
    if (outer_ == nullptr) {
      ts.critical.store(0, std::memory_order_relaxed);
      show_critical(ts, false);
      ts.no_yield = 0;
    }
    if (!ts.poll_site.load(std::memory_order_relaxed)->drains) {
      end_poll(ts, ts.clock.take(), hooked_, false);
      close_account(ts);
    }
    ts.poll_site.store(outer_site_, std::memory_order_relaxed);
    ts.top.store(outer_, std::memory_order_relaxed);
    ts.current = saved_current_;
    if (born_ != nullptr) release(*born_);
    if (assigned_ != nullptr) release(*assigned_);
  } else if (mode_ == mode::labelled) {
    ts.current = saved_current_;
  }
  if (held_ != nullptr) release(*held_);
}

// ---- workers

void attach_clock(thread_state& ts) noexcept {
  if (ts.published != nullptr) {
    ts.clock.attach(*ts.published);
  } else {
    ts.clock.attach(ts.observer->clock());
  }
}

worker_scope::worker_scope(void* scheduler, path_observer& observer, bool enabled,
                           bool compensable) noexcept
    : ts_(this_thread()) {
  poll_frame* const outer = ts_.top.load(std::memory_order_relaxed);
  if (!ts_.wrapped && ts_.observer != nullptr && outer == nullptr) {
    detach(ts_);  // left over from a run through a base-class reference
  }
  if (outer != nullptr) outer->split();
  if (ts_.observer != nullptr && (ts_.pending_polls | ts_.pending) != 0)
    settle(ts_, ts_.clock.last());
  saved_ = {.account = ts_.account,
            .spare = ts_.spare,
            .owner = ts_.owner,
            .top = outer,
            .base = ts_.base,
            .state = ts_.state,
            .unnamed = ts_.unnamed,
            .observer = ts_.observer,
            .poll_site = ts_.poll_site.load(std::memory_order_relaxed),
            .plain_owner = ts_.plain_owner,
            .label = ts_.label,
            .phantom_turns = ts_.phantom_turns,
            .extra_turns = ts_.extra_turns,
            .plain_epoch = ts_.plain_epoch,
            .critical_since = ts_.critical_since.load(std::memory_order_relaxed),
            .recorder = ts_.recorder,
            .critical = ts_.critical.load(std::memory_order_relaxed),
            .no_yield = ts_.no_yield,
            .wrapped = ts_.wrapped,
            .shared = ts_.shared,
            .compensable = ts_.compensable.load(std::memory_order_relaxed)};
  ts_.account = nullptr;
  ts_.spare = 0;
  ts_.top.store(nullptr, std::memory_order_relaxed);
  ts_.phantom_turns = ts_.extra_turns = 0;
  ts_.critical.store(0, std::memory_order_relaxed);
  show_critical(ts_, false);
  ts_.no_yield = 0;
  ts_.compensable.store(compensable, std::memory_order_relaxed);
  ts_.wrapped = true;
  ts_.label = enabled ? thread_state::label_closed : thread_state::label_none;
  if (!enabled) {
    ts_.recorder = nullptr;
    ts_.owner = nullptr;
    ts_.observer = nullptr;
    show_observer(ts_);
    ts_.unnamed = nullptr;
    ts_.state = &thread_state::no_state;
    ts_.plain_owner = scheduler;
    ts_.plain_epoch = observer_epoch.load(std::memory_order_relaxed);
    return;
  }
  const bool again = saved_.observer == &observer && saved_.wrapped;
  attach(ts_, scheduler, observer);
  if (!again) observer.attached(ts_);
}

worker_scope::~worker_scope() {
  close_current_account(ts_);
  const bool again = saved_.observer == ts_.observer && saved_.wrapped;
  if (ts_.observer != nullptr && !again) ts_.observer->detached(ts_);
  ts_.account = saved_.account;
  ts_.spare = saved_.spare;
  ts_.owner = saved_.owner;
  // Before `top`: an outer poll that comes back is not this observer's.
  ts_.watched.store(saved_.observer, std::memory_order_relaxed);
  ts_.base = saved_.base;
  ts_.state = saved_.state;
  ts_.unnamed = saved_.unnamed;
  ts_.observer = saved_.observer;
  ts_.poll_site.store(saved_.poll_site, std::memory_order_relaxed);
  ts_.plain_owner = saved_.plain_owner;
  ts_.label = saved_.label;
  ts_.phantom_turns = saved_.phantom_turns;
  ts_.extra_turns = saved_.extra_turns;
  ts_.plain_epoch = saved_.plain_epoch;
  ts_.recorder = saved_.recorder;
  ts_.critical_since.store(saved_.critical_since, std::memory_order_relaxed);
  ts_.critical.store(saved_.critical, std::memory_order_relaxed);
  show_critical(ts_, saved_.critical != 0);
  ts_.no_yield = saved_.no_yield;
  ts_.compensable.store(saved_.compensable, std::memory_order_relaxed);
  ts_.wrapped = saved_.wrapped;
  ts_.shared = saved_.shared;
  ts_.token = never(ts_.state->load(std::memory_order_relaxed));
  if (ts_.observer != nullptr) {
    attach_clock(ts_);
    ts_.clock.stamp();  // what ran inside has been charged to its own tasks
    // Whoever ran inside may have looked what there is, for itself.
    ts_.service_epoch = service_epoch.load(std::memory_order_relaxed) - 1;
    watch_account(ts_);
  }
  // Last: until the stamp the outer poll would look as old as what ran inside.
  ts_.top.store(saved_.top, std::memory_order_relaxed);
}

}  // namespace asio_pulse::hooks
