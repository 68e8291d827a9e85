// SPDX-License-Identifier: BSL-1.0
//
// Lints: what in a process's metrics deserves attention, and what to do about it. Link
// asio_pulse::analysis to use them.

#pragma once

#include <asio_pulse/metrics.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace asio_pulse {

/// The kinds of lints.
enum class lint_kind : std::uint8_t {
  long_poll,          ///< a handler runs for long without a checkpoint
  self_waking,        ///< a task wakes itself most of the time
  greedy_strand,      ///< the batches of a strand keep a worker busy for long
  blocked_lock,       ///< a handler waited for a lock
  blocked_dns,        ///< a handler waited for a name to be resolved
  blocked_call,       ///< a handler waited in another system call
  rising_delay,       ///< the queue delay rises
  hot_task,           ///< one task uses most of the CPU time
  held_back,          ///< many operations are held back
  no_watchdog,        ///< no watchdog looks for stalls
  not_collected,      ///< the figures are incomplete
  over_share,         ///< a group takes more than its weight asks for, while others want it
  overloaded,         ///< requests are refused, and not because of one group's use
  hot_shard,          ///< a shard has much more load than the others
  shared_cpu,         ///< a shard is pinned to a CPU that something else uses
  refused_checkpoint  ///< automatic checkpoints do not suspend a handler
};

/// The enumerator's name; "unknown" for a value that is not an enumerator.
std::string_view to_string(lint_kind) noexcept;

struct lint {
  lint_kind kind = lint_kind::long_poll;
  std::uint64_t context = 0;  ///< context_metrics::number
  std::string subject{};      ///< the task's or site's name, or the group's path; not escaped
  std::string text{};         ///< what was seen, with figures; the subject is escaped in it
  std::string advice{};       ///< what to do about it
  std::string_view anchor{};  ///< heading in asio_pulse/docs/lints.md
  friend bool operator==(const lint&, const lint&) = default;
};

/// The lints for a reading, and for the changes since an earlier reading of the same process (null:
/// since the beginning). The worst are first.
///
/// \par Errors  std::bad_alloc.
[[nodiscard]] std::vector<lint> lints(const process_metrics& now,
                                      const process_metrics* before = nullptr);

}  // namespace asio_pulse
