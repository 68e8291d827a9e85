// SPDX-License-Identifier: BSL-1.0
#include "core_list.hpp"

#include <asio_pulse/detail/context_core.hpp>

namespace asio_pulse::detail {

core_list& core_list::get() noexcept { return process_wide<core_list>(); }

void core_list::add(context_core& core) {
  const std::lock_guard lock(mutex_);
  cores_.push_back(&core);
}

void core_list::remove(context_core& core) noexcept {
  const std::lock_guard lock(mutex_);
  std::erase(cores_, &core);
}

void core_list::before_fork() noexcept {
  mutex_.lock();
  for (context_core* const core : cores_) core->before_fork();
}

void core_list::after_fork(bool child) noexcept {
  for (context_core* const core : cores_) core->after_fork(child);
  mutex_.unlock();
}

}  // namespace asio_pulse::detail
