// SPDX-License-Identifier: BSL-1.0
//
// The only file that knows stalls, hints and telemetry together. It passes on to each of them what
// a context reports to its companion.
#include "context_companion.hpp"
#include "context_telemetry.hpp"
#include "hint_hub.hpp"
#include "inspection.hpp"
#include "reports/stalled_poll.hpp"
#include "watchdog.hpp"

#include <asio_pulse/detail/context_core.hpp>

#include <atomic>
#include <memory>

namespace asio_pulse::detail {
namespace {

class companion final : public context_companion {
 public:
  explicit companion(context_core& core) noexcept : core_(core), telemetry_(core) {}

  void opened() noexcept override {
    if (core_.watched()) watch(core_.opts());
    show_context(telemetry_);
  }
  void closing() noexcept override {
    if (watched_.load(std::memory_order_relaxed)) forget_context(core_);
    hide_context(telemetry_);
  }

  void joined(hooks::thread_state& ts) noexcept override {
    if (core_.watched()) watch_this_thread(ts);
    if (wants_hints()) join_hints(ts, core_);
    telemetry_.joined(ts);
  }
  void left(hooks::thread_state& ts) noexcept override {
    telemetry_.left(ts);
    if (wants_hints()) leave_hints(ts, core_);
  }
  void renew(hooks::thread_state& ts) noexcept override {
    if (core_.watched()) watch_this_thread(ts);
    if (wants_hints()) take_hints(ts);
    telemetry_.renew(ts);
  }
  bool options_changed(const changes& what, const options& now) noexcept override {
    const bool watch_changed = what.stall_threshold || what.yield_threshold ||
                               what.isolate_threshold || what.max_critical || what.watchdog;
    const bool was_watched = watched_.load(std::memory_order_relaxed);
    if (watch_changed && (was_watched || core_.watched())) watch(now);
    const bool to_register = watched_.load(std::memory_order_relaxed) && !was_watched;
    return to_register || (what.shadow && wants_hints()) || telemetry_.tracing();
  }
  void hinted(hooks::thread_state& ts, task_state& t, timing::ticks now) noexcept override {
    hear_hint(ts, core_, t, now);
  }
  void woken() noexcept override { wake_watchdog(); }
  void forked() noexcept override {
    telemetry_.forked();
    if (wants_hints()) resume_hints();
    resume_inspection();
  }

  void stall_began(const stalled_poll& s, const task_state& t) noexcept override {
    telemetry_.stall_began(s, t);
  }
  void stall_described(const stalled_poll& s, std::string_view system_call,
                       std::span<const stack_frame> stack) noexcept override {
    telemetry_.stall_described(s, system_call, stack);
  }
  void stall_over(const stalled_poll& s) noexcept override { telemetry_.stall_over(s); }
  bool observed() const noexcept override { return telemetry_.collecting(); }
  bool tracing() const noexcept override { return telemetry_.tracing(); }
  bool may_call_program() const noexcept override { return detail::may_call_program(); }

  context_metrics metrics(const metrics_request& what) override { return telemetry_.metrics(what); }
  recording trace() override { return telemetry_.trace(); }

 private:
  void watch(const options& o) noexcept {
    watched_.store(true, std::memory_order_relaxed);
    watch_context(core_, o);
  }
  [[nodiscard]] bool wants_hints() const noexcept { return core_.hints_from() != hint_source::off; }

  context_core& core_;
  context_telemetry telemetry_;
  /// The watchdog knows the context; it may have nothing to look for. Relaxed: an update and the
  /// end of the context are ordered by the program.
  std::atomic<bool> watched_{false};
};

}  // namespace

std::unique_ptr<context_companion> make_companion(context_core& core) {
  return std::make_unique<companion>(core);
}

}  // namespace asio_pulse::detail
