// SPDX-License-Identifier: BSL-1.0
//
// Groups of tasks: what they use, and whether their requests are served.
#include "task_groups.hpp"

#include "copied_name.hpp"
#include "current_poll.hpp"
#include "parking.hpp"

#include <asio_pulse/detail/asio_port.hpp>
#include <asio_pulse/detail/task_ref.hpp>
#include <asio_pulse/hooks/assert.hpp>
#include <asio_pulse/hooks/sockets.hpp>

#include <algorithm>
#include <iterator>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

namespace asio_pulse {

std::string_view to_string(refusal why) noexcept {
  switch (why) {
    case refusal::none:
      return "none";
    case refusal::share:
      return "share";
    case refusal::overload:
      return "overload";
  }
  return "unknown";
}

namespace detail {

namespace {

// Each charge of a task goes to the groups of all levels.
constexpr std::size_t most_levels = 16;

double window_of(const admission_policy& p) noexcept {
  return static_cast<double>(timing::to_ticks(p.interval));
}

overload::limits limits_of(const admission_policy& p) noexcept {
  return {.target = timing::to_ticks(p.target), .interval = timing::to_ticks(p.interval)};
}

// In the trace of the worker that asks.
void mark_refusal(const context_core& core, refusal why) noexcept {
  const hooks::thread_state& ts = hooks::this_thread();
  if (core_of(ts) != &core || poll_of(ts) == nullptr || ts.current == nullptr) return;
  mark(hooks::poll_recorder::kind::refused, state_of(*ts.current), static_cast<std::uint32_t>(why));
}

std::uint32_t in_units(timing::ticks t) noexcept {
  constexpr timing::ticks most = std::numeric_limits<std::uint32_t>::max();
  return static_cast<std::uint32_t>(std::min(t >> cost_unit_bits, most));
}

}  // namespace

// ---- group_state

group_state::group_state(context_core& its_core, const group_options& opts)
    : core(its_core),
      name(copy_name(opts.name)),
      parent(opts.parent),
      id(core.groups().next_id()),
      weight(opts.weight) {
  share.weight = opts.weight;
  configure(budget, {.budget = opts.budget, .per = opts.per});
  core.acquire();
}

group_state::~group_state() { core.release(); }

bool is_in_group(const task_state& t) noexcept {
  bool found = false;
  t.with_group([&found](const group_state* g) { found = g != nullptr; });
  return found;
}

bool limited(const task_state& t) noexcept {
  bool found = false;
  t.with_group([&found](const group_state* g) {
    while (g != nullptr && g->budget.unlimited()) g = g->parent.get();
    found = g != nullptr;
  });
  return found;
}

bool group_over_budget(const task_state& t, timing::ticks now) noexcept {
  bool found = false;
  t.with_group([&found, now](const group_state* g) {
    while (g != nullptr && !g->budget.over(now)) g = g->parent.get();
    found = g != nullptr;
  });
  return found;
}

void intrusive_ptr_add_ref(group_state* g) noexcept {
  g->references.fetch_add(1, std::memory_order_relaxed);
}

void intrusive_ptr_release(group_state* g) noexcept {
  if (g->references.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  g->core.groups().remove(*g);
  delete g;
}

std::string path_of(const group_state& g, std::size_t name_bytes) {
  std::string path;
  for (const group_state* at = &g; at != nullptr; at = at->parent.get()) {
    std::string name;
    for (const char c : std::string_view(at->name.get()).substr(0, name_bytes)) {
      if (c == '/' || c == '\\') name += '\\';
      name += c;
    }
    path.insert(0, at == &g ? name : name + '/');
  }
  return path;
}

// ---- task_groups

task_groups::task_groups(const admission_policy& p)
    : window_(window_of(p)), top_(window_), overload_(limits_of(p)) {}

void task_groups::configure(const admission_policy& p) noexcept {
  const scoped_lock held(mutex_);
  window_ = window_of(p);
  overload_.configure(limits_of(p));
}

void task_groups::add(group_state& g) {
  {
    // First of all: remove() expects it to be in the list, also if what follows throws.
    const auto listed = all_.lock_in_turn();
    all_.link(g, listed);
  }
  const scoped_lock held(mutex_);
  used_.store(true, std::memory_order_relaxed);
  group_state* const parent = g.parent.get();
  if (parent != nullptr && parent->below == nullptr) {
    parent->below = std::make_unique<group_shares>(window_);
  }
}

task_groups::found task_groups::find(std::string_view path) {
  // Declared before the walk, because the end of a group takes the list's lock.
  group_ref groups[2];
  std::size_t count = 0;
  walk([&](group_state& g) {
    if (count == std::size(groups) || path_of(g, group_name_bytes) != path) return;
    // The last reference may be gone already, and the group wait for the list's lock.
    std::uint32_t n = g.references.load(std::memory_order_relaxed);
    while (n != 0 && !g.references.compare_exchange_weak(n, n + 1, std::memory_order_relaxed)) {
    }
    if (n != 0) groups[count++] = group_ref(boost::intrusive_ptr(&g, false));
  });
  return {.group = std::move(groups[0]), .several = count > 1};
}

group_shares& task_groups::beside(const group_state& g, scoped_lock&) noexcept {
  const group_state* const parent = g.parent.get();
  ASIO_PULSE_ASSERT(parent == nullptr || parent->below != nullptr);
  return parent != nullptr ? *parent->below : top_;
}

void task_groups::remove(group_state& g) noexcept {
  {
    scoped_lock held(mutex_);
    if (g.share.contends) beside(g, held).leave(g.share);
  }
  const auto listed = all_.lock_in_turn();
  all_.unlink(g, listed);
}

void task_groups::set_weight(group_state& g, unsigned weight) noexcept {
  scoped_lock held(mutex_);
  g.weight.store(weight, std::memory_order_relaxed);
  beside(g, held).set_weight(g.share, weight);
}

task_groups::answer task_groups::admit(group_state& g, timing::ticks now) noexcept {
  scoped_lock held(mutex_);
  // A request is to blame for an overload only if at each level the group has had its share.
  double position = group_shares::farthest;
  bool alone = true;
  for (group_state* at = &g; at != nullptr; at = at->parent.get()) {
    group_shares& shares = beside(*at, held);
    const std::uint64_t cost = at->cost.load(std::memory_order_relaxed);
    if (cost != at->seen) shares.used(at->share, cost - std::exchange(at->seen, cost));
    position = std::min(position, shares.position(at->share));
    alone = alone && shares.alone(at->share);
  }
  g.delay.store(in_units(overload_.delay(now)), std::memory_order_relaxed);
  const bool admitted = overload_.admits(position, now);
  for (group_state* at = &g; !admitted && at != nullptr; at = at->parent.get()) {
    beside(*at, held).refused(at->share);
  }
  return {
      .admitted = admitted, .by_share = position >= 0 && !alone, .measure = overload_.measure(now)};
}

void task_groups::waited(timing::ticks delay, timing::ticks now) noexcept {
  if (!used_.load(std::memory_order_relaxed)) return;
  const scoped_lock held(mutex_);
  overload_.waited(delay, now);
}

void task_groups::not_measured() noexcept {
  const scoped_lock held(mutex_);
  overload_.not_measured();
}

// ---- context_core

void context_core::charged(hooks::task_record& record, timing::ticks cost) noexcept {
  const timing::ticks now = hooks::this_thread().clock.last();
  state_of(record).with_group([now, cost](group_state* g) {
    for (; g != nullptr; g = g->parent.get()) {
      g->cost.fetch_add(cost, std::memory_order_relaxed);
      if (!g->budget.unlimited()) g->budget.charge_shared(now, cost);
    }
  });
}

void context_core::join(task_state& t, const task_options& opts) {
  const task_options usual;
  t.ranked = opts.priority != usual.priority || opts.deadline != usual.deadline;
  if (!t.ranked && !opts.group) return;
  task_extras* const extras = t.make_extras();
  if (extras == nullptr) throw std::bad_alloc();
  extras->priority = opts.priority;
  extras->deadline = timing::to_ticks(opts.deadline);
  if (!opts.group) return;
  group_state& g = *opts.group.get();
  if (&g.core != this) {
    throw std::invalid_argument(
        "asio_pulse::task_options.group must be a group of the task's context");
  }
  extras->group.begin(opts.group);
  t.shared.store(true, std::memory_order_relaxed);
  t.grouped.store(true, std::memory_order_release);
  g.tasks.fetch_add(1, std::memory_order_relaxed);
}

void context_core::move(task_state& t, const group_ref& to) {
  task_extras* const extras = t.make_extras();
  if (extras == nullptr) throw std::bad_alloc();
  if (to) to.get()->tasks.fetch_add(1, std::memory_order_relaxed);
  const group_ref before = extras->group.exchange(to);
  if (before) before.get()->tasks.fetch_sub(1, std::memory_order_relaxed);
  // A worker that charges the task with plain stores does not look for its group. The new generation
  // makes its next poll look.
  if (!t.shared.exchange(true, std::memory_order_relaxed)) {
    state.fetch_add(hooks::path_state::generation, std::memory_order_relaxed);
  }
  t.grouped.store(true, std::memory_order_release);
  gate_->group_changed(t);  // while `before` lasts, in which the task may still wait
}

void context_core::leave_group(const task_state& t) noexcept {
  const group_ref last = t.group();
  if (last) last.get()->tasks.fetch_sub(1, std::memory_order_relaxed);
}

admission context_core::admit(group_state& g) noexcept {
  if (!options_.enabled || closed()) return admission();
  const timing::ticks now = timing::timebase::get().now();
  if (hooks::this_thread().arbiter != nullptr) hooks::charge_pending();
  const task_groups::answer a = groups_->admit(g, now);
  if (a.measure) {
    asio_port* const port = port_for_probe();
    const bool here = port != nullptr && hooks::this_thread().owner == port->scheduler();
    if (port == nullptr || !port->post_probe(here)) groups_->not_measured();
  }
  if (a.admitted) {
    g.admitted.fetch_add(1, std::memory_order_relaxed);
    counters_.add<&statistics::requests_admitted>();
    return admission();
  }
  if (a.by_share) {
    g.refused_share.fetch_add(1, std::memory_order_relaxed);
    counters_.add<&statistics::requests_refused_share>();
  } else {
    g.refused_overload.fetch_add(1, std::memory_order_relaxed);
    counters_.add<&statistics::requests_refused_overload>();
  }
  const auto why = a.by_share ? asio_pulse::refusal::share : asio_pulse::refusal::overload;
  mark_refusal(*this, why);
  if (live_.shadow()) return admission();
  return admission(why);
}

// ---- what task_group.hpp uses

group_ref make_group(context_core& core, const group_options& opts) {
  validate(opts);
  if (opts.parent && &opts.parent.get()->core != &core) {
    throw std::invalid_argument(
        "asio_pulse::group_options.parent must be a group of the same context");
  }
  std::size_t level = 1;
  for (const group_state* at = opts.parent.get(); at != nullptr; at = at->parent.get()) ++level;
  if (level > most_levels) {
    throw std::invalid_argument(
        "asio_pulse::group_options.parent must not be in the 16th level of groups");
  }
  const boost::intrusive_ptr<group_state> made(new group_state(core, opts));
  core.groups().add(*made);
  return group_ref(made);
}

std::uint64_t id_of(const group_state& g) noexcept { return g.id; }

std::string_view name_of(const group_state& g) noexcept { return g.name.get(); }

unsigned weight_of(const group_state& g) noexcept {
  return g.weight.load(std::memory_order_relaxed);
}

void set_weight(group_state& g, unsigned weight) {
  validate(group_options{.weight = weight});
  g.core.announce(g.core.set_weight(g, weight));
}

group_statistics figures_of(const group_state& g) noexcept {
  return {.tasks = g.tasks.load(std::memory_order_relaxed),
          .cpu = timing::to_ns(g.cost.load(std::memory_order_relaxed)),
          .admitted = g.admitted.load(std::memory_order_relaxed),
          .refused_share = g.refused_share.load(std::memory_order_relaxed),
          .refused_overload = g.refused_overload.load(std::memory_order_relaxed)};
}

admission admit(group_state& g) noexcept { return g.core.admit(g); }

bool join_group(const group_ref& to) {
  hooks::thread_state& ts = hooks::this_thread();
  hooks::poll_frame* const frame = poll_of(ts);
  if (ts.arbiter == nullptr || frame == nullptr || ts.current == nullptr) return false;
  task_state& t = state_of(*ts.current);
  if (to && &to.get()->core != &t.core()) {
    throw std::invalid_argument(
        "asio_pulse::this_task::join() needs a group of the task's context");
  }
  // What the poll has used until now is the old group's, and is judged as a poll of its own.
  if (frame->task() == &t) frame->reassign(&t);
  t.core().move(t, to);
  if (ts.account == &t) ts.shared = true;
  return true;
}

void begin_task(const task_options& opts) {
  validate(opts);
  hooks::thread_state& ts = hooks::this_thread();
  hooks::poll_frame* const frame = poll_of(ts);
  if (ts.arbiter == nullptr || frame == nullptr) return;
  const task_ref made(core_of(ts)->make_task(opts));
  if (opts.deadline.count() != 0) {
    task_extras& extras = *made->extras.load(std::memory_order_relaxed);
    extras.deadline += ts.clock.last();
    extras.due = true;
  }
  frame->reassign(made.get());  // takes a reference that lasts until the end of the poll
  if (frame->task() == made.get()) ts.current = made.get();
}

void begin_connection(std::intptr_t socket) noexcept {
  hooks::thread_state& ts = hooks::this_thread();
  hooks::poll_frame* const frame = poll_of(ts);
  if (ts.arbiter == nullptr || frame == nullptr) return;
  hooks::task_record* const made = ts.arbiter->accepted(nullptr);
  if (made == nullptr) return;
  hooks::own_socket(socket, *made, true);
  if (ts.arbiter->classifies.load(std::memory_order_relaxed)) ts.arbiter->classify(*made, socket);
  frame->reassign(made);
  if (frame->task() == made) ts.current = made;
  hooks::release(*made);
}

}  // namespace detail
}  // namespace asio_pulse
