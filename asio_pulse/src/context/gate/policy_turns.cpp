// SPDX-License-Identifier: BSL-1.0
//
// The gate while the context is saturated and has a policy other than round_robin: waiting operations are
// taken out of Asio's queue, and the policy says whose turn it is.
#include "deadline_policy.hpp"
#include "fair_policy.hpp"
#include "groups/task_groups.hpp"
#include "load_soon.hpp"
#include "parking.hpp"
#include "priority_policy.hpp"

#include <asio_pulse/hooks/always_preempt.hpp>
#include <asio_pulse/hooks/assert.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <iterator>
#include <new>
#include <ranges>
#include <stdexcept>
#include <utility>

namespace asio_pulse::detail {

using hooks::detail::always_preempt;
using timing::to_ticks;

namespace {

// The header of options states both.
constexpr std::chrono::milliseconds aging{50};
constexpr std::chrono::milliseconds usual_deadline{100};

// What a group used longer ago is forgotten; as in the gate for tasks.
constexpr std::chrono::milliseconds group_memory{100};

// More than the threads that run a context.
constexpr std::size_t most_choices = 1024;

// Parked operations are numbered in these units of time: 2048 ticks, about a microsecond.
constexpr unsigned number_bits = 11;

// For how long, at most, the driver chooses without looking for new entries. The reactor is not polled
// meanwhile. A guess: as parking's lead.
constexpr std::chrono::milliseconds longest_choosing{10};

// Relaxed: the numbers only have to be different.
std::atomic<std::uint32_t> next_fair_policy{1};

std::uint32_t number_at(timing::ticks now) noexcept {
  return static_cast<std::uint32_t>(now >> number_bits);
}

timing::ticks since(timing::ticks then, timing::ticks now) noexcept {
  return now - std::min(then, now);
}

}  // namespace

chosen_policy make_policy(const options& o) {
  chosen_policy result;
  switch (o.policy) {
    case scheduling::round_robin:
      break;
    case scheduling::priority:
      result.own = std::make_unique<priority_policy>(to_ticks(aging));
      break;
    case scheduling::fair:
      result.own = std::make_unique<fair_policy>(
          to_ticks(group_memory), next_fair_policy.fetch_add(1, std::memory_order_relaxed));
      result.by_group = true;
      break;
    case scheduling::deadline:
      result.own = std::make_unique<deadline_policy>();
      break;
    case scheduling::custom:
      if (o.custom_policy != nullptr) result.custom = o.custom_policy();
      if (result.custom == nullptr) {
        throw std::invalid_argument("asio_pulse::options.custom_policy must not return null");
      }
      break;
  }
  return result;
}

chosen_policy parking::use(chosen_policy p) noexcept {
  scoped_lock held(mutex_);
  end_turns(held);
  std::swap(policy_, p);
  by_policy_.store(policy_ && !shadow_, std::memory_order_relaxed);
  calm_until_.store(0, std::memory_order_relaxed);
  return p;
}

// ---- is the context saturated?

// The calm ends before the flag is set, so that no operation passes for longer than a turn.
void parking::set_saturated() noexcept {
  calm_until_.store(0, std::memory_order_relaxed);
  saturated_.store(true, std::memory_order_relaxed);
}

// For as long after `since` pressed() would answer `none`.
void parking::set_calm(timing::ticks since) noexcept {
  if (always_preempt()) return;
  calm_until_.store(since + saturation_.load(std::memory_order_relaxed), std::memory_order_relaxed);
}

parking::pressure parking::pressed(timing::ticks now) noexcept {
  if (saturated_.load(std::memory_order_relaxed)) return pressure::saturated;
  const timing::ticks bound = saturation_.load(std::memory_order_relaxed);
  const timing::ticks posted = probe_posted_.load(std::memory_order_relaxed);
  if (bound == 0 || always_preempt() || (posted != 0 && since(posted, now) >= bound)) {
    set_saturated();
    return pressure::saturated;
  }
  const bool lately = since(probed_at_.load(std::memory_order_relaxed), now) < bound;
  return posted != 0 || lately ? pressure::none : pressure::unknown;
}

void parking::probing(timing::ticks now) noexcept {
  probe_posted_.store(now, std::memory_order_relaxed);
  set_calm(now);
}

bool parking::probed(timing::ticks delay, timing::ticks now) noexcept {
  const timing::ticks posted = now - delay;
  const bool overtaken = by_turns_.load(std::memory_order_relaxed) ||
                         posted < turns_ended_.load(std::memory_order_relaxed);
  if (!by_policy()) return !overtaken;
  probe_posted_.store(0, std::memory_order_relaxed);
  probed_at_.store(now, std::memory_order_relaxed);
  if (overtaken || saturated_.load(std::memory_order_relaxed)) return !overtaken;
  if (delay >= saturation_.load(std::memory_order_relaxed)) {
    set_saturated();
  } else {
    set_calm(now);
  }
  return true;
}

std::optional<timing::ticks> parking::longest_wait(timing::ticks now) const noexcept {
  if (!by_turns_.load(std::memory_order_relaxed)) return std::nullopt;
  const bool lately = since(longest_at_.load(std::memory_order_relaxed), now) <=
                      interval_.load(std::memory_order_relaxed);
  return lately ? longest_wait_.load(std::memory_order_relaxed) : 0;
}

std::optional<timing::ticks> parking::wait_to_note(timing::ticks every) noexcept {
  if (!by_turns_.load(std::memory_order_relaxed)) return std::nullopt;
  const scoped_lock held(mutex_);
  const timing::ticks now = std::exchange(waited_until_, 0);
  if (now == 0 || since(noted_at_, now) < every) return std::nullopt;
  noted_at_ = now;
  return wait_;
}

// As in CoDel, the wait of an operation is measured at its turn.
void parking::note_wait(const task_turn& w, timing::ticks now) noexcept {
  wait_ = since(w.ready, now);
  waited_until_ = now;
  if (wait_ >= longest_wait_.load(std::memory_order_relaxed) ||
      since(longest_at_.load(std::memory_order_relaxed), now) >
          interval_.load(std::memory_order_relaxed)) {
    longest_wait_.store(wait_, std::memory_order_relaxed);
    longest_at_.store(now, std::memory_order_relaxed);
  }
  if (w.group != nullptr) task_groups::waited(static_cast<group_state&>(*w.group), wait_, now);
}

// ---- what waits

// Moves the waiting tasks to the policy. Returns false if there is no policy, or no memory.
bool parking::start_turns(timing::ticks now, scoped_lock&) noexcept {
  if (turns_taken_) return true;
  if (!policy_ || shadow_ ||
      !std::ranges::all_of(waiting_, [](task_state* t) { return has_turn(*t); }))
    return false;
  turns_taken_ = true;
  by_turns_.store(true, std::memory_order_relaxed);
  longest_wait_.store(0, std::memory_order_relaxed);
  // An update may have changed this since the gate was asked about the operation that begins the turns.
  set_saturated();
  crowded_at_ = now;
  went_behind_ = chooses_until_ = 0;
  for (task_state* const t : waiting_) add_turn(*t, now);
  waiting_.clear();
  return true;
}

// Moves them back.
void parking::end_turns(scoped_lock&) noexcept {
  if (!turns_taken_) return;
  const timing::ticks now = timing::timebase::get().now();
  show_others(false, now);
  while (!turns_.empty()) {
    auto& w = static_cast<task_turn&>(turns_.front());
    remove_turn(w, now);
    w.task->gate->tag = w.task->gate->used.tag;
    w.task->gate->arrival = ++arrivals_;
    waiting_.push_back(w.task);  // capacity was reserved before
  }
  std::ranges::make_heap(waiting_, later);
  choices_.clear();
  turns_taken_ = false;
  turns_ended_.store(now, std::memory_order_relaxed);
  by_turns_.store(false, std::memory_order_relaxed);
  // The probe waited behind the driver, so its delay says nothing any more.
  probe_posted_.store(0, std::memory_order_relaxed);
  saturated_.store(false, std::memory_order_relaxed);
}

bool parking::has_turn(task_state& t) noexcept {
  if (t.gate->turn == nullptr) {
    t.gate->turn.reset(new (std::nothrow) task_turn);
    if (t.gate->turn != nullptr) t.gate->turn->task = &t;
  }
  return t.gate->turn != nullptr;
}

// Null for a task in no group.
fair_group* parking::shares_of(const task_state& t) const noexcept {
  fair_group* found = nullptr;
  t.with_group([&found](group_state* g) { found = g; });
  return found;
}

void parking::group_changed(task_state& t) noexcept {
  scoped_lock held(mutex_);
  set_gate(t, held);
  if (!turns_taken_ || !t.has_parked()) return;
  const timing::ticks now = timing::timebase::get().now();
  remove_turn(*t.gate->turn, now);
  add_turn(t, now);
}

void parking::weight_changed(group_state& g) noexcept {
  const scoped_lock held(mutex_);
  if (policy_.by_group) policy_.own->weight_changed(g);
}

timing::ticks parking::parked_at(const task_state& t, timing::ticks now) const noexcept {
  const std::uint32_t age = number_at(now) - port_->first_number(t.gate->parked);
  return static_cast<std::int32_t>(age) < 0 ? now : now - (timing::ticks{age} << number_bits);
}

std::uint32_t parking::next_number(timing::ticks now) noexcept {
  const std::uint32_t time = number_at(now);
  ++numbers_;
  // Behind the time, or left over from so long ago that it may seem to be ahead.
  const bool old = since(numbered_at_, now) >> number_bits > std::uint32_t{1} << 29;
  if (old || numbers_ - time > std::uint32_t{1} << 30) numbers_ = time;
  numbered_at_ = now;
  if (numbers_ == 0) ++numbers_;
  return numbers_;
}

void parking::add_turn(task_state& t, timing::ticks now) noexcept {
  task_turn& w = *t.gate->turn;
  w.ready = parked_at(t, now);
  w.cost = t.cost();
  w.group = shares_of(t);
  const task_extras* const rank = t.ranked ? t.extras.load(std::memory_order_acquire) : nullptr;
  w.priority = rank != nullptr ? rank->priority : task_options{}.priority;
  const timing::ticks deadline = rank != nullptr ? rank->deadline : 0;
  w.deadline = deadline == 0 ? w.ready + to_ticks(usual_deadline)
               : rank->due   ? deadline
                             : w.ready + deadline;
  turns_.push_back(w);
  ++turns_count_;
  wait_in_policy(w, now);
}

// While the task's group is over its budget, the policy does not see it.
void parking::wait_in_policy(task_turn& w, timing::ticks now) noexcept {
  w.over_budget = w.task != nullptr && group_over_budget(*w.task, now);
  if (w.over_budget) {
    over_.push_back(w);
  } else if (policy_.own != nullptr) {
    policy_.own->add(w, now);
  }
}

void parking::remove_turn(task_turn& w, timing::ticks now) noexcept {
  turns_.erase(turns_.iterator_to(w));
  if (w.task != nullptr) --turns_count_;
  ++changes_;
  if (w.over_budget) {
    over_.erase(over_.iterator_to(w));
  } else if (policy_.own != nullptr) {
    policy_.own->remove(w, now);
  }
}

// The operations that stay in the queue wait as one more task.
void parking::show_others(bool there, timing::ticks now) noexcept {
  if (std::exchange(others_wait_, there) == there) return;
  if (!there) return remove_turn(others_, now);
  others_.deadline = others_.ready + to_ticks(usual_deadline);
  turns_.push_back(others_);
  wait_in_policy(others_, now);
}

// Takes operations out of the queue, of tasks that may be held back.
class parking::sweeper final : public queue_sweeper {
 public:
  sweeper(parking& p, timing::ticks now) noexcept : parking_(p), now_(now) {}

