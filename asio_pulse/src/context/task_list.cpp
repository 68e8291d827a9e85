// SPDX-License-Identifier: BSL-1.0
//
// The lists of a context's tasks.
#include <asio_pulse/detail/task_list.hpp>

#include <cstddef>
#include <mutex>
#include <utility>

namespace asio_pulse::detail {

namespace {

// How many tasks are read each time that the mutex is held. A guess: with more, a new task waits
// longer for the mutex (now about 10 us); with fewer, it is locked more often.
constexpr std::size_t chunk = 128;

}  // namespace

// When std::mutex is unlocked, the first thread that tries to lock it gets it. A thread that sleeps
// until then is slower than the walk, which locks it again at once. So a thread that waits holds the
// turn, without which the walk cannot lock the mutex.
std::unique_lock<std::mutex> task_list::lock_in_turn() const {
  const std::lock_guard turn(turn_);
  return std::unique_lock(mutex_);
}

void task_list::add(task_state& t) noexcept {
  const auto lock = lock_in_turn();
  t.next = first_;
  if (first_ != nullptr) first_->previous = &t;
  first_ = &t;
  ++totals_.alive;
}

void task_list::remove(task_state& t) noexcept {
  const auto lock = lock_in_turn();
  (t.previous != nullptr ? t.previous->next : first_) = t.next;
  if (t.next != nullptr) t.next->previous = t.previous;
  --totals_.alive;
  totals_.ended_polls += t.polls.load(std::memory_order_relaxed);
  totals_.ended_cost += t.cost.load(std::memory_order_relaxed);
}

task_state* task_list::find(const hooks::task_record* address) const noexcept {
  if (address == nullptr) return nullptr;
  const auto lock = lock_in_turn();
  for (task_state* t = first_; t != nullptr; t = t->next) {
    if (t != address) continue;
    return hooks::try_acquire(*t) ? t : nullptr;
  }
  return nullptr;
}

// Reads the list in pieces. A reference to the last task of a piece keeps it in the list until the
// next piece begins. New tasks are added at the front and are not seen.
void task_list::walk(const std::function<void(task_state&)>& look) {
  task_state* held = nullptr;
  struct letting_go {
    task_state*& held;
    ~letting_go() {
      if (held != nullptr) hooks::release(*held);
    }
  } const at_end{held};
  for (bool begin = true; begin || held != nullptr; begin = false) {
    task_state* last = nullptr;
    {
      const auto lock = lock_in_turn();
      if (begin) look(unnamed_);
      std::size_t n = 0;
      for (task_state* t = begin ? first_ : held->next; t != nullptr; t = t->next) {
        look(*t);
        if (++n >= chunk && t->next != nullptr && hooks::try_acquire(*t)) {
          last = t;
          break;
        }
      }
    }
    if (held != nullptr) hooks::release(*held);
    held = last;
  }
}

task_list::figures task_list::totals() const noexcept {
  const auto lock = lock_in_turn();
  return totals_;
}

task_state* place_tasks::find(const void* place) const noexcept {
  const std::lock_guard lock(mutex_);
  const auto found = tasks_.find(place);
  return found != tasks_.end() ? found->second : nullptr;
}

task_state* place_tasks::add(const void* place, task_ref made) {
  const std::lock_guard lock(mutex_);
  if (closed_) return nullptr;
  const auto [at, fresh] = tasks_.try_emplace(place, made.get());
  if (fresh) (void)made.release();  // otherwise another thread was first
  return at->second;
}

void place_tasks::close() noexcept {
  std::unordered_map<const void*, task_state*> tasks;
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    tasks.swap(tasks_);
  }
  for (const auto& [place, t] : tasks) hooks::release(*t);
}

}  // namespace asio_pulse::detail
