// SPDX-License-Identifier: BSL-1.0
//
// asio_pulse::lock_count: how many locks the code on each thread holds. It takes the place of the
// C library's functions in the program, and calls the real ones. So it sees the locks of every
// shared library too, but not those that the C library takes inside its own functions, nor locks
// that a program makes of atomic operations or futexes.
//
// It runs before main() and while other libraries are being loaded: no allocation, no static object
// that has a constructor, no exception of its own.
//
// A count never falls below zero: if a handler unlocks what another one has locked, its next lock must
// still be seen, and so must a lock that it holds. For the latter the addresses are added up, too.
#include "threads/lock_count.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

extern "C" {
constinit __thread asio_pulse_held_locks asio_pulse_locks_held
    __attribute__((tls_model("initial-exec"))) = {0, 0};
constinit __thread const void* asio_pulse_lock_taken __attribute__((tls_model("initial-exec"))) =
    nullptr;
int asio_pulse_locks_are_counted = 1;
int asio_pulse_lock_count_is_linked = 1;  // the target makes the linker look for it
}

namespace {

[[gnu::cold, gnu::noinline]] void* find(const char* name) noexcept {
  void* const found = dlsym(RTLD_NEXT, name);
  if (found != nullptr) return found;
  // The program is linked statically, or with a static C++ library.
  const char text[] = "asio_pulse::lock_count: there is no shared library with the function ";
  (void)!write(STDERR_FILENO, text, sizeof text - 1);
  (void)!write(STDERR_FILENO, name, std::strlen(name));
  (void)!write(STDERR_FILENO, "\n", 1);
  std::abort();
}

/// The function that one of ours stands for. Relaxed: two threads that look it up find the same.
template <class Function>
[[gnu::always_inline]] inline Function* real(void*& cell, Function* intercepted,
                                             const char* name) noexcept {
  void* f = __atomic_load_n(&cell, __ATOMIC_RELAXED);
  if (__builtin_expect(f == nullptr, 0)) {
    f = intercepted != nullptr ? reinterpret_cast<void*>(intercepted) : find(name);
    __atomic_store_n(&cell, f, __ATOMIC_RELAXED);
  }
  return reinterpret_cast<Function*>(f);
}

[[gnu::always_inline]] inline void taken(const volatile void* lock) noexcept {
  ++asio_pulse_locks_held.count;
  asio_pulse_locks_held.sum += reinterpret_cast<std::uintptr_t>(lock);
  asio_pulse_lock_taken = const_cast<const void*>(lock);
}
[[gnu::always_inline]] inline void given(const volatile void* lock) noexcept {
  asio_pulse_locks_held.count -= asio_pulse_locks_held.count > 0 ? 1 : 0;
  asio_pulse_locks_held.sum -= reinterpret_cast<std::uintptr_t>(lock);
}

struct while_inside {
  explicit while_inside(const volatile void* l) noexcept : lock(l) { taken(l); }
  while_inside(const while_inside&) = delete;
  while_inside& operator=(const while_inside&) = delete;
  ~while_inside() { given(lock); }
  const volatile void* const lock;
};

}  // namespace

// A sanitizer that is linked statically (clang's) has a function of its own, which must not be
// passed over.
#define ASIO_PULSE_REAL(name) \
  static void* real_##name;   \
  extern "C" __attribute__((weak)) decltype(name) __interceptor_##name
#define ASIO_PULSE_CALL(name) real(real_##name, &__interceptor_##name, #name)

#define ASIO_PULSE_TAKES(name, params, args, also)                    \
  ASIO_PULSE_REAL(name);                                              \
  extern "C" __attribute__((visibility("default"))) int name params { \
    const int error = ASIO_PULSE_CALL(name) args;                     \
    if (__builtin_expect(error == 0 || error == (also), 1)) taken(l); \
    return error;                                                     \
  }
#define ASIO_PULSE_GIVES(name, params, args)                          \
  ASIO_PULSE_REAL(name);                                              \
  extern "C" __attribute__((visibility("default"))) int name params { \
    const int error = ASIO_PULSE_CALL(name) args;                     \
    if (__builtin_expect(error == 0, 1)) given(l);                    \
    return error;                                                     \
  }

// EOWNERDEAD: the lock is held, and its last owner has died with it.
ASIO_PULSE_TAKES(pthread_mutex_lock, (pthread_mutex_t * l) noexcept, (l), EOWNERDEAD)
ASIO_PULSE_TAKES(pthread_mutex_trylock, (pthread_mutex_t * l) noexcept, (l), EOWNERDEAD)
ASIO_PULSE_TAKES(pthread_mutex_timedlock, (pthread_mutex_t * l, const timespec* t) noexcept, (l, t),
                 EOWNERDEAD)
ASIO_PULSE_TAKES(pthread_mutex_clocklock,
                 (pthread_mutex_t * l, clockid_t c, const timespec* t) noexcept, (l, c, t),
                 EOWNERDEAD)
