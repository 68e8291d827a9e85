// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "captured_stack.hpp"

#include <asio_pulse/hooks/thread_state.hpp>

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

/// \file
/// Takes the stack of a thread that is stuck in a poll. A signal is sent to the thread, and its
/// handler copies the registers and the top of the stack. The handler does not unwind; the copy is
/// unwound later (symbolizer.hpp).

namespace asio_pulse::detail {

/// Takes the stacks of threads, one at a time. The signal is sent only to threads that run, because
/// it would end many system calls early (select, poll, nanosleep; see signal(7)), which the program
/// may not expect. The stacks of blocked threads are read from outside.
///
/// The handler may interrupt the stuck thread anywhere: inside malloc, with a lock held, in the
/// middle of a throw, in another handler. So it takes no lock, does not allocate, calls only
/// async-signal-safe functions, reads the stack through the kernel (which stops at unmapped memory
/// instead of faulting), and preserves errno. It acts only if a request is armed. If a signal comes
/// late, its request was withdrawn.
///
/// A thread may lose the CPU in the middle of the handler for longer than the watchdog waits. Its
/// request and the buffer are then left to it, and used again when it has finished.
///
/// A thread that enters a system call just then would get EINTR from the calls that SA_RESTART does
/// not restart (nanosleep, poll, epoll_wait, waits with a time-out). If the C library's calls can
/// be recognised, the handler makes the thread repeat the call. Otherwise the signal comes from a
/// timer on the thread's CPU clock, and so a tick of the kernel later.
///
/// \par Thread safety  install(): any thread. Everything else: only one thread, the watchdog.
/// \par Limits         If a thread blocks the signal, its stack cannot be taken.
class stack_capture {
 public:
  static constexpr std::size_t default_bytes = 65536;
  static constexpr std::size_t max_bytes = std::size_t{1} << 20;

  /// How a running thread gets the signal without an EINTR from its system calls.
  enum class delivery : std::uint8_t {
    at_once,   ///< it is sent; a call that it interrupts is made again
    by_timer,  ///< by a timer on the thread's CPU clock: the kernel delivers it when it returns to
               ///< the program, while no call is in progress
    none       ///< neither works here
  };
  /// The first that works here. It is found out once.
  [[nodiscard]] static delivery best_delivery() noexcept;

  struct result {
    enum class status : std::uint8_t {
      taken,
      ended,              ///< the poll was over before the signal came
      refused_switching,  ///< the thread was between two fibers
      timed_out,          ///< no answer in time: the thread blocks the signal, or gets no CPU
      not_ours,           ///< the handler was replaced; no signal was sent
      filtered,           ///< a seccomp filter may forbid the system calls; no signal was sent
      unsupported         ///< this processor or system, or no such thread
    };
    status how = status::unsupported;
    hooks::task_record* task = nullptr;  ///< with one reference, which the caller releases; or null
    const hooks::site* site = nullptr;
    hooks::location where{};
    hooks::path_arbiter* arbiter = nullptr;  ///< the thread's arbiter then; may no longer exist
    std::chrono::nanoseconds taken_for{0};   ///< how long the handler delayed the thread
  };

  /// Installs a handler for `signal`, with SA_SIGINFO, SA_RESTART and SA_ONSTACK. It passes signals
  /// that are not ours on to the previous handler. Idempotent. Returns false for signals that
  /// cannot be used: SIGKILL, SIGSTOP, those of faults and abort, those that the C library
  /// reserves, and invalid numbers.
  static bool install(int signal) noexcept;

  explicit stack_capture(delivery how = best_delivery()) noexcept : delivery_(how) {}
  stack_capture(const stack_capture&) = delete;
  stack_capture& operator=(const stack_capture&) = delete;

  /// Whether the seccomp filters of this thread, `filters` of them, allow to take the stack of a
  /// running thread. This is tried once for each number of filters, since filters can only be
  /// added; see rehearsal.hpp.
  [[nodiscard]] bool rehearse(int signal, int filters) noexcept;

  /// Takes the stack of the thread `tid` if it is in a poll that started at `start`. It must be the
  /// thread of `expected`, which must live until this returns.
  ///
  /// \param bytes     The most bytes of the stack; clamped to between 4096 and max_bytes.
  /// \param filtered  Whether to use only the system calls that rehearse() has tried.
  /// \par Cost     For the caller: two system calls and a wait. For the stuck thread: about 10 us,
  ///               and 5 us for each further 64 KiB.
  result take(pid_t tid, int signal, const hooks::thread_state& expected, timing::ticks start,
              std::chrono::nanoseconds timeout, std::size_t bytes = default_bytes,
              bool filtered = false) noexcept;

  /// Reads the stack of a thread that is blocked at `stack_pointer`, without disturbing the thread
  /// or ending its system call. The caller has to check before and after that the thread is blocked
  /// there. Returns false if nothing could be read.
  ///
  /// \par Cost  For the caller: a system call. For the thread: nothing.
  bool read_blocked(std::uintptr_t stack_pointer, std::uintptr_t program_counter,
                    std::size_t bytes = default_bytes) noexcept;

  /// The stack of the last take() or read_blocked(), which is valid until the next one.
  [[nodiscard]] const captured_stack& stack() const noexcept { return stack_; }

 private:
  delivery delivery_;
  int rehearsed_ = 0;  ///< the number of filters at the last rehearsal
  bool may_ask_ = false;
  captured_stack stack_;
  std::vector<std::byte> read_;
};

}  // namespace asio_pulse::detail
