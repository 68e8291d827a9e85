// SPDX-License-Identifier: BSL-1.0
//
// Reports: what a user gets to read of a task that misbehaved, and how often.

#pragma once

#include <asio_pulse/stack_trace.hpp>
#include <asio_pulse/tier.hpp>
#include <asio_pulse/timing/clock.hpp>
#include <asio_pulse/timing/timebase.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace asio_pulse {

enum class report_kind : std::uint8_t {
  slow_poll,             ///< one poll above a threshold
  over_budget,           ///< CPU time over the task's budget
  tier_change,           ///< a tier changed, without an offence
  isolation_refused,     ///< isolation was wanted and would have been unsafe; detail says why
  critical_overstay,     ///< a critical section above options::max_critical
  hook_error,            ///< a user's hook or callback threw; detail says what
  stall,                 ///< a poll has reached stall_threshold and goes on
  stall_ended,           ///< a poll that was reported as a stall has ended
  yield_refused,         ///< a yield was wanted and would have been unsafe; detail says why
  compensation_refused,  ///< a spare worker was wanted and would have been unsafe; detail says why
  misuse,                ///< the library is used against its rules; detail says which
};

/// The enumerator's name; "unknown" for a value that is none of them.
std::string_view to_string(report_kind) noexcept;

/// A place in the source, as far as it is known. Null and zero: not known.
struct report_location {
  const char* file = nullptr;
  std::uint32_t line = 0;
  const char* function = nullptr;
};

/// One report. The strings live as long as the call of the callback.
struct report {
  report_kind kind = report_kind::slow_poll;
  std::string_view task = {};  ///< as named by the user: any bytes
  std::uint64_t task_id = 0;
  std::string_view site = {};  ///< the handler's type, demangled
  report_location location = {};
  std::chrono::nanoseconds poll{0};              ///< the poll, or so far, by the wall clock
  std::chrono::nanoseconds cpu_or_occupancy{0};  ///< CPU time where `exact`, else occupancy;
                                                 ///< of a stall: without the waits for a CPU
  bool exact = true;
  timing::clock_kind clock = timing::clock_kind::none;
  tier before = tier::monitor;
  tier after = tier::monitor;
  reason why = reason::none;
  std::uint64_t suppressed = 0;  ///< reports of this task that were held back since the last one
  std::string_view detail = {};
  // Of stalls:
  stall_cause cause = stall_cause::unknown;
  std::string_view system_call = {};        ///< that the thread is blocked in
  std::span<const stack_frame> stack = {};  ///< of the stuck thread; empty: could not be taken
  std::uint64_t thread = 0;                 ///< the kernel's number of the stuck thread
};

/// The report as one line, without a newline. Of a stack it names the frame to blame; the whole of
/// it is format(report::stack). A stall or slow poll ends with where its remedy is described, as
/// "see=docs/lints.md#blocked_lock".
///
/// Names come from users and from the network: control characters, quotes, invalid UTF-8 and the
/// code points that reorder or break a line are escaped, and a long name is cut with the number of
/// bytes that were left out. The line is shorter than 4000 bytes whatever the report holds.
///
/// \par Cost    Allocates; bounded whatever the names' lengths.
/// \par Errors  std::bad_alloc.
std::string format(const report&);

/// A handler's type without what is the same in all of them: Asio's namespaces and allocators, and
/// the wrappers that say only that there is a handler inside.
///
/// \par Cost    Allocates.
/// \par Errors  std::bad_alloc.
std::string short_type(std::string_view type);

/// Escapes as format() does: the result is valid UTF-8, printable, on one line, without an
/// unescaped double quote, and at most `max_bytes` long, apart from a note of what was cut.
std::string escape(std::string_view text, std::size_t max_bytes);

/// The default sink: the line and a newline on stderr, and the stack below it as far as there is
/// room, by a single write(2), so that lines of several threads do not mix (POSIX: up to PIPE_BUF
/// bytes on a pipe).
///
/// \par Errors  None (noexcept): what cannot be written is dropped. errno is preserved.
void write_to_stderr(const report&) noexcept;

/// The text that write_to_stderr() writes: shorter than PIPE_BUF (4096 bytes on Linux), whole
/// lines.
///
/// \par Errors  std::bad_alloc.
std::string format_with_stack(const report&);

/// A task's share of the report limiter: lives beside the task.
///
/// \par Memory order  Relaxed: written and read by report_limiter alone; the counter is exact
///                    because it is only added to and exchanged.
struct report_slot {
  std::atomic<timing::ticks> not_before{0};
  std::atomic<std::uint64_t> suppressed{0};
};

static_assert(sizeof(report_slot) == 16);

/// Decides which reports are sent: at most one per interval and task, and so many a second over all
/// tasks (a token bucket that holds one second's worth). What is held back is counted exactly: each
/// one shows in the `suppressed` of the task's next report, or is still pending in its slot.
///
/// Sans-I/O: the caller brings the time.
///
/// \par Cost           A few atomic operations; no allocation, no lock.
/// \par Thread safety  Every member may be called from any thread, on one slot too.
/// \par Memory order   Relaxed: the words publish no other data.
class report_limiter {
 public:
  struct verdict {
    bool send = false;
    std::uint64_t suppressed = 0;  ///< if sent: held back since the task's last report
  };

  /// \param interval          Per task; zero: no limit.
  /// \param per_second        Over all tasks; zero: no limit.
  /// \param ticks_per_second  Of the clock that admit() is called with.
  report_limiter(timing::ticks interval, std::uint64_t per_second,
                 timing::ticks ticks_per_second) noexcept;

  report_limiter(const report_limiter&) = delete;
  report_limiter& operator=(const report_limiter&) = delete;

  verdict admit(report_slot& slot, timing::ticks now) noexcept;

  /// For what lasts, and can be asked again later: as admit(), but a refusal is not counted. In the
  /// end it is either sent, or has to be counted by hold_back().
  verdict try_admit(report_slot& slot, timing::ticks now) noexcept;
  void hold_back(report_slot& slot) noexcept;

  /// A further report about what has been reported: it is new for nobody, so only the limit over
  /// all tasks holds.
  verdict admit_more(report_slot& slot, timing::ticks now) noexcept;

  std::uint64_t sent() const noexcept { return sent_.load(std::memory_order_relaxed); }

  /// Held back so far; with sent(), the number of calls of admit() and
  /// admit_more() that have returned, and of things that try_admit() was asked about.
  std::uint64_t suppressed() const noexcept { return suppressed_.load(std::memory_order_relaxed); }

 private:
  bool take_token(timing::ticks now) noexcept;

  const timing::ticks interval_;
  const timing::ticks increment_;  // one report, in ticks; 0: no limit
  const timing::ticks span_;       // the bucket, in ticks
  std::atomic<timing::ticks> full_at_{0};
  std::atomic<std::uint64_t> sent_{0};
  std::atomic<std::uint64_t> suppressed_{0};
};

}  // namespace asio_pulse