ASIO_PULSE_GIVES(pthread_mutex_unlock, (pthread_mutex_t * l) noexcept, (l))
ASIO_PULSE_TAKES(pthread_rwlock_rdlock, (pthread_rwlock_t * l) noexcept, (l), 0)
ASIO_PULSE_TAKES(pthread_rwlock_tryrdlock, (pthread_rwlock_t * l) noexcept, (l), 0)
ASIO_PULSE_TAKES(pthread_rwlock_timedrdlock, (pthread_rwlock_t * l, const timespec* t) noexcept,
                 (l, t), 0)
ASIO_PULSE_TAKES(pthread_rwlock_clockrdlock,
                 (pthread_rwlock_t * l, clockid_t c, const timespec* t) noexcept, (l, c, t), 0)
ASIO_PULSE_TAKES(pthread_rwlock_wrlock, (pthread_rwlock_t * l) noexcept, (l), 0)
ASIO_PULSE_TAKES(pthread_rwlock_trywrlock, (pthread_rwlock_t * l) noexcept, (l), 0)
ASIO_PULSE_TAKES(pthread_rwlock_timedwrlock, (pthread_rwlock_t * l, const timespec* t) noexcept,
                 (l, t), 0)
ASIO_PULSE_TAKES(pthread_rwlock_clockwrlock,
                 (pthread_rwlock_t * l, clockid_t c, const timespec* t) noexcept, (l, c, t), 0)
ASIO_PULSE_GIVES(pthread_rwlock_unlock, (pthread_rwlock_t * l) noexcept, (l))
ASIO_PULSE_TAKES(pthread_spin_lock, (pthread_spinlock_t * l) noexcept, (l), 0)
ASIO_PULSE_TAKES(pthread_spin_trylock, (pthread_spinlock_t * l) noexcept, (l), 0)
ASIO_PULSE_GIVES(pthread_spin_unlock, (pthread_spinlock_t * l) noexcept, (l))
// C11's. thrd_success is 0.
ASIO_PULSE_TAKES(mtx_lock, (mtx_t * l), (l), 0)
ASIO_PULSE_TAKES(mtx_trylock, (mtx_t * l), (l), 0)
ASIO_PULSE_TAKES(mtx_timedlock, (mtx_t* __restrict l, const timespec* __restrict t), (l, t), 0)
ASIO_PULSE_GIVES(mtx_unlock, (mtx_t * l), (l))

// The locks of stdio's streams, if the program takes them itself.
ASIO_PULSE_REAL(flockfile);
extern "C" void flockfile(FILE* l) noexcept {
  ASIO_PULSE_CALL(flockfile)(l);
  taken(l);
}
ASIO_PULSE_REAL(ftrylockfile);
extern "C" int ftrylockfile(FILE* l) noexcept {
  const int error = ASIO_PULSE_CALL(ftrylockfile)(l);
  if (error == 0) taken(l);
  return error;
}
ASIO_PULSE_REAL(funlockfile);
extern "C" void funlockfile(FILE* l) noexcept {
  ASIO_PULSE_CALL(funlockfile)(l);
  given(l);
}

// ---- functions that run code of the program under a lock of the library

// The function may throw: std::call_once().
ASIO_PULSE_REAL(pthread_once);
extern "C" int pthread_once(pthread_once_t* once, void (*f)()) {
  const while_inside w(once);
  return ASIO_PULSE_CALL(pthread_once)(once, f);
}
ASIO_PULSE_REAL(call_once);
extern "C" void call_once(once_flag* once, void (*f)()) {
  const while_inside w(once);
  ASIO_PULSE_CALL(call_once)(once, f);
}
ASIO_PULSE_REAL(dl_iterate_phdr);
extern "C" int dl_iterate_phdr(int (*f)(dl_phdr_info*, std::size_t, void*), void* data) {
  const while_inside w(nullptr);
  return ASIO_PULSE_CALL(dl_iterate_phdr)(f, data);
}
// Handlers of atexit(), and destructors of static objects. It does not return.
ASIO_PULSE_REAL(exit);
extern "C" void exit(int status) noexcept {
  taken(nullptr);
  ASIO_PULSE_CALL(exit)(status);
  __builtin_unreachable();
}

// The initialisation of a function's static.
// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming): the ABI's names
extern "C" int __cxa_guard_acquire(std::int64_t*);
extern "C" void __cxa_guard_release(std::int64_t*) noexcept;
extern "C" void __cxa_guard_abort(std::int64_t*) noexcept;
ASIO_PULSE_REAL(__cxa_guard_acquire);
extern "C" int __cxa_guard_acquire(std::int64_t* guard) {
  const int mine = ASIO_PULSE_CALL(__cxa_guard_acquire)(guard);
  if (mine != 0) taken(guard);
  return mine;
}
ASIO_PULSE_REAL(__cxa_guard_release);
extern "C" void __cxa_guard_release(std::int64_t* guard) noexcept {
  ASIO_PULSE_CALL(__cxa_guard_release)(guard);
  given(guard);
}
ASIO_PULSE_REAL(__cxa_guard_abort);
extern "C" void __cxa_guard_abort(std::int64_t* guard) noexcept {
  ASIO_PULSE_CALL(__cxa_guard_abort)(guard);
  given(guard);
}
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)
