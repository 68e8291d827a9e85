// SPDX-License-Identifier: BSL-1.0

#include <asio_pulse/detail/stack_capture.hpp>
#include <asio_pulse/detail/stack_copy.hpp>

#if defined(__linux__) && (defined(__x86_64__) || defined(__aarch64__))
#define ASIO_PULSE_DETAIL_CAN_CAPTURE 1

#include <linux/futex.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <asio_pulse/hooks/poll_path.hpp>
#include <atomic>
#include <cerrno>
#include <mutex>
#include <new>
#include <utility>
#else
#define ASIO_PULSE_DETAIL_CAN_CAPTURE 0
#endif

namespace asio_pulse::detail {

#if ASIO_PULSE_DETAIL_CAN_CAPTURE
namespace {

using status = stack_capture::result::status;

// ---- requests

// A request's word: its number, and whose it is. The watchdog owns it while idle and done, whoever
// swaps `armed` away decides: the handler for `taking`, the watchdog for `idle` (withdrawn).
constexpr std::uint32_t idle = 0;
constexpr std::uint32_t armed = 1;
constexpr std::uint32_t taking = 2;
constexpr std::uint32_t done = 3;
constexpr std::uint32_t phase_bits = 3;
constexpr std::uint32_t number_step = 4;

struct request {
  /// The asker's release of `armed` pairs with the handler's acquire: it sees what is asked. The
  /// handler's release of `done` pairs with the asker's acquire: it sees the answer.
  std::atomic<std::uint32_t> word{idle};
  // Asked:
  const hooks::thread_state* expected = nullptr;
  timing::ticks start = 0;
  std::size_t limit = 0;
  memory_reader reader = memory_reader::none;
  std::byte* buffer = nullptr;
  std::size_t touched = 0;  ///< of the buffer: pages that the kernel has given already
  // Answered:
  stack_capture::result result;
  captured_stack stack;
};

// More than one only because a thread can lose the CPU in the middle of an answer. A guess, far
// above what a machine short of CPU does; when all are taken no stack is.
constexpr std::size_t request_count = 8;
constinit request requests[request_count];
constinit std::atomic<pid_t> requests_of{0};

// What the signal carries: a mark in the upper half, the request's number and place in the lower.
constexpr std::uint64_t mark = 0x6173'696f'0000'0000;  // "asio"
constexpr std::uint64_t mark_bits = 0xffff'ffff'0000'0000;

std::int64_t now_ns() noexcept {
  timespec at{};
  ::clock_gettime(CLOCK_MONOTONIC, &at);
  return std::int64_t{at.tv_sec} * 1'000'000'000 + at.tv_nsec;
}

void futex_wake(std::atomic<std::uint32_t>& word) noexcept {
  ::syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t seen, std::int64_t ns) noexcept {
  const timespec timeout{static_cast<time_t>(ns / 1'000'000'000),
                         static_cast<long>(ns % 1'000'000'000)};
  ::syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, seen, &timeout, nullptr, 0);
}

// ---- in the handler

void copy_registers(const ucontext_t& from, captured_stack& to) noexcept {
#if defined(__x86_64__)
  static constexpr int order[] = {REG_RAX, REG_RDX, REG_RCX, REG_RBX, REG_RSI, REG_RDI,
                                  REG_RBP, REG_RSP, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                  REG_R12, REG_R13, REG_R14, REG_R15, REG_RIP};
  for (std::size_t i = 0; i != captured_stack::register_count; ++i) {
    to.registers[i] = static_cast<std::uint64_t>(from.uc_mcontext.gregs[order[i]]);
  }
#else
  for (std::size_t i = 0; i != 31; ++i) to.registers[i] = from.uc_mcontext.regs[i];
  to.registers[captured_stack::stack_register] = from.uc_mcontext.sp;
  to.registers[captured_stack::program_counter] = from.uc_mcontext.pc;
#endif
}

// A leaf function of x86-64 may keep registers below its stack pointer.
#if defined(__x86_64__)
constexpr std::uintptr_t red_zone = 128;
#else
constexpr std::uintptr_t red_zone = 0;
#endif

status look(request& r, const ucontext_t& context) noexcept {
  hooks::thread_state& ts = hooks::this_thread();
  hooks::poll_frame* const top = ts.top.load(std::memory_order_relaxed);
  if (&ts != r.expected || top == nullptr || ts.clock.last() != r.start) return status::ended;
  if (ts.switching) return status::refused_switching;

  copy_registers(context, r.stack);
  const std::uintptr_t sp = r.stack.stack_pointer();
  r.stack.address = sp - red_zone;
  std::size_t copied = copy_mapped(r.stack.address, {r.buffer, r.limit}, r.reader);
  if (copied <= red_zone && red_zone != 0) {  // nothing is mapped below the stack pointer
    r.stack.address = sp;
    copied = copy_mapped(sp, {r.buffer, r.limit}, r.reader);
  }
  r.stack.bytes = {r.buffer, copied};
  r.stack.truncated = copied == r.limit;

  // Only a task that is the thread's account is known to be alive: the account holds a reference,
  // and is emptied before that is given back. In the few instructions in which the two differ, the
  // frame's word alone may be stale.
  hooks::task_record* const t = top->task();
  if (t != nullptr && t == ts.account) {
    hooks::acquire(*t);
    r.result.task = t;
  }
  r.result.site = ts.poll_site.load(std::memory_order_relaxed);
  r.result.where = top->where();
  r.result.observer = ts.observer;
  return status::taken;
}

void answer(request& r, std::uint32_t number, const ucontext_t& context) noexcept {
  std::uint32_t expected = number | armed;
  if (!r.word.compare_exchange_strong(expected, number | taking, std::memory_order_acquire,
                                      std::memory_order_relaxed)) {
    return;  // withdrawn: the signal comes late
  }
  const std::int64_t began = now_ns();
  r.result.how = look(r, context);
  r.result.taken_for = std::chrono::nanoseconds{now_ns() - began};
  r.word.store(number | done, std::memory_order_release);
  futex_wake(r.word);
}

/// The request that a signal answers; null: the signal is somebody else's. `number` 0: too late.
request* request_of(const siginfo_t& info, std::uint32_t& number) noexcept {
  if (info.si_code == SI_QUEUE) {
    const auto value = reinterpret_cast<std::uint64_t>(info.si_value.sival_ptr);
    if ((value & mark_bits) != mark) return nullptr;
    const auto low = static_cast<std::uint32_t>(value);
    number = low & ~(static_cast<std::uint32_t>(request_count) * number_step - 1);
    return &requests[low / number_step % request_count];
  }
  if (info.si_code == SI_USER && info.si_pid == 0) {
    // Out of RLIMIT_SIGPENDING the kernel delivers a signal without what was sent with it. If this
    // thread is asked for its stack just now, it is ours.
    for (request& r : requests) {
      const std::uint32_t word = r.word.load(std::memory_order_acquire);  // as in answer()
      if ((word & phase_bits) == armed && r.expected == &hooks::this_thread()) {
        number = word & ~phase_bits;
        return &r;
      }
    }
  }
  return nullptr;
}

// ---- the handler that was there before

struct previous_action {
  struct sigaction action;
  const previous_action* older;  ///< replaced by this one
};
// By signal. Replaced as a whole, never freed: a handler may be reading it. The release in
// install() pairs with the acquire in pass_on().
constinit std::atomic<const previous_action*> previous[NSIG];
constinit std::atomic<bool> once_called[NSIG];

bool ignored_by_default(int signal) noexcept {
  return signal == SIGURG || signal == SIGCHLD || signal == SIGWINCH || signal == SIGCONT;
}

bool stops_by_default(int signal) noexcept {
  return signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU;
}

/// What would have happened without us: the process ends, or stops.
void act_as_default(int signal, siginfo_t* info) noexcept {
  if (ignored_by_default(signal)) return;
  const auto self = static_cast<pid_t>(::syscall(SYS_getpid));
  if (stops_by_default(signal)) {
    ::syscall(SYS_kill, self, SIGSTOP);
    return;
  }
  struct sigaction fallback = {};
  fallback.sa_handler = SIG_DFL;
  ::sigaction(signal, &fallback, nullptr);
  // Blocked until this handler returns; then it is delivered and ends the process.
  const auto thread = static_cast<pid_t>(::syscall(SYS_gettid));
  if (::syscall(SYS_rt_tgsigqueueinfo, self, thread, signal, info) != 0) {
    ::syscall(SYS_tgkill, self, thread, signal);
  }
}

void pass_on(int signal, siginfo_t* info, void* context) noexcept {
  const previous_action* const before = previous[signal].load(std::memory_order_acquire);
  if (before == nullptr) return;
  const struct sigaction& action = before->action;
  if (action.sa_handler == SIG_IGN) return;
  const bool spent =
      (static_cast<unsigned>(action.sa_flags) & static_cast<unsigned>(SA_RESETHAND)) != 0 &&
      once_called[signal].exchange(true, std::memory_order_relaxed);
  if (action.sa_handler == SIG_DFL || spent) {
    act_as_default(signal, info);
    return;
  }
  // It runs under the mask that it asked for; ours blocks everything.
  sigset_t mask;
  sigemptyset(&mask);
  const auto& interrupted = static_cast<const ucontext_t*>(context)->uc_sigmask;
  for (int other = 1; other < NSIG; ++other) {
    if (sigismember(&interrupted, other) == 1 || sigismember(&action.sa_mask, other) == 1) {
      sigaddset(&mask, other);
    }
  }
  if ((action.sa_flags & SA_NODEFER) == 0) sigaddset(&mask, signal);
  pthread_sigmask(SIG_SETMASK, &mask, nullptr);
  if ((action.sa_flags & SA_SIGINFO) != 0) {
    action.sa_sigaction(signal, info, context);
  } else {
    action.sa_handler(signal);
  }
}

void on_signal(int signal, siginfo_t* info, void* context) {
  const int saved = errno;
  std::uint32_t number = 0;
  if (request* const r = request_of(*info, number); r != nullptr) {
    answer(*r, number, *static_cast<const ucontext_t*>(context));
  } else {
    pass_on(signal, info, context);
  }
  errno = saved;
}

// ---- in the watchdog

bool ours(const struct sigaction& action) noexcept {
  return (action.sa_flags & SA_SIGINFO) != 0 && action.sa_sigaction == &on_signal;
}

bool same(const struct sigaction& a, const struct sigaction& b) noexcept {
  // The handlers overlap, and are pointers both.
  if (a.sa_sigaction != b.sa_sigaction || a.sa_flags != b.sa_flags) return false;
  for (int signal = 1; signal < NSIG; ++signal) {
    if (sigismember(&a.sa_mask, signal) != sigismember(&b.sa_mask, signal)) return false;
  }
  return true;
}

bool usable(int signal) noexcept {
  switch (signal) {
    case SIGKILL:
    case SIGSTOP:
    case SIGSEGV:
    case SIGBUS:
    case SIGILL:
    case SIGFPE:
    case SIGTRAP:
    case SIGSYS:
    case SIGABRT:
      return false;
    default:
      return signal > 0 && signal < NSIG;
  }
}

void drop(request& r) noexcept {
  if (hooks::task_record* const t = std::exchange(r.result.task, nullptr)) hooks::release(*t);
}

/// A request that nobody is answering, with a buffer; null if there is none.
request* free_request(pid_t self) noexcept {
  if (requests_of.load(std::memory_order_relaxed) != self) {
    // A forked child: whoever was answering is not here.
    for (request& r : requests) {
      r.word.store(r.word.load(std::memory_order_relaxed) & ~phase_bits, std::memory_order_relaxed);
    }
    requests_of.store(self, std::memory_order_relaxed);
  }
  for (request& r : requests) {
    // Acquire: as in take(), for an answer that came after nobody waited any more.
    if ((r.word.load(std::memory_order_acquire) & phase_bits) == taking) continue;
    drop(r);
    if (r.buffer == nullptr) {
      void* const memory = ::mmap(nullptr, stack_capture::max_bytes, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (memory == MAP_FAILED) return nullptr;
      r.buffer = static_cast<std::byte*>(memory);  // never unmapped
    }
    return &r;
  }
  return nullptr;
}

bool send(pid_t self, pid_t tid, int signal, std::uint32_t low) noexcept {
  siginfo_t info = {};
  info.si_signo = signal;
  info.si_code = SI_QUEUE;
  info.si_pid = self;
  info.si_uid = ::getuid();
  // NOLINTNEXTLINE(performance-no-int-to-ptr): what a signal carries is a pointer or an int
  info.si_value.sival_ptr = reinterpret_cast<void*>(mark | low);
  return ::syscall(SYS_rt_tgsigqueueinfo, self, tid, signal, &info) == 0;
}

/// Waits until the request is answered. False: it is not, and is withdrawn or left to its thread.
bool wait_for(request& r, std::uint32_t number, std::chrono::nanoseconds timeout) noexcept {
  std::int64_t until = now_ns() + timeout.count();
  bool extended = false;
  for (;;) {
    std::uint32_t word =
        r.word.load(std::memory_order_acquire);  // pairs with the release in answer()
    if ((word & phase_bits) == done) return true;
    const std::int64_t left = until - now_ns();
    if (left > 0) {
      futex_wait(r.word, word, left);
      continue;
    }
    word = number | armed;
    if (r.word.compare_exchange_strong(word, number | idle, std::memory_order_acquire))
      return false;
    // It is answering: a few microseconds, unless it has lost the CPU.
    if (extended) return (r.word.load(std::memory_order_acquire) & phase_bits) == done;
    extended = true;
    until = now_ns() + std::max<std::int64_t>(timeout.count(), 1'000'000);
  }
}

}  // namespace

bool stack_capture::install(int signal) noexcept {
  if (!usable(signal)) return false;
  static std::mutex installing;
  const std::lock_guard lock(installing);
  best_memory_reader();  // tried out here, not in the handler
  struct sigaction before = {};
  if (::sigaction(signal, nullptr, &before) != 0) return false;
  if (ours(before)) return true;

  struct sigaction action = {};
  action.sa_sigaction = &on_signal;
  action.sa_flags =
      SA_SIGINFO | SA_RESTART | SA_ONSTACK | (before.sa_flags & (SA_NOCLDSTOP | SA_NOCLDWAIT));
  // Everything is blocked meanwhile but what reports a fault: a handler that leaves by a long jump
  // must not take this one along.
  sigfillset(&action.sa_mask);
  for (const int fault : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, SIGABRT}) {
    sigdelset(&action.sa_mask, fault);
  }
  const auto remember = [signal](const struct sigaction& replaced) noexcept {
    const auto* const older = previous[signal].load(std::memory_order_relaxed);
    once_called[signal].store(false, std::memory_order_relaxed);
    if (older != nullptr && same(older->action, replaced)) return true;
    auto* const copy = new (std::nothrow) previous_action{replaced, older};
    if (copy == nullptr) return false;
    previous[signal].store(copy, std::memory_order_release);
    return true;
  };
  if (!remember(before)) return false;  // first: from the next line on it may be needed
  struct sigaction replaced = {};
  if (::sigaction(signal, &action, &replaced) != 0) return false;
  // Somebody else installed one in between.
  if (!ours(replaced)) remember(replaced);
  return true;
}

stack_capture::result stack_capture::take(pid_t tid, int signal,
                                          const hooks::thread_state& expected, timing::ticks start,
                                          std::chrono::nanoseconds timeout,
                                          std::size_t bytes) noexcept {
  stack_.bytes = {};
  struct sigaction now = {};
  if (!usable(signal) || ::sigaction(signal, nullptr, &now) != 0 || !ours(now)) {
    return {.how = status::not_ours};
  }
  const pid_t self = ::getpid();
  request* const r = free_request(self);
  if (r == nullptr) return {.how = status::timed_out};

  const auto index = static_cast<std::uint32_t>(r - requests);
  constexpr std::uint32_t place_bits =
      static_cast<std::uint32_t>(request_count) * number_step - 1;  // and the phase
  const std::uint32_t number =
      (r->word.load(std::memory_order_relaxed) & ~place_bits) + place_bits + 1;
  r->expected = &expected;
  r->start = start;
  r->limit = std::clamp<std::size_t>(bytes, 4096, max_bytes);
  r->reader = best_memory_reader();
  if (r->touched < r->limit) {  // here, not as faults in the handler
    std::fill_n(r->buffer + r->touched, r->limit - r->touched, std::byte{});
    r->touched = r->limit;
  }
  r->result = {};
  r->stack = {};
  r->word.store(number | armed, std::memory_order_release);  // pairs with the acquire in answer()

  if (!send(self, tid, signal, number | index * number_step)) {
    r->word.store(number | idle, std::memory_order_relaxed);
    return {.how = status::unsupported};
  }
  if (!wait_for(*r, number, timeout)) return {.how = status::timed_out};
  stack_ = r->stack;
  result taken = r->result;
  r->result.task = nullptr;  // the reference is the caller's now
  return taken;
}

bool stack_capture::read_blocked(std::uintptr_t stack_pointer, std::uintptr_t program_counter,
                                 std::size_t bytes) noexcept {
  stack_ = {};
  try {
    read_.resize(std::clamp<std::size_t>(bytes, 4096, max_bytes));
  } catch (const std::bad_alloc&) {
    return false;
  }
  const std::size_t copied = copy_mapped(stack_pointer, read_, best_memory_reader());
  if (copied == 0) return false;
  stack_.registers[captured_stack::stack_register] = stack_pointer;
  stack_.registers[captured_stack::program_counter] = program_counter;
  stack_.address = stack_pointer;
  stack_.bytes = {read_.data(), copied};
  stack_.truncated = copied == read_.size();
  stack_.only_position = true;
  return true;
}

#else

bool stack_capture::install(int) noexcept { return false; }

bool stack_capture::read_blocked(std::uintptr_t, std::uintptr_t, std::size_t) noexcept {
  return false;
}

stack_capture::result stack_capture::take(pid_t, int, const hooks::thread_state&, timing::ticks,
                                          std::chrono::nanoseconds, std::size_t) noexcept {
  return {};
}

#endif

}  // namespace asio_pulse::detail
