// SPDX-License-Identifier: BSL-1.0

#include "stack_capture.hpp"

#include "interrupted_call.hpp"
#include "process/errno_kept.hpp"
#include "rehearsal.hpp"
#include "stack_copy.hpp"
#include "threads/thread_number.hpp"
#include "threads/thread_usage.hpp"

#if defined(__linux__) && (defined(__x86_64__) || defined(__aarch64__))
#define ASIO_PULSE_DETAIL_CAN_CAPTURE 1

#include <asio_pulse/hooks/poll_path.hpp>

#include <linux/futex.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <mutex>
#include <new>
#include <span>
#include <string_view>
#include <utility>
#else
#define ASIO_PULSE_DETAIL_CAN_CAPTURE 0
#endif

namespace asio_pulse::detail {

#if ASIO_PULSE_DETAIL_CAN_CAPTURE
namespace {

using status = stack_capture::result::status;

// ---- requests

// A request's word holds its number and its phase. In the phases `idle` and `done` the watchdog
// owns the request. Both sides may replace `armed`: the handler with `taking`, the watchdog with
// `idle` (withdrawn). The one that succeeds decides.
constexpr std::uint32_t idle = 0;
constexpr std::uint32_t armed = 1;
constexpr std::uint32_t taking = 2;
constexpr std::uint32_t done = 3;
constexpr std::uint32_t phase_bits = 3;
constexpr std::uint32_t number_step = 4;

struct request {
  /// `armed` is stored with release and read by the handler with acquire, so that it sees the
  /// request. `done` is stored by the handler with release and read with acquire, so that the
  /// watchdog sees the answer.
  std::atomic<std::uint32_t> word{idle};
  // The request:
  const hooks::thread_state* expected = nullptr;
  timing::ticks start = 0;
  std::size_t limit = 0;
  memory_reader reader = memory_reader::none;
  std::byte* buffer = nullptr;
  std::size_t touched = 0;  ///< the part of the buffer whose pages are present already
  // The answer:
  stack_capture::result result;
  captured_stack stack;
};

// More than one is needed only because a thread may lose the CPU during an answer. A guess, far
// above what happens on a busy machine. When all are in use, no stack can be taken.
constexpr std::size_t request_count = 8;
constinit request requests[request_count];
constinit std::atomic<pid_t> requests_of{0};
// The number of signals that were sent with tgkill(2), so without a value, and not answered in
// time.
constinit std::atomic<int> late{0};

// The value that the signal carries: a mark in the upper half, and the request's number and index
// in the lower half.
// Each copy of the library has its own mark, because a plugin may have a copy whose handler gets
// the signals of this one.
constexpr std::uint64_t mark_bits = 0xffff'ffff'0000'0000;
std::uint64_t mark() noexcept {
  constexpr std::uint64_t name = 0x6173'696f'0000'0000;  // "asio"
  return (reinterpret_cast<std::uintptr_t>(&requests) << 26 & mark_bits) ^ name;
}

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
  if (copied <= red_zone && red_zone != 0) {  // the memory below the stack pointer is not mapped
    r.stack.address = sp;
    copied = copy_mapped(sp, {r.buffer, r.limit}, r.reader);
  }
  r.stack.bytes = {r.buffer, copied};
  r.stack.truncated = copied == r.limit;

