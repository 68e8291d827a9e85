// SPDX-License-Identifier: BSL-1.0
#include "fork_order.hpp"

#if defined(__unix__) || defined(__APPLE__)

#include <pthread.h>

#include <array>
#include <cstddef>
#include <mutex>

namespace asio_pulse::detail {
namespace {

constexpr std::size_t most_handlers = 8;  // one for each process-wide object

// Never destroyed, because a program may fork while it ends.
struct handlers {
  std::mutex mutex{};  ///< guards the others, and is held during a fork
  std::array<fork_handler, most_handlers> all{};
  std::size_t count = 0;
};
union forever {
  constexpr forever() noexcept : only() {}
  ~forever() {}
  handlers only;
};
constinit forever storage;

void before_fork() {
  storage.only.mutex.lock();
  for (std::size_t i = 0; i != storage.only.count; ++i) storage.only.all[i].before();
}

void after_fork(bool child) {
  for (std::size_t i = storage.only.count; i != 0; --i) storage.only.all[i - 1].after(child);
  storage.only.mutex.unlock();
}

}  // namespace

void add_fork_handler(const fork_handler& handler) noexcept {
  handlers& h = storage.only;
  const std::lock_guard lock(h.mutex);
  if (h.count == most_handlers) return;
  if (h.count == 0) {
    (void)::pthread_atfork(
        &before_fork, [] { after_fork(false); }, [] { after_fork(true); });
  }
  std::size_t at = h.count++;
  for (; at != 0 && h.all[at - 1].when > handler.when; --at) h.all[at] = h.all[at - 1];
  h.all[at] = handler;
}

}  // namespace asio_pulse::detail

#else

namespace asio_pulse::detail {

void add_fork_handler(const fork_handler&) noexcept {}

}  // namespace asio_pulse::detail

#endif
