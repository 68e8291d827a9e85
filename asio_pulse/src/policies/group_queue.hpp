// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "load_soon.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <span>
#include <utility>

namespace asio_pulse::detail {

/// Objects that wait, each with a key, the one with the least key at the front. Keys are finite.
///
/// With thousands of them, a tree of the objects themselves reads the memory of one after the other, and
/// waits for each. Here the keys are beside each other: a tournament in which eight keys, a cache line, have
/// one winner, and eight winners the next one. Where a key's matches are follows from its place, so the
/// loads do not wait for each other, and the least of eight is found without a branch. The next few objects
/// are kept apart, in order: their memory is loaded ahead of their turns.
///
/// `T` has a member `std::uint32_t queue_place`, which is nowhere at first and belongs to the queue.
///
/// \par Cost    push(), erase() and change() are O(log n), to the base 8. make_room() copies what waits
///              when it is the first of a quarter more.
/// \par Source  Knuth, The Art of Computer Programming, volume 3, 5.4.1: trees of winners. Sanders, "Fast
///              Priority Queues for Cached Memory" (2000): a buffer of the least ones in front of the rest.
template <class T>
class group_queue {
 public:
  static constexpr std::uint32_t nowhere = ~std::uint32_t{0};

  group_queue() noexcept = default;
  group_queue(const group_queue&) = delete;
  group_queue& operator=(const group_queue&) = delete;

  [[nodiscard]] bool empty() const noexcept { return in_order_ == 0; }

  /// Whether there is room for one more, which is made if possible.
  [[nodiscard]] bool make_room() noexcept {
    if (rest_ < capacity_ || (rest_ == 0 && in_order_ < next_.size())) return true;
    return grow(std::max(fan, (capacity_ + capacity_ / 4 + fan - 1) / fan * fan));
  }

  /// \pre  make_room() has returned true, and nothing was added since.
  void push(T& t, double key) noexcept {
    // What is equal waits behind what was there before.
    if (in_order_ != 0 && key < next_[in_order_ - 1].key) {
      if (in_order_ == next_.size()) {
        const entry last = next_[--in_order_];
        add_to_rest(*last.what, last.key);
      }
      insert(t, key);
    } else if (rest_ == 0 && in_order_ < next_.size()) {
      insert(t, key);
    } else {
      add_to_rest(t, key);
    }
  }

  void erase(T& t) noexcept {
    const std::uint32_t place = std::exchange(t.queue_place, nowhere);
    if (place != in_order) return take_out(place);
    const auto end = next_.begin() + in_order_;
    const auto found =
        std::find_if(next_.begin(), end, [&t](const entry& e) { return e.what == &t; });
    std::move(found + 1, end, found);
    --in_order_;
    refill();
  }

  void change(T& t, double key) noexcept {
    erase(t);
    push(t, key);
  }

  /// \pre  !empty()
  [[nodiscard]] T& front() const noexcept { return *next_[0].what; }
  /// The one at position `at`, or null if it is not among the next few.
  [[nodiscard]] T* next(std::size_t at) const noexcept {
    return at < in_order_ ? next_[at].what : nullptr;
  }

 private:
  static constexpr std::uint32_t fan_bits = 3;
  static constexpr std::uint32_t fan = 1U << fan_bits;
  static constexpr std::uint32_t in_order = nowhere - 1;
  static constexpr std::size_t most_levels = 12;  // 8^11 is more than 2^32
  static constexpr double no_key = std::numeric_limits<double>::infinity();
  struct entry {
    double key;
    T* what;
  };
  struct alignas(64) line {
    std::array<double, fan> keys;
  };
  union slot {
    T* what;
    std::uint32_t next_free;
  };

  // ---- the next few. Their keys are no greater than those of the rest, of which there is none if they
  // are fewer than could be.

  void insert(T& t, double key) noexcept {
    std::uint32_t at = in_order_++;
    for (; at != 0 && key < next_[at - 1].key; --at) next_[at] = next_[at - 1];
    next_[at] = {key, &t};
    t.queue_place = in_order;
  }

  void refill() noexcept {
    if (rest_ == 0) return;
    std::uint32_t least = 0;
    for (std::uint32_t level = used_levels_; level-- != 0;)
      least = least * fan + winner(line_of(level, least * fan));
    T& t = *places_[least].what;
    next_[in_order_++] = {key(0, least), &t};
    take_out(least);
    t.queue_place = in_order;
    load_soon(&t);
  }