  // Only the task of the thread's account is known to be alive, because the account holds a
  // reference and is cleared before that is released. In the few instructions in which the two
  // differ, the frame's task may be out of date.
  hooks::task_record* const t = top->task();
  if (t != nullptr && t == ts.account) {
    hooks::acquire(*t);
    r.result.task = t;
  }
  r.result.site = ts.poll_site.load(std::memory_order_relaxed);
  r.result.where = top->where();
  r.result.arbiter = ts.arbiter;
  return status::taken;
}

void answer(request& r, std::uint32_t number, const ucontext_t& context) noexcept {
  std::uint32_t expected = number | armed;
  if (!r.word.compare_exchange_strong(expected, number | taking, std::memory_order_acquire,
                                      std::memory_order_relaxed)) {
    return;  // the request was withdrawn, because the signal came too late
  }
  const std::int64_t began = now_ns();
  r.result.how = look(r, context);
  r.result.taken_for = std::chrono::nanoseconds{now_ns() - began};
  r.word.store(number | done, std::memory_order_release);
  futex_wake(r.word);
}

/// The armed request for this thread, or null.
request* request_of_this_thread(std::uint32_t& number) noexcept {
  for (request& r : requests) {
    const std::uint32_t word = r.word.load(std::memory_order_acquire);  // as in answer()
    if ((word & phase_bits) == armed && r.expected == &hooks::this_thread()) {
      number = word & ~phase_bits;
      return &r;
    }
  }
  return nullptr;
}

/// The request of a signal; null if the signal is not ours. `number` is set to 0 if it came too
/// late.
request* request_of(const siginfo_t& info, std::uint32_t& number) noexcept {
  if (info.si_code == SI_QUEUE || info.si_code == SI_TIMER) {
    const auto value = reinterpret_cast<std::uint64_t>(info.si_value.sival_ptr);
    if ((value & mark_bits) != mark()) return nullptr;
    const auto low = static_cast<std::uint32_t>(value);
    number = low & ~(static_cast<std::uint32_t>(request_count) * number_step - 1);
    return &requests[low / number_step % request_count];
  }
  if (info.si_code == SI_USER && info.si_pid == 0) {
    // Beyond RLIMIT_SIGPENDING the kernel delivers a signal without its value. If there is a
    // request for this thread just now, the signal is taken for ours.
    return request_of_this_thread(number);
  }
  if (info.si_code == SI_TKILL && info.si_pid == requests_of.load(std::memory_order_relaxed)) {
    // From this process. If the program sends this thread the same signal at this time, the first
    // signal is treated as ours, and the second is passed on.
    if (request* const r = request_of_this_thread(number)) return r;
    int expected = late.load(std::memory_order_relaxed);
    while (expected > 0) {
      if (late.compare_exchange_weak(expected, expected - 1, std::memory_order_relaxed)) {
        return &requests[0];
      }
    }
  }
  return nullptr;
}

// ---- the previous handler

struct previous_action {
  struct sigaction action;
  const previous_action* older;  ///< replaced by this one
};
// Indexed by signal. Entries are replaced as a whole and never freed, because a handler may be
// reading one. The release in install() pairs with the acquire in pass_on().
constinit std::atomic<const previous_action*> previous[NSIG];
constinit std::atomic<bool> once_called[NSIG];

bool ignored_by_default(int signal) noexcept {
  return signal == SIGURG || signal == SIGCHLD || signal == SIGWINCH || signal == SIGCONT;
}

bool stops_by_default(int signal) noexcept {
  return signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU;
}

/// Does what the signal would have done without our handler: ends or stops the process.
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
  // The signal is blocked until this handler returns. Then it is delivered and ends the process.
  const pid_t thread = this_thread_number();
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
  // The previous handler runs with the mask that it asked for; ours blocks everything.
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

}  // namespace

// It has external linkage because the assembler code below jumps to it.
extern "C" [[gnu::used, gnu::visibility("hidden")]] void asio_pulse_detail_on_stack_signal(
    int signal, siginfo_t* info, void* context) {
  const errno_kept keep;
  std::uint32_t number = 0;
  if (request* const r = request_of(*info, number); r != nullptr) {
    answer(*r, number, *static_cast<const ucontext_t*>(context));
    // Last, so that the copy shows the state before. A signal that came too late has also
    // interrupted the call.
    make_interrupted_call_again(context);
  } else {
    pass_on(signal, info, context);
  }
}

// The signal handler. The bytes before it tell another copy of the library, for example in a
// plugin, that this handler passes on signals that are not its own.
extern "C" [[gnu::visibility("hidden")]] void asio_pulse_detail_stack_handler(int, siginfo_t*,
                                                                              void*);
#if defined(__x86_64__)
#define ASIO_PULSE_DETAIL_HANDLER_CODE "endbr64\n jmp asio_pulse_detail_on_stack_signal\n"
#else
#define ASIO_PULSE_DETAIL_HANDLER_CODE "hint #34\n b asio_pulse_detail_on_stack_signal\n"
#endif
asm(".pushsection .text\n"
    ".p2align 4\n"
    ".ascii \"asio_pulse.stack\"\n"
    ".hidden asio_pulse_detail_stack_handler\n"
    ".globl asio_pulse_detail_stack_handler\n"
    ".type asio_pulse_detail_stack_handler, %function\n"
    "asio_pulse_detail_stack_handler:\n" ASIO_PULSE_DETAIL_HANDLER_CODE
    ".size asio_pulse_detail_stack_handler, . - asio_pulse_detail_stack_handler\n"
    ".popsection\n");
#undef ASIO_PULSE_DETAIL_HANDLER_CODE

