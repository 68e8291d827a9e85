// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "instruments.hpp"
#include "reports/stalled_poll.hpp"

#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/metrics.hpp>
#include <asio_pulse/recording.hpp>

#include <atomic>
#include <chrono>
#include <span>
#include <string_view>
#include <vector>

namespace asio_pulse::detail {

/// The metrics and traces of a context.
///
/// \par Thread safety  All members may be called from any thread.
class context_telemetry {
 public:
  /// Only the context's options may be used at this time.
  explicit context_telemetry(context_core& core) noexcept;

  [[nodiscard]] context_core& core() const noexcept { return core_; }
  [[nodiscard]] instruments& tools() noexcept { return tools_; }
  [[nodiscard]] bool collecting() const noexcept { return tools_.collecting(); }
  [[nodiscard]] bool tracing() const noexcept { return tools_.tracing(); }

  // ---- called by the context

  void joined(hooks::thread_state& ts) noexcept;
  void left(hooks::thread_state& ts) noexcept;
  void renew(hooks::thread_state& ts) noexcept { tools_.renew(ts); }
  void forked() noexcept { tools_.forked(); }
  void stall_began(const stalled_poll& s, const task_state& t) noexcept;
  void stall_described(const stalled_poll& s, std::string_view system_call,
                       std::span<const stack_frame> stack) noexcept;
  void stall_over(const stalled_poll& s) noexcept { tools_.stall_over(s); }

  // ---- called by readers

  /// For a program that reads now and then.
  /// \par Errors  std::bad_alloc.
  [[nodiscard]] context_metrics metrics(const metrics_request& what);
  [[nodiscard]] recording trace();
  /// The same two for the inspection thread.
  [[nodiscard]] context_metrics snapshot(const metrics_request& what,
                                         std::chrono::milliseconds lease);
  [[nodiscard]] recording recorded();
  /// Makes the workers collect for this long.
  void want_metrics(std::chrono::milliseconds how_long) noexcept;
  void want_trace(std::chrono::milliseconds how_long) noexcept;
  /// Ends collections whose time is over.
  void expire(instruments::clock::time_point now) noexcept;
  /// Measures the queue delay, unless the context is idle. Only while the context has its port.
  void probe() noexcept;

 private:
  /// Whether the interval of recent CPU time ends with this snapshot. Sets its length.
  [[nodiscard]] bool roll(context_metrics& to) noexcept;
  void collect_groups(const metrics_request& what, bool roll, context_metrics& to);
  void collect_tasks(const metrics_request& what, bool roll,
                     const std::vector<const hooks::task_record*>& at_work, context_metrics& to);
  void collect_workers(const metrics_request& what, context_metrics& to,
                       std::vector<const hooks::task_record*>& at_work);

  context_core& core_;
  instruments tools_;
  /// A thread has run the context. Relaxed: who finds it false tells the inspection once more.
  std::atomic<bool> has_run_{false};
};

}  // namespace asio_pulse::detail
