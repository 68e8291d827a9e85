// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "turn_policy.hpp"

#include <cstdint>
#include <utility>

namespace asio_pulse::detail {

/// The turns that wait, the one that comes first at the front: a leftist heap. It is one pointer, so a
/// group in which nothing waits needs little memory.
///
/// `Key` is a member of turn. Of turns with the same key the one that was added first comes first.
///
/// \par Cost    push() and erase() are O(log n), also at the worst.
/// \par Source  Crane, "Linear Lists and Priority Queues as Balanced Binary Trees" (1972); Knuth, The Art
///              of Computer Programming, volume 3, 5.2.3.
template <auto Key>
class turn_heap {
 public:
  turn_heap() noexcept = default;
  turn_heap(const turn_heap&) = delete;
  turn_heap& operator=(const turn_heap&) = delete;

  [[nodiscard]] bool empty() const noexcept { return top_ == nullptr; }
  /// \pre  !empty()
  [[nodiscard]] turn& front() const noexcept { return *top_; }

  /// turn::since must be set.
  void push(turn& t) noexcept {
    static_cast<heap_node&>(t) = {.rank = 1};
    top_ = merged(top_, &t);
  }

  void erase(turn& t) noexcept {
    turn* above = t.above;
    turn* const rest = merged(t.more, t.less);
    if (rest != nullptr) rest->above = above;
    if (above == nullptr) {
      top_ = rest;
      return;
    }
    (above->more == &t ? above->more : above->less) = rest;
    for (; above != nullptr && straightened(*above); above = above->above) {
    }
  }

 private:
  static bool before(const turn& a, const turn& b) noexcept {
    return a.*Key != b.*Key ? a.*Key < b.*Key : a.since < b.since;
  }
  static std::uint32_t rank(const turn* t) noexcept { return t != nullptr ? t->rank : 0; }

  // Restores the order of the branches. Returns whether the rank has changed.
  static bool straightened(turn& t) noexcept {
    if (rank(t.more) < rank(t.less)) std::swap(t.more, t.less);
    return std::exchange(t.rank, 1 + rank(t.less)) != t.rank;
  }

  // Recursive: as deep as the two ranks, which are at most log2(n + 1).
  static turn* merged(turn* a, turn* b) noexcept {
    if (a == nullptr || b == nullptr) return a != nullptr ? a : b;
    if (before(*b, *a)) std::swap(a, b);
    a->less = merged(a->less, b);
    a->less->above = a;
    (void)straightened(*a);
    return a;
  }

  turn* top_ = nullptr;
};

}  // namespace asio_pulse::detail
