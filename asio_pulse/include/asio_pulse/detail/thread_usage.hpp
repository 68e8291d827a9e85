// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/types.h>

#include <asio_pulse/stack_trace.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

/// \file
/// Why a thread does not get on: its CPU time against wall time, and what the kernel says of it.

namespace asio_pulse::detail {

/// What a thread has used so far, at one instant.
struct thread_usage {
  std::int64_t cpu_ns = 0;
  /// Spent ready to run, waiting for a CPU. A wait that is not over yet is not in it.
  std::int64_t run_delay_ns = 0;
  std::uint64_t voluntary = 0;  ///< switches
  std::uint64_t involuntary = 0;
  char state = 0;           ///< the kernel's letter (R, S, D, T, t, ...); 0: not read
  int cpu = -1;             ///< where it ran last; -1: not read
  bool valid = false;       ///< cpu_ns was read
  bool have_delay = false;  ///< run_delay_ns was read
  bool have_switches = false;
  /// State R without a CPU at that instant: it waits in a run queue.
  bool waiting = false;
};

/// Reads another thread of this process. Keeps its files in /proc open (close-on-exec), so that a
/// look costs no path walk and never meets another thread that was given the same number.
///
/// \par Thread safety  Distinct objects: Safe. Shared objects: Unsafe.
/// \par Errors         What cannot be read stays unset. None of it throws.
class thread_probe {
 public:
  thread_probe() noexcept = default;
  explicit thread_probe(pid_t tid) noexcept;
  thread_probe(thread_probe&&) noexcept;
  thread_probe& operator=(thread_probe&&) noexcept;
  ~thread_probe();

  /// \par Cost  Two system calls, about 1 us.
  [[nodiscard]] thread_usage quick() noexcept;

  /// And the state letter and the switches.
  ///
  /// \par Cost  Five system calls, about 20 us: /proc formats a lot to say little.
  [[nodiscard]] thread_usage full() noexcept;

  /// The name of the system call that the thread is blocked in, and its descriptor where the first
  /// argument is one ("futex", "read fd 7"), or the kernel function that it sleeps in. Empty where
  /// it is not blocked, or where this kernel does not tell. Lies in `buffer`.
  [[nodiscard]] std::string_view system_call(std::span<char> buffer) noexcept;

  /// Where it is blocked, if it is: in a system call or in the kernel otherwise.
  ///
  /// \par Errors  Not known where this kernel does not tell.
  struct position {
    bool known = false;
    bool blocked = false;
    std::uintptr_t stack_pointer = 0;
    std::uintptr_t program_counter = 0;
    friend bool operator==(const position&, const position&) = default;
  };
  [[nodiscard]] position where() noexcept;

 private:
  void close_all() noexcept;

  pid_t tid_ = 0;
  int schedstat_ = -1;
  int stat_ = -1;
  int status_ = -1;
  int syscall_ = -1;
  int wchan_ = -1;
};

/// Two looks at one thread, and the wall time between them.
struct stall_evidence {
  thread_usage before;
  thread_usage now;
  std::int64_t wall_ns = 0;
};

/// Why the thread did not get on between the two looks. Pure. When in doubt: unknown.
[[nodiscard]] stall_cause classify(const stall_evidence&) noexcept;

/// How much of the wall time is not the thread's own doing: waits for a CPU, and being stopped. At
/// least 0 and at most `wall_ns`. Pure. When in doubt it is more rather than less.
[[nodiscard]] std::int64_t excused_ns(const stall_evidence&) noexcept;

namespace parse {

// The texts that the kernel writes. Malformed ones change nothing.
bool schedstat(std::string_view text, thread_usage& to) noexcept;
bool stat(std::string_view text, thread_usage& to) noexcept;
bool status(std::string_view text, thread_usage& to) noexcept;
/// /proc/.../syscall. Empty where the thread runs, or is blocked outside a system call.
std::string_view system_call(std::string_view text, std::span<char> buffer) noexcept;
thread_probe::position position(std::string_view text) noexcept;

}  // namespace parse
}  // namespace asio_pulse::detail
