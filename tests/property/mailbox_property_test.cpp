// SPDX-License-Identifier: BSL-1.0
//
// Random schedules of senders and of a receiver, step by step on one thread, with the library's
// mailboxes and sleep flag: order for each pair, nothing lost, bounded, no wake-up lost. What
// processors may reorder is not covered here; see the stress in mailbox_test.cpp.
#include <asio_pulse/detail/shards/mailbox.hpp>

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <random>
#include <vector>

namespace {

using asio_pulse::detail::mailbox;
using asio_pulse::detail::sleep_flag;

struct sender {
  explicit sender(std::size_t capacity) : box(capacity) {}
  mailbox<std::uint32_t> box;
  std::deque<std::uint32_t> sent;  ///< stable addresses
  std::uint32_t received = 0;
  bool pushed = false;  ///< and has not yet looked whether it must wake
};

/// The receiver's steps, as in shard_state::drive().
enum class at { waiting, looking, falling, checking, deciding };

class model {
 public:
  model(std::uint64_t seed, std::size_t senders, std::size_t capacity)
      : random_(seed), capacity_(capacity) {
    for (std::size_t i = 0; i != senders; ++i) {
      senders_.push_back(std::make_unique<sender>(capacity));
    }
  }

  void run(int steps) {
    for (int i = 0; i != steps; ++i) {
      const std::size_t who = pick(senders_.size() + 1);
      if (who == senders_.size()) {
        receive();
      } else {
        send(*senders_[who], true);
      }
      if (testing::Test::HasFatalFailure()) return;
    }
    // The senders finish what they have begun. Then the receiver alone has to find everything.
    for (const auto& s : senders_) send(*s, false);
    for (int i = 0; i != 100000 && (at_ != at::waiting || posted_); ++i) receive();
    ASSERT_EQ(at_, at::waiting);
    for (const auto& s : senders_) {
      ASSERT_EQ(s->box.read_available(), 0U) << "the receiver sleeps beside a message";
      ASSERT_EQ(s->received, s->sent.size()) << "messages were lost";
    }
    ASSERT_FALSE(posted_);
  }

  int refused = 0;
  int wakes = 0;
  int slept = 0;

 private:
  std::size_t pick(std::size_t end) {
    return std::uniform_int_distribution<std::size_t>(0, end - 1)(random_);
  }

  void post_driver() {
    ASSERT_FALSE(posted_) << "the driver is in the queue twice";
    posted_ = true;
  }

  void send(sender& s, bool more) {
    if (s.pushed) {
      s.pushed = false;
      if (flag_.must_wake()) {
        ++wakes;
        post_driver();
      }
      return;
    }
    if (!more) return;
    s.sent.push_back(static_cast<std::uint32_t>(s.sent.size()));
    if (s.box.push(&s.sent.back())) {
      s.pushed = true;
    } else {
      ++refused;
      s.sent.pop_back();
      ASSERT_EQ(s.box.read_available(), capacity_) << "refused although there was room";
    }
    ASSERT_LE(s.box.read_available(), capacity_);
  }

  void receive() {
    switch (at_) {
      case at::waiting:
        if (!posted_) return;
        posted_ = false;
        at_ = at::looking;
        return;
      case at::looking: {
        bool found = false;
        for (const auto& s : senders_) {
          std::uint32_t* m = nullptr;
          while (pick(8) != 0 && s->box.pop(m)) {  // sometimes it does not see all
            ASSERT_EQ(*m, s->received++) << "out of order";
            found = true;
          }
        }
        if (!found) at_ = at::falling;
        return;
      }
      case at::falling:
        flag_.fall_asleep();
        ++slept;
        at_ = at::checking;
        return;
      case at::checking: {
        bool empty = true;
        for (const auto& s : senders_) empty = empty && s->box.read_available() == 0;
        at_ = empty ? at::waiting : at::deciding;
        return;
      }
      case at::deciding:
        at_ = flag_.stay_awake() ? at::looking : at::waiting;
        return;
    }
  }

  std::mt19937_64 random_;
  std::size_t capacity_;
  std::vector<std::unique_ptr<sender>> senders_;
  sleep_flag flag_;
  at at_ = at::waiting;
  bool posted_ = false;
};

TEST(mailbox_property, random_schedules) {
  int refused = 0;
  int wakes = 0;
  int slept = 0;
  for (std::uint64_t seed = 0; seed != 2000; ++seed) {
    SCOPED_TRACE(seed);
    model m(seed, 1 + seed % 5, 1 + seed % 7);
    m.run(300);
    if (HasFatalFailure()) return;
    refused += m.refused;
    wakes += m.wakes;
    slept += m.slept;
  }
  // The schedules reach what they are meant to reach.
  EXPECT_GT(refused, 1000);
  EXPECT_GT(wakes, 1000);
  EXPECT_GT(slept, wakes / 2);
}

}  // namespace
