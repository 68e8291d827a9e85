// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/changes.hpp>
#include <asio_pulse/hooks/thread_state.hpp>
#include <asio_pulse/metrics.hpp>
#include <asio_pulse/recording.hpp>
#include <asio_pulse/stack_trace.hpp>
#include <asio_pulse/timing/timebase.hpp>

#include <memory>
#include <span>
#include <string_view>

namespace asio_pulse::detail {

class context_core;
struct stalled_poll;
struct task_state;

/// The interface through which a context reports to the parts of the library that are built on
/// contexts: the watchdog, the sources of hints, telemetry. They include the context's headers, so
/// the context cannot include theirs. Each context has one companion, which is made with it.
///
/// \par Cost           It is not called on the fast path of a poll.
/// \par Thread safety  All members may be called from any thread, unless stated otherwise.
/// \par Errors         None where noexcept: if there is no memory or no thread, the part does not
///                     work for this context.
class context_companion {
 public:
  context_companion() = default;
  context_companion(const context_companion&) = delete;
  context_companion& operator=(const context_companion&) = delete;
  virtual ~context_companion() = default;

  /// The context has its port, so it can be watched, inspected and probed from now on.
  virtual void opened() noexcept = 0;
  /// The context is about to lose its port or is being destroyed. May be called more than once.
  ///
  /// \par Blocking  Waits until the parts that opened() has notified no longer use the context,
  ///                unless the caller is inside such a use.
  virtual void closing() noexcept = 0;

  /// The calling thread has become a worker of the context, or is no longer one. left() is not
  /// called for a worker that rests (see path_arbiter::resting), since there is nothing to undo.
  virtual void joined(hooks::thread_state& ts) noexcept = 0;
  virtual void left(hooks::thread_state& ts) noexcept = 0;
  /// hooks::service_epoch has changed. The calling worker takes what was prepared for it.
  virtual void renew(hooks::thread_state& ts) noexcept = 0;
  /// A poll of `t` has ended at `now` on the calling worker, and there is a hint, or was one
  /// recently.
  virtual void hinted(hooks::thread_state& ts, task_state& t, timing::ticks now) noexcept = 0;
  /// Options have changed by `what`, to `now`. Returns whether renew() has to be called on each
  /// worker. Called by one thread at a time, and not after closing().
  [[nodiscard]] virtual bool options_changed(const changes& what, const options& now) noexcept = 0;
  /// See hooks::path_arbiter::woken().
  virtual void woken() noexcept = 0;
  /// The process was forked, and this is the child.
  virtual void forked() noexcept = 0;

  /// A poll of `t` is stuck; more was found out about it; it is over. Called by the watchdog's
  /// thread. Must not wait for a thread that inspects.
  virtual void stall_began(const stalled_poll& s, const task_state& t) noexcept = 0;
  virtual void stall_described(const stalled_poll& s, std::string_view system_call,
                               std::span<const stack_frame> stack) noexcept = 0;
  virtual void stall_over(const stalled_poll& s) noexcept = 0;
  /// Whether the context's metrics are being read now.
  [[nodiscard]] virtual bool observed() const noexcept = 0;
  /// Whether events are collected now.
  [[nodiscard]] virtual bool tracing() const noexcept { return false; }
  /// Whether the calling thread may call code of the program now. False on the watchdog's thread
  /// once the process is ending.
  [[nodiscard]] virtual bool may_call_program() const noexcept { return true; }

  /// See io_context::metrics() and io_context::trace().
  /// \par Errors  std::bad_alloc.
  [[nodiscard]] virtual context_metrics metrics(const metrics_request& what) = 0;
  [[nodiscard]] virtual recording trace() = 0;
};

/// Makes the companion of a context; defined in process.cpp. Only the context's options may be used
/// at this time.
///
/// \par Errors  std::bad_alloc.
[[nodiscard]] std::unique_ptr<context_companion> make_companion(context_core& core);

}  // namespace asio_pulse::detail
