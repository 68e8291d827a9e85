// SPDX-License-Identifier: BSL-1.0
#include "parking.hpp"

#include "groups/task_groups.hpp"

#include <asio_pulse/hooks/always_preempt.hpp>
#include <asio_pulse/hooks/assert.hpp>

#include <algorithm>
#include <new>
#include <utility>

namespace asio_pulse::detail {

using hooks::yield_reason;
using hooks::detail::always_preempt;
using timing::to_ticks;

namespace {

// How far one long poll can set back a task, and after what time CPU use is forgotten. On random
// loads any lead from 1 ms to 20 ms gives the same waits (gate_property_test.cpp). The lead limits
// how long a task is set back after a single poll of a second.
constexpr std::chrono::milliseconds lead{10};
constexpr std::chrono::milliseconds memory{100};

gate_rules::limits limits_of(const options& o) {
  return {.shares = {.lead = to_ticks(lead), .memory = to_ticks(memory)},
          .quantum = to_ticks(o.quantum),
          .slice = to_ticks(o.min_slice)};
}

}  // namespace

gate_entry::gate_entry() noexcept = default;
gate_entry::~gate_entry() = default;

// Shows Asio's queue to a queue_look.
class parking::reader final : public queue_reader {
 public:
  reader(parking& p, task_state& t, timing::ticks now, queue_look::purpose what) noexcept
      : parking_(p),
        task_(t),
        now_(now),
        group_over_(group_over_budget(t, now)),
        look_(t.gate->used, ++p.looks_, what) {}

  answer see(const queued& entry) noexcept override {
    if (entry.what == queued::kind::reactor) return of(look_.reactor());
    if (entry.what == queued::kind::internal) return of(look_.operation(nullptr));
    hooks::task_record& record = entry.task != nullptr ? *entry.task : task_.core().unnamed();
    if (record.home != task_.home) return of(look_.operation(nullptr));
    auto& other = static_cast<task_state&>(record);
    if (!parking_.has_entry(other)) return of(look_.operation(nullptr));
    // Tasks of groups over their budgets do not go before each other, but wait for the rest.
    if (group_over_ && group_over_budget(other, now_))
      return of(look_.operation(&task_.gate->used));
    if (&other != &task_) parking_.bring_up_to_date(other, now_);
    return of(look_.operation(&other.gate->used));
  }

  [[nodiscard]] const queue_look& look() const noexcept { return look_; }

 private:
  static answer of(const queue_look::answer& a) noexcept { return {a.enough, a.put_behind}; }

