// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/types.h>

#include <asio_pulse/detail/captured_stack.hpp>
#include <asio_pulse/hooks/thread_state.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

/// \file
/// Takes the stack of a thread that is stuck in a poll: a signal to the thread, whose handler
/// copies the registers and the top of the stack. Nothing is unwound there: the copy is
/// (symbolizer.hpp).

namespace asio_pulse::detail {

/// Asks threads for their stacks, one at a time. Those that run, that is: the signal would end many
/// system calls early (select, poll, nanosleep: signal(7)), and the program may not expect it.
/// Threads that are blocked have their stacks read.
///
/// The handler runs on the stuck thread, wherever that was: inside malloc, with a lock held, in the
/// middle of a throw, in another handler. So it takes no lock, allocates nothing, calls only what
/// is async-signal-safe, reads the stack through the kernel (which stops at what is not mapped
/// instead of faulting), and leaves errno alone. It acts on a request that is armed and on nothing
/// else: a signal that comes late finds its request withdrawn.
///
/// A thread can lose the CPU in the middle of the handler and stay away for longer than anybody
/// waits. Its request, and the buffer, are then left to it: they are used again when it is done.
///
/// \par Thread safety  install(): any thread. Everything else: one thread, the watchdog.
/// \par Limits         A system call that SA_RESTART does not restart (nanosleep, poll, epoll_wait,
///                     waits with a time-out; see signal(7)) returns EINTR to the stuck thread, as
///                     for any other signal. A thread that blocks the signal gives no stack.
class stack_capture {
 public:
  static constexpr std::size_t default_bytes = 65536;
  static constexpr std::size_t max_bytes = std::size_t{1} << 20;

  struct result {
    enum class status : std::uint8_t {
      taken,
      ended,              ///< the poll was over before the signal came
      refused_switching,  ///< the thread was between two fibers
      timed_out,          ///< no answer in time: it blocks the signal, or does not get a CPU
      not_ours,           ///< somebody replaced the handler; no signal was sent
      unsupported         ///< this processor or system, or no such thread
    };
    status how = status::unsupported;
    hooks::task_record* task = nullptr;  ///< with one reference, which the caller releases; or null
    const hooks::site* site = nullptr;
    hooks::location where{};
    hooks::path_observer* observer = nullptr;  ///< the thread's, then; may be gone by now
    std::chrono::nanoseconds taken_for{0};     ///< how long the handler held up the thread
  };

  /// Makes `signal` the one that asks for a stack: installs a handler with SA_SIGINFO, SA_RESTART
  /// and SA_ONSTACK that passes every signal that is not ours on to what was installed before.
  /// Idempotent. False for what cannot be used: SIGKILL, SIGSTOP, the signals of faults and abort,
  /// those that the C library keeps, and numbers that are none.
  static bool install(int signal) noexcept;

  stack_capture() noexcept = default;
  stack_capture(const stack_capture&) = delete;
  stack_capture& operator=(const stack_capture&) = delete;

  /// Takes the stack of the thread `tid`, if it is in a poll that started at `start`. The thread is
  /// the one of `expected`, which lives until this returns.
  ///
  /// \param bytes  Of the stack, at most; rounded to between 4096 and max_bytes.
  /// \par Cost     Here: two system calls and a wait. The stuck thread: about 10 us, plus 5 us for
  ///               each further 64 KiB.
  result take(pid_t tid, int signal, const hooks::thread_state& expected, timing::ticks start,
              std::chrono::nanoseconds timeout, std::size_t bytes = default_bytes) noexcept;

  /// Reads the stack of a thread that is blocked at `stack_pointer`, without its help: it is not
  /// disturbed, and no system call of its comes back early. The caller makes sure, before and
  /// after, that it is blocked there. False: nothing could be read.
  ///
  /// \par Cost  Here: a system call. The thread: nothing.
  bool read_blocked(std::uintptr_t stack_pointer, std::uintptr_t program_counter,
                    std::size_t bytes = default_bytes) noexcept;

  /// What the last take() or read_blocked() took; valid until the next one.
  [[nodiscard]] const captured_stack& stack() const noexcept { return stack_; }

 private:
  captured_stack stack_;
  std::vector<std::byte> read_;
};

}  // namespace asio_pulse::detail
