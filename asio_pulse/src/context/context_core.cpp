// SPDX-License-Identifier: BSL-1.0
//
// The construction and the end of a context, and its tasks: the program's and those of connections.
#include "context_companion.hpp"
#include "core_list.hpp"
#include "current_poll.hpp"
#include "files/standard_error.hpp"
#include "gate/parking.hpp"
#include "groups/task_groups.hpp"
#include "reports/report_writer.hpp"
#include "tasks/copied_name.hpp"
#include "yields/automatic_checkpoint.hpp"
#include "yields/wanted_hints.hpp"

#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/detail/serial_queue.hpp>
#include <asio_pulse/detail/task_ref.hpp>

#include <algorithm>
#include <new>
#include <string_view>
#include <utility>

namespace asio_pulse::detail {
namespace {

using timing::to_ticks;

options validated(options o) {
  validate(o);
  return o;
}

// Relaxed: the numbers only have to be different.
std::atomic<std::uint64_t> next_context{1};

}  // namespace

// ---- task_state

task_state::task_state(context_core& core, std::uint64_t its_id,
                       std::unique_ptr<char[]> text) noexcept
    : task_record(core),
      name(std::move(text)),
      id_high(static_cast<std::uint32_t>(its_id >> 32) & 0x0fff'ffffU) {
  number = static_cast<std::uint32_t>(its_id);
}

task_state::~task_state() {
  delete serial.load(std::memory_order_acquire);
  delete extras.load(std::memory_order_acquire);
}

task_extras* task_state::make_extras() noexcept {
  task_extras* there = extras.load(std::memory_order_acquire);
  if (there != nullptr) return there;
  auto* const made = new (std::nothrow) task_extras;
  if (made == nullptr) return nullptr;
  if (extras.compare_exchange_strong(there, made, std::memory_order_acq_rel)) return made;
  delete made;  // another thread was first
  return there;
}

context_core& task_state::core() const noexcept { return static_cast<context_core&>(*home); }

// ---- set-up

context_core::context_core(options opts, bool one_thread)
    : context_core(std::move(opts), one_thread, nullptr) {}

context_core::context_core(options opts, bool one_thread,
                           std::unique_ptr<context_companion> companion)
    : options_(validated(std::move(opts))),
      one_thread_(one_thread),
      clock_(options_.clock.value_or(timing::default_clock().kind)),
      hints_from_(options_.enabled ? wanted_hints(options_) : hint_source::off),
      live_(options_),
      number_(next_context.fetch_add(1, std::memory_order_relaxed)),
      companion_(companion != nullptr ? std::move(companion) : make_companion(*this)),
      gate_(std::make_unique<parking>(options_, counters_, calm_until)),
      groups_(std::make_unique<task_groups>(options_.admission)),
      limiter_(to_ticks(options_.report_interval), options_.reports_per_second,
               static_cast<timing::ticks>(timing::timebase::get().ticks_per_second())),
      current_(options_),
      reports_dropped_(std::make_shared<std::atomic<std::uint64_t>>(0)),
      unnamed_(std::make_unique<task_state>(*this, 0, copy_name(options_.unnamed.name))),
      tasks_(*unnamed_) {
  set_fibers();
  (void)gate_->use(make_policy(options_));
  if (options_.classify) {
    classifier_ = keep(options_.classify, current_.classify);
    classifies.store(true, std::memory_order_relaxed);
  }
  adopt_standard_error();
  if (options_.enabled) install_automatic_checkpoints();
  configure(unnamed_->budget, options_.unnamed);
  unnamed_->attention.store(limits_of(*unnamed_).quiet_below, std::memory_order_relaxed);
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
  core_list::get().add(*this);  // last: it does not know contexts whose construction failed
}

// The unnamed task is destroyed first, because its destructor may use the other members.
context_core::~context_core() {
  core_list::get().remove(*this);
  unnamed_.reset();
}

void context_core::before_fork() noexcept {
  update_mutex_.lock();
  groups_->before_fork();
  classify_mutex_.lock();
}

void context_core::after_fork(bool child) noexcept {
  classify_mutex_.unlock();
  groups_->after_fork(child);
  update_mutex_.unlock();
}

void context_core::release() noexcept {
  // acq_rel: the thread that destroys the core sees what others have done with it.
  if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
}

void context_core::connect(asio_port* port) noexcept {
  if (port == nullptr) {
    companion_->closing();  // waits for calls of the port that are in progress
    report_writer::flush();
    let_go_of_resting();
  }
  // A worker that receives hints cannot rest: left() has to take back its source of hints.
  // The analyzer does not know that the caller has a reference, too.
  // NOLINTNEXTLINE(clang-analyzer-cplusplus.NewDelete)
  rests_on = port != nullptr && hints_from_ == hint_source::off ? port->scheduler() : nullptr;
  port_ = port;
  gate_->connect(port);
  if (port != nullptr) companion_->opened();
}

void context_core::close() noexcept {
  companion_->closing();
  closed_.store(true, std::memory_order_relaxed);
  places_.close();
}

task_state* context_core::task_of_place(const void* place, const task_options& opts) noexcept {
  if (closed()) return nullptr;
  if (task_state* const found = places_.find(place)) return found;
  try {
    return places_.add(place, task_ref(make_task(opts)));
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

task_state* context_core::make_task(const task_options& opts, birth how, task_state* from) {
  auto t = std::make_unique<task_state>(*this, next_id_.fetch_add(1, std::memory_order_relaxed),
                                        copy_name(opts.name));
  t->isolatable = opts.isolatable;
  t->accepted = how == birth::accepted;
  t->connected = how == birth::connected;
  join(*t, opts);
  if (t->accepted) {
    if (from != nullptr) hooks::acquire(*from);
    t->listener = from;
  } else if (from != nullptr) {
    t->opener = from->id();
  }
  acquire();  // released by destroy()
  // With the list locked, so that an update either sees the task in the list, or is seen here.
  tasks_.add(*t, [&] { prepare(*t, opts, how); });
  hooks_.task_spawned(
      {.task_id = t->id(), .task_name = t->name.get(), .parent_id = t->parent_id()});
  return t.release();
}

void context_core::prepare(task_state& t, const task_options& opts, birth how) noexcept {
  switch (how) {
    case birth::declared:
      configure(t.budget, opts);
      break;
    case birth::accepted:
      t.budget.configure(live_.accepted());
      break;
    case birth::connected:
      t.budget.configure(live_.connected());
      break;
  }
  t.attention.store(quiet_below(t), std::memory_order_relaxed);
  if (gate_->by_policy() || t.is_grouped() || uses_fibers) gate_->set_gate(t);
}

void context_core::destroy(hooks::task_record& record) noexcept {
  task_state& t = state_of(record);
  tasks_.remove(t);
  if (hooks_.wants_completions()) announce_end(t);
  task_state* const listener = t.accepted ? t.listener : nullptr;
  leave_group(t);
  delete &t;
  if (listener != nullptr) hooks::release(*listener);
  release();
}

void context_core::announce_end(const task_state& t) noexcept {
  if (!companion_->may_call_program()) return;
  // The task in force may be this one, to which nothing can belong any more.
  const label_scope none(nullptr);
  hooks_.completed({.task_id = t.id(),
                    .task_name = t.name.get(),
                    .parent_id = t.parent_id(),
                    .polls = t.polls(),
                    .cpu = timing::timebase::get().to_ns(t.cost())});
}

hooks::task_record* context_core::accepted(hooks::task_record* listener) noexcept {
  if (!live_.accept_rule()) return nullptr;
  try {
    task_state* from = listener != nullptr && listener->home == this
                           ? static_cast<task_state*>(listener)
                           : nullptr;
    return make_task(options_.accepted, birth::accepted, from);
  } catch (const std::bad_alloc&) {
    return nullptr;  // then the connection is work of its listener's task
  }
}

hooks::task_record* context_core::listener_of(hooks::task_record* record) noexcept {
  task_state& t = state_of(*record);
  return t.accepted ? t.listener : record;
}

hooks::task_record* context_core::connecting(hooks::task_record* from) noexcept {
  if (!live_.connect_rule() || !options_.enabled || closed()) return nullptr;
  try {
    return make_task(options_.connected, birth::connected,
                     from != nullptr && from->home == this ? &state_of(*from) : nullptr);
  } catch (const std::bad_alloc&) {
    return nullptr;  // then the connection is work of the task that opens it
  }
}

bool context_core::declared(const hooks::task_record& record) noexcept {
  return static_cast<const task_state&>(record).declared();
}

void context_core::connection_closed(hooks::task_record& record) noexcept {
  task_state& t = state_of(record);
  if (!t.of_connection()) return;
  t.ended.store(true, std::memory_order_relaxed);
  gate_->set_gate(t);  // so that make_unnamed() is called for the task's next operation
}

const void* this_copy() noexcept {
  static const char copy = 0;
  return &copy;
}

}  // namespace asio_pulse::detail