  answer see(const queued& entry, const void* kind) noexcept override {
    // It runs handlers of tasks that are not known yet.
    if (entry.what == queued::kind::internal) return {.soon = true};
    if (entry.task == nullptr || entry.task->home != parking_.home_) return {};
    auto& t = static_cast<task_state&>(*entry.task);
    if (t.ended.load(std::memory_order_relaxed) || !parking_.may_hold(t, hooks::this_thread()))
      return {};
    // It may be an aborted wait, which one thread must not put behind others. Its own turn shows that.
    if (parking_.workers_.load(std::memory_order_relaxed) <= 1 && !parking_.known_as_posted(kind))
      return {.soon = true};
    if (!has_entry(t)) return {};
    const bool first = t.gate->parked.front == nullptr;
    if (first) {
      if (!has_turn(t) || !parking_.room_for_another(tasks_)) return {};
      fresh_.push_back(*t.gate->turn);
      ++tasks_;
    }
    ++count_;
    return {.to = &t.gate->parked, .number = parking_.next_number(now_)};
  }

  // Adds the tasks of which operations were taken.
  void finish(scoped_lock& held) noexcept {
    while (!fresh_.empty()) {
      task_state& t = *static_cast<task_turn&>(fresh_.front()).task;
      fresh_.pop_front();
      parking_.add_turn(t, now_);
      parking_.set_gate(t, held);
    }
    parking_.parked_.fetch_add(count_, std::memory_order_relaxed);
  }

