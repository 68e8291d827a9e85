// SPDX-License-Identifier: BSL-1.0
//
// The only file that knows stalls, hints and telemetry together. It passes on to each of them what
// a context reports to its companion.
#include "context_companion.hpp"
#include "context_telemetry.hpp"
#include "hint_hub.hpp"
#include "inspection.hpp"
#include "stalled_poll.hpp"
#include "watchdog.hpp"

#include <asio_pulse/detail/context_core.hpp>

#include <memory>

namespace asio_pulse::detail {
namespace {

class companion final : public context_companion {
 public:
  explicit companion(context_core& core) noexcept : core_(core), telemetry_(core) {}

  void opened() noexcept override {
    if (core_.watched()) watch_context(core_);
    show_context(telemetry_);
  }
  void closing() noexcept override {
    if (core_.watched()) forget_context(core_);
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
    if (wants_hints()) take_hints(ts);
    telemetry_.renew(ts);
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

  context_metrics metrics(const metrics_request& what) override { return telemetry_.metrics(what); }
  recording trace() override { return telemetry_.trace(); }

 private:
  [[nodiscard]] bool wants_hints() const noexcept { return core_.hints_from() != hint_source::off; }

  context_core& core_;
  context_telemetry telemetry_;
};

}  // namespace

std::unique_ptr<context_companion> make_companion(context_core& core) {
  return std::make_unique<companion>(core);
}

}  // namespace asio_pulse::detail
