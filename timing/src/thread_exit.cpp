// SPDX-License-Identifier: BSL-1.0
#include "thread_exit.hpp"

#include <atomic>
#include <utility>

#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace asio_pulse::detail {
namespace {

constinit thread_local thread_exit_hook* first_hook = nullptr;

void run_all() noexcept {
  while (first_hook != nullptr) {
    thread_exit_hook& hook = *std::exchange(first_hook, first_hook->next);
    hook.set = false;
    hook.run();
  }
}

#if defined(_WIN32)

struct runner {
  ~runner() { run_all(); }
  bool used = false;
};
thread_local runner at_end;

bool notice_end() noexcept { return at_end.used = true; }

#else

/// The first hook of each thread is the value of a POSIX key. The C library keeps the values of the
/// first keys (glibc: 32) in the thread itself, and needs no memory for them.
class end_notice {
 public:
  end_notice() noexcept : usable_(pthread_key_create(&key_, [](void*) { run_all(); }) == 0) {}
  ~end_notice() {
    run_all();
    // If only this module is unloaded, other threads end later. They must not call into it.
    if (usable_.exchange(false, std::memory_order_relaxed)) pthread_key_delete(key_);
  }
  end_notice(const end_notice&) = delete;
  end_notice& operator=(const end_notice&) = delete;

  [[nodiscard]] bool wanted() noexcept {
    return usable_.load(std::memory_order_relaxed) && pthread_setspecific(key_, &first_hook) == 0;
  }

 private:
  pthread_key_t key_{};
  std::atomic<bool> usable_;  ///< relaxed: a thread that uses it has seen the object constructed
};

bool notice_end() noexcept {
  static end_notice notice;
  return notice.wanted();
}

#endif

}  // namespace

bool at_thread_exit(thread_exit_hook& hook) noexcept {
  if (hook.set) return true;
  if (first_hook == nullptr && !notice_end()) return false;
  hook.next = std::exchange(first_hook, &hook);
  return hook.set = true;
}

}  // namespace asio_pulse::detail
