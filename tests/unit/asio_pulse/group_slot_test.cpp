// SPDX-License-Identifier: BSL-1.0
//
// The group that a task is in, as seen by what must not wait; and the end of a scope on another thread.
#include "groups/task_groups.hpp"

#include <asio_pulse/detail/group_slot.hpp>
#include <asio_pulse/detail/task_ref.hpp>
#include <asio_pulse/io_context.hpp>
#include <asio_pulse/task.hpp>
#include <asio_pulse/task_group.hpp>

#include <gtest/gtest.h>

#include <optional>
#include <thread>

namespace {

using asio_pulse::group_ref;
using asio_pulse::detail::group_slot;
using asio_pulse::detail::group_state;
using asio_pulse::detail::label_scope;

TEST(group_slots, are_read_at_once_without_a_reference_and_not_while_somebody_has_the_lock) {
  asio_pulse::io_context io;
  const asio_pulse::task_group first(io), second(io);
  const group_ref as_first = first, as_second = second;
  group_slot slot;
  slot.begin(first);
  const group_state* seen = nullptr;
  EXPECT_TRUE(slot.with_at_once([&](const group_state* g) { seen = g; }));
  EXPECT_EQ(seen, as_first.get());
  EXPECT_TRUE(slot.exchange(second, [] { return true; }) == as_first);
  const auto references = as_second.get()->references.load();
  EXPECT_TRUE(slot.with_at_once([&](const group_state* g) {
    seen = g;
    EXPECT_EQ(g->references.load(), references);
  }));
  EXPECT_EQ(seen, as_second.get());
  bool called = false;
  (void)slot.exchange(first, [&] {  // called with the lock
    EXPECT_FALSE(slot.with_at_once([&](const group_state*) { called = true; }));
    return true;
  });
  EXPECT_FALSE(called);
  EXPECT_TRUE(slot.now() == as_first);
}

TEST(label_scopes, one_ends_on_another_thread_than_it_began_on) {
  asio_pulse::io_context io;
  const asio_pulse::task t(io, {.name = "t"});
  const asio_pulse::task_scope here(t);
  std::optional<label_scope> moved;
  std::thread([&] { moved.emplace(nullptr); }).join();  // it has ended
  EXPECT_NE(asio_pulse::hooks::this_thread().current, nullptr);
  moved.reset();
  EXPECT_EQ(asio_pulse::hooks::this_thread().current, nullptr) << "as it was where the scope began";
}

}  // namespace
