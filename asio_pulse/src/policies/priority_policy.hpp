// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "turn_policy.hpp"

#include <algorithm>
#include <array>
#include <cstddef>

/// \file
/// The most urgent class first, with aging.
///
/// In a class the task that has waited longest is first. A task that has waited for `aging`, whatever
/// its class, goes before all classes, but such turns get at most an eighth of the CPU time, unless
/// nothing more urgent waits. Without that limit an overload would make every task wait for `aging`,
/// and then they would be served in the order of their arrival.
///
/// So each task is served after aging + 8 (k + 1) L at the latest, where k is the number of tasks that
/// have waited for longer, and L the longest poll: before each aged turn others are served for at most
/// seven times as long as the last one took. (On one thread; on several, L is the longest poll of all.)
/// The property test asserts it for every task.

namespace asio_pulse::detail {

class priority_policy final : public turn_policy {
 public:
  static constexpr std::size_t classes = 8;
  /// For each tick of an aged turn, others that wait get this many first.
  static constexpr timing::ticks others_get = 7;

  explicit priority_policy(timing::ticks aging) noexcept : aging_(aging) {}

  void add(turn& t, timing::ticks now) noexcept override {
    t.since = now;
    classes_[t.priority].push_back(t);
    all_.push_back(t);
  }

  void remove(turn& t, timing::ticks now) noexcept override {
    t.left = now;
    auto& c = classes_[t.priority];
    c.erase(c.iterator_to(t));
    all_.erase(all_.iterator_to(t));
  }

  choice next(timing::ticks now) noexcept override {
    if (all_.empty()) return {};
    std::size_t top = classes - 1;
    while (classes_[top].empty()) --top;
    turn& urgent = classes_[top].front();
    turn& oldest = all_.front();
    const bool aged = now - std::min(oldest.since, now) >= aging_;
    if (aged && owed_ == 0 && oldest.priority < top) return {&oldest, aged_turn};
    return {&urgent, 0};
  }

  void served(mark what, timing::ticks cost) noexcept override {
    if (what == aged_turn) {
      owed_ += others_get * cost;
    } else {
      owed_ -= std::min(owed_, cost);
    }
  }

 private:
  static constexpr mark aged_turn = 1;

  const timing::ticks aging_;
  timing::ticks owed_ = 0;  ///< what others get before the next aged turn
  std::array<turn_list<in_class>, classes> classes_;
  turn_list<by_age> all_;
};

}  // namespace asio_pulse::detail
