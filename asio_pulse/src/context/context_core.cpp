// SPDX-License-Identifier: BSL-1.0
//
// The construction and the end of a context, and its tasks: the program's and those of connections.
#include "context_companion.hpp"
#include "current_poll.hpp"
#include "parking.hpp"
#include "report_writer.hpp"
#include "standard_error.hpp"
#include "wanted_hints.hpp"

#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/detail/serial_queue.hpp>
#include <asio_pulse/detail/task_ref.hpp>

#include <algorithm>
#include <cstring>
#include <new>
#include <string_view>
#include <utility>

namespace asio_pulse::detail {
namespace {

using timing::to_ticks;

// Checkpoints read the clock at most this often. A guess: a reading takes about 8 ns, and a task
// notices at most this late that its time is up. It is a twenty-fifth of the default quantum.
constexpr std::chrono::nanoseconds checkpoint_interval = std::chrono::microseconds{20};

options validated(options o) {
  validate(o);
  return o;
}

std::unique_ptr<char[]> copy_name(std::string_view name) {
  auto copy = std::make_unique<char[]>(name.size() + 1);
  std::memcpy(copy.get(), name.data(), name.size());
  return copy;
}

// Relaxed: the numbers only have to be different.
std::atomic<std::uint64_t> next_context{1};

}  // namespace

// ---- task_state

task_state::task_state(context_core& core, std::uint64_t its_id,
                       std::unique_ptr<char[]> text) noexcept
    : task_record(core),
      name(std::move(text)),
      id_high(static_cast<std::uint32_t>(its_id >> 32) & 0x1fff'ffffU) {
  number = static_cast<std::uint32_t>(its_id);
}

task_state::~task_state() { delete serial.load(std::memory_order_acquire); }

context_core& task_state::core() const noexcept { return static_cast<context_core&>(*home); }

// ---- set-up

context_core::context_core(options opts, bool one_thread)
    : context_core(std::move(opts), one_thread, nullptr) {}

context_core::context_core(options opts, bool one_thread,
                           std::unique_ptr<context_companion> companion)
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
      companion_(companion != nullptr ? std::move(companion) : make_companion(*this)),
      gate_(std::make_unique<parking>(options_, counters_)),
      limiter_(to_ticks(options_.report_interval), options_.reports_per_second,
               static_cast<timing::ticks>(timing::timebase::get().ticks_per_second())),
      reports_dropped_(std::make_shared<std::atomic<std::uint64_t>>(0)),
      unnamed_(std::make_unique<task_state>(*this, 0, copy_name(options_.unnamed.name))),
      tasks_(*unnamed_) {
  adopt_standard_error();
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

// The unnamed task is destroyed first, because its destructor may use the other members.
context_core::~context_core() { unnamed_.reset(); }

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
  configure(t->budget, opts);
  t->attention.store(limits_.quiet_below, std::memory_order_relaxed);
  t->isolatable = opts.isolatable;
  t->accepted = how == birth::accepted;
  t->connected = how == birth::connected;
  if (t->accepted && from != nullptr) {
    hooks::acquire(*from);
    t->listener = from;
  }
  acquire();  // released by destroy()
  tasks_.add(*t);
  hooks_.task_spawned({.task_id = t->id(),
                       .task_name = t->name.get(),
                       .parent_id = from != nullptr ? from->id() : 0});
  return t.release();
}

void context_core::destroy(hooks::task_record& record) noexcept {
  task_state& t = state_of(record);
  tasks_.remove(t);
  task_state* listener = t.listener;
  delete &t;
  if (listener != nullptr) hooks::release(*listener);
  release();
}

hooks::task_record* context_core::accepted(hooks::task_record* listener) noexcept {
  if (!options_.accept_rule) return nullptr;
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
  if (!options_.connect_rule || !options_.enabled || closed()) return nullptr;
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
