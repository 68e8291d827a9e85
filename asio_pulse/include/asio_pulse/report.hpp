// SPDX-License-Identifier: BSL-1.0
//
// Reports about tasks that misbehave: what they contain, and how often they are sent.

#pragma once

#include <asio_pulse/hooks/requirements.hpp>
//
#include <asio_pulse/report_kind.hpp>
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

/// A place in the source. What is not known is null or zero.
struct report_location {
  const char* file = nullptr;
  std::uint32_t line = 0;
  const char* function = nullptr;
};

/// A report. The strings are valid only during the call of the callback.
struct report {
  report_kind kind = report_kind::slow_poll;
  std::string_view task = {};  ///< as named by the program: any bytes
  std::uint64_t task_id = 0;
  std::string_view site = {};  ///< the handler's type, demangled
  report_location location = {};
  std::chrono::nanoseconds poll{0};              ///< length of the poll (so far), by the wall clock
  std::chrono::nanoseconds cpu_or_occupancy{0};  ///< CPU time if `exact`, else occupancy;
                                                 ///< of a stall: without its waits for a CPU
  bool exact = true;
  timing::clock_kind clock = timing::clock_kind::none;
  tier before = tier::monitor;
  tier after = tier::monitor;
  reason why = reason::none;
  std::uint64_t suppressed = 0;  ///< reports of this task that were suppressed since the last one
  std::string_view detail = {};
  // For stalls:
  stall_cause cause = stall_cause::unknown;
  std::string_view system_call = {};        ///< the one that the thread is blocked in
  std::span<const stack_frame> stack = {};  ///< of the stuck thread; empty: see `why_no_stack`
  std::uint64_t thread = 0;                 ///< the kernel's id of the stuck thread
  /// Where the remedy is described, as "asio_pulse/docs/lints.md#blocked_lock": a file and a heading.
  /// The path is relative to share/doc/asio_pulse of an installed package, and to the root of the
  /// source tree. Empty if the report alone does not show what is wrong.
  std::string_view remedy = {};
  no_stack why_no_stack = no_stack::none;
};

/// The report as one line, without a newline. If the report has a stack, the line contains only the
/// frame to blame; format(report::stack) formats the whole stack. The line ends with `see=` and the
/// report's remedy, if it has one.
///
/// Names may come from the network. Control characters, quotes, invalid UTF-8 and code points that
/// reorder or break a line are escaped. A long name is cut, with the number of bytes that were left
/// out. The line is always shorter than 4000 bytes.
///
/// \par Cost    Allocates. Bounded, whatever the length of the names.
/// \par Errors  std::bad_alloc.
std::string format(const report&);

/// The type of a handler without the parts that all types of handlers share: Asio's namespaces and
/// allocators, and wrappers that only hold another handler.
///
/// \par Cost    Allocates.
/// \par Errors  std::bad_alloc.
std::string short_type(std::string_view type);

/// Escapes a text as format() does. The result is valid and printable UTF-8 on one line, without an
/// unescaped double quote, and at most `max_bytes` long, not counting a note of what was cut.
std::string escape(std::string_view text, std::size_t max_bytes);

/// The default sink. Writes the line of the report to stderr, followed by as much of the stack as
/// there is room for. It is one call of write(2), so that lines of several threads do not mix
/// (POSIX guarantees this for up to PIPE_BUF bytes on a pipe).
///
/// The call does not wait for stderr: a thread of the library does the writing. A report is dropped
/// if 32 reports are queued already, the pipe has no reader, or the disk is full. The next line
/// that can be written ends with the number of dropped ones: "dropped=3". The end of the program,
/// and of a context, waits up to 100 ms for the queue.
///
/// Nothing is written if descriptor 2 is no longer standard error, because it was closed and its
/// number now belongs to a socket or another file. It is taken for standard error if it is the file
/// that it was when the program started or when the last context was made; the same file as
/// descriptor 1; or a regular file opened for appending. A program that redirects it otherwise
/// should set on_report.
///
/// \par Thread safety  Any thread.
/// \par Cost           That of format_with_stack(). The first call starts the thread.
/// \par Errors         None (noexcept). errno is preserved.
void write_to_stderr(const report&) noexcept;

/// The text that write_to_stderr() writes: whole lines, shorter than PIPE_BUF (4096 bytes on
/// Linux).
///
/// \par Errors  std::bad_alloc.
std::string format_with_stack(const report&);

/// What the report limiter keeps for each task.
///
/// \par Memory order  Relaxed: only report_limiter writes and reads it. The counter is exact,
///                    because it is only added to and exchanged.
struct report_slot {
  static constexpr timing::ticks never = ~timing::ticks{0};

  std::atomic<timing::ticks> sent_at{never};  ///< when the task's last report was sent
  std::atomic<std::uint64_t> suppressed{0};
};

static_assert(sizeof(report_slot) == 16);

/// Decides which reports are sent: at most one for each task in an interval, and a number for all
/// tasks in a second (a token bucket with the tokens of one second). Suppressed reports are counted
/// exactly: each is in the `suppressed` of the task's next report, or still in the task's slot.
///
/// It does no I/O and reads no clock: the caller passes the time.
///
/// \par Cost           A few atomic operations; no allocation, no lock.
/// \par Thread safety  Every member may be called from any thread, also with the same slot.
/// \par Memory order   Relaxed: the atomics publish no other data. A call of admit() while
///                     configure() changes the limits may use some old and some new ones.
class report_limiter {
 public:
  struct verdict {
    bool send = false;
    std::uint64_t suppressed = 0;  ///< if sent: how many were suppressed since the task's last one
  };

  /// \param interval          The least time between two reports of a task; zero: no limit.
  /// \param per_second        The limit over all tasks; zero: no limit.
  /// \param ticks_per_second  The rate of the clock that admit() is called with.
  report_limiter(timing::ticks interval, std::uint64_t per_second,
                 timing::ticks ticks_per_second) noexcept;

  /// Changes the limits. A new limit over all tasks begins with the tokens of one second; the
  /// interval counts from the last report of each task. For one thread at a time.
  void configure(timing::ticks interval, std::uint64_t per_second,
                 timing::ticks ticks_per_second) noexcept;

  report_limiter(const report_limiter&) = delete;
  report_limiter& operator=(const report_limiter&) = delete;

  verdict admit(report_slot& slot, timing::ticks now) noexcept;

  /// As admit(), but a refusal is not counted. For events that last, for which the caller can ask
  /// again later. In the end the report is either sent or must be counted with hold_back().
  verdict try_admit(report_slot& slot, timing::ticks now) noexcept;
  void hold_back(report_slot& slot) noexcept;

  /// For a further report about an event that has been reported. Only the limit over all tasks
  /// applies.
  verdict admit_more(report_slot& slot, timing::ticks now) noexcept;

  std::uint64_t sent() const noexcept { return sent_.load(std::memory_order_relaxed); }

  /// The number of suppressed reports. Together with sent() it is the number of calls of admit()
  /// and admit_more() that have returned, and of events that try_admit() was asked about.
  std::uint64_t suppressed() const noexcept { return suppressed_.load(std::memory_order_relaxed); }

 private:
  bool take_token(timing::ticks now) noexcept;

  std::atomic<timing::ticks> interval_{0};
  std::atomic<timing::ticks> increment_{0};  // the time for one report, in ticks; 0: no limit
  std::atomic<timing::ticks> span_{0};       // the size of the bucket, in ticks
  std::atomic<timing::ticks> full_at_{0};
  std::atomic<std::uint64_t> sent_{0};
  std::atomic<std::uint64_t> suppressed_{0};
};

}  // namespace asio_pulse
