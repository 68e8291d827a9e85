// SPDX-License-Identifier: BSL-1.0
//
// The order of tasks with parked operations while other workers charge them.
#include "gate/parking.hpp"

#include "empty_port.hpp"

#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/detail/counters.hpp>
#include <asio_pulse/hooks/poll_path.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <functional>
#include <vector>

namespace asio_pulse::detail {
namespace {

using testing::UnorderedElementsAre;

struct operation : hooks::tracked_operation {
  operation() noexcept {}
  operation* next = nullptr;
  std::uint32_t number = 0;
};

/// Keeps parked operations in a list, as the port of a real context does, and has an empty queue.
class list_port final : public empty_port {
 public:
  void append(parked_work& to, void* what, std::uint32_t number) noexcept override {
    auto* const op = static_cast<operation*>(what);
    op->number = number;
    if (to.back == nullptr) {
      to.front = op;
    } else {
      static_cast<operation*>(to.back)->next = op;
    }
    to.back = op;
  }
  void* take(parked_work& from) noexcept override {
    auto* const op = static_cast<operation*>(from.front);
    from.front = op->next;
    if (from.front == nullptr) from.back = nullptr;
    return op;
  }
  std::uint32_t first_number(const parked_work& of) const noexcept override {
    return static_cast<operation*>(of.front)->number;
  }
  void read_queue(queue_reader&) noexcept override { while_it_is_read(); }

  std::function<void()> while_it_is_read = [] {};
};

options per_task() {
  options o;
  o.order = handler_order::per_task;
  o.watchdog = false;
  return o;
}

// In a turn of the driver the task with the least CPU time is determined twice. Another worker may
// charge that task in between.
TEST(parking, a_task_that_is_charged_while_it_is_chosen_costs_no_other_its_place) {
  list_port port;
  const core_ref core{new context_core(per_task(), false)};
  counters counted;
  std::atomic<asio_pulse::timing::ticks> calm_until{0};
  parking gate{core->opts(), counted, calm_until};
  gate.connect(&port);
  std::array<task_state*, 3> tasks{};
  for (task_state*& t : tasks) t = core->make_task({.name = "t"});
  std::array<std::array<operation, 2>, 3> operations;
  const auto now = [] { return timing::timebase::get().now(); };
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    gate.defer(*tasks[i]);
    for (operation& op : operations[i]) {
      const parking::outcome o = gate.pass(
          {*tasks[i], op, &op, true, false, hooks::completes::waited, now()}, hooks::this_thread());
      ASSERT_EQ(o.what, parking::verdict::held);
    }
  }
  ASSERT_EQ(gate.parked(), 6U);

  std::size_t turn = 0;
  port.while_it_is_read = [&] {
    tasks[turn++ % tasks.size()]->count_shared(0, timing::to_ticks(std::chrono::seconds{1}));
  };
  std::vector<void*> ran;
  for (int i = 0; i < 1000 && gate.parked() != 0; ++i) {
    if (void* const op = gate.release()) ran.push_back(op);
  }
  EXPECT_THAT(ran, UnorderedElementsAre(&operations[0][0], &operations[0][1], &operations[1][0],
                                        &operations[1][1], &operations[2][0], &operations[2][1]));
  EXPECT_EQ(gate.release(), nullptr);
  gate.connect(nullptr);
  core->close();
  for (task_state* const t : tasks) hooks::release(*t);
}

// The numbers of parked operations say when they were parked. They repeat after about an hour.
TEST(parking, numbers_are_the_time_however_long_nothing_was_parked) {
  list_port port;
  const core_ref core{new context_core(per_task(), false)};
  counters counted;
  std::atomic<asio_pulse::timing::ticks> calm_until{0};
  parking gate{core->opts(), counted, calm_until};
  gate.connect(&port);
  task_state* const t = core->make_task({.name = "t"});
  timing::ticks now = timing::timebase::get().now();
  for (int minutes = 0; minutes != 100; ++minutes) {
    now += timing::to_ticks(std::chrono::minutes{minutes});
    operation op;
    gate.defer(*t);
    const parking::outcome o =
        gate.pass({*t, op, &op, true, false, hooks::completes::waited, now}, hooks::this_thread());
    ASSERT_EQ(o.what, parking::verdict::held);
    EXPECT_EQ(op.number, static_cast<std::uint32_t>(now >> 11)) << "after " << minutes << " min";
    ASSERT_EQ(gate.take_any(), &op);
  }
  gate.connect(nullptr);
  core->close();
  hooks::release(*t);
}

}  // namespace
}  // namespace asio_pulse::detail