  parking& parking_;
  task_state& task_;
  const timing::ticks now_;
  const bool group_over_;
  queue_look look_;
};

parking::parking(const options& o, counters& counted, std::atomic<timing::ticks>& calm_until)
    : fibers_(o.enabled ? o.preemptible : preemptible_handlers::declared),
      order_(o.order),
      counters_(counted),
      shadow_(o.shadow),
      quantum_(to_ticks(o.quantum)),
      rules_(limits_of(o)),
      calm_until_(calm_until),
      saturation_(to_ticks(o.saturation)),
      interval_(to_ticks(o.admission.interval)),
      slice_(to_ticks(o.min_slice)) {}

parking::~parking() = default;

void parking::configure(const options& o) noexcept {
  scoped_lock held(mutex_);
  order_.store(o.order, std::memory_order_relaxed);
  shadow_ = o.shadow;
  quantum_ = to_ticks(o.quantum);
  rules_.set(limits_of(o));
  slice_ = to_ticks(o.min_slice);
  interval_.store(to_ticks(o.admission.interval), std::memory_order_relaxed);
  saturation_.store(to_ticks(o.saturation), std::memory_order_relaxed);
  calm_until_.store(0, std::memory_order_relaxed);
  if (shadow_) end_turns(held);
  by_policy_.store(policy_ && !shadow_, std::memory_order_relaxed);
}

void parking::connect(asio_port* port) noexcept {
  const scoped_lock held(mutex_);
  port_ = port;
}

bool parking::may_hold(const task_state& t, const hooks::thread_state& ts) const noexcept {
  const handler_order order = order_.load(std::memory_order_relaxed);
  if (order == handler_order::per_task) return true;
  // A thread that runs the context through a reference to the base class could not run what is
  // parked after stop(), and it is not known when such threads come and go.
  if (order == handler_order::strict || !ts.wrapped) return false;
  if (t.declared() || workers_.load(std::memory_order_relaxed) > 1) return true;
  // A group changes nothing about the order unless it has a budget, or there is a policy.
  return by_policy() ? is_in_group(t) : limited(t);
}

// ---- the gate of a task

void parking::set_gate(task_state& t) noexcept {
  scoped_lock held(mutex_);
  set_gate(t, held);
}

// Under the mutex, so that parking and a change of tier are consistent.
void parking::set_gate(task_state& t, scoped_lock&) noexcept {
  const bool measures = !shadow_ && holds_back(t.level.load(std::memory_order_relaxed));
  const bool deferred = t.deferred.load(std::memory_order_relaxed);
  const bool parked = t.has_parked();
  t.held.store(parked, std::memory_order_relaxed);
  const bool ended = t.ended.load(std::memory_order_relaxed);
  const bool ranked = by_policy() && t.id() != 0;
  const bool on_fiber = fibers_ == preemptible_handlers::all ||
                        (fibers_ == preemptible_handlers::connections && t.of_connection());
  const bool always = parked || measures || deferred || ended || on_fiber || limited(t);
  t.gated.store(static_cast<std::uint8_t>((always ? hooks::gate_flag::always : 0) |
                                          (ranked ? hooks::gate_flag::unless_calm : 0)),
                std::memory_order_relaxed);
}

bool parking::held_since_asked(task_state& t) noexcept {
  const scoped_lock held(mutex_);
  return t.gate != nullptr && std::exchange(t.gate->held_lately, false);
}

void parking::defer(task_state& t) noexcept {
  scoped_lock held(mutex_);
  t.deferred.store(true, std::memory_order_relaxed);
  set_gate(t, held);
}

// Returns false if there is no memory for an entry.
bool parking::has_entry(task_state& t) noexcept {
  if (t.gate == nullptr) t.gate.reset(new (std::nothrow) gate_entry);
  return t.gate != nullptr;
}

void parking::bring_up_to_date(task_state& t, timing::ticks now) noexcept {
  rules_.shares().update(t.gate->used, t.cost(), now, t.has_parked());
  if (group_over_budget(t, now)) rules_.shares().put_behind(t.gate->used);
}

gate_rules::waiting parking::look(task_state& t, timing::ticks now, scoped_lock&) noexcept {
  reader r(*this, t, now, queue_look::purpose::who_is_next);
  port_->read_queue(r);
  gate_rules::waiting found = r.look().found();
  if (const task_state* const other = least(now); other != nullptr && other != &t)
    gate_rules::add_parked(found, t.gate->used, other->gate->used);
  return found;
}

parking::outcome parking::pass(const passing& p, const hooks::thread_state& ts) noexcept {
  scoped_lock held(mutex_);
  if (port_ == nullptr) return {};
  task_state& t = p.task;
  home_ = t.home;
  const bool deferred =
      t.deferred.exchange(false, std::memory_order_relaxed) && !shadow_ && may_hold(t, ts);
  // Programs on one thread rely on this order: aborted operations run before what is posted after
  // the cancellation, and operations that were queued before run even earlier.
  const bool last =
      p.how == hooks::completes::aborted && workers_.load(std::memory_order_relaxed) <= 1;
  if (t.has_parked()) {
    const std::size_t count = park(p, held);
    if (count == 0) return {};
    if (!last) return {verdict::held, static_cast<std::uint32_t>(count), yield_reason::queued};
    requeue(t, p.now, held);
    return {verdict::requeued, static_cast<std::uint32_t>(count), yield_reason::queued};
  }
  if (deferred) counters_.add<&statistics::deferrals>();
  bool hold = (always_preempt() && !shadow_) || deferred;
  const yield_reason why = deferred ? yield_reason::deferred
                           : hold   ? yield_reason::forced
                                    : yield_reason::held;
  if (!has_entry(t)) return {};
  if (p.how == hooks::completes::posted && by_policy()) learn_posted(port_->kind_of(p.operation));
  if (p.by_policy && !last && start_turns(p.now, held)) {
    const std::size_t count = park(p, held);
    if (count == 0) return {};
    if (!std::exchange(driver_queued_, true)) port_->put_driver_in_front();
    return {verdict::held, static_cast<std::uint32_t>(count), why};
  }
  if (!hold && !last && p.over_budget && !shadow_) {
    hooks::charge_pending();
    bring_up_to_date(t, p.now);
    hold = rules_.hold(t.gate->used, look(t, p.now, held), p.now);
  }
  const std::size_t count = hold ? park(p, held) : 0;
  if (count == 0) {
    set_gate(t, held);
    return {};
  }
  if (!std::exchange(driver_queued_, true)) put_driver(t, false, p.now, deferred, held);
  return {verdict::held, static_cast<std::uint32_t>(count), why};
}

// Returns how many operations were parked; none if there is no memory.
std::size_t parking::park(const passing& p, scoped_lock& held) noexcept {
  task_state& t = p.task;
  const bool first = !t.has_parked();
  if (first && (!room_for_another() || (turns_taken_ && !has_turn(t)))) return 0;
  p.op.set(hooks::tracked_operation::held_once);
  port_->append(t.gate->parked, p.operation, next_number(p.now));
  // Operations that follow immediately are moved as well, so that they need no turn each.
  const bool storm = p.how == hooks::completes::posted && !always_preempt();
  const std::size_t swept = storm ? port_->sweep(t, t.gate->parked, p.operation, numbers_ + 1) : 0;
  const std::size_t count = 1 + swept;
  numbers_ += static_cast<std::uint32_t>(swept);
  parked_.fetch_add(count, std::memory_order_relaxed);
  counters_.add<&statistics::yields>(count);
  t.gate->held_lately = true;
  if (first) add_waiting(t, p.now);
  set_gate(t, held);
  return count;
}

// So that a task can be added later without an allocation.
bool parking::room_for_another(std::size_t besides) noexcept {
  const std::size_t waiting = tasks_waiting() + besides;
  try {
    if (waiting >= waiting_.capacity()) waiting_.reserve(2 * waiting + 4);
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

bool parking::gives_way(task_state& t, timing::ticks now, const hooks::thread_state& ts) noexcept {
  if (!may_hold(t, ts)) return false;
  scoped_lock held(mutex_);
  if (port_ == nullptr || !has_entry(t)) return false;
  if (turns_taken_) return turns_count_ > (t.has_parked() ? 1U : 0U);
  hooks::charge_pending();
  bring_up_to_date(t, now);
  gate_rules::waiting found = look(t, now, held);
  found.own_first = true;  // because of the rest of the batch
  return rules_.hold(t.gate->used, found, now);
}

// ---- waiting tasks, and the driver

// Whether `a` is served after `b`: it has used more of the CPU or, if that is equal, came later.
bool parking::later(const task_state* a, const task_state* b) noexcept {
  return a->gate->tag != b->gate->tag ? a->gate->tag > b->gate->tag
                                      : a->gate->arrival > b->gate->arrival;
}

void parking::add_waiting(task_state& t, timing::ticks now) noexcept {
  if (turns_taken_) return add_turn(t, now);
  add_to_heap(t);
}

void parking::add_to_heap(task_state& t) noexcept {
  t.gate->tag = t.gate->used.tag;
  t.gate->arrival = ++arrivals_;
  waiting_.push_back(&t);  // capacity was reserved before
  std::ranges::push_heap(waiting_, later);
}

// The task need not be at the front: another worker may have charged it since it was there.
void parking::remove_waiting(task_state& t, timing::ticks now) noexcept {
  if (turns_taken_) return remove_turn(*t.gate->turn, now);
  if (waiting_.front() == &t) {
    std::ranges::pop_heap(waiting_, later);
    waiting_.pop_back();
    return;
  }
  [[maybe_unused]] const std::size_t gone = std::erase(waiting_, &t);
  ASIO_PULSE_ASSERT(gone == 1);
  std::ranges::make_heap(waiting_, later);
}

// The task that had the least CPU time, at the front of the heap.
task_state* parking::least(timing::ticks now) noexcept {
  for (;;) {
    if (waiting_.empty()) return nullptr;
    task_state& t = *waiting_.front();
    bring_up_to_date(t, now);
    if (t.gate->used.tag == t.gate->tag) return &t;
    // The task has run work meanwhile that the gate does not see, so its tag has changed.
    std::ranges::pop_heap(waiting_, later);
    t.gate->tag = t.gate->used.tag;
    std::ranges::push_heap(waiting_, later);
  }
}

void* parking::release() noexcept {
  const timing::ticks now = timing::timebase::get().now();
  hooks::charge_pending();
  scoped_lock held(mutex_);
  if (port_ == nullptr) return nullptr;
  if ((turns_taken_ || saturated_.load(std::memory_order_relaxed)) && start_turns(now, held))
    return release_by_policy(now, held);
  rules_.turn_begins(now, served_since_put(now));
  task_state* const t = least(now);
  if (t == nullptr) {
    driver_queued_ = false;
    return nullptr;
  }
  const gate_rules::waiting found = look(*t, now, held);
  if (!shadow_ && !always_preempt() && !rules_.release(t->gate->used, found, now)) {
    put_driver(*t, rules_.slice_over(found, now), now, false, held);
    return nullptr;
  }
  running_ = port_->first_number(t->gate->parked);
  void* const operation = take_next(*t, now, held);
  driver_queued_ = !waiting_.empty();
  if (driver_queued_) {
    if (always_preempt() && !shadow_) {
      put_driver(*waiting_.front(), true, now, true, held);
    } else {
      port_->put_driver_in_front();
    }
  }
  return operation;
}

void parking::put_driver(task_state& t, bool slice_over, timing::ticks now, bool at_the_end,
                         scoped_lock&) noexcept {
  reader r(*this, t, now,
           slice_over ? queue_look::purpose::behind_the_next : queue_look::purpose::behind_less);
  port_->put_driver(r, at_the_end);
  rules_.put_behind(now, waiting_.size(), r.look().others());
  const hooks::thread_state& ts = hooks::this_thread();
  put_by_ = &ts;
  charged_then_ = ts.charged;
}

// How much CPU time was used since the driver was put into the queue. If another worker has put it
// there, the elapsed time is used instead, but at most a quantum, because it includes idle time.
timing::ticks parking::served_since_put(timing::ticks now) const noexcept {
  const hooks::thread_state& ts = hooks::this_thread();
  return put_by_ == &ts ? ts.charged - charged_then_ : std::min(rules_.since_put(now), quantum_);
}

void parking::requeue(task_state& t, timing::ticks now, scoped_lock& held) noexcept {
  const std::size_t count = port_->put_in_front(t.gate->parked);
  parked_.fetch_sub(count, std::memory_order_relaxed);
  remove_waiting(t, now);
  set_gate(t, held);
}

void parking::released_ended(bool stopped) noexcept {
  const scoped_lock held(mutex_);
  const std::uint32_t number = std::exchange(running_, 0);
  if (stopped) stopped_by_.store(number, std::memory_order_relaxed);
}

// No lock is taken here, so that poll() in a loop stays cheap: the thread that stopped the context
// and the one that runs it afterwards have synchronised through the program's restart().
void parking::run_begins() noexcept { stopped_by_.store(0, std::memory_order_relaxed); }

bool parking::requeue_overtaken() noexcept {
  scoped_lock held(mutex_);
  if (port_ == nullptr || workers_.load(std::memory_order_relaxed) > 1) return false;
  const std::uint32_t stopper = stopped_by_.load(std::memory_order_relaxed);
  task_state* oldest = nullptr;
  const auto look_at = [&](task_state* t) {
    const std::uint32_t number = port_->first_number(t->gate->parked);
    if (stopper != 0 && !older(number, stopper)) return;
    if (oldest == nullptr || older(number, port_->first_number(oldest->gate->parked))) oldest = t;
  };
  std::ranges::for_each(waiting_, look_at);
  for (turn& w : turns_) {
    if (&w != &others_) look_at(static_cast<task_turn&>(w).task);
  }
  if (oldest == nullptr) return false;
  running_ = port_->first_number(oldest->gate->parked);
  parked_work one;
  one.front = one.back = port_->take(oldest->gate->parked);
  parked_.fetch_sub(1, std::memory_order_relaxed);
  if (!oldest->has_parked()) {
    remove_waiting(*oldest, timing::timebase::get().now());
    set_gate(*oldest, held);
  }
  (void)port_->put_in_front(one);
  return true;
}

// Takes the oldest parked operation of a waiting task, and moves the task to its new place in the
// heap.
void* parking::take_next(task_state& t, timing::ticks now, scoped_lock& held) noexcept {
  ASIO_PULSE_ASSERT(t.has_parked());
  void* const operation = port_->take(t.gate->parked);
  parked_.fetch_sub(1, std::memory_order_relaxed);
  remove_waiting(t, now);
  if (t.has_parked()) {
    add_waiting(t, now);
  } else {
    set_gate(t, held);
  }
  return operation;
}

void* parking::take_any() noexcept {
  scoped_lock held(mutex_);
  if (port_ == nullptr) return nullptr;
  end_turns(held);
  return waiting_.empty() ? nullptr : take_next(*waiting_.front(), 0, held);
}

}  // namespace asio_pulse::detail
