// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "thread_files.hpp"

#include <sys/types.h>
#include <time.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

/// \file
/// The CPU time and context switches of a thread of this process, and its state in the kernel.

namespace asio_pulse::detail {

#if defined(__linux__)
/// The id of a thread's CPU clock, computed from the thread id. pthread_getcpuclockid() returns the
/// same, but needs a valid pthread_t.
[[nodiscard]] constexpr clockid_t thread_cpu_clock(pid_t tid) noexcept {
  return static_cast<clockid_t>((~static_cast<std::uint32_t>(tid) << 3U) | 6U);
}
#endif

/// What a thread has used up to an instant.
struct thread_usage {
  std::int64_t cpu_ns = 0;
  /// The time that the thread waited for a CPU. It does not include a wait that is not over.
  std::int64_t run_delay_ns = 0;
  std::uint64_t voluntary = 0;  ///< voluntary switches
  std::uint64_t involuntary = 0;
  char state = 0;           ///< the kernel's letter (R, S, D, T, t, ...); 0: not read
  int cpu = -1;             ///< the CPU on which it ran last; -1: not read
  bool valid = false;       ///< cpu_ns was read
  bool have_delay = false;  ///< run_delay_ns was read
  bool have_switches = false;
  /// The state is R but the thread has no CPU: it waits in a run queue.
  bool waiting = false;
  /// The errno of a file that could not be opened; 0 if there was none.
  int fault = 0;
  std::uint64_t blocked_signals = 0;  ///< bit n is signal n + 1; read with the switches
  /// The number of seccomp filters; 1 if there are some and the kernel (before 5.9) does not count
  /// them. Read with the switches.
  int filters = 0;
};

/// Reads the usage of another thread of this process, which must be alive. All objects that the
/// same thread uses may share the files.
///
/// \par Thread safety  Distinct objects: Safe. Shared objects: Unsafe.
/// \par Errors         What cannot be read stays unset. Nothing throws.
class thread_probe {
 public:
  thread_probe() noexcept = default;
  /// The files must outlive this object.
  thread_probe(pid_t tid, thread_files& files) noexcept : tid_(tid), files_(&files) {}

  /// Reads the CPU time, and the run delay if its file is open or there is room for it.
  ///
  /// \par Cost  Two system calls, about 1 us.
  [[nodiscard]] thread_usage quick() noexcept;

  /// Reads also the state and the switches.
  ///
  /// \par Cost  Five system calls, about 20 us, since /proc formats much text. Up to 40 us more for
  ///            each of three files that is not open.
  [[nodiscard]] thread_usage full() noexcept;

  /// Read only CPU time and state, or CPU time and switches.
  ///
  /// \par Cost  Two system calls, about 10 and 20 us, and 40 us more if the file is not open.
  [[nodiscard]] thread_usage state() noexcept;
  [[nodiscard]] thread_usage switches() noexcept;

  /// The name of the system call that the thread is blocked in, with the descriptor if that is the
  /// first argument ("futex", "read fd 7"), or the kernel function that it sleeps in. Empty if it
  /// is not blocked, or the kernel does not show it. The text is in `buffer`.
  [[nodiscard]] std::string_view system_call(std::span<char> buffer) noexcept;

  /// Where the thread is blocked, in a system call or elsewhere in the kernel, if it is.
  ///
  /// \par Errors  Not known if the kernel does not show it.
  struct position {
    bool known = false;
    bool blocked = false;
    int fault = 0;  ///< the errno if the file could not be opened
    std::uintptr_t stack_pointer = 0;
    std::uintptr_t program_counter = 0;
    friend bool operator==(const position&, const position&) = default;
  };
  [[nodiscard]] position where() noexcept;

 private:
  pid_t tid_ = 0;
  thread_files* files_ = nullptr;
};

/// The number of seccomp filters of the calling thread; empty if it cannot be found out (no
/// descriptor, no /proc). A filter may end the process for a system call that it does not know.
/// Under a filter the library therefore makes no call that a program on plain Asio does not make.
///
/// \par Cost    Five system calls, about 60 us.
/// \par Errors  None (noexcept).
[[nodiscard]] std::optional<int> read_own_seccomp_filters() noexcept;
/// The same, but 1 if it cannot be found out.
[[nodiscard]] inline int own_seccomp_filters() noexcept {
  return read_own_seccomp_filters().value_or(1);
}

namespace parse {

// Parsers of the texts that the kernel writes. A malformed text changes nothing.
bool schedstat(std::string_view text, thread_usage& to) noexcept;
bool stat(std::string_view text, thread_usage& to) noexcept;
bool status(std::string_view text, thread_usage& to) noexcept;
/// /proc/.../syscall. Empty if the thread runs, or is blocked outside a system call.
std::string_view system_call(std::string_view text, std::span<char> buffer) noexcept;
thread_probe::position position(std::string_view text) noexcept;

}  // namespace parse
}  // namespace asio_pulse::detail
