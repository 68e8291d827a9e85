// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/detail/published_value.hpp>

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace {

using asio_pulse::detail::published_value;

struct odd_sized {
  std::array<std::uint64_t, 7> numbers{};
  std::uint16_t last = 0;
};

odd_sized of(std::uint64_t n) {
  odd_sized v;
  v.numbers.fill(n);
  v.last = static_cast<std::uint16_t>(n);
  return v;
}

TEST(published_value, is_what_was_set_last) {
  published_value<odd_sized> value{of(1)};
  EXPECT_EQ(value.get().numbers.front(), 1U);
  for (std::uint64_t n = 2; n < 20; ++n) {
    value.set(of(n));
    EXPECT_EQ(value.get().numbers.back(), n);
    EXPECT_EQ(value.get().last, n);
  }
}

TEST(published_value, readers_see_whole_values_and_never_an_older_one) {
  constexpr std::uint64_t values = 200'000;
  published_value<odd_sized> value{of(0)};
  std::atomic<bool> torn{false};
  std::atomic<bool> back{false};
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&] {
      std::uint64_t before = 0;
      while (before < values) {
        const odd_sized now = value.get();
        for (const std::uint64_t n : now.numbers) {
          if (n != now.numbers.front()) torn = true;
        }
        if (now.last != static_cast<std::uint16_t>(now.numbers.front())) torn = true;
        if (now.numbers.front() < before) back = true;
        before = now.numbers.front();
      }
    });
  }
  for (std::uint64_t n = 1; n <= values; ++n) value.set(of(n));
  for (std::thread& t : readers) t.join();
  EXPECT_FALSE(torn);
  EXPECT_FALSE(back);
}

}  // namespace
