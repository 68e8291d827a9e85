// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/hooks/poll_recorder.hpp>
#include <asio_pulse/hooks/task_record.hpp>

#include <algorithm>

namespace asio_pulse::hooks {
namespace {

constexpr std::uint64_t coarse = 16;
constexpr unsigned coarse_bits = 10;
constexpr unsigned start_bits = 16;
constexpr unsigned site_bits = 5;
constexpr std::uint64_t longest_value = ~std::uint32_t{0};

constexpr std::uint64_t word_of(poll_recorder::kind what, std::uint64_t site) noexcept {
  return static_cast<std::uint64_t>(what) | site << site_bits;
}

}  // namespace

void poll_recorder::note_batch(bool first, timing::ticks cost) noexcept {
  batch_ = first ? cost : batch_ + cost;
  if (batch_ <= longest_batch_.load(std::memory_order_relaxed)) return;
  longest_batch_.store(batch_, std::memory_order_relaxed);
  batch_key_.store(last_key_, std::memory_order_relaxed);
}

void poll_recorder::note_delay(timing::ticks now, timing::ticks delay,
                               timing::ticks interval) noexcept {
  if (ring_size_ != 0) {
    std::uint64_t word = word_of(kind::queue_delay, no_site);
    timing::ticks length = delay;
    if (length > longest_value) {
      word |= coarse;
      length = std::min<timing::ticks>(length >> coarse_bits, longest_value);
    }
    push(now - std::min(delay, now), word, length << 32);
  }
  for (;;) {
    add(delays_[duration_scale::bucket_of(delay)], 1);
    add(delays_sum_, delay);
    if (interval == 0 || delay < interval) return;
    delay -= interval;
  }
}

void poll_recorder::mark(kind what, timing::ticks now, std::uint32_t task,
                         std::uint32_t value) noexcept {
  if (ring_size_ == 0) return;
  const std::uint64_t site = last_key_ != 0 ? last_site() : no_site;
  push(now, word_of(what, site), std::uint64_t{value} << 32 | task);
}

// Open addressing with a limited number of probes, so that a full table costs only a few compares.
void poll_recorder::note_other(timing::ticks start, timing::ticks cost, std::uint64_t key,
                               const task_record* task) noexcept {
  last_key_ = key;
  last_ = &entry_of(key);
  last_end_ = 0;  // another site, so this is not a repetition
  note_short(start, cost, key, task);
}

// Makes the entry if there is none, and room for one.
poll_recorder::entry& poll_recorder::entry_of(std::uint64_t key) noexcept {
  constexpr std::size_t farthest = 8;
  // Knuth's multiplicative hash, because the addresses differ in their middle bits.
  const auto home = static_cast<std::size_t>((key * 0x9e3779b97f4a7c15U) >> 56);
  static_assert(sites == 256, "eight bits of the hash");
  for (std::size_t n = 0; n < farthest; ++n) {
    entry& e = entries_[(home + n) % sites];
    const std::uint64_t there = e.key.load(std::memory_order_relaxed);
    if (there == 0) e.key.store(key, std::memory_order_relaxed);
    if (there == 0 || there == key) return e;
  }
  return entries_[other_sites];
}

void poll_recorder::note_refused(std::uint64_t key, bool locked, const void* lock,
                                 const void* checked) noexcept {
  entry& e = entry_of(key);
  add(e.refused, 1);
  if (!locked) return;
  add(e.refused_lock, 1);
  e.lock.store(lock, std::memory_order_relaxed);
  e.checked.store(checked, std::memory_order_relaxed);
}

std::uint64_t poll_recorder::last_site() const noexcept {
  return static_cast<std::uint64_t>(last_ - entries_.data());
}

void poll_recorder::put_poll(timing::ticks start, timing::ticks cost,
                             const task_record* task) noexcept {
  std::uint64_t word = word_of(kind::poll, last_site());
  if (cost > longest_value) [[unlikely]] {
    word |= coarse;
    cost = std::min<timing::ticks>(cost >> coarse_bits, longest_value);
  }
  push(start, word, cost << 32 | (task != nullptr ? task->number : 0));
}

// A reader that sees a word of this event also sees the new `head_`: the release fence pairs with
// the acquire fence in copy(), after which `head_` is read again. (Boehm, "Can seqlocks get along
// with programming language memory models?", MSPC 2012.) On x86 the fence is no instruction.
void poll_recorder::push(timing::ticks start, std::uint64_t word, std::uint64_t second) noexcept {
  const std::uint64_t head = head_.load(std::memory_order_relaxed);
  slot& s = ring_[head & (ring_size_ - 1)];
  std::atomic_thread_fence(std::memory_order_release);
  s.first.store(word | start << start_bits, std::memory_order_relaxed);
  s.second.store(second, std::memory_order_relaxed);
  last_start_.store(start, std::memory_order_relaxed);
  head_.store(head + 1, std::memory_order_release);
}

void poll_recorder::make_ring(std::size_t size) {
  ring_.reset();
  ring_size_ = 0;
  head_.store(0, std::memory_order_relaxed);
  if (size == 0) return;
  ring_ = std::make_unique<slot[]>(size);
  ring_size_ = size;
}

std::uint64_t poll_recorder::copy(std::uint64_t from, std::vector<event>& to, std::uint64_t& lost,
                                  timing::ticks& last) const {
  // Acquire, pairs with the release in push(): the events before `head` are complete.
  const std::uint64_t head = head_.load(std::memory_order_acquire);
  if (ring_size_ == 0 || head == 0) return head;
  std::uint64_t begin =
      std::max(std::min(from, head), head - std::min<std::uint64_t>(head, ring_size_));
  const std::size_t had = to.size();
  for (std::uint64_t n = begin; n != head; ++n) {
    const slot& s = ring_[n & (ring_size_ - 1)];
    to.push_back(
        {s.first.load(std::memory_order_relaxed), s.second.load(std::memory_order_relaxed)});
  }
  last = last_start_.load(std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_acquire);  // pairs with push()
  const std::uint64_t now = head_.load(std::memory_order_relaxed);
  // The event after `now` may be half written, over the oldest one.
  const std::uint64_t valid = now + 1 - std::min<std::uint64_t>(now + 1, ring_size_);
  if (valid > begin) {
    const auto spoilt = static_cast<std::ptrdiff_t>(std::min(valid, head) - begin);
    const auto first = to.begin() + static_cast<std::ptrdiff_t>(had);
    to.erase(first, first + spoilt);
    begin += static_cast<std::uint64_t>(spoilt);
  }
  lost += begin - std::min(from, begin);
  return head;
}

}  // namespace asio_pulse::hooks
