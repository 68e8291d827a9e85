// SPDX-License-Identifier: BSL-1.0
//
// Groups of tasks: what they use, and whether their requests are served.
#include "task_groups.hpp"

#include "current_poll.hpp"
#include "gate/parking.hpp"
#include "tasks/copied_name.hpp"

#include <asio_pulse/detail/asio_port.hpp>
#include <asio_pulse/detail/task_ref.hpp>
#include <asio_pulse/hooks/assert.hpp>
#include <asio_pulse/hooks/sockets.hpp>

#include <algorithm>
#include <iterator>
#include <limits>
#include <new>
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

// Points in time in 32 bits: 2^16 ticks are about 25 us, and they are the same again after a day.
constexpr unsigned time_unit_bits = 16;

std::uint32_t time_in_units(timing::ticks t) noexcept {
  return static_cast<std::uint32_t>(t >> time_unit_bits);
}

std::uint32_t in_units(timing::ticks t) noexcept {
  constexpr timing::ticks most = std::numeric_limits<std::uint32_t>::max();
  return static_cast<std::uint32_t>(std::min(t >> cost_unit_bits, most));
}

}  // namespace

// ---- group_state

group_state::group_state(context_core& its_core, const group_options& opts)
    : fair_group(opts.parent.get(), opts.weight),
      core(its_core),
      name(opts.name.empty() ? nullptr : copy_name(opts.name)),
      id(core.groups().next_id()) {
  if (parent != nullptr) intrusive_ptr_add_ref(above());
  configure(budget, {.budget = opts.budget, .per = opts.per});
  core.acquire();
}

group_state::~group_state() {
  delete requests.load(std::memory_order_relaxed);  // the last reference is gone
  if (parent != nullptr) intrusive_ptr_release(above());
  core.release();
}

bool is_in_group(const task_state& t) noexcept {
  bool found = false;
  t.with_group([&found](const group_state* g) { found = g != nullptr; });
  return found;
}

bool limited(const task_state& t) noexcept {
  bool found = false;
  t.with_group([&found](const group_state* g) {
    while (g != nullptr && g->budget.unlimited()) g = g->above();
    found = g != nullptr;
  });
  return found;
}

namespace {

bool any_over_budget(const group_state* g, timing::ticks now) noexcept {
  while (g != nullptr && !g->budget.over(now)) g = g->above();
  return g != nullptr;
}

}  // namespace

bool group_over_budget(const task_state& t, timing::ticks now) noexcept {
  bool found = false;
  t.with_group([&found, now](const group_state* g) { found = any_over_budget(g, now); });
  return found;
}

