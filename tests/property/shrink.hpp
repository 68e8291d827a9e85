// SPDX-License-Identifier: BSL-1.0
//
// What the property tests share: a generator, and a runner that prints the seed and the shortest
// event sequence that it can find for a broken property.

#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

namespace asio_pulse_test {

/// splitmix64 (Steele, Lea, Flood 2014): the same sequence on every standard library.
class generator {
 public:
  explicit generator(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15U);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
  }

  /// From 0 to n - 1.
  std::uint64_t below(std::uint64_t n) { return next() % n; }
  bool chance(std::uint64_t percent) { return below(100) < percent; }

  /// Any order of magnitude is as likely as any other.
  std::uint64_t any_size() { return next() >> below(64); }

 private:
  std::uint64_t state_;
};

/// Seeds: 0 up to `count`, or the single one in ASIO_PULSE_SEED, to look at one again.
inline std::vector<std::uint64_t> seeds(std::uint64_t count) {
  if (const char* one = std::getenv("ASIO_PULSE_SEED")) {
    return {std::strtoull(one, nullptr, 0)};
  }
  std::vector<std::uint64_t> result;
  for (std::uint64_t i = 0; i < count; ++i) {
    result.push_back(i);
  }
  return result;
}

/// Runs `check` (empty: holds; else what is wrong) on each seed's sequence. For the first that
/// breaks, leaves out events as long as it stays broken, and prints what remains.
template <typename Event>
void for_all(std::uint64_t count, const std::function<std::vector<Event>(generator&)>& make,
             const std::function<std::string(std::uint64_t, const std::vector<Event>&)>& check) {
  for (const std::uint64_t seed : seeds(count)) {
    generator random{seed};
    std::vector<Event> events = make(random);
    std::string fault = check(seed, events);
    if (fault.empty()) {
      continue;
    }
    for (std::size_t chunk = events.size(); chunk > 0; chunk /= 2) {
      for (std::size_t at = 0; at + chunk <= events.size();) {
        std::vector<Event> fewer = events;
        const auto first = fewer.begin() + static_cast<std::ptrdiff_t>(at);
        fewer.erase(first, first + static_cast<std::ptrdiff_t>(chunk));
        if (std::string still = check(seed, fewer); !still.empty()) {
          events = std::move(fewer);
          fault = std::move(still);
        } else {
          at += chunk;
        }
      }
    }
    std::ostringstream text;
    text << "seed " << seed << " (again: ASIO_PULSE_SEED=" << seed << "): " << fault << "\n"
         << events.size() << " events:\n";
    for (const Event& e : events) {
      text << "  " << e << "\n";
    }
    FAIL() << text.str();
  }
}

}  // namespace asio_pulse_test
