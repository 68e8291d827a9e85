// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/requirements.hpp>

#if defined(ASIO_PULSE_DISABLE)
#include <asio_pulse/detail/disabled.hpp>
#else

#include <asio_pulse/detail/asio/context_service.hpp>
#include <asio_pulse/detail/groups.hpp>
#include <asio_pulse/group_ref.hpp>
#include <asio_pulse/options.hpp>
#include <asio_pulse/statistics.hpp>

#include <boost/asio/execution_context.hpp>

#include <cstdint>
#include <string_view>
#include <utility>

namespace asio_pulse {

/// A handle to a group of tasks, such as a tenant or one of a tenant's users. The group has a weight,
/// which is its part of the CPU when several groups want more than there is. Copies of the handle
/// refer to the same group, which lasts as long as there are handles, tasks in it, or groups below
/// it.
///
/// A group measures the CPU time of its tasks, and decides about requests together with admit().
/// Under scheduling::fair its weight is its share of the CPU while handlers wait; otherwise groups do not
/// change the order of handlers, unless they are over group_options::budget.
///
/// \par Cost           Less than 192 bytes. For each charge of a task in a group, an atomic addition
///                     for the group and for each group above it.
/// \par Thread safety  Distinct objects: Safe. Shared objects: Unsafe; the group behind them: Safe.
class task_group {
 public:
  /// Makes a group of `context`, which must be an asio_pulse::io_context.
  ///
  /// \par Errors  std::invalid_argument if an option is out of range, `parent` is a group of another
  ///              context, or `context` is not an asio_pulse::io_context; std::bad_alloc.
  explicit task_group(boost::asio::execution_context& context, const group_options& opts = {})
      : group_(detail::make_group(*detail::service_of(context).core(), opts)) {}

  // NOLINTNEXTLINE(google-explicit-constructor): members of options are assigned that way
  operator group_ref() const noexcept { return group_; }

  /// Unique within the context, never 0.
  [[nodiscard]] std::uint64_t id() const noexcept { return detail::id_of(*group_.get()); }
  [[nodiscard]] std::string_view name() const noexcept { return detail::name_of(*group_.get()); }
  [[nodiscard]] unsigned weight() const noexcept { return detail::weight_of(*group_.get()); }
  /// Changes the weight. It takes effect with the next charge. It counts as an update of the context:
  /// in statistics::updates, and as an event for the hook options_changed.
  ///
  /// \par Errors  std::invalid_argument if it is out of range; see group_options::weight.
  ///              std::bad_alloc. Then nothing has changed.
  void set_weight(unsigned weight) const { detail::set_weight(*group_.get(), weight); }
  [[nodiscard]] group_statistics stats() const noexcept {
    return detail::figures_of(*group_.get());
  }

  friend bool operator==(const task_group&, const task_group&) noexcept = default;

 private:
  group_ref group_;
};

/// Whether a request of the group should be served now. Call it in the handler that has read the
/// request, before the work begins; answer 503 or the like if it is refused.
///
/// Requests are refused while the context is overloaded: operations wait in its queue for longer than
/// admission_policy::target, and have done so for admission_policy::interval. Requests of groups that
/// have had their share of the CPU are refused first. Without other groups that want the CPU, a
/// group's share is the whole CPU.
///
/// In a context whose `enabled` option is false every request is admitted. So it is in shadow mode,
/// where the refusals are only counted.
///
/// \par Cost           About 100 ns: a mutex, one reading of the clock, and sometimes an operation
///                     in the queue that measures the delay.
/// \par Thread safety  Safe. On threads that do not run the context the delay is measured, too.
/// \par Errors         None (noexcept).
[[nodiscard]] inline admission admit(const task_group& group) noexcept {
  return detail::admit(*group_ref(group).get());
}

namespace this_task {

/// Moves the task in force, such as a connection or a declared task, to another group of its context,
/// or to no group if `group` is empty. What the task has used until now stays charged to the group
/// before. If other threads run handlers of the task at the same time, what they have not charged yet
/// (at most 20 us of each thread, and the polls that are running) goes to the new group.
///
/// Returns false, and does nothing, where no task is in force: outside of handlers, in a context that
/// is switched off, and in work that belongs to no task.
///
/// join() moves the whole task, and begin() makes a new one. Use join() once the whole connection is
/// known to belong to a tenant, and begin() (or request_guard, which uses it) if a connection serves
/// requests of several tenants: requests that overlap then do not move each other.
///
/// \par Cost           About 200 ns. From then on each charge of the task takes three more atomic
///                     operations.
/// \par Thread safety  Safe.
/// \par Errors         std::invalid_argument if the group is one of another context;
///                     std::bad_alloc. Then nothing has changed.
inline bool join(const group_ref& group) { return detail::join_group(group); }

/// The rest of this poll, and the operations that it creates, belong to a new task, for example to
/// one for each request of a connection. It has no effect outside of handlers of an
/// asio_pulse::io_context.
///
/// \pre  `opts.group`, if it is set, is a group of this context.
///
/// \par Cost    That of a task: two allocations.
/// \par Errors  std::invalid_argument if an option is out of range, or the group is of another
///              context; std::bad_alloc.
inline void begin(const task_options& opts) { detail::begin_task(opts); }

}  // namespace this_task

}  // namespace asio_pulse

#endif
