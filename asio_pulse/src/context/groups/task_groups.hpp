// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "fair_policy.hpp"
#include "group_shares.hpp"
#include "overload.hpp"

#include <asio_pulse/admission.hpp>
#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/detail/groups.hpp>
#include <asio_pulse/detail/recent_cost.hpp>
#include <asio_pulse/detail/scoped_lock.hpp>
#include <asio_pulse/detail/walked_list.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace asio_pulse::detail {

/// What admit() needs of a group. Made with its first request, or the first one of a group below it.
struct group_requests {
  // Relaxed: figures, which publish nothing.
  std::atomic<std::uint64_t> admitted{0};
  std::atomic<std::uint64_t> refused_share{0};
  std::atomic<std::uint64_t> refused_overload{0};
  // In units of 256 ticks.
  std::atomic<std::uint32_t> delay{0};      ///< that the last admit() saw
  std::atomic<std::uint32_t> waited{0};     ///< how long its last operation waited for its turn
  std::atomic<std::uint32_t> waited_at{0};  ///< and until when; see time_in_units()
  // Guarded by the mutex of task_groups.
  group_share share;
  std::uint64_t seen = 0;               ///< the part of the group's cost that `share` knows about
  std::unique_ptr<group_shares> below;  ///< made with the first request of a group below
};

/// A group of tasks.
///
/// Invariants:
///  1. `cost` is the sum of what was charged to tasks while they were in this group or in one below
///     it. It never shrinks.
///  2. A group outlives its tasks and the groups below it: each has a reference to it.
struct group_state final : fair_group {
  /// \par Errors  std::bad_alloc.
  group_state(context_core& its_core, const group_options& opts);
  group_state(const group_state&) = delete;
  group_state& operator=(const group_state&) = delete;
  ~group_state();

  /// Null at the top. The group has a reference to it.
  [[nodiscard]] group_state* above() const noexcept { return static_cast<group_state*>(parent); }
  [[nodiscard]] std::string_view title() const noexcept {
    return name != nullptr ? std::string_view(name.get()) : std::string_view();
  }

  context_core& core;                  ///< one reference
  const std::unique_ptr<char[]> name;  ///< null if it is empty
  const std::uint64_t id;              ///< unique in the context, never 0
  /// Increments are relaxed, since the caller holds a reference. The decrement is acq_rel, so that
  /// the thread that destroys the group sees what others have done with it.
  std::atomic<std::uint32_t> references{0};
  std::atomic<std::uint32_t> tasks{0};  ///< relaxed: a figure, which publishes nothing
  task_budget budget;
  recent_cost recent;
  // The links of the context's list of groups, guarded by its lock.
  group_state* previous = nullptr;
  group_state* next = nullptr;
  /// Never replaced. Release publishes it, and pairs with acquire.
  std::atomic<group_requests*> requests{nullptr};
};
// With a block's header in the allocator of glibc this is 176 bytes. One that waits takes 17 to 22 more in a
// group_queue, and those that have waited together may take as much later.
static_assert(sizeof(group_state) <= 168, "groups may be many");

/// How much of each name is shown outside of the process.
inline constexpr std::size_t group_name_bytes = 128;

/// Whether the task is in a group.
[[nodiscard]] bool is_in_group(const task_state& t) noexcept;
/// Whether the task's group, or one above it, has a budget; and whether one of them is over it.
[[nodiscard]] bool limited(const task_state& t) noexcept;
[[nodiscard]] bool group_over_budget(const task_state& t, timing::ticks now) noexcept;
/// The same where nothing may wait or be freed, as in a signal handler. False also if that is not known
/// because the task is being moved to another group.
[[nodiscard]] bool group_known_over_budget(const task_state& t, timing::ticks now) noexcept;

/// Identifies the group outside of the process: the names from the group at the top to this one, with
/// "/" between them, each at most `name_bytes` long. "/" and "\" in a name follow a "\". Groups with
/// the same parent and the same name have the same path.
///
/// \pre  There is a reference to the group, or the list of groups is locked.
///
/// \par Errors  std::bad_alloc.
[[nodiscard]] std::string path_of(const group_state& g, std::size_t name_bytes);

/// The groups of one context, and the decisions about their requests.
///
/// \par Thread safety  All members may be called from any thread.
class task_groups {
 public:
  explicit task_groups(const admission_policy& p);
  void configure(const admission_policy& p) noexcept;

  [[nodiscard]] std::uint64_t next_id() noexcept {
    return last_id_.fetch_add(1, std::memory_order_relaxed) + 1;
  }

  /// The group may take part from now on, and is listed.
  void add(group_state& g) noexcept;
  void remove(group_state& g) noexcept;
  void set_weight(group_state& g, unsigned weight) noexcept;

  struct found {
    group_ref group{};
    bool several = false;  ///< there are others with this path
  };
  /// The group with this path, or none.
  ///
  /// \par Errors  std::bad_alloc.
  [[nodiscard]] found find(std::string_view path);

  struct answer {
    bool admitted;
    bool by_share;  ///< if not, the group has had more than its share, and others want the CPU
    bool measure;   ///< the delay of the queue has to be measured; see overload::measure()
  };
  /// Decides about a request of the group. `by_turns`: how long operations have waited for their turn
  /// lately, at the most; empty unless a policy decides about that now. Without memory for what it needs, the request is admitted.
  /// \par Cost  O(log n) in the number of groups, for each level.
  [[nodiscard]] answer admit(group_state& g, std::optional<timing::ticks> by_turns,
                             timing::ticks now) noexcept;

  /// Whether the group wants more of the CPU than it gets, as of its last admit() and of those of the
  /// groups beside it.
  [[nodiscard]] bool wants_more(const group_state& g) noexcept {
    const scoped_lock held(mutex_);
    const group_requests* const r = g.requests.load(std::memory_order_relaxed);
    return r != nullptr && r->share.contends;
  }

  /// See walked_list::walk(). `look` may call wants_more() and path_of().
  template <class Look>
  void walk(Look&& look) {
    all_.walk(std::forward<Look>(look));
  }

  /// See overload. They do nothing if there has never been a group.
  void waited(timing::ticks delay, timing::ticks now) noexcept;
  void not_measured() noexcept;
  /// An operation of the group has waited for its turn, until `now`.
  static void waited(group_state& g, timing::ticks delay, timing::ticks now) noexcept;

  void before_fork() noexcept {
    all_.before_fork();
    mutex_.lock();
  }
  void after_fork(bool child) noexcept {
    mutex_.unlock();
    all_.after_fork(child);
  }

 private:
  [[nodiscard]] bool takes_part(group_state& g, scoped_lock& held) noexcept;
  [[nodiscard]] group_shares& beside(const group_state& g, scoped_lock& held) noexcept;

  std::atomic<std::uint64_t> last_id_{0};  ///< relaxed: the numbers only have to be different
  std::atomic<bool> used_{false};          ///< relaxed: a sample that is lost does not matter
  walked_list<group_state> all_;           ///< its lock may be held when `mutex_` is locked
  std::mutex mutex_;                       ///< guards the rest
  double window_;                          ///< of all group_shares, in ticks
  group_shares top_;
  overload overload_;
};

}  // namespace asio_pulse::detail
