// SPDX-License-Identifier: BSL-1.0
//
// Which operations run on a fiber (options::preemptible), and how they get there.
#include "current_poll.hpp"

#include <asio_pulse/detail/asio_port.hpp>
#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/detail/fiber_stack.hpp>
#include <asio_pulse/hooks/poll_path.hpp>

#include <algorithm>
#include <stdexcept>
#include <string>

namespace asio_pulse::detail {

constinit std::atomic<operation_runner> the_operation_runner{nullptr};

namespace {

// The stacks of handlers that do not know that they run on a fiber: as a thread's.
constexpr std::size_t unknowing_stack = std::size_t{8} << 20;

}  // namespace

void context_core::set_fibers() {
  if (!options_.enabled || options_.preemptible == preemptible_handlers::declared) return;
  if (the_operation_runner.load(std::memory_order_relaxed) == nullptr) {
    throw std::invalid_argument(
        "asio_pulse::options.preemptible must be declared unless a part of the program includes "
        "<asio_pulse/preemptible.hpp> (got " +
        std::string(to_string(options_.preemptible)) + ")");
  }
  uses_fibers = true;
  gates_all = options_.preemptible == preemptible_handlers::all;
}

std::size_t context_core::fiber_bytes() const noexcept {
  return options_.preemptible == preemptible_handlers::declared
             ? options_.fiber_stack
             : std::max(options_.fiber_stack, unknowing_stack);
}

bool context_core::wants_fiber(const hooks::thread_state& /*ts*/,
                               const hooks::tracked_operation& op, const void* operation,
                               const void* owner, const hooks::site& what) noexcept {
  const asio_port* const port = port_;
  if (port == nullptr || closed() || live_.shadow()) return false;
  // Operations that run others must stay on the thread's stack, and so must accepts: the socket of a
  // new connection is noticed there.
  if (what.drains || op.has(hooks::tracked_operation::accepts)) return false;
  const hooks::task_record* const record = op.task();
  if (record == nullptr
          ? !gates_all
          : record->home != this ||
                !(gates_all || static_cast<const task_state*>(record)->of_connection())) {
    return false;
  }
  // The rest of a handler that has a fiber.
  if (fiber_at(reinterpret_cast<std::uintptr_t>(operation)) != nullptr) return false;
  // A strand may drain on a fiber. Every other owner is a scheduler that is not observed and that a
  // handler of this context runs, where the rest could not be queued.
  if (owner != port->scheduler()) return port->drains_strand(const_cast<void*>(owner));
  return fiber_here() == nullptr && !port->in_legacy_strand();
}

bool context_core::run_on_fiber(hooks::tracked_operation& op, void* operation, void* owner,
                                const hooks::site& what) {
  return the_operation_runner.load(std::memory_order_relaxed)(*this, op, operation, owner, what);
}

}  // namespace asio_pulse::detail