 private:
  parking& parking_;
  const timing::ticks now_;
  turn_list<in_turn> fresh_;
  std::size_t tasks_ = 0;
  std::size_t count_ = 0;
};

// The kinds of operations that were found, at their turn, not to be waits. The table does not grow:
// operations of kinds for which it has no place are held back at their turn.
namespace {

std::size_t place_of(const void* kind, std::size_t places) noexcept {
  return (reinterpret_cast<std::uintptr_t>(kind) >> 4) % places;
}

}  // namespace

void parking::learn_posted(const void* kind) noexcept {
  posted_kinds_[place_of(kind, posted_kinds_.size())] = kind;
}

bool parking::known_as_posted(const void* kind) const noexcept {
  return posted_kinds_[place_of(kind, posted_kinds_.size())] == kind;
}

// ---- whose turn it is

// For a policy, all that this thread has run since its last choice counts as that choice's cost.
void parking::charge_choice() noexcept {
  const hooks::thread_state& ts = hooks::this_thread();
  for (choice_of_thread& c : choices_) {
    if (c.thread != &ts || !std::exchange(c.open, false)) continue;
    const timing::ticks cost = ts.charged - std::min(c.charged, ts.charged);
    if (c.others) others_.cost += cost;
    if (policy_.own != nullptr) policy_.own->served(c.what, cost);
    return;
  }
}

void parking::note_choice(turn_policy::mark what, bool others) noexcept {
  const hooks::thread_state& ts = hooks::this_thread();
  const auto mine =
      std::ranges::find_if(choices_, [&ts](const choice_of_thread& c) { return c.thread == &ts; });
  const auto place =
      mine != choices_.end()
          ? mine
          : std::ranges::find_if(choices_, [](const choice_of_thread& c) { return !c.open; });
  const choice_of_thread made{&ts, ts.charged, what, others, true};
  if (place != choices_.end()) {
    *place = made;
    return;
  }
  // Threads that have ended may have left theirs.
  if (choices_.size() == most_choices) return;
  try {
    choices_.push_back(made);
  } catch (const std::bad_alloc&) {  // then nobody is charged for this turn
  }
}

// Tasks whose groups are not over their budgets any more. Two for each decision, so that all are looked
// at in time, and one decision stays cheap.
void parking::refill(timing::ticks now) noexcept {
  for (int i = 0; i != 2 && !over_.empty(); ++i) {
    auto& w = static_cast<task_turn&>(over_.front());
    over_.pop_front();
    wait_in_policy(w, now);
  }
}

// Asks the program's policy, without the lock. Null if the policy failed, or its choice is gone.
task_turn* parking::ask_program(timing::ticks now, scoped_lock& held) noexcept {
  const std::uint64_t changes = changes_;
  std::shared_ptr<scheduling_policy> policy = policy_.custom;
  bool good = false;
  std::size_t index = 0;
  try {
    shown_.clear();
    shown_turns_.clear();
    for (turn& each : turns_) {
      auto& w = static_cast<task_turn&>(each);
      if (w.over_budget) continue;
      shown_turns_.push_back(&w);
      scheduling_policy::work work{.task = w.task != nullptr ? w.task->id() : 0,
                                   .priority = w.priority,
                                   .cost = timing::to_ns(w.task != nullptr ? w.task->cost() : 0),
                                   .since = timing::to_ns(w.ready)};
      if (w.task != nullptr && w.task->ranked &&
          w.task->extras.load(std::memory_order_acquire)->deadline != 0)
        work.deadline = timing::to_ns(w.deadline);
      if (w.task != nullptr) {
        w.task->with_group([&work](const group_state* g) {
          if (g == nullptr) return;
          work.group = g->id;
          work.weight = g->weight.load(std::memory_order_relaxed);
          work.group_cost = timing::to_ns(g->cost.load());
        });
      }
      shown_.push_back(work);
    }
    if (shown_.empty()) return nullptr;
    // The members are used in the driver's turn only, of which there is one at a time.
    held.unlock();
    index = policy->pick(shown_, timing::to_ns(now));
    good = index < shown_.size();
    held.lock();
  } catch (...) {
    if (!held.owns_lock()) held.lock();
  }
  if (policy != policy_.custom) {  // another one is used now, and this may be the last reference
    held.unlock();
    policy.reset();
    held.lock();
  }
  if (!good) {
    counters_.add<&statistics::policy_faults>();
    fault none = fault::none;
    fault_.compare_exchange_strong(none, fault::made, std::memory_order_relaxed);
    return nullptr;
  }
  // If something has changed meanwhile, its choice may be gone. That is not a fault of the policy.
  return changes == changes_ ? shown_turns_[index] : nullptr;
}

// Null if nothing waits.
task_turn* parking::next_turn(timing::ticks now, turn_policy::mark& what,
                              scoped_lock& held) noexcept {
  refill(now);
  for (;;) {
    task_turn* w = nullptr;
    if (policy_.own != nullptr) {
      const turn_policy::choice c = policy_.own->next(now);
      w = static_cast<task_turn*>(c.next);
      what = c.what;
    } else if (policy_.custom != nullptr) {
      w = ask_program(now, held);
      if (!turns_taken_) return nullptr;
      if (w == nullptr) {
        const auto first = std::ranges::find_if(
            turns_, [](turn& each) { return !static_cast<task_turn&>(each).over_budget; });
        if (first != turns_.end()) w = static_cast<task_turn*>(&*first);
      }
    }
    if (w == nullptr) return over_.empty() ? nullptr : static_cast<task_turn*>(&over_.front());
    if (w->task == nullptr || !group_over_budget(*w->task, now)) return w;
    // It may have used its budget while it waited.
    if (policy_.own != nullptr) policy_.own->remove(*w, now);
    wait_in_policy(*w, now);
  }
}

// If thousands of tasks wait, the memory of each is not in the caches when its turn comes. Each step needs
// what the one before has loaded, a turn ago.
void parking::look_ahead() noexcept {
  constexpr std::size_t many = 256;
  if (turns_count_ < many) return;
  std::array<turn*, 5> next{};
  if (policy_.own == nullptr || policy_.own->upcoming(next) != next.size()) {
    // Those that have waited longest are probably next.
    std::ranges::transform(turns_ | std::views::take(next.size()), next.begin(),
                           [](turn& t) { return &t; });
  }
  const auto& second = static_cast<const task_turn&>(*next[1]);
  const auto& third = static_cast<const task_turn&>(*next[2]);
  auto& fourth = static_cast<task_turn&>(*next[3]);
  load_soon(static_cast<const task_turn*>(next[4]));
  load_soon(fourth.task);
  load_soon(static_cast<const group_state*>(fourth.group));
  // Its neighbours are written when it is taken out of the list.
  const auto place = turns_.iterator_to(fourth);
  if (place != turns_.begin())
    load_soon(static_cast<const list_hook<in_turn>*>(&*std::prev(place)));
  if (const auto behind = std::next(place); behind != turns_.end())
    load_soon(static_cast<const list_hook<in_turn>*>(&*behind));
  if (third.task != nullptr) {
    load_soon(third.task->gate.get());
    load_soon(third.task->extras.load(std::memory_order_relaxed));
  }
  if (second.task != nullptr) {
    struct alignas(64) operation {
      std::array<char, 128> bytes;  // a guess: most are smaller
    };
    load_soon(static_cast<const operation*>(second.task->gate->parked.front));
  }
}

void* parking::release_by_policy(timing::ticks now, scoped_lock& held) noexcept {
  charge_choice();
  // Connections that may not be held can bring new entries as fast as the old ones get their turns. So
  // what is parked runs for as long as these did. It is older than the new entries, so the order stays.
  if (const timing::ticks then = std::exchange(went_behind_, 0); then != 0)
    chooses_until_ = now + std::min(since(then, now), to_ticks(longest_choosing));
  const bool looks = now >= chooses_until_ || turns_count_ == 0;
  if (looks) {
    sweeper s(*this, now);
    const asio_port::queue_state found = port_->sweep_new(s);
    s.finish(held);
    if (found.soon) {
      went_behind_ = now;
      port_->put_driver_behind(asio_port::place::end);
      return nullptr;
    }
    if (!found.reactor) {
      reactor_at_ = now;
    } else if (since(reactor_at_, now) >= slice_) {
      reactor_at_ = now;
      port_->put_driver_behind(asio_port::place::reactor);
      return nullptr;
    }
    // When the first of them was put there is not known: at most as long ago as there have been some.
    others_.ready = !found.others
                        ? now
                        : std::max(others_.ready, now - std::min(now, to_ticks(usual_deadline)));
    show_others(found.others, now);
  }
  if (turns_count_ == 0) {
    // What is in the queue runs without the driver, until something has to wait again.
    driver_queued_ = false;
    return nullptr;
  }
  const bool alone = looks && parked_.load(std::memory_order_relaxed) <= 1 && !others_wait_;
  if (!alone) {
    crowded_at_ = now;
  } else if (saturation_.load(std::memory_order_relaxed) != 0 && !always_preempt() &&
             since(crowded_at_, now) >= saturation_.load(std::memory_order_relaxed)) {
    end_turns(held);
    task_state& t = *waiting_.front();
    running_ = port_->first_number(t.gate->parked);
    driver_queued_ = false;
    return take_next(t, now, held);
  }
  turn_policy::mark what = 0;
  task_turn* const w = next_turn(now, what, held);
  if (w == nullptr) {  // the policy has changed meanwhile
    port_->put_driver_in_front();
    return nullptr;
  }
  counters_.add<&statistics::policy_turns>();
  note_choice(what, w == &others_);
  if (w == &others_) {
    show_others(false, now);
    port_->put_driver_behind(asio_port::place::next);
    return nullptr;
  }
  note_wait(*w, now);
  running_ = port_->first_number(w->task->gate->parked);
  void* const operation = take_next(*w->task, now, held);
  driver_queued_ = turns_count_ != 0 || others_wait_ || !looks;
  if (driver_queued_) port_->put_driver_in_front();
  look_ahead();
  return operation;
}

}  // namespace asio_pulse::detail
