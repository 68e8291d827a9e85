// SPDX-License-Identifier: BSL-1.0
#include "awaiting_chain.hpp"
#include "stack_copy.hpp"

#include <asio_pulse/detail/awaiting.hpp>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <optional>
#include <utility>

namespace asio_pulse::detail {
namespace {

// The three offsets in one word, with a bit that says that they are known, so that a reader gets
// all of them or none.
constexpr std::uint64_t known = std::uint64_t{1} << 63;
constinit std::atomic<std::uint64_t> packed_layout{0};

// The longest chain of coroutines that is followed. A guess, longer than any that a program has.
constexpr std::size_t deepest = 64;
// How many words of a copied stack are tried. A guess: that takes the watchdog some milliseconds.
constexpr std::size_t most_candidates = 4096;
// In the ABI for coroutines, a frame starts with the addresses of the functions that resume and
// destroy it. The promise follows them, aligned.
constexpr std::uintptr_t promise_at = 2 * sizeof(void*);
constexpr std::uintptr_t furthest_promise = 256;

std::optional<std::uintptr_t> read(std::uintptr_t address) noexcept {
  std::uintptr_t word = 0;
  const auto bytes = std::as_writable_bytes(std::span{&word, 1});
  if (copy_mapped(address, bytes, chosen_memory_reader()) != bytes.size()) return std::nullopt;
  return word;
}

struct promise {
  std::uintptr_t frame;
  std::uintptr_t thread;
  std::uintptr_t caller;
};

std::optional<promise> read_promise(std::uintptr_t at, const awaitable_layout& layout) noexcept {
  const auto frame = read(at + layout.coroutine);
  const auto thread = read(at + layout.thread);
  const auto caller = read(at + layout.caller);
  if (!frame || !thread || !caller) return std::nullopt;
  return promise{.frame = *frame, .thread = *thread, .caller = *caller};
}

bool could_be_frame(std::uintptr_t word, const captured_stack& stack) noexcept {
  constexpr std::uintptr_t first_page = 4096;
  constexpr std::uintptr_t beyond = std::uintptr_t{1} << 56;  // above all addresses of a process
  const bool on_the_stack = word >= stack.address && word - stack.address < stack.bytes.size();
  return word % alignof(void*) == 0 && word >= first_page && word < beyond && !on_the_stack;
}

std::vector<std::uintptr_t> follow(const promise& running, const awaitable_layout& layout) {
  std::vector<std::uintptr_t> bodies;
  for (std::uintptr_t at = running.caller; at != 0 && bodies.size() != deepest;) {
    const auto p = read_promise(at, layout);
    if (!p || p->thread != 0 || p->frame >= at || at - p->frame > furthest_promise) break;
    const auto body = read(p->frame);
    if (!body || *body == 0) break;
    bodies.push_back(*body);
    at = p->caller;
  }
  return bodies;
}

/// Tries the words of a copied stack, each value once.
class search {
 public:
  search(const captured_stack& stack, std::span<const std::uintptr_t> bodies,
         const awaitable_layout& layout)
      : stack_(stack), bodies_(bodies), layout_(layout) {
    tried_.reserve(most_candidates);
  }

  bool found(std::uintptr_t word) {
    if (exhausted() || !could_be_frame(word, stack_)) return false;
    const auto place = std::lower_bound(tried_.begin(), tried_.end(), word);
    if (place != tried_.end() && *place == word) return false;
    tried_.insert(place, word);
    const auto body = read(word);
    const auto known_body = body ? std::find(bodies_.begin(), bodies_.end(), *body) : bodies_.end();
    if (known_body == bodies_.end()) return false;
    const auto p = read_promise(word + promise_at, layout_);
    if (!p || p->frame != word || p->thread == 0) return false;
    result.body = static_cast<std::size_t>(known_body - bodies_.begin());
    result.awaiting = follow(*p, layout_);
    return true;
  }
  [[nodiscard]] bool exhausted() const noexcept { return tried_.size() == most_candidates; }

  awaited_coroutine result;

 private:
  const captured_stack& stack_;
  std::span<const std::uintptr_t> bodies_;
  awaitable_layout layout_;
  std::vector<std::uintptr_t> tried_;  ///< sorted
};

}  // namespace

void set_awaitable_layout(const awaitable_layout& l) noexcept {
  packed_layout.store(known | std::uint64_t{l.coroutine} | std::uint64_t{l.thread} << 16 |
                          std::uint64_t{l.caller} << 32,
                      std::memory_order_relaxed);  // one word, which publishes nothing else
}

awaited_coroutine find_awaiting(const captured_stack& stack,
                                std::span<const std::uintptr_t> bodies) {
  const std::uint64_t packed = packed_layout.load(std::memory_order_relaxed);
  if ((packed & known) == 0 || bodies.empty()) return {};
  const awaitable_layout layout{.coroutine = static_cast<std::uint16_t>(packed),
                                .thread = static_cast<std::uint16_t>(packed >> 16),
                                .caller = static_cast<std::uint16_t>(packed >> 32 & 0x7fff)};
  search s(stack, bodies, layout);
  for (const std::uint64_t r : stack.registers) {
    if (s.found(static_cast<std::uintptr_t>(r))) return std::move(s.result);
  }
  const std::size_t words = stack.bytes.size() / sizeof(std::uintptr_t);
  for (std::size_t i = 0; i != words && !s.exhausted(); ++i) {
    std::uintptr_t word = 0;
    std::memcpy(&word, stack.bytes.data() + i * sizeof word, sizeof word);
    if (s.found(word)) return std::move(s.result);
  }
  return {};
}

}  // namespace asio_pulse::detail
