// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/detail/decision_lock.hpp>
#include <asio_pulse/detail/hint_hub.hpp>
#include <asio_pulse/detail/inspect_server.hpp>
#include <asio_pulse/detail/serial_queue.hpp>
#include <asio_pulse/detail/watchdog.hpp>
#include <cstring>
#include <limits>
#include <new>
#include <string>
#include <string_view>
#include <utility>

#include "instruments.hpp"
#include "tier_limits.hpp"

namespace asio_pulse::detail {
namespace {

#if defined(ASIO_PULSE_ALWAYS_PREEMPT) && ASIO_PULSE_ALWAYS_PREEMPT
constexpr bool always_preempt = true;
#else
constexpr bool always_preempt = false;
#endif

// How often a checkpoint reads the clock, at most: between the cost of a reading (about 8 ns) and
// how late a task notices that its time is up. A fifteenth of the default quantum's order of
// magnitude; measured, not tuned.
constexpr std::chrono::nanoseconds checkpoint_interval = std::chrono::microseconds{20};
// Checkpoints between two readings of the clock, at most: a loop whose steps suddenly take 20 us is
// noticed after 0.64 ms, and a tight loop pays a thirty-second of a reading.
constexpr std::int32_t max_fuel = 32;

options validated(options o) {
  validate(o);
  return o;
}

std::unique_ptr<char[]> copy_name(std::string_view name) {
  auto copy = std::make_unique<char[]>(name.size() + 1);
  std::memcpy(copy.get(), name.data(), name.size());
  return copy;
}

timing::ticks to_ticks(std::chrono::nanoseconds d) noexcept {
  return timing::timebase::get().from_ns(d);
}

std::chrono::nanoseconds to_ns(timing::ticks t) noexcept {
  return timing::timebase::get().to_ns(t);
}

// Relaxed: nothing but different numbers is asked of it.
std::atomic<std::uint64_t> next_context{1};

void mark(hooks::poll_recorder::kind what, const task_state& t, std::uint32_t value) noexcept {
  if (hooks::poll_recorder* const recorder = hooks::this_thread().recorder) [[unlikely]] {
    recorder->mark(what, timing::timebase::get().now(), t.number, value);
  }
}

// The operation that this thread runs: asked inside a poll only.
const hooks::site& here() noexcept {
  return *hooks::this_thread().poll_site.load(std::memory_order_relaxed);
}
std::string_view site_now() noexcept { return here().type_name; }

task_state& state_of(hooks::task_record& t) noexcept { return static_cast<task_state&>(t); }

}  // namespace

// ---- task_state

task_state::task_state(context_core& core, std::uint64_t its_id,
                       std::unique_ptr<char[]> text) noexcept
    : task_record(core), id(its_id), name(std::move(text)) {}

task_state::~task_state() { delete serial.load(std::memory_order_acquire); }

context_core& task_state::core() const noexcept { return static_cast<context_core&>(*home); }

// ---- set-up

context_core::context_core(options opts, bool one_thread)
    : options_(validated(std::move(opts))),
      one_thread_(one_thread),
      watched_(options_.enabled && options_.watchdog && options_.stall_threshold.count() != 0),
      clock_(options_.clock.value_or(timing::default_clock().kind)),
      hints_from_(options_.enabled ? wanted_hints(options_) : hint_source::off),
      limits_(make_tier_limits(options_)),
      unnamed_limits_(without_enforcement(limits_)),
      quantum_(to_ticks(options_.quantum)),
      min_slice_(to_ticks(options_.min_slice)),
      check_interval_(to_ticks(std::min(checkpoint_interval, options_.min_slice))),
      number_(next_context.fetch_add(1, std::memory_order_relaxed)),
      instruments_(std::make_unique<instruments>(options_)),
      limiter_(to_ticks(options_.report_interval), options_.reports_per_second,
               static_cast<timing::ticks>(timing::timebase::get().ticks_per_second())),
      unnamed_(new task_state(*this, 0, copy_name(options_.unnamed.name))) {
  configure(unnamed_->budget, options_.unnamed);
  unnamed_->attention.store(unnamed_limits_.quiet_below, std::memory_order_relaxed);
  hooks_.set_listener(
      [](void* self, bool wanted) {
        auto& word = static_cast<context_core*>(self)->state;
        if (wanted) {
          word.fetch_or(hooks::path_state::poll_hooks, std::memory_order_relaxed);
        } else {
          word.fetch_and(~hooks::path_state::poll_hooks, std::memory_order_relaxed);
        }
        word.fetch_add(hooks::path_state::generation, std::memory_order_relaxed);
      },
      this);
}

context_core::~context_core() { delete unnamed_; }

void context_core::release() noexcept {
  // acq_rel: whoever destroys the core sees what the others did with it.
  if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
}

void context_core::connect(asio_port* port) noexcept {
  if (port == nullptr) {  // waits for calls of the port that are under way
    forget_context(*this);
    hide_context(*this);
  }
  {
    const std::lock_guard lock(mutex_);
    port_ = port;
  }
  if (port != nullptr && watched_) watch_context(*this);
  if (port != nullptr) show_context(*this);
}

void context_core::close() noexcept {
  forget_context(*this);
  hide_context(*this);
  std::unordered_map<const void*, task_state*> places;
  {
    const std::lock_guard lock(mutex_);
    closed_.store(true, std::memory_order_relaxed);
    // They hold the core, which holds them: the end of the context is where that ends.
    places.swap(places_);
  }
  for (const auto& [place, t] : places) hooks::release(*t);
}

task_state* context_core::task_of_place(const void* place, const task_options& opts) noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (closed()) return nullptr;
    if (const auto found = places_.find(place); found != places_.end()) return found->second;
  }
  try {
    task_state* made = make_task(opts, nullptr, false);
    std::unique_lock lock(mutex_);
    const auto [at, fresh] = places_.try_emplace(place, made);
    task_state* t = at->second;
    lock.unlock();
    if (!fresh) hooks::release(*made);  // another thread was first
    return t;
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

task_state* context_core::make_task(const task_options& opts, task_state* listener, bool accepted) {
  auto t = std::make_unique<task_state>(*this, next_id_.fetch_add(1, std::memory_order_relaxed),
                                        copy_name(opts.name));
  configure(t->budget, opts);
  t->attention.store(limits_.quiet_below, std::memory_order_relaxed);
  t->number = static_cast<std::uint32_t>(t->id);
  t->isolatable = opts.isolatable;
  t->accepted = accepted;
  if (listener != nullptr) hooks::acquire(*listener);
  t->listener = listener;
  acquire();  // given back by destroy()
  {
    const std::lock_guard lock(mutex_);
    t->next = tasks_;
    if (tasks_ != nullptr) tasks_->previous = t.get();
    tasks_ = t.get();
    ++task_count_;
  }
  hooks_.task_spawned({.task_id = t->id,
                       .task_name = t->name.get(),
                       .parent_id = listener != nullptr ? listener->id : 0});
  return t.release();
}

void context_core::destroy(hooks::task_record& record) noexcept {
  task_state& t = state_of(record);
  {
    const std::lock_guard lock(mutex_);
    (t.previous != nullptr ? t.previous->next : tasks_) = t.next;
    if (t.next != nullptr) t.next->previous = t.previous;
    --task_count_;
    ended_polls_ += t.polls.load(std::memory_order_relaxed);
    ended_cost_ += t.cost.load(std::memory_order_relaxed);
  }
  task_state* listener = t.listener;
  delete &t;
  if (listener != nullptr) hooks::release(*listener);
  release();
}

// ---- workers

void context_core::attached(hooks::thread_state& ts) noexcept {
  acquire();
  if (watched_ && !ts.registered) watch_this_thread(ts);
  if (hints_from_ != hint_source::off) join_hints(ts, *this);
  if (instruments_->collecting()) {
    instruments_->renew(ts);
  } else {
    hooks::set_recorder(ts, nullptr);
  }
  clock_in_use_.store(ts.clock.kind(), std::memory_order_relaxed);
  // A thread that came through a base-class reference does not say when it leaves: from now on any
  // number may be here.
  if (!ts.wrapped) strangers_.store(true, std::memory_order_relaxed);
  const std::uint32_t workers = workers_.fetch_add(1, std::memory_order_relaxed) + 1;
  if (workers > 1 || strangers_.load(std::memory_order_relaxed)) {
    state.fetch_or(hooks::path_state::several_workers, std::memory_order_relaxed);
  }
  state.fetch_add(hooks::path_state::generation, std::memory_order_relaxed);
}

void context_core::detached(hooks::thread_state& ts) noexcept {
  if (ts.recorder != nullptr) instruments_->leave(ts);
  if (hints_from_ != hint_source::off) leave_hints(ts, *this);
  const std::uint32_t workers = workers_.fetch_sub(1, std::memory_order_relaxed) - 1;
  if (workers == 0 && !strangers_.load(std::memory_order_relaxed)) {
    // Only here, with nobody inside, can "several" be taken back without racing with one who comes
    // in. A worker that stays behind alone goes on as if it had company until it leaves: correct, a
    // few nanoseconds dearer.
    state.fetch_and(~hooks::path_state::several_workers, std::memory_order_relaxed);
    if (workers_.load(std::memory_order_relaxed) > 1) {
      state.fetch_or(hooks::path_state::several_workers, std::memory_order_relaxed);
    }
  }
  state.fetch_add(hooks::path_state::generation, std::memory_order_relaxed);
  release();
}

void context_core::forked() noexcept {
  const bool here = hooks::this_thread().observer == this;
  workers_.store(here ? 1 : 0, std::memory_order_relaxed);
  state.fetch_and(~hooks::path_state::several_workers, std::memory_order_relaxed);
  state.fetch_add(hooks::path_state::generation, std::memory_order_relaxed);
  instruments_->forked();
  if (hints_from_ != hint_source::off) resume_hints();
  resume_inspection();
}

// ---- polls

const tier_limits& context_core::limits_of(const task_state& t) const noexcept {
  return &t == unnamed_ ? unnamed_limits_ : limits_;
}

void context_core::before_poll(const hooks::poll_frame& frame) noexcept {
  const task_state& t = frame.task() != nullptr ? state_of(*frame.task()) : *unnamed_;
  hooks_.before_poll({.task_id = t.id,
                      .task_name = t.name.get(),
                      .site = site_now(),
                      .thread = std::this_thread::get_id(),
                      .start = hooks::this_thread().clock.last(),
                      .cost = 0,
                      .exact = true});
}

void context_core::after_poll(const hooks::poll_frame& frame, hooks::task_record& record,
                              const timing::lap& last, const hooks::poll_sum& sum) noexcept {
  task_state& t = state_of(record);
  if (!sum.part && hooks_.wants_polls()) {
    hooks_.after_poll({.task_id = t.id,
                       .task_name = t.name.get(),
                       .site = site_now(),
                       .thread = std::this_thread::get_id(),
                       .start = sum.started,
                       .cost = sum.total,
                       .exact = last.exact});
  }
  // Whoever runs it, it is its own context that decides about a task.
  t.core().judge(frame, t, last, sum);
}

void context_core::judge(const hooks::poll_frame& frame, task_state& t, const timing::lap& last,
                         const hooks::poll_sum& sum) noexcept {
  decision_lock deciding(t);
  if (!deciding) return;
  const tier_limits& limits = limits_of(t);
  const tier_decision decision = tier_manager::on_poll(
      t.tiers, t.budget,
      {.now = last.now,
       .cost = sum.total,
       .over_budget = sum.over_budget,
       .exact = last.exact,
       .would_park = limits.shadow && t.tiers.level >= tier::yield && sum.over_budget},
      limits);
  apply(t, decision);
  deciding.unlock();
  announce(t, decision);
  if (decision.promoted() && decision.to == tier::isolate && !limits.shadow && !may_isolate(t)) {
    refuse_isolation(t, &frame);
  }
  // What the watchdog has told of while it lasted, it tells the end of.
  if (decision.report && !(decision.slow && sum.stalled)) {
    report r;
    r.kind = decision.slow ? report_kind::slow_poll : report_kind::over_budget;
    r.site = site_now();
    r.poll = to_ns(last.now - std::min(sum.started, last.now));
    r.cpu_or_occupancy = to_ns(sum.total);
    r.exact = last.exact;
    r.before = decision.from;
    r.after = decision.to;
    r.why = decision.why;
    send(r, t, &frame);
  }
}

void context_core::announce(const task_state& t, const tier_decision& decision) noexcept {
  decision.for_each_step([&](tier from, tier to, reason) {
    hooks_.tier_changed({.task_id = t.id,
                         .task_name = t.name.get(),
                         .from = static_cast<int>(from),
                         .to = static_cast<int>(to)});
  });
}

void context_core::apply(task_state& t, const tier_decision& decision) noexcept {
  metrics_.count(decision);
  const bool quiet = t.tiers.level == tier::monitor && !t.tiers.excused;
  t.attention.store(quiet ? limits_of(t).quiet_below : 0, std::memory_order_relaxed);
  if (!decision.changed()) return;
  t.level.store(t.tiers.level, std::memory_order_relaxed);
  mark(hooks::poll_recorder::kind::tier, t,
       static_cast<std::uint32_t>(decision.from) * 4 + static_cast<std::uint32_t>(decision.to));
  const std::lock_guard lock(mutex_);
  set_gate(t);
}

// Under the mutex, so that parking and a change of tier agree on the outcome.
void context_core::set_gate(task_state& t) noexcept {
  const bool waiting = t.parked != nullptr && t.parked->front != nullptr;
  const bool measures = !options_.shadow && t.level.load(std::memory_order_relaxed) >= tier::yield;
  const bool deferred = t.deferred.load(std::memory_order_relaxed);
  t.gated.store(waiting || measures || deferred ? 1 : 0, std::memory_order_relaxed);
}

void context_core::settle(task_state& t, timing::ticks now) noexcept {
  decision_lock deciding(t);
  if (!deciding) return;
  const tier_decision decision = tier_manager::on_idle(t.tiers, t.budget, now, limits_of(t));
  apply(t, decision);
  deciding.unlock();
  announce(t, decision);
}

bool context_core::overspent(task_state& t, timing::ticks now) noexcept {
  if (t.level.load(std::memory_order_relaxed) != tier::monitor) settle(t, now);
  return !options_.shadow && t.level.load(std::memory_order_relaxed) >= tier::yield &&
         t.budget.over(now);
}

bool context_core::wants_yield(hooks::thread_state& ts) noexcept {
  const timing::ticks now = timing::timebase::get().now();
  const timing::ticks stamped = ts.clock.last();
  const timing::ticks segment = now - std::min(stamped, now);
  // Fuel: how many checkpoints until the clock is read again.
  if (ts.checked_at <= stamped) {
    ts.fuel_step = 1;  // the first one in this poll
  } else {
    const timing::ticks since = now - std::min(ts.checked_at, now);
    if (since < check_interval_ / 2) {
      ts.fuel_step = std::min(ts.fuel_step * 2, max_fuel);
    } else if (since > check_interval_) {
      ts.fuel_step = std::max(ts.fuel_step / 2, 1);
    }
  }
  ts.checked_at = now;
  ts.fuel = ts.fuel_step;

  const hooks::poll_frame& frame = *ts.top.load(std::memory_order_relaxed);
  const timing::ticks elapsed = frame.accrued() + segment;
  const timing::ticks quantum =
      ts.pressure == 0 ? quantum_ : hint_watch::tightened(quantum_, min_slice_, ts.pressure);
  const bool hinted = ts.hint->load(std::memory_order_relaxed) != ts.hint_seen;
  bool wanted = always_preempt || hinted || elapsed >= quantum;
  if (!wanted && elapsed >= min_slice_ && frame.task() != nullptr) {
    // What ran since the last stamp has not been charged yet.
    wanted = frame.task()->budget.remaining(now) < segment;
  }
  if (options_.shadow) wanted = false;
  if (wanted) {
    ts.fuel = 0;  // asked again at once, should the caller not listen
    if (hinted) {
      ts.flush_at = ts.settle_at = 0;  // the end of the poll is to look
      if (ts.link != nullptr) ts.link->reason = ASIO_PULSE_YIELD_CHECKPOINT;
    }
    checkpoint_yields_.fetch_add(1, std::memory_order_relaxed);
    mark(hooks::poll_recorder::kind::yielded,
         frame.task() != nullptr ? state_of(*frame.task()) : *unnamed_, 0);
  }
  return wanted;
}

hooks::task_record* context_core::accepted(hooks::task_record* listener) noexcept {
  if (!options_.accept_rule) return nullptr;
  try {
    task_state* from = listener != nullptr && listener->home == this
                           ? static_cast<task_state*>(listener)
                           : nullptr;
    return make_task(options_.accepted, from, true);
  } catch (const std::bad_alloc&) {
    return nullptr;  // the connection is its listener's work then
  }
}

hooks::task_record* context_core::listener_of(hooks::task_record* record) noexcept {
  task_state& t = state_of(*record);
  return t.accepted ? t.listener : record;
}

// ---- the gate

bool context_core::hold_back(hooks::thread_state& ts, hooks::tracked_operation& op, void* operation,
                             void* owner) noexcept {
  asio_port* const port = port_;
  if (port == nullptr || options_.shadow || closed()) return false;
  task_state& t = op.task() != nullptr ? state_of(*op.task()) : *unnamed_;
  if (t.home != this) return false;  // another context's task: its own gate looks after it
  if (owner != port->scheduler()) {
    // Inside a strand: the first handler of a turn always runs, so that the strand moves on.
    const hooks::poll_frame* host = ts.top.load(std::memory_order_relaxed);
    if (host == nullptr || !here().drains || host->inner_polls() == 0) return false;
    if (!always_preempt && !overspent(t, ts.clock.last())) return false;
    switch (port->break_strand(owner, operation)) {
      case asio_port::strand_break::refused:
        return false;
      case asio_port::strand_break::rest:
        op.set(hooks::tracked_operation::resumes);  // the strand is ours until its drain has ended
        break;
      case asio_port::strand_break::joined:
        break;
    }
    strand_breaks_.fetch_add(1, std::memory_order_relaxed);
    return true;
  }
  if (port->in_legacy_strand()) return false;
  if (always_preempt && op.has(hooks::tracked_operation::held_once)) return false;
  if (!park(t, op, operation)) return false;
  ++ts.phantom_turns;
  return true;
}

bool context_core::park(task_state& t, hooks::tracked_operation& op, void* operation) noexcept {
  const bool hinted = t.deferred.exchange(false, std::memory_order_relaxed);
  const bool wanted = always_preempt || hinted || overspent(t, timing::timebase::get().now());
  bool drive = false;
  std::size_t swept = 0;
  asio_port* port = nullptr;
  {
    const std::lock_guard lock(mutex_);
    const bool waiting = t.parked != nullptr && t.parked->front != nullptr;
    if (!waiting && !wanted) return false;
    if (hinted) deferrals_.fetch_add(1, std::memory_order_relaxed);
    if (t.parked == nullptr) {
      t.parked.reset(new (std::nothrow) parked_work);
      if (t.parked == nullptr) return false;  // no memory to hold it back with: it runs
    }
    op.set(hooks::tracked_operation::held_once);
    port_->append(*t.parked, operation);
    if (!waiting) {
      t.parked->next = nullptr;
      (ring_ == nullptr ? ring_ : ring_back_->parked->next) = &t;
      ring_back_ = &t;
    }
    ++parked_;
    // The first of a storm: the rest needs no turn of the scheduler each to get out of the way.
    if (!waiting && !always_preempt) swept = port_->sweep(t, *t.parked);
    parked_ += swept;
    t.gated.store(1, std::memory_order_relaxed);
    drive = !std::exchange(driver_posted_, true);
    port = port_;
  }
  mark(hooks::poll_recorder::kind::parked, t, static_cast<std::uint32_t>(1 + swept));
  if (drive) port->post_driver();
  yields_.fetch_add(1 + swept, std::memory_order_relaxed);
  return true;
}

// The mutex is held, and an operation of `t`, the first of the ring, has just been taken.
void context_core::take_turn(task_state& t) noexcept {
  --parked_;
  ring_ = t.parked->next;
  if (ring_ == nullptr) ring_back_ = nullptr;
  t.parked->next = nullptr;
  if (t.parked->front != nullptr) {
    (ring_ == nullptr ? ring_ : ring_back_->parked->next) = &t;
    ring_back_ = &t;
  } else {
    set_gate(t);
  }
}

// ---- reports

void context_core::refuse_isolation(task_state& t, const hooks::poll_frame* frame) noexcept {
  refused_.fetch_add(1, std::memory_order_relaxed);
  const char* why =
      !t.isolatable
          ? "the task was not declared isolatable: its handlers may share state with others "
            "(set task_options::isolatable, and use the task's executor)"
      : one_thread_
          ? "the context is single-threaded by its concurrency hint: its handlers may rely on it"
          : "the context has no isolation threads (options::isolation_threads is 0)";
  tell(report_kind::isolation_refused, t, frame, std::chrono::nanoseconds{0}, why);
}

void context_core::tell(report_kind kind, task_state& t, const hooks::poll_frame* frame,
                        std::chrono::nanoseconds duration, std::string_view detail) noexcept {
  report r;
  r.kind = kind;
  if (frame != nullptr) r.site = site_now();
  r.poll = r.cpu_or_occupancy = duration;
  r.before = r.after = t.level.load(std::memory_order_relaxed);
  r.detail = detail;
  send(r, t, frame);
}

void context_core::send(report& r, task_state& t, const hooks::poll_frame* frame) noexcept {
  const report_limiter::verdict verdict = limiter_.admit(t.reports, timing::timebase::get().now());
  if (!verdict.send) return;
  r.suppressed = verdict.suppressed;
  if (frame != nullptr) {
    const hooks::location where = frame->where();
    r.location = {where.file, where.line, where.function};
  }
  deliver(r, t);
}

void context_core::deliver(report& r, task_state& t) noexcept {
  r.task = t.name.get();
  r.task_id = t.id;
  r.clock = clock_in_use_.load(std::memory_order_relaxed);
  try {
    const std::string type = short_type(r.site);
    r.site = type;
    if (!options_.on_report) {
      write_to_stderr(r);
    } else {
      options_.on_report(r);
    }
  } catch (...) {
    // It must not reach the handler that happened to be running.
    callback_errors_.fetch_add(1, std::memory_order_relaxed);
  }
}

statistics context_core::stats() const noexcept {
  const tier_counts counts = metrics_.snapshot();
  statistics s;
  s.warns = counts.into(tier::warn);
  s.yields = yields_.load(std::memory_order_relaxed);
  s.strand_breaks = strand_breaks_.load(std::memory_order_relaxed);
  s.checkpoint_yields = checkpoint_yields_.load(std::memory_order_relaxed);
  s.isolated = isolated_.load(std::memory_order_relaxed);
  s.isolations_refused = refused_.load(std::memory_order_relaxed);
  s.promotions = counts.promotions();
  s.demotions = counts.demotions();
  s.reports = limiter_.sent();
  s.reports_suppressed = limiter_.suppressed();
  s.callback_errors = callback_errors_.load(std::memory_order_relaxed) + hooks_.hook_errors();
  s.stalls = stalls_.load(std::memory_order_relaxed);
  s.stalls_spinning = stalls_spinning_.load(std::memory_order_relaxed);
  s.stalls_blocked = stalls_blocked_.load(std::memory_order_relaxed);
  s.stall_reports = stall_reports_.load(std::memory_order_relaxed);
  s.spares_started = spares_started_.load(std::memory_order_relaxed);
  s.spares = spares_.load(std::memory_order_relaxed);
  s.hints = hints_.load(std::memory_order_relaxed);
  s.hints_lost = hints_lost_.load(std::memory_order_relaxed);
  s.deferrals = deferrals_.load(std::memory_order_relaxed);
  s.shadow_saved = to_ns(counts.saved);
  const timing::clock_kind used = clock_in_use_.load(std::memory_order_relaxed);
  s.clock = used != timing::clock_kind::none ? used : clock_;
  const std::lock_guard lock(mutex_);
  s.parked = parked_;
  s.tasks = task_count_;
  return s;
}

}  // namespace asio_pulse::detail
