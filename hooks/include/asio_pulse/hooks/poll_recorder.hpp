// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <array>
#include <asio_pulse/hooks/location.hpp>
#include <asio_pulse/hooks/site.hpp>
#include <asio_pulse/timing/timebase.hpp>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

/// \file
/// What one worker did: durations, sites, and the events of the last moments. Fed at the end of
/// each poll while somebody wants to know, read by any thread.

namespace asio_pulse::hooks {

struct task_record;
struct thread_state;

/// Buckets for durations in ticks: eight to a power of two, so that a bucket is at most an eighth
/// of its durations wide.
struct duration_scale {
  static constexpr unsigned fine_bits = 3;
  static constexpr unsigned fine = 1U << fine_bits;
  /// Up to 2^43 ticks, an hour and more; what is longer counts in the last.
  static constexpr std::size_t buckets = std::size_t{fine} * (43 - fine_bits + 1);
  static constexpr timing::ticks longest = (timing::ticks{1} << 43) - 1;

  [[nodiscard]] static constexpr std::size_t bucket_of(timing::ticks t) noexcept {
    return bucket_of_short(t < longest ? t : longest);
  }
  /// Of at most `longest`.
  [[nodiscard]] static constexpr std::size_t bucket_of_short(timing::ticks t) noexcept {
    // The top fine_bits + 1 bits, and how far down they are.
    const unsigned shift = static_cast<unsigned>(std::bit_width(t | fine)) - 1 - fine_bits;
    return std::size_t{shift} * fine + static_cast<std::size_t>(t >> shift);
  }
  /// The longest duration in a bucket.
  [[nodiscard]] static constexpr timing::ticks upper(std::size_t bucket) noexcept {
    if (bucket < fine) return bucket;
    const std::size_t shift = bucket / fine - 1;
    return ((timing::ticks{bucket % fine + fine} + 1) << shift) - 1;
  }
};
static_assert(duration_scale::bucket_of(0) == 0 && duration_scale::bucket_of(7) == 7 &&
              duration_scale::bucket_of(8) == 8 && duration_scale::bucket_of(17) == 16 &&
              duration_scale::upper(15) == 15 && duration_scale::upper(16) == 17);

/// The instruments of one worker. Its memory does not grow.
///
/// \par Cost           note(): about 3 ns, 5 with a ring. No lock, no allocation, no system call.
/// \par Thread safety  One thread writes, the worker that it was given to; any thread reads.
/// \par Memory order   Relaxed throughout, but for the ring (see push()): each figure stands for
///                     itself. A copy that is made while polls end is of one moment to within the
///                     polls that ended meanwhile.
class alignas(64) poll_recorder {
 public:
  /// A kind of handler. `key`: the address of its site, with the number of its location in the top
  /// 16 bits; 0: free.
  struct entry {
    std::atomic<std::uint64_t> key{0};
    std::atomic<std::uint64_t> polls{0};
    std::atomic<std::uint64_t> again{0};  ///< directly after one of the same site and task
    std::atomic<timing::ticks> cost{0};
    std::atomic<timing::ticks> longest{0};

    [[nodiscard]] static const site* site_in(std::uint64_t key) noexcept {
      return reinterpret_cast<const site*>(key << 16 >> 16);
    }
    [[nodiscard]] static location_id location_in(std::uint64_t key) noexcept {
      return static_cast<location_id>(key >> 48);
    }
  };
  using scale = std::array<std::atomic<std::uint64_t>, duration_scale::buckets>;

  /// Kinds of handlers that are told apart; all others count as one. Programs have some hundred; a
  /// worker meets few of them.
  static constexpr std::size_t sites = 256;
  static constexpr std::size_t other_sites = sites;  ///< index of the entry for the rest

  /// An event in the ring; the layout of asio_pulse::recorded_event, with ticks for times and an
  /// entry's index for the site.
  struct event {
    std::uint64_t first = 0;
    std::uint64_t second = 0;
  };
  /// Numbers of asio_pulse::event_kind.
  enum class kind : std::uint8_t {
    poll,
    tier,
    parked,
    yielded,
    isolated,
    hint,
    stall,
    queue_delay
  };
  static constexpr std::uint32_t no_site = 0x7ff;

  poll_recorder() noexcept { last_ = &entries_[other_sites]; }
  poll_recorder(const poll_recorder&) = delete;
  poll_recorder& operator=(const poll_recorder&) = delete;

  // ---- the worker

