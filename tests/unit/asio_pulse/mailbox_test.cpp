// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/detail/shards/mailbox.hpp>
// Included first, to check that the header is self-contained.

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace {

using asio_pulse::detail::mailbox;
using asio_pulse::detail::sleep_flag;

struct item {
  std::size_t sender = 0;
  std::uint32_t number = 0;
  std::uint64_t payload = 0;  // written by the sender, without an atomic
};

TEST(mailbox, holds_what_it_was_made_for) {
  mailbox<int> box(3);
  std::array<int, 4> values{};
  for (std::size_t i = 0; i != 3; ++i) EXPECT_TRUE(box.push(&values[i]));
  EXPECT_EQ(box.write_available(), 0U);
  EXPECT_FALSE(box.push(&values[3]));
  int* out = nullptr;
  ASSERT_TRUE(box.pop(out));
  EXPECT_EQ(out, &values[0]);
  EXPECT_TRUE(box.push(&values[3]));
}

TEST(sleep_flag, one_of_several_senders_posts_the_driver) {
  sleep_flag flag;
  EXPECT_TRUE(flag.must_wake()) << "a new receiver is asleep";
  EXPECT_FALSE(flag.must_wake());
  flag.fall_asleep();
  EXPECT_TRUE(flag.stay_awake());
  EXPECT_FALSE(flag.must_wake()) << "the driver is still posted";
  flag.fall_asleep();
  EXPECT_TRUE(flag.must_wake());
  EXPECT_FALSE(flag.stay_awake()) << "the sender posts it";
}

/// Senders and a receiver that sleeps on an atomic until it is woken: a wake-up that is lost is a
/// test that hangs. The mailboxes are small, so that they are often full and often empty.
class stress : public testing::TestWithParam<std::size_t> {
 protected:
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  static constexpr std::uint32_t each = 20000;
#else
  static constexpr std::uint32_t each = 100000;
#endif
  static constexpr std::size_t capacity = 4;

  struct line {
    alignas(128) mailbox<item> box{capacity};
  };

  // Stands for Asio: posting the driver wakes the receiver's thread.
  void post_driver() {
    posted.fetch_add(1);
    posted.notify_one();
  }

  void send(std::size_t n) {
    for (std::uint32_t i = 0; i != each; ++i) {
      auto* const m = new item{n, i, i * std::uint64_t{3}};
      while (!boxes[n]->box.push(m)) std::this_thread::yield();
      if (flag.must_wake()) post_driver();
      if (i % 64 == 0) std::this_thread::yield();  // let the receiver fall asleep
    }
  }

  void receive() {
    std::vector<std::uint32_t> next(boxes.size());
    std::size_t left = boxes.size() * each;
    while (left != 0) {
      posted.wait(0);
      ASSERT_EQ(posted.exchange(0), 1U) << "the driver was posted twice";
      for (bool awake = true; awake;) {
        std::size_t found = 0;
        for (const auto& b : boxes) {
          item* m = nullptr;
          while (b->box.pop(m)) {
            const std::unique_ptr<item> owned(m);
            ASSERT_EQ(m->number, next[m->sender]++);
            ASSERT_EQ(m->payload, m->number * std::uint64_t{3});
            ++found;
          }
        }
        left -= found;
        if (found != 0) continue;
        flag.fall_asleep();
        bool empty = true;
        for (const auto& b : boxes) empty = empty && b->box.read_available() == 0;
        awake = !empty && flag.stay_awake();
      }
    }
  }

  std::vector<std::unique_ptr<line>> boxes;
  sleep_flag flag;
  std::atomic<unsigned> posted{0};
};

TEST_P(stress, every_message_arrives_once_in_order_and_no_wake_up_is_lost) {
  for (std::size_t n = 0; n != GetParam(); ++n) boxes.push_back(std::make_unique<line>());
  std::vector<std::thread> senders;
  for (std::size_t n = 0; n != GetParam(); ++n) senders.emplace_back([this, n] { send(n); });
  receive();
  for (std::thread& t : senders) t.join();
}
INSTANTIATE_TEST_SUITE_P(senders, stress, testing::Values(1, 3), testing::PrintToStringParamName());

}  // namespace
