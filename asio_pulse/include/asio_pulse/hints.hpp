// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

/// \file
/// Hints of the operating system that a worker should let others go first: where they come from,
/// what a worker agrees to, and how the runtime behaves.
///
/// The problem: a budget is the program's own idea of fairness. Whether somebody outside waits for
/// this very CPU only the kernel knows. A sched_ext scheduler (`scx_pulse`) tells its workers, by a
/// word in shared memory, before it does anything else.

namespace asio_pulse {

/// Where hints come from.
enum class hint_source : std::uint8_t {
  environment,  ///< as the variable ASIO_PULSE_HINTS says, by one of the names below; else off
  off,          ///< nowhere
  automatic,    ///< from scx_pulse while it serves its socket; else, where it helps, local
  kernel,       ///< from scx_pulse, and nowhere else
  local         ///< from what any kernel tells any user: pressure, involuntary switches
};

/// What a worker agrees to, should it ignore a hint for longer than the scheduler's grace. Only a
/// scheduler in its enforced mode ever does any of it, and never in a critical_section.
enum class escalation_policy : std::uint8_t {
  none,             ///< nothing
  thread_kick,      ///< its slice ends at once, and the next ones are shorter
  cgroup_throttle,  ///< it is held to a share of the CPU for a while
  hybrid            ///< the first; if that is ignored too, the second
};

/// How a worker takes hints at present.
enum class determinism : std::uint8_t {
  deterministic,  ///< no hint has come lately: as without a source of hints
  pressured,      ///< hints come: checkpoints yield sooner, budgets are tighter
  defensive       ///< hints were lost: as under the highest pressure
};

/// The enumerator's name; "unknown" for a value that is none of them.
std::string_view to_string(hint_source) noexcept;
std::string_view to_string(escalation_policy) noexcept;
std::string_view to_string(determinism) noexcept;

/// Where the hints of this process come from now.
struct hint_status {
  hint_source source = hint_source::off;  ///< kernel, local or off
  std::string why;                        ///< in one sentence: from where, or why not
  std::uint32_t workers = 0;              ///< threads that get hints
};

/// \par Cost           A mutex and an allocation.
/// \par Thread safety  Any thread. Not in signal handlers.
/// \par Errors         std::bad_alloc.
[[nodiscard]] hint_status current_hints();

/// Whether the worker may be escalated against in this scope; it overrides options::escapable on
/// the calling thread, inside a handler and until the scope or the handler ends. Without a
/// scheduler that hints it does nothing. Nests.
///
/// \par Cost           A few plain stores.
/// \par Thread safety  Distinct objects: Safe. Enter and leave on the same thread, in one handler.
/// \par Errors         None (noexcept).
/// \par Memory order   Relaxed: the kernel reads the byte by itself, and on this very CPU or after
///                     a switch.
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
