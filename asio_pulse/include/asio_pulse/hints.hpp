// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/requirements.hpp>
//
#include <cstdint>
#include <string>
#include <string_view>

/// \file
/// Hints of the operating system, which ask a worker to yield: where they come from, what a worker
/// agrees to, and how the runtime reacts.
///
/// A budget describes fairness within the program. Only the kernel knows whether another thread
/// waits for the CPU of a worker. A sched_ext scheduler (`scx_pulse`) informs the workers through
/// a word in shared memory, before it takes any other action.

namespace asio_pulse {

/// Where hints come from.
enum class hint_source : std::uint8_t {
  environment,  ///< the variable ASIO_PULSE_HINTS names one of the following; off if it is not set
  off,          ///< no hints
  automatic,    ///< from scx_pulse while it serves its socket; otherwise local, where that helps
  kernel,       ///< from scx_pulse only
  local         ///< from what any kernel reports: CPU pressure and involuntary switches
};

/// What a worker permits the scheduler to do if the worker ignores a hint for longer than the
/// scheduler's grace period. Only a scheduler in its enforced mode does it, and never while the
/// worker is in a critical_section.
enum class escalation_policy : std::uint8_t {
  none,             ///< nothing
  thread_kick,      ///< the thread's slice ends at once, and the next ones are shorter
  cgroup_throttle,  ///< the thread is limited to a share of the CPU for a while
  hybrid            ///< thread_kick first; cgroup_throttle if the thread ignores that as well
};

/// How a worker reacts to hints at present.
enum class determinism : std::uint8_t {
  deterministic,  ///< no recent hints: the worker behaves as without a source of hints
  pressured,      ///< recent hints: checkpoints yield sooner, budgets are tighter
  defensive       ///< hints were lost: the worker behaves as under the highest pressure
};

/// The enumerator's name; "unknown" for a value that is not an enumerator.
std::string_view to_string(hint_source) noexcept;
std::string_view to_string(escalation_policy) noexcept;
std::string_view to_string(determinism) noexcept;

/// Where the hints of this process come from at present.
struct hint_status {
  hint_source source = hint_source::off;  ///< kernel, local or off
  std::string why;                        ///< the source, or the reason why there is none
  std::uint32_t workers = 0;              ///< how many threads get hints
};

/// \par Cost           A mutex and an allocation.
/// \par Thread safety  Any thread. Not in signal handlers.
/// \par Errors         std::bad_alloc.
[[nodiscard]] hint_status current_hints();

/// Permits or forbids escalation against the worker in this scope. It overrides options::escapable
/// on the calling thread until the scope or the handler ends, and has an effect only inside a
/// handler and while a scheduler sends hints. Scopes can be nested.
///
/// \par Cost           A few plain stores.
/// \par Thread safety  Distinct objects: Safe. Enter and leave on the same thread, in one handler.
/// \par Errors         None (noexcept).
/// \par Memory order   Relaxed: the kernel reads this one byte, either on the same CPU or after a
///                     context switch.
class escapable_scope {
 public:
  explicit escapable_scope(bool escapable) noexcept;
  ~escapable_scope();
  escapable_scope(const escapable_scope&) = delete;
  escapable_scope& operator=(const escapable_scope&) = delete;

 private:
  void* link_ = nullptr;
  bool before_ = false;
};

}  // namespace asio_pulse
