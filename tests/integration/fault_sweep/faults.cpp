// SPDX-License-Identifier: BSL-1.0

#include "faults.hpp"

#include <support/sanitizers.hpp>

#include <dlfcn.h>
#include <execinfo.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdlib>
#include <new>

namespace pulse_test::faults {
namespace {

// Relaxed throughout: it does not matter which thread's request is the n-th.
constinit std::atomic<bool> armed{false};
constinit std::atomic<kind> which{kind::allocation};
constinit std::atomic<std::uint64_t> wanted{0};
constinit std::array<std::atomic<std::uint64_t>, kinds> counts{};
constinit std::atomic<long> living{0};
constinit failure* the_failure = nullptr;
constinit thread_local int sparing = 0;

bool fails(kind k, const char* what) noexcept {
  if (!armed.load(std::memory_order_relaxed) || sparing != 0) return false;
  const std::uint64_t n =
      counts[static_cast<std::size_t>(k)].fetch_add(1, std::memory_order_relaxed) + 1;
  if (k != which.load(std::memory_order_relaxed) || n != wanted.load(std::memory_order_relaxed)) {
    return false;
  }
  const spared mine;
  failure& to = *the_failure;
  to.depth =
      static_cast<std::size_t>(::backtrace(to.stack.data(), static_cast<int>(to.stack.size())));
  to.what = what;
  return true;
}

/// The original function that this file replaces.
template <class Function>
Function real(const char* name) noexcept {
  const spared mine;
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

}  // namespace

const char* to_string(kind k) noexcept {
  static constexpr std::array names{"allocation", "descriptor", "thread", "mapping", "call"};
  return names[static_cast<std::size_t>(k)];
}

void arm(kind k, std::uint64_t n, failure& to) noexcept {
  for (auto& c : counts) c.store(0, std::memory_order_relaxed);
  the_failure = &to;
  which.store(k, std::memory_order_relaxed);
  wanted.store(n, std::memory_order_relaxed);
  armed.store(true, std::memory_order_release);
}
void disarm() noexcept { armed.store(false, std::memory_order_relaxed); }
std::uint64_t count(kind k) noexcept {
  return counts[static_cast<std::size_t>(k)].load(std::memory_order_relaxed);
}
long live() noexcept { return living.load(std::memory_order_relaxed); }
spared::spared() noexcept { ++sparing; }
spared::~spared() { --sparing; }

}  // namespace pulse_test::faults

namespace {

using namespace pulse_test::faults;

bool refuse(kind k, const char* what, int error) noexcept {
  if (!fails(k, what)) return false;
  errno = error;
  return true;
}

}  // namespace

// ---- memory

#if defined(PULSE_TEST_ASAN) || defined(PULSE_TEST_TSAN)

// The sanitizer's malloc() cannot be replaced, so only operator new fails.
void* operator new(std::size_t bytes) {
  void* const p = refuse(kind::allocation, "operator new", ENOMEM) ? nullptr : std::malloc(bytes);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return refuse(kind::allocation, "operator new", ENOMEM) ? nullptr : std::malloc(bytes);
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { std::free(p); }

#else

extern "C" {

void* __libc_malloc(std::size_t) noexcept;
void* __libc_calloc(std::size_t, std::size_t) noexcept;
void* __libc_realloc(void*, std::size_t) noexcept;
void* __libc_memalign(std::size_t, std::size_t) noexcept;
void __libc_free(void*) noexcept;

}  // extern "C"

namespace {

void* counted(void* p) noexcept {
  if (p != nullptr) living.fetch_add(1, std::memory_order_relaxed);
  return p;
}

}  // namespace

// Defined by their assembler names, because the C library's headers declare these functions with
// other attributes.
extern "C" {

void* sweep_malloc(std::size_t) __asm__("malloc");
void* sweep_malloc(std::size_t bytes) {
  if (refuse(kind::allocation, "malloc", ENOMEM)) return nullptr;
  return counted(__libc_malloc(bytes));
}
void* sweep_calloc(std::size_t, std::size_t) __asm__("calloc");
void* sweep_calloc(std::size_t n, std::size_t bytes) {
  if (refuse(kind::allocation, "calloc", ENOMEM)) return nullptr;
  return counted(__libc_calloc(n, bytes));
}
void* sweep_realloc(void*, std::size_t) __asm__("realloc");
void* sweep_realloc(void* old, std::size_t bytes) {
  if (refuse(kind::allocation, "realloc", ENOMEM)) return nullptr;
  void* const p = __libc_realloc(old, bytes);
  if (old == nullptr) return counted(p);
  if (p == nullptr && bytes == 0) living.fetch_sub(1, std::memory_order_relaxed);
  return p;
}
void* sweep_memalign(std::size_t, std::size_t) __asm__("memalign");
void* sweep_memalign(std::size_t alignment, std::size_t bytes) {
  if (refuse(kind::allocation, "memalign", ENOMEM)) return nullptr;
  return counted(__libc_memalign(alignment, bytes));
}
void* sweep_aligned_alloc(std::size_t, std::size_t) __asm__("aligned_alloc");
void* sweep_aligned_alloc(std::size_t alignment, std::size_t bytes) {
  if (refuse(kind::allocation, "aligned_alloc", ENOMEM)) return nullptr;
  return counted(__libc_memalign(alignment, bytes));
}
int sweep_posix_memalign(void**, std::size_t, std::size_t) __asm__("posix_memalign");
int sweep_posix_memalign(void** to, std::size_t alignment, std::size_t bytes) {
  if (fails(kind::allocation, "posix_memalign")) return ENOMEM;
  void* const p = counted(__libc_memalign(alignment, bytes));
  if (p == nullptr) return ENOMEM;
  *to = p;
  return 0;
}
void sweep_free(void*) __asm__("free");
void sweep_free(void* p) {
  if (p != nullptr) living.fetch_sub(1, std::memory_order_relaxed);
  __libc_free(p);
}

}  // extern "C"

#endif

// ---- calls

// Looked up when the program is loaded, because a signal handler may be the first caller.
#define PULSE_TEST_NEXT(result, name, parameters)                                                  \
  namespace {                                                                                      \
  using type_of_##name = result(*) parameters;                                                     \
  constinit type_of_##name found_##name = nullptr;                                                 \
  [[gnu::constructor]] void find_##name() noexcept { found_##name = real<type_of_##name>(#name); } \
  type_of_##name next_##name() noexcept {                                                          \
    if (found_##name == nullptr) find_##name();                                                    \
    return found_##name;                                                                           \
  }                                                                                                \
  }

// Replaces a function of the C library that returns -1 and sets errno when it fails.
#define PULSE_TEST_CALL(result, name, which_kind, error, parameters, arguments) \
  extern "C" result sweep_##name parameters __asm__(#name);                     \
  PULSE_TEST_NEXT(result, name, parameters)                                     \
  extern "C" result sweep_##name parameters {                                   \
    if (refuse(kind::which_kind, #name, error)) return result(-1);              \
    return next_##name() arguments;                                             \
  }

PULSE_TEST_CALL(int, socket, descriptor, EMFILE, (int a, int b, int c), (a, b, c))
PULSE_TEST_CALL(int, pipe2, descriptor, EMFILE, (int* a, int b), (a, b))
PULSE_TEST_CALL(int, eventfd, descriptor, EMFILE, (unsigned a, int b), (a, b))
PULSE_TEST_CALL(int, epoll_create1, descriptor, EMFILE, (int a), (a))
PULSE_TEST_CALL(int, timerfd_create, descriptor, EMFILE, (int a, int b), (a, b))
PULSE_TEST_CALL(int, memfd_create, descriptor, EMFILE, (const char* a, unsigned b), (a, b))
PULSE_TEST_CALL(int, mkostemp, descriptor, EMFILE, (char* a, int b), (a, b))
PULSE_TEST_CALL(int, mprotect, mapping, ENOMEM, (void* a, std::size_t b, int c), (a, b, c))
PULSE_TEST_CALL(int, sigaction, call, EINVAL, (int a, const void* b, void* c), (a, b, c))
PULSE_TEST_CALL(int, sigaltstack, call, ENOMEM, (const void* a, void* b), (a, b))
PULSE_TEST_CALL(int, sched_getaffinity, call, EINVAL, (int a, std::size_t b, void* c), (a, b, c))
PULSE_TEST_CALL(int, sched_setaffinity, call, EPERM, (int a, std::size_t b, const void* c),
                (a, b, c))
PULSE_TEST_CALL(int, sched_setscheduler, call, EPERM, (int a, int b, const void* c), (a, b, c))
PULSE_TEST_CALL(int, setpriority, call, EPERM, (int a, unsigned b, int c), (a, b, c))
PULSE_TEST_CALL(int, getrlimit, call, EPERM, (int a, void* b), (a, b))
PULSE_TEST_CALL(int, getrusage, call, EPERM, (int a, void* b), (a, b))
PULSE_TEST_CALL(long, pread, call, EIO, (int a, void* b, std::size_t c, long d), (a, b, c, d))
PULSE_TEST_CALL(long, process_vm_readv, call, EPERM,
                (int a, const void* b, unsigned long c, const void* d, unsigned long e,
                 unsigned long f),
                (a, b, c, d, e, f))
PULSE_TEST_CALL(int, fstat, call, EIO, (int a, void* b), (a, b))
PULSE_TEST_CALL(int, ftruncate, call, EIO, (int a, long b), (a, b))
PULSE_TEST_CALL(int, fsync, call, EIO, (int a), (a))
PULSE_TEST_CALL(int, rename, call, EACCES, (const char* a, const char* b), (a, b))
PULSE_TEST_CALL(int, bind, call, EADDRINUSE, (int a, const void* b, unsigned c), (a, b, c))
PULSE_TEST_CALL(int, listen, call, EADDRINUSE, (int a, int b), (a, b))
PULSE_TEST_CALL(int, accept4, descriptor, EMFILE, (int a, void* b, void* c, int d), (a, b, c, d))
PULSE_TEST_CALL(int, accept, descriptor, EMFILE, (int a, void* b, void* c), (a, b, c))
PULSE_TEST_CALL(int, mincore, call, EAGAIN, (void* a, std::size_t b, void* c), (a, b, c))
PULSE_TEST_CALL(int, madvise, call, EAGAIN, (void* a, std::size_t b, int c), (a, b, c))
PULSE_TEST_CALL(int, timer_create, call, EAGAIN, (int a, void* b, void* c), (a, b, c))

// Replaces a function that returns the error.
#define PULSE_TEST_RETURNS_ERROR(name, which_kind, error, parameters, arguments) \
  extern "C" int sweep_##name parameters __asm__(#name);                         \
  PULSE_TEST_NEXT(int, name, parameters)                                         \
  extern "C" int sweep_##name parameters {                                       \
    if (fails(kind::which_kind, #name)) return error;                            \
    return next_##name() arguments;                                              \
  }

PULSE_TEST_RETURNS_ERROR(pthread_key_create, call, EAGAIN, (void* a, void (*b)(void*)), (a, b))
PULSE_TEST_RETURNS_ERROR(pthread_setspecific, call, ENOMEM, (unsigned a, const void* b), (a, b))
PULSE_TEST_RETURNS_ERROR(pthread_getattr_np, call, ENOMEM, (unsigned long a, void* b), (a, b))

using thread_function = void* (*)(void*);
PULSE_TEST_NEXT(int, pthread_create, (void*, const void*, thread_function, void*))

namespace {

struct spared_thread {
  thread_function function;
  void* argument;
};

void* run_spared(void* of) {
  const spared while_it_runs;
  const spared_thread t = *static_cast<spared_thread*>(of);
  delete static_cast<spared_thread*>(of);
  return t.function(t.argument);
}

}  // namespace

// A thread that is started inside a `spared` scope is spared itself.
extern "C" int sweep_pthread_create(void*, const void*, thread_function,
                                    void*) __asm__("pthread_create");
extern "C" int sweep_pthread_create(void* thread, const void* attributes, thread_function function,
                                    void* argument) {
  if (sparing != 0) {
    auto* const t = new spared_thread{function, argument};
    return next_pthread_create()(thread, attributes, &run_spared, t);
  }
  if (fails(kind::thread, "pthread_create")) return EAGAIN;
  return next_pthread_create()(thread, attributes, function, argument);
}

PULSE_TEST_NEXT(void*, mmap, (void*, std::size_t, int, int, int, long))
extern "C" void* sweep_mmap(void*, std::size_t, int, int, int, long) __asm__("mmap");
extern "C" void* sweep_mmap(void* a, std::size_t b, int c, int d, int e, long f) {
  if (refuse(kind::mapping, "mmap", ENOMEM)) return reinterpret_cast<void*>(-1);
  return next_mmap()(a, b, c, d, e, f);
}

// Fails only for files. Sockets and pipes belong to the program, or cannot fail.
PULSE_TEST_NEXT(long, write, (int, const void*, std::size_t))
extern "C" long sweep_write(int, const void*, std::size_t) __asm__("write");
extern "C" long sweep_write(int to, const void* bytes, std::size_t size) {
  struct stat info {};
  if (armed.load(std::memory_order_relaxed)) {
    const spared mine;
    if (::fstat(to, &info) != 0) info = {};
  }
  if (S_ISREG(info.st_mode) && refuse(kind::call, "write", ENOSPC)) return -1;
  return next_write()(to, bytes, size);
}

PULSE_TEST_NEXT(int, open, (const char*, int, ...))

namespace {

int open_or_refuse(const char* name, const char* path, int flags, std::va_list arguments) {
  const unsigned mode =
      (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, unsigned) : 0;  // NOLINT
  if (refuse(kind::descriptor, name, EMFILE)) return -1;
  return next_open()(path, flags, mode);
}

}  // namespace

extern "C" int sweep_open(const char*, int, ...) __asm__("open");
extern "C" int sweep_open(const char* path, int flags, ...) {
  std::va_list arguments;
  va_start(arguments, flags);
  const int result = open_or_refuse("open", path, flags, arguments);
  va_end(arguments);
  return result;
}

extern "C" int sweep_open64(const char*, int, ...) __asm__("open64");
extern "C" int sweep_open64(const char* path, int flags, ...) {
  std::va_list arguments;
  va_start(arguments, flags);
  const int result = open_or_refuse("open64", path, flags, arguments);
  va_end(arguments);
  return result;
}

PULSE_TEST_NEXT(int, openat, (int, const char*, int, ...))
extern "C" int sweep_openat(int, const char*, int, ...) __asm__("openat");
extern "C" int sweep_openat(int folder, const char* path, int flags, ...) {
  std::va_list arguments;
  va_start(arguments, flags);
  const unsigned mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, unsigned) : 0;
  va_end(arguments);
  if (refuse(kind::descriptor, "openat", EMFILE)) return -1;
  return next_openat()(folder, path, flags, mode);
}

PULSE_TEST_NEXT(int, fcntl, (int, int, ...))
extern "C" int sweep_fcntl(int, int, ...) __asm__("fcntl");
extern "C" int sweep_fcntl(int file, int what, ...) {
  std::va_list arguments;
  va_start(arguments, what);
  void* const value = va_arg(arguments, void*);
  va_end(arguments);
  const bool opens = what == F_DUPFD || what == F_DUPFD_CLOEXEC;
  if (opens && refuse(kind::descriptor, "fcntl(F_DUPFD)", EMFILE)) return -1;
  return next_fcntl()(file, what, value);
}

PULSE_TEST_NEXT(int, prctl, (int, ...))
extern "C" int sweep_prctl(int, ...) __asm__("prctl");
extern "C" int sweep_prctl(int what, ...) {
  std::va_list list;
  va_start(list, what);
  unsigned long values[4];
  for (unsigned long& v : values) v = va_arg(list, unsigned long);
  va_end(list);
  if (refuse(kind::call, "prctl", EINVAL)) return -1;
  return next_prctl()(what, values[0], values[1], values[2], values[3]);
}

// System calls without a function in the C library. A futex call cannot fail.
PULSE_TEST_NEXT(long, syscall, (long, ...))
extern "C" long sweep_syscall(long, ...) __asm__("syscall");
extern "C" long sweep_syscall(long number, ...) {
  std::va_list list;
  va_start(list, number);
  long values[6];
  for (long& v : values) v = va_arg(list, long);
  va_end(list);
  const bool opens = number == SYS_perf_event_open || number == SYS_memfd_create;
  const bool certain = number == SYS_futex || number == SYS_gettid || number == SYS_getpid;
  if (!certain && refuse(opens ? kind::descriptor : kind::call, "syscall", EPERM)) return -1;
  return next_syscall()(number, values[0], values[1], values[2], values[3], values[4], values[5]);
}
