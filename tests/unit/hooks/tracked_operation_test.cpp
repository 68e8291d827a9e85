// SPDX-License-Identifier: BSL-1.0

// What every operation carries, and when it is put back.

#include <asio_pulse/hooks/poll_path.hpp>
//
#include "poll_path_fakes.hpp"

#include <memory>
#include <thread>

namespace {

using namespace hooks_test;

class tracked_operation_test : public testing::Test {
 protected:
  tracked_operation_test() { make_known(&scheduler, arbiter); }
  ~tracked_operation_test() override {
    EXPECT_EQ(this_thread().current, nullptr);
    EXPECT_EQ(references(a), 1U);
    EXPECT_EQ(references(b), 1U);
  }
  asio_pulse::timing::manual_clock time;
  fake_arbiter arbiter{time};
  task_record a{arbiter};
  task_record b{arbiter};
  char scheduler = 0;
};

TEST_F(tracked_operation_test, is_eight_bytes_and_starts_with_the_task_in_force) {
  static_assert(sizeof(operation) == 8);
  const operation none;
  EXPECT_EQ(none.task(), nullptr);
  EXPECT_EQ(none.word(), 0U);
  const operation one = operation_of(&a);
  EXPECT_EQ(one.task(), &a);
  EXPECT_EQ(references(a), 2U);
  EXPECT_EQ(references(b), 1U);
}

TEST_F(tracked_operation_test, a_copy_has_a_reference_of_its_own) {
  auto first = std::make_unique<operation>(operation_of(&a));
  first->set(tracked_operation::accepts);
  const operation second(*first);
  EXPECT_EQ(references(a), 3U);
  EXPECT_EQ(second.task(), &a);
  EXPECT_TRUE(second.has(tracked_operation::accepts));
  first.reset();
  EXPECT_EQ(references(a), 2U);
}

TEST_F(tracked_operation_test, flags_leave_the_task_alone) {
  operation op = operation_of(&a);
  constexpr std::uintptr_t all[] = {tracked_operation::accepts, tracked_operation::held_once,
                                    tracked_operation::released, tracked_operation::resumes,
                                    tracked_operation::names};
  for (const auto flag : all) EXPECT_FALSE(op.has(flag));
  for (const auto flag : all) op.set(flag);
  for (const auto flag : all) EXPECT_TRUE(op.has(flag));
  EXPECT_EQ(op.task(), &a);
}

TEST_F(tracked_operation_test, take_hands_the_reference_over) {
  operation op = operation_of(&a);
  task_record* const taken = tracked_operation::task_in(op.take());
  EXPECT_EQ(taken, &a);
  EXPECT_EQ(op.task(), nullptr);
  EXPECT_EQ(references(a), 2U);
  release(*taken);
}

TEST_F(tracked_operation_test, assign_takes_the_callers_reference_and_gives_the_old_one_back) {
  operation op = operation_of(&a);
  op.set(tracked_operation::names);
  acquire(b);
  op.assign(&b);
  EXPECT_EQ(op.task(), &b);
  EXPECT_TRUE(op.has(tracked_operation::names));
  EXPECT_EQ(references(a), 1U);
  EXPECT_EQ(references(b), 2U);
  op.assign(nullptr);
  EXPECT_EQ(references(b), 1U);
}

TEST_F(tracked_operation_test, what_was_never_announced_is_nobodys) {
  const belongs_to scope(&a);
  const location_scope here("asio.ipp", 1, "f");
  const unannounced state;
  EXPECT_EQ(state.word(), 0U);
  EXPECT_EQ(references(a), 1U);
}

TEST_F(tracked_operation_test, carries_the_source_location_in_force) {
  operation op = operation_of(nullptr);
  {
    const location_scope outer("outer.cpp", 7, "f");
    {
      const location_scope inner("inner.cpp", 8, "g");
      const location_scope unknown(nullptr, 0, nullptr);  // changes nothing
      operation here = operation_of(&a);
      EXPECT_EQ(here.task(), &a);
      const poll_frame frame(nullptr, here, handler);
      EXPECT_STREQ(frame.where().file, "inner.cpp");
      EXPECT_EQ(frame.where().line, 8U);
      EXPECT_STREQ(frame.where().function, "g");
    }
    operation here;
    const poll_frame frame(nullptr, here, handler);
    EXPECT_STREQ(frame.where().file, "outer.cpp");
  }
  EXPECT_EQ(op.word(), 0U);
  EXPECT_EQ(operation{}.word(), 0U);
}

TEST_F(tracked_operation_test, the_last_reference_destroys_through_the_arbiter) {
  task_record last(arbiter);
  auto op = std::make_unique<operation>(operation_of(&last));
  release(last);
  EXPECT_TRUE(arbiter.destroyed.empty());
  op.reset();
  EXPECT_EQ(arbiter.destroyed, std::vector<const task_record*>{&last});
}

// ---- references in batches

TEST_F(tracked_operation_test, a_worker_takes_references_in_batches_and_gives_all_of_them_back) {
  {
    const worker_scope worker(&scheduler, arbiter, true);
    std::vector<std::unique_ptr<operation>> made;
    poll(&scheduler, &a, [&] {
      for (int i = 0; i < 200; ++i) made.push_back(std::make_unique<operation>());
    });
    for (const auto& op : made) EXPECT_EQ(op->task(), &a);
    // One for each, the account's, the owner's, and what is left of the last batch.
    EXPECT_GE(references(a), 202U);
    EXPECT_LT(references(a), 202U + 64U);
    const auto before = references(a);
    made.resize(50);  // destroyed without being run
    EXPECT_EQ(references(a), before - 150);
    for (auto& op : made) {
      const poll_frame frame(&scheduler, *op, handler);
      time.run(1us);
    }
    EXPECT_EQ(references(a), before - 150) << "a run operation's reference is the account's";
    poll(&scheduler, &b, [] {});  // another account: this one is closed
    EXPECT_EQ(references(a), 1U);
    EXPECT_EQ(references(b), 2U) << "the account's";
  }
  EXPECT_EQ(polls(a), 51U);
}

TEST_F(tracked_operation_test, a_chain_of_one_tasks_operations_leaves_the_count_alone) {
  const worker_scope worker(&scheduler, arbiter, true);
  expect_chain_leaves_count_alone(&scheduler, a);
}

TEST_F(tracked_operation_test, a_worker_may_keep_more_references_than_32_bits_can_count) {
  {
    const worker_scope worker(&scheduler, arbiter, true);
    poll(&scheduler, &a, [] {});
    // What 2^32 - 3 posts of other threads leave, whose operations this worker polled.
    constexpr std::uint64_t kept = (std::uint64_t{1} << 32) - 3;
    acquire(a, kept);
    this_thread().cached_refs += std::int64_t{kept};
    // Others hold some more, and let go of them.
    std::vector<std::unique_ptr<operation>> others;
    std::thread other([&] {
      for (int i = 0; i < 4; ++i) others.push_back(std::make_unique<operation>(operation_of(&a)));
      others.clear();
    });
    other.join();
    EXPECT_TRUE(arbiter.destroyed.empty()) << "a live task was destroyed";
    EXPECT_EQ(references(a), kept + 2) << "and the owner's and the account's";
  }
  EXPECT_EQ(references(a), 1U);
}

// ---- the gate

TEST_F(tracked_operation_test, the_gate_asks_about_the_turns_of_its_worker_only) {
  operation op = operation_of(&a);
  char other = 0;
  arbiter.holds = true;
  EXPECT_EQ(gate(&scheduler, &op, op, completes::posted, handler), gate_verdict::runs)
      << "a scheduler without an arbiter";
  {
    const worker_scope worker(&scheduler, arbiter, true);
    EXPECT_EQ(gate(&scheduler, &op, op, completes::posted, handler), gate_verdict::held);
    EXPECT_EQ(arbiter.asked, std::vector<void*>{&op});
    arbiter.holds = false;
    EXPECT_EQ(gate(&scheduler, &op, op, completes::posted, handler), gate_verdict::runs);
    EXPECT_EQ(arbiter.asked.size(), 2U);
    EXPECT_EQ(gate(&other, &op, op, completes::posted, handler), gate_verdict::runs)
        << "another scheduler's, between polls";
    poll(&scheduler, &b, [&] {
      EXPECT_EQ(gate(&scheduler, &op, op, completes::posted, handler), gate_verdict::runs)
          << "inside a handler: no turn to give up";
      EXPECT_EQ(arbiter.asked.size(), 2U);
      arbiter.holds = true;
      EXPECT_EQ(gate(&other, &op, op, completes::posted, handler), gate_verdict::held)
          << "a strand's, inside its drain";
      EXPECT_EQ(arbiter.asked.size(), 3U);
    });
    op.set(tracked_operation::released);
    EXPECT_EQ(gate(&scheduler, &op, op, completes::posted, handler), gate_verdict::runs)
        << "it is its turn";
    EXPECT_EQ(arbiter.asked.size(), 3U);
  }
  EXPECT_EQ(gate(&scheduler, &op, op, completes::posted, handler), gate_verdict::runs);
  EXPECT_EQ(arbiter.asked.size(), 3U);
}

// ---- accepted connections

/// An accept that is started while `t` is in force.
unannounced accept_of(task_record* t) {
  const belongs_to scope(t);
  unannounced op;
  accept_created(op);
  return op;
}

TEST_F(tracked_operation_test, an_accept_started_by_a_connection_is_the_listeners) {
  const auto first = accept_of(&a);
  EXPECT_TRUE(first.has(tracked_operation::accepts));
  EXPECT_EQ(first.task(), &a);
  arbiter.listener = &b;
  const auto second = accept_of(&a);
  EXPECT_EQ(second.task(), &b);
  EXPECT_EQ(references(b), 2U);
  const auto none = accept_of(nullptr);
  EXPECT_TRUE(none.has(tracked_operation::accepts));
  EXPECT_EQ(none.task(), nullptr);
}

TEST_F(tracked_operation_test, an_accepts_handler_runs_as_the_new_connections_task) {
  task_record connection(arbiter);
  {
    const worker_scope worker(&scheduler, arbiter, true);
    auto op = accept_of(&a);
    arbiter.newborn = &connection;
    std::unique_ptr<operation> inside;
    {
      const poll_frame frame(&scheduler, op, handler);
      EXPECT_EQ(this_thread().current, &connection);
      EXPECT_EQ(frame.task(), &a) << "the accept itself is the listener's";
      inside = std::make_unique<operation>();
      time.run(5us);
    }
    EXPECT_EQ(inside->task(), &connection);
    EXPECT_EQ(references(connection), 1U) << "the operation's: the frame has given its own back";
    EXPECT_TRUE(arbiter.destroyed.empty());
    inside.reset();
    EXPECT_EQ(arbiter.destroyed, std::vector<const task_record*>{&connection});
  }
  EXPECT_EQ(polls(a), 1U);
  EXPECT_EQ(polls(connection), 0U);
}

}  // namespace
