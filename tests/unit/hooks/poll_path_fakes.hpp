// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/poll_path.hpp>
#include <asio_pulse/timing/manual_clock.hpp>
#include <asio_pulse/timing/published_cpu_time.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>
#include <vector>

/// \file
/// The poll path without Asio: a scheduler is an address, an operation is its base class, and the
/// arbiter records its calls.

namespace hooks_test {

using namespace asio_pulse::hooks;
using asio_pulse::timing::lap;
using asio_pulse::timing::ticks;
using namespace std::chrono_literals;

inline std::chrono::nanoseconds ns(ticks t) { return asio_pulse::timing::timebase::get().to_ns(t); }
inline ticks in_ticks(std::chrono::nanoseconds t) {
  return asio_pulse::timing::timebase::get().from_ns(t);
}

/// An operation in which a handler waits. Its task is the one in force where it is created.
struct operation : tracked_operation {
  operation() noexcept { announce(); }
};

/// An operation as Asio creates it, before it announces whether a handler waits in it.
struct unannounced : tracked_operation {
  unannounced() noexcept {}  // not an aggregate
};

inline constexpr site handler{"handler", false};
inline constexpr site strand{"strand", true};

class fake_arbiter final : public path_arbiter {
 public:
  /// Workers measure with `clock`.
  explicit fake_arbiter(const asio_pulse::timing::manual_clock& clock) : manual_(&clock) {}
  /// Workers measure with the TSC, and are disturbed when the test publishes: the fast path.
  explicit fake_arbiter(const asio_pulse::timing::published_cpu_time& clock) : published_(&clock) {}

  struct looked_at {
    const task_record* task;
    std::chrono::nanoseconds total;
    bool over_budget;
    bool part;
  };
  std::vector<looked_at> seen;
  std::vector<const task_record*> started;
  std::vector<const task_record*> destroyed;
  std::vector<void*> asked;  // operations that the gate asked about
  struct charge {
    const task_record* task;
    bool alone;
    friend bool operator==(const charge&, const charge&) = default;
  };
  std::vector<charge> charges;  // of tasks that are grouped
  bool holds = false;
  int workers = 0;
  int attachments = 0;
  task_record* newborn = nullptr;               // of the next connection, with one reference
  std::vector<const task_record*> connections;  // tasks that the program did not declare
  std::vector<const task_record*> closed;       // whose socket was closed
  std::vector<const task_record*> opened_by;    // tasks that opened an outgoing connection
  task_record* listener = nullptr;              // of every task
  task_record unnamed_task{*this};

  void before_poll(const poll_frame& frame) noexcept override { started.push_back(frame.task()); }
  void after_poll(const poll_frame&, task_record& t, const lap&,
                  const poll_sum& sum) noexcept override {
    seen.push_back({&t, ns(sum.total), sum.over_budget, sum.part});
  }
  task_record* accepted(task_record*) noexcept override { return std::exchange(newborn, nullptr); }
  task_record* listener_of(task_record* t) noexcept override {
    return listener != nullptr ? listener : t;
  }
  task_record* connecting(task_record* t) noexcept override {
    opened_by.push_back(t);
    return std::exchange(newborn, nullptr);
  }
  bool declared(const task_record& t) noexcept override {
    return std::find(connections.begin(), connections.end(), &t) == connections.end();
  }
  void connection_closed(task_record& t) noexcept override { closed.push_back(&t); }
  bool hold_back(thread_state&, tracked_operation&, void* op, void*, completes,
                 const site&) noexcept override {
    asked.push_back(op);
    return holds;
  }
  void charged(task_record& t, ticks, bool alone) noexcept override {
    charges.push_back({&t, alone});
  }
  void destroy(task_record& t) noexcept override { destroyed.push_back(&t); }
  task_record& unnamed() noexcept override { return unnamed_task; }
  void attached(thread_state& ts) noexcept override {
    ++workers;
    ++attachments;
    use_clock(ts);
  }
  void detached(thread_state&) noexcept override { --workers; }
  asio_pulse::timing::clock_kind clock() const noexcept override {
    return asio_pulse::timing::clock_kind::steady;  // until attached()
  }

  /// A scope inside another of the same arbiter, and leaving one, put the clock of clock() in
  /// force.
  void use_clock(thread_state& ts) const {
    if (manual_ != nullptr) {
      ts.clock.attach(*manual_);
    } else {
      ts.clock.attach(*published_);
    }
  }

 private:
  const asio_pulse::timing::manual_clock* manual_ = nullptr;
  const asio_pulse::timing::published_cpu_time* published_ = nullptr;
};

/// The address may have been another test's scheduler, known to this thread as a plain one.
/// Contexts of ours that come or go end such knowledge.
inline void make_known(void* scheduler, fake_arbiter& arbiter) {
  add_arbiter(scheduler, arbiter);
  remove_arbiter(scheduler);
}

/// Operations created in this scope belong to `t`.
class belongs_to {
 public:
  explicit belongs_to(task_record* t) noexcept : saved_(std::exchange(this_thread().current, t)) {}
  ~belongs_to() { this_thread().current = saved_; }
  belongs_to(const belongs_to&) = delete;
  belongs_to& operator=(const belongs_to&) = delete;

 private:
  task_record* saved_;
};

inline operation operation_of(task_record* t) {
  const belongs_to scope(t);
  return operation{};
}

/// Polls an operation of `t` in which `body` runs.
template <class Body>
void poll(void* scheduler, task_record* t, Body body, const site& what = handler) {
  operation op = operation_of(t);
  const poll_frame frame(scheduler, op, what);
  body();
}

inline std::uint64_t polls(const task_record& t) { return t.polls(); }
inline std::chrono::nanoseconds cost(const task_record& t) { return ns(t.cost()); }
inline std::uint64_t references(const task_record& t) { return t.references.load(); }

/// Each operation of a chain creates the next, as a handler that posts itself does: on a worker of
/// `scheduler` no reference is counted for it.
inline void expect_chain_leaves_count_alone(void* scheduler, task_record& t) {
  std::unique_ptr<operation> next;
  poll(scheduler, &t, [&] { next = std::make_unique<operation>(); });
  const auto held = references(t);
  for (int i = 0; i < 500; ++i) {
    const auto now = std::move(next);
    const poll_frame frame(scheduler, *now, handler);
    EXPECT_EQ(this_thread().current, &t);
    next = std::make_unique<operation>();
    ASSERT_EQ(references(t), held);
  }
}

/// Each cost is rounded to ticks by itself.
inline void expect_about(std::chrono::nanoseconds value, std::chrono::nanoseconds expected) {
  EXPECT_GE(value, expected - 20ns);
  EXPECT_LE(value, expected + 20ns);
}

}  // namespace hooks_test
