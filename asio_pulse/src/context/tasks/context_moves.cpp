// SPDX-License-Identifier: BSL-1.0
//
// Tasks that move to another context, with the connection that they stand for.
#include "current_poll.hpp"
#include "decision_lock.hpp"
#include "gate/parking.hpp"
#include "groups/task_groups.hpp"

#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/detail/task_ref.hpp>

#include <atomic>
#include <chrono>
#include <mutex>
#include <string>

namespace asio_pulse::detail {
namespace {

group_ref group_like(const group_state& g, context_core& in) {
  task_groups::found there = in.groups().find(path_of(g, group_name_bytes));
  if (there.group) return there.group;
  group_options o{.name = std::string(g.title()),
                  .weight = g.weight.load(std::memory_order_relaxed)};
  if (const group_state* const above = g.above()) o.parent = group_like(*above, in);
  group_ref made = make_group(in, o);
  made.get()->budget.configure(g.budget);
  return made;
}

}  // namespace

task_state* context_core::continue_task(task_state& from) {
  // CPU time that this poll has used until now is charged to the old task, and copied with it.
  hooks::thread_state& ts = hooks::this_thread();
  if (ts.arbiter != nullptr) {
    hooks::poll_frame* const frame = poll_of(ts);
    if (frame != nullptr && frame->task() == &from) frame->reassign(&from);
    hooks::charge_pending();
  }
  task_options o;
  o.name = from.name.get();
  o.isolatable = from.isolatable;
  const task_extras* const rank = from.extras.load(std::memory_order_acquire);
  const bool ranked = from.ranked && rank != nullptr;
  if (ranked) {
    o.priority = rank->priority;
    o.deadline = timing::to_ns(rank->deadline);
  }
  const group_ref group = from.group();
  group_ref joined;
  if (group) {
    // If two sessions of a group come from two shards, the group is made only once.
    static std::mutex making;
    const std::lock_guard lock(making);
    joined = group_like(*group.get(), *this);
    o.group = joined;
  }
  const birth how = from.accepted    ? birth::accepted
                    : from.connected ? birth::connected
                                     : birth::declared;
  task_ref made(make_task(o, how));
  if (ranked) {
    task_extras& own = *made->extras.load(std::memory_order_relaxed);
    own.deadline = rank->deadline;
    own.due = rank->due;
  }
  made->budget.take_over(from.budget);
  if (from.of_connection()) {
    made->count_shared(from.polls(), from.cost());
  }
  {
    decision_lock theirs(from);
    const decision_lock mine(*made);
    if (theirs && mine) {
      made->tiers = from.tiers;
      theirs.unlock();
      made->level.store(made->tiers.level, std::memory_order_relaxed);
      show_attention(*made, made->tiers.level == tier::monitor && !made->tiers.excused);
    }
  }
  gate_->set_gate(*made);
  return made.release();
}

}  // namespace asio_pulse::detail
