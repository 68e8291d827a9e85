// SPDX-License-Identifier: BSL-1.0

#include "awaiting_chain.hpp"

#include <asio_pulse/detail/awaiting.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

// Coroutines without Asio, with promises in a layout that the test defines.

namespace {

using asio_pulse::detail::awaited_coroutine;
using asio_pulse::detail::captured_stack;
using asio_pulse::detail::find_awaiting;
using testing::ElementsAre;
using testing::IsEmpty;

/// A coroutine's frame: the two functions, then the promise.
struct fake_frame {
  std::uintptr_t body = 0;
  std::uintptr_t destroy = 0;
  std::uintptr_t other = 0x77;
  std::uintptr_t caller = 0;
  std::uintptr_t self = 0;
  std::uintptr_t thread = 0;

  [[nodiscard]] std::uintptr_t address() const { return reinterpret_cast<std::uintptr_t>(this); }
  [[nodiscard]] std::uintptr_t promise() const { return address() + 16; }
};

class awaiting_test : public testing::Test {
 protected:
  void SetUp() override {
    asio_pulse::detail::set_awaitable_layout({.coroutine = 16, .thread = 24, .caller = 8});
    for (std::size_t i = 0; i != frames.size(); ++i) {
      frames[i].body = 0x1000 * (i + 1);
      frames[i].self = frames[i].address();
      frames[i].caller = i + 1 != frames.size() ? frames[i + 1].promise() : 0;
    }
    frames[0].thread = 1;
    words = {3, 0x5000, 17, frames[0].address(), 99};
  }

  awaited_coroutine found() {
    captured_stack stack;
    stack.address = reinterpret_cast<std::uintptr_t>(words.data());
    stack.bytes = std::as_bytes(std::span(words));
    return find_awaiting(stack, bodies);
  }

  std::array<fake_frame, 4> frames;
  std::vector<std::uintptr_t> words;
  std::vector<std::uintptr_t> bodies{0x9000, 0x1000};
};

TEST_F(awaiting_test, follows_the_chain_to_its_end) {
  const awaited_coroutine c = found();
  EXPECT_EQ(c.body, 1U);
  EXPECT_THAT(c.awaiting, ElementsAre(0x2000, 0x3000, 0x4000));
}

TEST_F(awaiting_test, finds_the_frame_in_a_register_too) {
  captured_stack stack;
  stack.registers[2] = frames[0].address();
  EXPECT_THAT(find_awaiting(stack, bodies).awaiting, ElementsAre(0x2000, 0x3000, 0x4000));
}

TEST_F(awaiting_test, of_a_root_is_empty) {
  frames[0].caller = 0;
  EXPECT_THAT(found().awaiting, IsEmpty());
}

TEST_F(awaiting_test, asks_for_a_body_that_is_on_the_stack) {
  bodies = {0x9000};
  EXPECT_THAT(found().awaiting, IsEmpty());
  bodies.clear();
  EXPECT_THAT(found().awaiting, IsEmpty());
}

TEST_F(awaiting_test, does_not_believe_a_promise_that_knows_another_frame) {
  frames[0].self = frames[1].address();
  EXPECT_THAT(found().awaiting, IsEmpty());
}

TEST_F(awaiting_test, does_not_believe_a_frame_that_does_not_run) {
  // As a pointer that an earlier poll left behind.
  frames[0].thread = 0;
  EXPECT_THAT(found().awaiting, IsEmpty());
}

TEST_F(awaiting_test, ends_where_a_caller_runs_or_knows_another_frame) {
  frames[2].thread = 1;
  EXPECT_THAT(found().awaiting, ElementsAre(0x2000));
  frames[2].thread = 0;
  frames[2].self = frames[0].address() - 4096;
  EXPECT_THAT(found().awaiting, ElementsAre(0x2000));
}

TEST_F(awaiting_test, ends_where_nothing_is_mapped) {
  frames[1].caller = 0x10;
  EXPECT_THAT(found().awaiting, ElementsAre(0x2000));
}

TEST_F(awaiting_test, of_a_circle_ends) {
  frames[3].caller = frames[1].promise();
  EXPECT_THAT(found().awaiting, testing::SizeIs(64));
}

TEST_F(awaiting_test, of_nonsense_is_short_and_harmless) {
  words.clear();
  std::uintptr_t x = 88172645463325252U;
  for (int i = 0; i != 8192; ++i) {
    x ^= x << 13U;
    x ^= x >> 7U;
    x ^= x << 17U;
    words.push_back(i % 2 == 0 ? x : x % (std::uintptr_t{1} << 47));
  }
  EXPECT_THAT(found().awaiting, IsEmpty());
}

}  // namespace
