// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/location.hpp>
#include <asio_pulse/hooks/site.hpp>
#include <asio_pulse/timing/timebase.hpp>

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

/// \file
/// Records what a worker does: durations, sites, and the most recent events. While metrics or
/// traces are collected, each poll is recorded at its end. Any thread may read the figures.

namespace asio_pulse::hooks {

struct task_record;
struct thread_state;

/// Buckets for durations in ticks: eight for each power of two, so that a bucket is at most an
/// eighth of its durations wide.
struct duration_scale {
  static constexpr unsigned fine_bits = 3;
  static constexpr unsigned fine = 1U << fine_bits;
  /// For durations up to 2^43 ticks, which is more than half an hour; longer ones count in the
  /// last.
  static constexpr std::size_t buckets = std::size_t{fine} * (43 - fine_bits + 1);
  static constexpr timing::ticks longest = (timing::ticks{1} << 43) - 1;

  [[nodiscard]] static constexpr std::size_t bucket_of(timing::ticks t) noexcept {
    return bucket_of_short(t < longest ? t : longest);
  }
  /// The bucket of a duration of at most `longest`.
  [[nodiscard]] static constexpr std::size_t bucket_of_short(timing::ticks t) noexcept {
    // The top fine_bits + 1 bits, and their position.
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

/// The recorder of one worker. Its memory does not grow.
///
/// \par Cost           note(): about 3 ns, 5 with a ring. No lock, no allocation, no system call.
/// \par Thread safety  Only the worker that it belongs to writes; any thread may read.
/// \par Memory order   Relaxed, except for the ring (see push()): the figures are independent. A
///                     copy is consistent except for polls that end while it is made.
class alignas(64) poll_recorder {
 public:
  /// A kind of handler. `key` is the address of its site, with the number of its location in the
  /// top 16 bits; 0 if the entry is free.
  struct entry {
    std::atomic<std::uint64_t> key{0};
    std::atomic<std::uint64_t> polls{0};
    std::atomic<std::uint64_t> again{0};  ///< polls directly after one of the same site and task
    std::atomic<timing::ticks> cost{0};
    std::atomic<timing::ticks> longest{0};
    /// Automatic checkpoints where it was time to suspend it: those that did, those that did not, and
    /// of these those where a lock was held.
    std::atomic<std::uint64_t> suspended{0};
    std::atomic<std::uint64_t> refused{0};
    std::atomic<std::uint64_t> refused_lock{0};
    /// The lock of the last one of these, and an address in the function that was checked.
    std::atomic<const void*> lock{nullptr};
    std::atomic<const void*> checked{nullptr};

    [[nodiscard]] static const site* site_in(std::uint64_t key) noexcept {
      return reinterpret_cast<const site*>(key << 16 >> 16);
    }
    [[nodiscard]] static location_id location_in(std::uint64_t key) noexcept {
      return static_cast<location_id>(key >> 48);
    }
  };
  using scale = std::array<std::atomic<std::uint64_t>, duration_scale::buckets>;

  /// The number of kinds of handlers that are distinguished; all others count as one. Programs have
  /// some hundred kinds, of which a worker runs few.
  static constexpr std::size_t sites = 256;
  static constexpr std::size_t other_sites = sites;  ///< index of the entry for the rest

  /// An event in the ring. It has the layout of asio_pulse::recorded_event, with times in ticks and
  /// the index of an entry as the site.
  struct event {
    std::uint64_t first = 0;
    std::uint64_t second = 0;
  };
  /// The numbers of asio_pulse::event_kind.
  enum class kind : std::uint8_t {
    poll,
    tier,
    parked,
    yielded,
    isolated,
    hint,
    stall,
    queue_delay,
    updated,
    refused
  };
  static constexpr std::uint32_t no_site = 0x7ff;

  poll_recorder() noexcept { last_ = &entries_[other_sites]; }
  poll_recorder(const poll_recorder&) = delete;
  poll_recorder& operator=(const poll_recorder&) = delete;

  // ---- the worker

  /// The key for a site, and the location in the top 16 bits of an operation's word.
  [[nodiscard]] static std::uint64_t key_of(const site& what, std::uint64_t word) noexcept {
    return reinterpret_cast<std::uintptr_t>(&what) | (word & ~std::uint64_t{0} << 48);
  }
  /// Records a poll that started at `start` and has ended.
  void note(timing::ticks start, timing::ticks cost, std::uint64_t key,
            const task_record* task) noexcept {
    note_short(start, cost < duration_scale::longest ? cost : duration_scale::longest, key, task);
  }
  /// As note(), for a poll of less than duration_scale::longest.
  void note_short(timing::ticks start, timing::ticks cost, std::uint64_t key,
                  const task_record* task) noexcept {
    if (key != last_key_) [[unlikely]] {
      // A tail call, so that no register has to be saved.
      return note_other(start, cost, key, task);
    }
    // Nothing ran in between, not even the reactor, so the previous poll made this one ready.
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
  /// At an automatic checkpoint of this site it was time to suspend the handler.
  void note_suspended(std::uint64_t key) noexcept { add(entry_of(key).suspended, 1); }
  /// The same, and it was refused. `lock`: the lock that was held, if that was the reason.
  void note_refused(std::uint64_t key, bool locked, const void* lock, const void* checked) noexcept;
  /// The poll that was recorded last, of `cost`, was part of a strand's batch. `first`: it began
  /// the batch.
  void note_batch(bool first, timing::ticks cost) noexcept;
  /// Records the queue delay of an operation that became ready `delay` ago and runs now. If
  /// `interval` is not 0, further operations would have become ready at this interval since, and
  /// have waited as well; they are recorded, too.
  void note_delay(timing::ticks now, timing::ticks delay, timing::ticks interval) noexcept;
  /// Records an event that is not a poll.
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
  /// The key of the last site in the longest batch.
  [[nodiscard]] std::uint64_t batch_key() const noexcept {
    return batch_key_.load(std::memory_order_relaxed);
  }

  // ---- the ring

  /// Sets the ring. Must not be called while a worker uses the recorder. `size` is a power of two,
  /// or 0 for no ring.
  ///
  /// \par Errors  std::bad_alloc.
  void make_ring(std::size_t size);
  [[nodiscard]] std::size_t ring_size() const noexcept { return ring_size_; }
  /// How many events were ever put into the ring.
  [[nodiscard]] std::uint64_t pushed() const noexcept {
    return head_.load(std::memory_order_acquire);
  }
  /// Appends to `to` the events from number `from` on that are still in the ring, and returns the
  /// number of the next one. `lost` grows by the number of those that are not. `last` is set to the
  /// full start of the last event, of which the event itself has the low 48 bits.
  ///
  /// \par Errors  std::bad_alloc.
  std::uint64_t copy(std::uint64_t from, std::vector<event>& to, std::uint64_t& lost,
                     timing::ticks& last) const;

  /// The thread that it belongs to, or null. Set and read under the pool's mutex.
  const thread_state* owner = nullptr;
  std::uint64_t thread = 0;  ///< the kernel's id of the thread
  /// For the arbiter, on the owner's thread: the number of updates of the options that the trace
  /// shows.
  static constexpr std::uint64_t unseen = ~std::uint64_t{0};
  std::uint64_t updates_seen = unseen;
  /// For the pool: the owner's clock when it was last looked at.
  timing::ticks seen = 0;

 private:
  struct slot {
    std::atomic<std::uint64_t> first{0};
    std::atomic<std::uint64_t> second{0};
  };

  // There is one writer, so no locked instruction is needed.
  static void add(std::atomic<std::uint64_t>& to, std::uint64_t n) noexcept {
    to.store(to.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  void note_other(timing::ticks start, timing::ticks cost, std::uint64_t key,
                  const task_record* task) noexcept;
  [[nodiscard]] entry& entry_of(std::uint64_t key) noexcept;
  [[nodiscard]] std::uint64_t last_site() const noexcept;
  void put_poll(timing::ticks start, timing::ticks cost, const task_record* task) noexcept;
  void push(timing::ticks start, std::uint64_t word, std::uint64_t second) noexcept;

  // Used by the worker only:
  std::uint64_t last_key_ = 0;
  entry* last_ = nullptr;
  timing::ticks last_end_ = 0;
  timing::ticks batch_ = 0;
  const task_record* last_task_ = nullptr;  // only compared, never dereferenced

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