  // ---- the rest

  [[nodiscard]] line& line_of(std::uint32_t level, std::uint32_t at) const noexcept {
    return lines_[starts_[level] + at / fan];
  }
  [[nodiscard]] double& key(std::uint32_t level, std::uint32_t at) const noexcept {
    return line_of(level, at).keys[at % fan];
  }
  // By value: with std::min(), GCC 12 makes branches of it.
  [[nodiscard]] static double lesser(double a, double b) noexcept { return a < b ? a : b; }
  [[nodiscard]] static double least_of(const line& l) noexcept {
    const auto& k = l.keys;
    return lesser(lesser(lesser(k[0], k[1]), lesser(k[2], k[3])),
                  lesser(lesser(k[4], k[5]), lesser(k[6], k[7])));
  }
  [[nodiscard]] static std::uint32_t winner(const line& l) noexcept {
    const double least = least_of(l);
    return [&]<std::size_t... I>(std::index_sequence<I...>) {
      const unsigned equal = ((static_cast<unsigned>(l.keys[I] == least) << I) | ...);
      return static_cast<std::uint32_t>(std::countr_zero(equal));
    }
    (std::make_index_sequence<fan>{});
  }

  void add_to_rest(T& t, double its_key) noexcept {
    const std::uint32_t at = first_free_ != nowhere
                                 ? std::exchange(first_free_, places_[first_free_].next_free)
                                 : used_places_++;
    places_[at].what = &t;
    t.queue_place = at;
    ++rest_;
    for (; at / fan >> fan_bits * (used_levels_ - 1) != 0; ++used_levels_)
      key(used_levels_, 0) = least_of(line_of(used_levels_ - 1, 0));
    set(at, its_key);
  }

  void take_out(std::uint32_t at) noexcept {
    places_[at].next_free = std::exchange(first_free_, at);
    --rest_;
    set(at, no_key);
    if (rest_ != 0) return;
    // The few that wait next need few matches, however many have waited before.
    first_free_ = nowhere;
    used_places_ = 0;
    used_levels_ = 1;
  }

  void set(std::uint32_t at, double its_key) noexcept {
    key(0, at) = its_key;
    play(at);
  }

  // The matches of a key that has changed, up to one that has the same winner as before.
  void play(std::uint32_t at) noexcept {
    for (std::uint32_t level = 0; level + 1 != used_levels_; ++level) {
      const double least = least_of(line_of(level, at));
      at /= fan;
      double& above = key(level + 1, at);
      if (above == least) return;
      above = least;
    }
  }

  [[nodiscard]] bool grow(std::uint32_t capacity) noexcept {
    std::array<std::uint32_t, most_levels> starts{};
    std::uint32_t levels = 0;
    std::uint32_t lines = 0;
    for (std::uint32_t n = capacity; levels == 0 || n != 1;) {
      starts[levels++] = lines;
      n = (n + fan - 1) / fan;
      lines += n;
    }
    std::unique_ptr<line[]> made(new (std::nothrow) line[lines]);
    std::unique_ptr<slot[]> places(new (std::nothrow) slot[capacity]);
    if (made == nullptr || places == nullptr) return false;
    for (std::uint32_t i = 0; i != lines; ++i) made[i].keys.fill(no_key);
    // All places are taken, and by that all levels are used.
    for (std::uint32_t i = 0; i != capacity_; ++i) {
      made[i / fan].keys[i % fan] = key(0, i);
      places[i] = places_[i];
    }
    lines_ = std::move(made);
    places_ = std::move(places);
    starts_ = starts;
    used_levels_ = levels;
    for (std::uint32_t i = 0; i < capacity_; i += fan) play(i);
    capacity_ = capacity;
    return true;
  }

  std::array<entry, 8> next_;  ///< in order
  std::uint32_t in_order_ = 0;
  std::uint32_t rest_ = 0;
  std::uint32_t capacity_ = 0;  ///< of the rest
  // Since the rest was empty:
  std::uint32_t used_levels_ = 1;
  std::uint32_t used_places_ = 0;
  std::uint32_t first_free_ = nowhere;               ///< of these
  std::array<std::uint32_t, most_levels> starts_{};  ///< the first line of each level
  std::unique_ptr<line[]> lines_;
  std::unique_ptr<slot[]> places_;
};

}  // namespace asio_pulse::detail
