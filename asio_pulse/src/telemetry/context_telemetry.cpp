// SPDX-License-Identifier: BSL-1.0
#include "context_telemetry.hpp"

#include "inspection.hpp"
#include "trace_taker.hpp"

namespace asio_pulse::detail {

context_telemetry::context_telemetry(context_core& core) noexcept
    : core_(core), tools_(core.opts()) {}

// ---- called by the context

void context_telemetry::joined(hooks::thread_state& ts) noexcept {
  if (!has_run_.load(std::memory_order_relaxed)) {
    has_run_.store(true, std::memory_order_relaxed);
    inspect_running(*this);
  }
  if (tools_.collecting()) {
    tools_.renew(ts);
  } else {
    hooks::set_recorder(ts, nullptr);
  }
}

void context_telemetry::left(hooks::thread_state& ts) noexcept {
  if (ts.recorder != nullptr) tools_.leave(ts);
}

void context_telemetry::stall_began(const stalled_poll& s, const task_state& t) noexcept {
  tools_.stall_began(s, t);
  inspect_stalled(*this);
}

void context_telemetry::stall_described(const stalled_poll& s, std::string_view system_call,
                                        std::span<const stack_frame> stack) noexcept {
  tools_.stall_described(s, system_call, stack);
}

// ---- called by readers

void context_telemetry::want_metrics(std::chrono::milliseconds how_long) noexcept {
  if (tools_.want_metrics(instruments::clock::now() + how_long)) core_.notify_workers();
}

void context_telemetry::want_trace(std::chrono::milliseconds how_long) noexcept {
  if (tools_.want_trace(instruments::clock::now() + how_long)) core_.notify_workers();
}

void context_telemetry::expire(instruments::clock::time_point now) noexcept {
  if (tools_.expire(now)) core_.notify_workers();
}

void context_telemetry::probe() noexcept {
  asio_port* const port = core_.port_for_probe();
  if (port != nullptr && tools_.busy()) (void)port->post_probe(false);
}

context_metrics context_telemetry::metrics(const metrics_request& what) {
  context_metrics m = snapshot(what, looks_again);
  if (tools_.collecting()) inspect_collecting();
  return m;
}

recording context_telemetry::trace() {
  recording r = recorded();
  if (tools_.collecting()) inspect_collecting();
  return r;
}

recording context_telemetry::recorded() {
  want_trace(looks_again);
  trace_taker taker(*this);
  taker.take();
  return taker.finish();
}

}  // namespace asio_pulse::detail