bool group_known_over_budget(const task_state& t, timing::ticks now) noexcept {
  bool found = false;
  t.with_group_at_once([&found, now](const group_state* g) { found = any_over_budget(g, now); });
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
  for (const group_state* at = &g; at != nullptr; at = at->above()) {
    std::string name;
    for (const char c : at->title().substr(0, name_bytes)) {
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

void task_groups::add(group_state& g) noexcept {
  used_.store(true, std::memory_order_relaxed);
  const auto listed = all_.lock_in_turn();
  all_.link(g, listed);
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

// Makes what the group and those above it need. Returns false if there is no memory.
bool task_groups::takes_part(group_state& g, scoped_lock&) noexcept {
  const group_state* below = nullptr;
  for (group_state* at = &g; at != nullptr; below = at, at = at->above()) {
    group_requests* r = at->requests.load(std::memory_order_relaxed);
    if (r != nullptr && (below == nullptr || r->below != nullptr)) continue;
    if (r == nullptr) {
      r = new (std::nothrow) group_requests;
      if (r == nullptr) return false;
      r->share.weight = at->weight.load(std::memory_order_relaxed);
      at->requests.store(r, std::memory_order_release);
    }
    if (below != nullptr && r->below == nullptr)
      r->below.reset(new (std::nothrow) group_shares(window_));
    if (below != nullptr && r->below == nullptr) return false;
  }
  return true;
}

/// \pre  takes_part() has returned true for it
group_shares& task_groups::beside(const group_state& g, scoped_lock&) noexcept {
  const group_state* const parent = g.above();
  if (parent == nullptr) return top_;
  const group_requests* const r = parent->requests.load(std::memory_order_relaxed);
  ASIO_PULSE_ASSERT(r != nullptr && r->below != nullptr);
  return *r->below;
}

void task_groups::remove(group_state& g) noexcept {
  {
    scoped_lock held(mutex_);
    group_requests* const r = g.requests.load(std::memory_order_relaxed);
    if (r != nullptr && r->share.contends) beside(g, held).leave(r->share);
  }
  const auto listed = all_.lock_in_turn();
  all_.unlink(g, listed);
}

void task_groups::set_weight(group_state& g, unsigned weight) noexcept {
  scoped_lock held(mutex_);
  g.weight.store(weight, std::memory_order_relaxed);
  group_requests* const r = g.requests.load(std::memory_order_relaxed);
  if (r == nullptr) return;
  if (r->share.contends) {
    beside(g, held).set_weight(r->share, weight);
  } else {
    r->share.weight = weight;
  }
}

void task_groups::waited(group_state& g, timing::ticks delay, timing::ticks now) noexcept {
  group_requests* const r = g.requests.load(std::memory_order_acquire);
  if (r == nullptr) return;  // none of its requests has asked
  r->waited.store(in_units(delay), std::memory_order_relaxed);
  r->waited_at.store(time_in_units(now), std::memory_order_relaxed);
}

task_groups::answer task_groups::admit(group_state& g, std::optional<timing::ticks> by_turns,
                                       timing::ticks now) noexcept {
  scoped_lock held(mutex_);
  if (!takes_part(g, held)) return {.admitted = true, .by_share = false, .measure = false};
  const auto of = [](const group_state& each) -> group_requests& {
    return *each.requests.load(std::memory_order_relaxed);
  };
  // A request is to blame for an overload only if at each level the group has had its share.
  double position = group_shares::farthest;
  bool alone = true;
  for (group_state* at = &g; at != nullptr; at = at->above()) {
    group_shares& shares = beside(*at, held);
    group_requests& r = of(*at);
    const std::uint64_t cost = at->cost.load();
    if (cost != r.seen) shares.used(r.share, cost - std::exchange(r.seen, cost));
    position = std::min(position, shares.position(r.share));
    alone = alone && shares.alone(r.share);
  }
  overload::waits waits{};
  if (by_turns) {
    // A group of which nothing had its turn lately has nothing that waits.
    const group_requests& r = of(g);
    const std::uint32_t age = time_in_units(now) - r.waited_at.load(std::memory_order_relaxed);
    const bool lately = age <= overload_.interval() >> time_unit_bits;
    waits = {.longest = *by_turns,
             .own = lately
                        ? timing::ticks{r.waited.load(std::memory_order_relaxed)} << cost_unit_bits
                        : 0};
  } else {
    waits.longest = waits.own = overload_.delay(now);
  }
  of(g).delay.store(in_units(waits.own), std::memory_order_relaxed);
  const bool admitted = overload_.admits(position, waits, now);
  for (group_state* at = &g; !admitted && at != nullptr; at = at->above()) {
    beside(*at, held).refused(of(*at).share);
  }
  return {.admitted = admitted,
          .by_share = position >= 0 && !alone,
          .measure = !by_turns && overload_.measure(now)};
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

namespace {

ASIO_PULSE_DETAIL_NOINLINE void charge_budget(group_state& g, timing::ticks cost) noexcept {
  g.budget.charge_shared(hooks::this_thread().clock.last(), cost);
}

}  // namespace

void context_core::charged(hooks::task_record& record, timing::ticks cost, bool alone) noexcept {
  const auto& t = static_cast<const task_state&>(record);
  if (alone) {
    t.with_group_alone([cost](group_state* g) {
      for (; g != nullptr; g = g->above()) {
        g->cost.add_alone(cost);
        if (!g->budget.unlimited()) [[unlikely]]
          charge_budget(*g, cost);
      }
    });
  } else {
    t.with_group([cost](group_state* g) {
      for (; g != nullptr; g = g->above()) {
        g->cost.add(cost);
        if (!g->budget.unlimited()) [[unlikely]]
          charge_budget(*g, cost);
      }
    });
  }
}

// Whether this thread is the only one that may charge the task without a reference to its group. See
// group_slot: sequentially consistent, as the increment in attached().
bool context_core::alone_with(const task_state& t) const noexcept {
  return hooks::this_thread().arbiter == this && !t.is_shared() &&
         workers_.load(std::memory_order_seq_cst) <= 1 &&
         !strangers_.load(std::memory_order_seq_cst);
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
  t.charging.store(hooks::charging_mode::grouped, std::memory_order_release);
  g.tasks.fetch_add(1, std::memory_order_relaxed);
}

void context_core::move(task_state& t, const group_ref& to) {
  task_extras* const extras = t.make_extras();
  if (extras == nullptr) throw std::bad_alloc();
  if (to) to.get()->tasks.fetch_add(1, std::memory_order_relaxed);
  const group_ref before = extras->group.exchange(to, [&] { return alone_with(t); });
  if (before) before.get()->tasks.fetch_sub(1, std::memory_order_relaxed);
  // A worker whose account was not grouped does not look for its group. The new generation makes its
  // next poll look.
  using hooks::charging_mode::grouped;
  if ((t.charging.fetch_or(grouped, std::memory_order_release) & grouped) == 0) {
    state.fetch_add(hooks::path_state::generation, std::memory_order_relaxed);
  }
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
  const task_groups::answer a = groups_->admit(g, gate_->longest_wait(now), now);
  if (a.measure) {
    asio_port* const port = port_for_probe();
    const bool here = port != nullptr && hooks::this_thread().owner == port->scheduler();
    if (port == nullptr || !port->post_probe(here)) groups_->not_measured();
  }
  // Null if there was no memory.
  group_requests* const figures = g.requests.load(std::memory_order_acquire);
  if (a.admitted) {
    if (figures != nullptr) figures->admitted.fetch_add(1, std::memory_order_relaxed);
    counters_.add<&statistics::requests_admitted>();
    return admission();
  }
  if (a.by_share) {
    figures->refused_share.fetch_add(1, std::memory_order_relaxed);
    counters_.add<&statistics::requests_refused_share>();
  } else {
    figures->refused_overload.fetch_add(1, std::memory_order_relaxed);
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
  for (const group_state* at = opts.parent.get(); at != nullptr; at = at->above()) ++level;
  if (level > most_levels) {
    throw std::invalid_argument(
        "asio_pulse::group_options.parent must not be in the 16th level of groups");
  }
  const boost::intrusive_ptr<group_state> made(new group_state(core, opts));
  core.groups().add(*made);
  return group_ref(made);
}

std::uint64_t id_of(const group_state& g) noexcept { return g.id; }

std::string_view name_of(const group_state& g) noexcept { return g.title(); }

unsigned weight_of(const group_state& g) noexcept {
  return g.weight.load(std::memory_order_relaxed);
}

void set_weight(group_state& g, unsigned weight) {
  validate(group_options{.weight = weight});
  g.core.announce(g.core.set_weight(g, weight));
}

group_statistics figures_of(const group_state& g) noexcept {
  group_statistics result{.tasks = g.tasks.load(std::memory_order_relaxed),
                          .cpu = timing::to_ns(g.cost.load())};
  if (const group_requests* const r = g.requests.load(std::memory_order_acquire)) {
    result.admitted = r->admitted.load(std::memory_order_relaxed);
    result.refused_share = r->refused_share.load(std::memory_order_relaxed);
    result.refused_overload = r->refused_overload.load(std::memory_order_relaxed);
  }
  return result;
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
  if (ts.account == &t) ts.charging |= hooks::charging_mode::grouped;
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