namespace {

// ---- in the watchdog

bool ours(const struct sigaction& action) noexcept {
  return (action.sa_flags & SA_SIGINFO) != 0 &&
         action.sa_sigaction == &asio_pulse_detail_stack_handler;
}

/// Whether the handler is that of another copy of this library.
bool of_another_copy(const struct sigaction& action) noexcept {
  if ((action.sa_flags & SA_SIGINFO) == 0 || ours(action)) return false;
  constexpr std::string_view sign = "asio_pulse.stack";
  char before[sign.size()] = {};
  const auto at = reinterpret_cast<std::uintptr_t>(action.sa_sigaction);
  // Read through the kernel, because the memory before another function may not be mapped.
  return at > sign.size() &&
         copy_mapped(at - sign.size(), std::as_writable_bytes(std::span(before)),
                     chosen_memory_reader()) == sign.size() &&
         std::string_view(before, sign.size()) == sign;
}

/// Whether this copy has installed its handler for the signal.
bool in_chain(int signal) noexcept {
  return previous[signal].load(std::memory_order_relaxed) != nullptr;
}

bool same(const struct sigaction& a, const struct sigaction& b) noexcept {
  // The two handlers share their memory in the union, and are both pointers.
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

/// A request that no thread is answering, with a buffer; null if there is none.
request* free_request(pid_t self) noexcept {
  if (requests_of.load(std::memory_order_relaxed) != self) {
    // In a forked child, threads that were answering do not exist.
    for (request& r : requests) {
      r.word.store(r.word.load(std::memory_order_relaxed) & ~phase_bits, std::memory_order_relaxed);
    }
    requests_of.store(self, std::memory_order_relaxed);
  }
  for (request& r : requests) {
    // Acquire, as in take(): an answer may have come after the watchdog stopped waiting for it.
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

bool kernel_at_least(int major, int minor) noexcept {
  utsname name{};
  int is_major = 0;
  int is_minor = 0;
  return ::uname(&name) == 0 && std::sscanf(name.release, "%d.%d", &is_major, &is_minor) == 2 &&
         (is_major > major || (is_major == major && is_minor >= minor));
}

// NOLINTNEXTLINE(performance-no-int-to-ptr): what a signal carries is a pointer or an int
void* carried(std::uint32_t low) noexcept { return reinterpret_cast<void*>(mark() | low); }

bool send(pid_t self, pid_t tid, int signal, std::uint32_t low) noexcept {
  siginfo_t info = {};
  info.si_signo = signal;
  info.si_code = SI_QUEUE;
  info.si_pid = self;
  info.si_uid = ::getuid();
  info.si_value.sival_ptr = carried(low);
  return ::syscall(SYS_rt_tgsigqueueinfo, self, tid, signal, &info) == 0;
}

/// Sends the signal without a value. The thread finds the request that asks for its stack.
bool send_plainly(pid_t self, pid_t tid, int signal) noexcept {
  return ::syscall(SYS_tgkill, self, tid, signal) == 0;
}

/// A timer that expires at the first tick at which the thread has used CPU time.
class cpu_timer {
 public:
  cpu_timer() noexcept = default;
  ~cpu_timer() {
    if (made_) ::syscall(SYS_timer_delete, timer_);
  }
  cpu_timer(const cpu_timer&) = delete;
  cpu_timer& operator=(const cpu_timer&) = delete;

  bool start(pid_t tid, int signal, std::uint32_t low) noexcept {
    sigevent event{};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = signal;
    event.sigev_value.sival_ptr = carried(low);
    event._sigev_un._tid = tid;
    made_ = ::syscall(SYS_timer_create, thread_cpu_clock(tid), &event, &timer_) == 0;
    const itimerspec soon{.it_interval = {}, .it_value = {.tv_sec = 0, .tv_nsec = 1}};
    return made_ && ::syscall(SYS_timer_settime, timer_, 0, &soon, nullptr) == 0;
  }

 private:
  int timer_ = 0;
  bool made_ = false;
};

// Two ticks of a kernel with HZ=100, and 5 ms until the thread has a CPU.
constexpr std::chrono::milliseconds ticks_to_wait{25};

/// Waits until the request is answered. If it is not answered in time, it is withdrawn or left to
/// its thread, and the result is false.
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
    // The thread is answering, which takes a few microseconds unless it has lost the CPU.
    if (extended) return (r.word.load(std::memory_order_acquire) & phase_bits) == done;
    extended = true;
    until = now_ns() + std::max<std::int64_t>(timeout.count(), 1'000'000);
  }
}

}  // namespace

stack_capture::delivery stack_capture::best_delivery() noexcept {
  static const delivery best = [] {
    if (calls_can_be_made_again()) return delivery::at_once;
      // From this version on CPU timers expire in the thread's own context
      // (CONFIG_POSIX_CPU_TIMERS_TASK_WORK), and no longer in an interrupt, which may come while a
      // call begins.
#if defined(__x86_64__)
    const bool expire_outside_calls = kernel_at_least(5, 9);
#else
    const bool expire_outside_calls = kernel_at_least(6, 12);
#endif
    return expire_outside_calls ? delivery::by_timer : delivery::none;
  }();
  return best;
}

bool stack_capture::install(int signal) noexcept {
  if (!usable(signal)) return false;
  static std::mutex installing;
  const std::lock_guard lock(installing);
  struct sigaction before = {};
  if (::sigaction(signal, nullptr, &before) != 0) return false;
  // A copy that was installed later passes on signals that are not its own. If this copy installed
  // its handler again, it would be in the chain twice.
  if (ours(before) || (in_chain(signal) && of_another_copy(before))) return true;

  struct sigaction action = {};
  action.sa_sigaction = &asio_pulse_detail_stack_handler;
  action.sa_flags =
      SA_SIGINFO | SA_RESTART | SA_ONSTACK | (before.sa_flags & (SA_NOCLDSTOP | SA_NOCLDWAIT));
  // All signals except those of faults are blocked meanwhile: a handler that leaves by longjmp()
  // would also leave this one.
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
  if (!remember(before)) return false;  // before ours is installed, since it may be needed at once
  struct sigaction replaced = {};
  if (::sigaction(signal, &action, &replaced) != 0) return false;
  // Another handler may have been installed meanwhile.
  if (!ours(replaced)) remember(replaced);
  return true;
}

stack_capture::result stack_capture::take(pid_t tid, int signal,
                                          const hooks::thread_state& expected, timing::ticks start,
                                          std::chrono::nanoseconds timeout, std::size_t bytes,
                                          bool filtered) noexcept {
  stack_.bytes = {};
  struct sigaction now = {};
  if (!usable(signal) || ::sigaction(signal, nullptr, &now) != 0 ||
      !(ours(now) || (in_chain(signal) && of_another_copy(now)))) {
    return {.how = status::not_ours};
  }
  // A filter may not know the system calls for timers.
  if (filtered && delivery_ != delivery::at_once) return {.how = status::filtered};
  if (delivery_ == delivery::none) return {.how = status::unsupported};
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
  r->reader = chosen_memory_reader();
  if (r->touched < r->limit) {  // touch the pages here, to avoid page faults in the handler
    std::fill_n(r->buffer + r->touched, r->limit - r->touched, std::byte{});
    r->touched = r->limit;
  }
  r->result = {};
  r->stack = {};
  r->word.store(number | armed, std::memory_order_release);  // pairs with the acquire in answer()

  const std::uint32_t low = number | index * number_step;
  cpu_timer timer;
  const bool by_timer = delivery_ == delivery::by_timer;
  const auto ask = [&] {
    if (by_timer) return timer.start(tid, signal, low);
    return filtered ? send_plainly(self, tid, signal) : send(self, tid, signal, low);
  };
  if (!ask()) {
    r->word.store(number | idle, std::memory_order_relaxed);
    return {.how = status::unsupported};
  }
  if (by_timer) timeout = std::max<std::chrono::nanoseconds>(timeout, ticks_to_wait);
  if (!wait_for(*r, number, timeout)) {
    if (filtered && (r->word.load(std::memory_order_relaxed) & phase_bits) == idle) {
      late.fetch_add(1, std::memory_order_relaxed);
    }
    return {.how = status::timed_out};
  }
  stack_ = r->stack;
  result taken = r->result;
  r->result.task = nullptr;  // the caller has the reference now
  return taken;
}

bool stack_capture::rehearse(int signal, int filters) noexcept {
  if (!usable(signal)) return false;
  if (rehearsed_ != filters) {
    const std::optional<bool> tried = rehearse_capture(signal);
    if (!tried) return false;  // it may work the next time
    may_ask_ = *tried;
    rehearsed_ = filters;
  }
  return may_ask_;
}

bool stack_capture::read_blocked(std::uintptr_t stack_pointer, std::uintptr_t program_counter,
                                 std::size_t bytes) noexcept {
  stack_ = {};
  try {
    read_.resize(std::clamp<std::size_t>(bytes, 4096, max_bytes));
  } catch (const std::bad_alloc&) {
    return false;
  }
  const std::size_t copied = copy_mapped(stack_pointer, read_, chosen_memory_reader());
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

stack_capture::delivery stack_capture::best_delivery() noexcept { return delivery::none; }

bool stack_capture::install(int) noexcept { return false; }

bool stack_capture::rehearse(int, int) noexcept { return false; }

bool stack_capture::read_blocked(std::uintptr_t, std::uintptr_t, std::size_t) noexcept {
  return false;
}

stack_capture::result stack_capture::take(pid_t, int, const hooks::thread_state&, timing::ticks,
                                          std::chrono::nanoseconds, std::size_t, bool) noexcept {
  return {};
}

#endif

}  // namespace asio_pulse::detail