  /// The key of a site and the location in the top 16 bits of an operation's word.
  [[nodiscard]] static std::uint64_t key_of(const site& what, std::uint64_t word) noexcept {
    return reinterpret_cast<std::uintptr_t>(&what) | (word & ~std::uint64_t{0} << 48);
  }
  /// A poll that started at `start` has ended.
  void note(timing::ticks start, timing::ticks cost, std::uint64_t key,
            const task_record* task) noexcept {
    note_short(start, cost < duration_scale::longest ? cost : duration_scale::longest, key, task);
  }
  /// As note(), for a poll of less than duration_scale::longest.
  void note_short(timing::ticks start, timing::ticks cost, std::uint64_t key,
                  const task_record* task) noexcept {
    if (key != last_key_) [[unlikely]] {
      // Calls nothing that comes back: no register is saved.
      return note_other(start, cost, key, task);
    }
    // Nothing came in between, not even the reactor: the one before made it ready.
    if (start == last_end_ && task == last_task_) add(last_->again, 1);
    entry& e = *last_;
    last_task_ = task;
    last_end_ = start + cost;
    add(e.polls, 1);
    add(e.cost, cost);
    if (cost > e.longest.load(std::memory_order_relaxed)) [[unlikely]] {
      e.longest.store(cost, std::memory_order_relaxed);
    }
    add(durations_[duration_scale::bucket_of_short(cost)], 1);
    if (ring_size_ != 0) put_poll(start, cost, task);
  }
  /// A poll of `cost`, the one noted last, was part of a strand's batch; `first`: it begins it.
  void note_batch(bool first, timing::ticks cost) noexcept;
  /// An operation that was ready `delay` ago runs now, as did those that would have been ready
  /// every `interval` since, had it not been in their way (0: none).
  void note_delay(timing::ticks now, timing::ticks delay, timing::ticks interval) noexcept;
  /// Something other than a poll.
  void mark(kind what, timing::ticks now, std::uint32_t task, std::uint32_t value) noexcept;

  // ---- any thread

  [[nodiscard]] const entry& at(std::size_t index) const noexcept { return entries_[index]; }
  [[nodiscard]] const scale& durations() const noexcept { return durations_; }
  [[nodiscard]] const scale& delays() const noexcept { return delays_; }
  [[nodiscard]] timing::ticks delays_sum() const noexcept {
    return delays_sum_.load(std::memory_order_relaxed);
  }
  [[nodiscard]] timing::ticks longest_batch() const noexcept {
    return longest_batch_.load(std::memory_order_relaxed);
  }
  /// Key of the site that was noted last in it.
  [[nodiscard]] std::uint64_t batch_key() const noexcept {
    return batch_key_.load(std::memory_order_relaxed);
  }

  // ---- the ring

  /// Sets the ring; not while a worker has the recorder. `size`: a power of two, or 0 for none.
  /// \par Errors  std::bad_alloc.
  void make_ring(std::size_t size);
  [[nodiscard]] std::size_t ring_size() const noexcept { return ring_size_; }
  /// Events ever put into the ring.
  [[nodiscard]] std::uint64_t pushed() const noexcept {
    return head_.load(std::memory_order_acquire);
  }
  /// Appends to `to` the events from number `from` on that are still there, and returns the number
  /// of the next one; `lost` grows by those that are not. `last` is the start of the last one,
  /// whose event has its low 48 bits. \par Errors  std::bad_alloc.
  std::uint64_t copy(std::uint64_t from, std::vector<event>& to, std::uint64_t& lost,
                     timing::ticks& last) const;

  /// Whose it is: set and read under the pool's mutex. Null: nobody's.
  const thread_state* owner = nullptr;
  std::uint64_t thread = 0;  ///< the kernel's number
  /// For the pool: the owner's clock at the last look.
  timing::ticks seen = 0;

 private:
  struct slot {
    std::atomic<std::uint64_t> first{0};
    std::atomic<std::uint64_t> second{0};
  };

  // One writer: no locked instruction.
  static void add(std::atomic<std::uint64_t>& to, std::uint64_t n) noexcept {
    to.store(to.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  void note_other(timing::ticks start, timing::ticks cost, std::uint64_t key,
                  const task_record* task) noexcept;
  [[nodiscard]] std::uint64_t last_site() const noexcept;
  void put_poll(timing::ticks start, timing::ticks cost, const task_record* task) noexcept;
  void push(timing::ticks start, std::uint64_t word, std::uint64_t second) noexcept;

  // The worker's alone:
  std::uint64_t last_key_ = 0;
  entry* last_ = nullptr;
  timing::ticks last_end_ = 0;
  timing::ticks batch_ = 0;
  const task_record* last_task_ = nullptr;  // an address, never followed

  std::size_t ring_size_ = 0;
  std::unique_ptr<slot[]> ring_;
  std::atomic<std::uint64_t> head_{0};
  std::atomic<timing::ticks> last_start_{0};
  std::atomic<timing::ticks> longest_batch_{0};
  std::atomic<std::uint64_t> batch_key_{0};
  std::atomic<timing::ticks> delays_sum_{0};
  std::array<entry, sites + 1> entries_{};
  scale durations_{};
  scale delays_{};
};

}  // namespace asio_pulse::hooks
