// SPDX-License-Identifier: BSL-1.0
//
// The lists of a context's tasks.
#include <asio_pulse/detail/task_list.hpp>

#include <mutex>
#include <utility>

namespace asio_pulse::detail {

void task_list::remove(task_state& t) noexcept {
  const auto lock = all_.lock_in_turn();
  all_.unlink(t, lock);
  --totals_.alive;
  totals_.ended_polls += t.polls();
  totals_.ended_cost += t.cost();
}

task_state* task_list::find(const hooks::task_record* address) const noexcept {
  if (address == nullptr) return nullptr;
  const auto lock = all_.lock_in_turn();
  for (task_state* t = all_.first(lock); t != nullptr; t = t->next) {
    if (t != address) continue;
    return hooks::try_acquire(*t) ? t : nullptr;
  }
  return nullptr;
}

void task_list::walk(const std::function<void(task_state&)>& look) {
  {
    const auto lock = all_.lock_in_turn();
    look(unnamed_);
  }
  all_.walk(look);
}

task_list::figures task_list::totals() const noexcept {
  const auto lock = all_.lock_in_turn();
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
