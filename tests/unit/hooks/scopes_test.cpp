// SPDX-License-Identifier: BSL-1.0

// What a scope has changed on a thread is restored on the thread where its handler goes on; and the lock
// that is taken without waiting.

#include <asio_pulse/hooks/locked_word.hpp>
#include <asio_pulse/hooks/poll_path.hpp>

#include <gtest/gtest.h>

#include <optional>
#include <thread>

namespace {

using asio_pulse::hooks::location_scope;
using asio_pulse::hooks::location_taken_along;
using asio_pulse::hooks::locked_word;
using asio_pulse::hooks::this_thread;

TEST(location_scopes, one_ends_on_another_thread_than_it_began_on) {
  const std::uintptr_t before = this_thread().where;
  {
    const location_scope here("here.cpp", 1, "f");
    std::optional<location_scope> moved;
    std::thread([&] { moved.emplace("there.cpp", 2, "g"); }).join();  // it has ended
    EXPECT_NE(this_thread().where, 0U);
    moved.reset();
    EXPECT_EQ(this_thread().where, 0U) << "as it was where the scope began";
  }
  EXPECT_EQ(this_thread().where, before);
}

TEST(location_scopes, a_handler_that_is_suspended_takes_its_location_along) {
  const location_scope here("here.cpp", 3, "f");
  const std::uintptr_t mine = this_thread().where;
  std::optional<location_taken_along> suspended(std::in_place);
  EXPECT_EQ(this_thread().where, 0U);
  std::thread([&] {
    suspended.reset();
    EXPECT_EQ(this_thread().where, mine);
    this_thread().where = 0;
  }).join();
  EXPECT_EQ(this_thread().where, 0U);
}

TEST(locked_words, are_locked_without_waiting_if_nobody_has_the_lock) {
  locked_word word;
  std::uintptr_t seen = 1;
  ASSERT_TRUE(word.try_lock(seen));
  EXPECT_EQ(seen, 0U);
  seen = 7;
  EXPECT_FALSE(word.try_lock(seen));
  EXPECT_EQ(seen, 7U);
  word.unlock(64);
  ASSERT_TRUE(word.try_lock(seen));
  EXPECT_EQ(seen, 64U);
  word.unlock(seen);
  EXPECT_EQ(word.lock(), 64U);
  word.unlock(0);
}

}  // namespace
