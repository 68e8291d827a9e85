// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/hooks/poll_recorder.hpp>
#include <asio_pulse/metrics.hpp>
#include <asio_pulse/options.hpp>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace asio_pulse::detail {

/// Between two calls of a program that looks now and then, as a scraper does once a minute.
inline constexpr std::chrono::seconds looks_again{90};

/// Of a name, in metrics and recordings, in bytes.
inline constexpr std::size_t told_name = 128;

/// \par Errors  std::bad_alloc.
[[nodiscard]] inline source_place place_of(const hooks::location& where) {
  return {where.file != nullptr ? where.file : "", where.line,
          where.function != nullptr ? where.function : ""};
}

/// The type and the place that are behind a poll_recorder's key.
/// \par Errors  std::bad_alloc.
[[nodiscard]] inline std::string type_of(std::uint64_t key) {
  return short_type(hooks::poll_recorder::entry::site_in(key)->type_name);
}
[[nodiscard]] inline source_place place_of(std::uint64_t key) {
  return place_of(hooks::location_of(hooks::poll_recorder::entry::location_in(key)));
}

/// The instruments of a context: a recorder for each worker while somebody wants to know, and the
/// last stalls.
///
/// Whether there is anything to collect is said by leases: whoever looks renews one, and when it
/// has run out the workers give their recorders back at their next poll. What they hold stays.
///
/// Locks: `mutex_`, below which no other is taken. Workers take it when they come, go, or are told
/// that something has changed, never in a poll.
class instruments {
 public:
  using clock = std::chrono::steady_clock;

  explicit instruments(const options& o) noexcept;

  // ---- workers

  /// Gives the calling worker what it should have now, and takes what it should not.
  void renew(hooks::thread_state& ts) noexcept;
  /// The worker leaves.
  void leave(hooks::thread_state& ts) noexcept;
  /// In a child process: the workers other than the calling thread are gone.
  void forked() noexcept;

  // ---- who looks

  /// Somebody looks until then. True: the workers are to be told.
  [[nodiscard]] bool want_metrics(clock::time_point until) noexcept;
  [[nodiscard]] bool want_trace(clock::time_point until) noexcept;
  /// Ends what has run out. True: the workers are to be told.
  [[nodiscard]] bool expire(clock::time_point now) noexcept;
  [[nodiscard]] bool collecting() const noexcept {
    return collecting_.load(std::memory_order_relaxed);
  }
  [[nodiscard]] bool tracing() const noexcept { return tracing_.load(std::memory_order_relaxed); }
  /// A worker has polled, or is in a poll, since this was last asked.
  [[nodiscard]] bool busy() noexcept;

  // ---- reading

  /// Calls `f(const hooks::poll_recorder&)` for each, with the workers kept from coming and going.
  template <class Function>
  void for_each(Function&& f) const {
    const std::lock_guard lock(mutex_);
    for (const auto& r : recorders_) f(*r);
  }
  [[nodiscard]] std::size_t bytes() const noexcept;
  [[nodiscard]] std::uint64_t refused() const noexcept {
    return refused_.load(std::memory_order_relaxed);
  }
  /// Held by whoever makes a snapshot: one at a time.
  [[nodiscard]] std::mutex& snapshot_mutex() noexcept { return snapshot_mutex_; }
  clock::time_point rolled{};         ///< under snapshot_mutex(): see task_state::seen_cost
  clock::duration recent_interval{};  ///< likewise

  std::uint64_t most_polls = 0;  ///< likewise: what was told last
  std::uint64_t most_cost = 0;

  // ---- stalls

  void stall_began(const context_core::stall& s, const task_state& t) noexcept;
  void stall_described(const context_core::stall& s, std::string_view system_call,
                       std::span<const stack_frame> stack) noexcept;
  /// A stall is worth a recording; whether one was since this was last asked. Relaxed: a flag.
  void stalled() noexcept { stalled_.store(true, std::memory_order_relaxed); }
  [[nodiscard]] bool take_stalled() noexcept {
    return stalled_.exchange(false, std::memory_order_relaxed);
  }
  void stall_over(const context_core::stall& s) noexcept;
  /// Newest first.
  [[nodiscard]] std::vector<stall_metrics> stalls() const;

 private:
  [[nodiscard]] bool lease(clock::time_point& held, clock::time_point until,
                           std::atomic<bool>& what) noexcept;
  [[nodiscard]] hooks::poll_recorder* choose(const hooks::thread_state& ts, std::uint64_t thread);
  void fit_ring(hooks::poll_recorder& r);
  [[nodiscard]] std::size_t bytes_now() const noexcept;
  [[nodiscard]] stall_metrics* open_stall(std::uint64_t thread) noexcept;

  const instrument_mode metrics_;
  const instrument_mode trace_;
  const std::size_t limit_;
  const std::size_t events_;
  std::atomic<bool> collecting_;
  std::atomic<bool> tracing_;
  std::atomic<std::uint64_t> refused_{0};
  std::atomic<bool> stalled_{false};
  std::mutex snapshot_mutex_;

  mutable std::mutex mutex_;  ///< below: guarded by it
  std::vector<std::unique_ptr<hooks::poll_recorder>> recorders_;
  clock::time_point metrics_until_{};
  clock::time_point trace_until_{};
  std::deque<stall_metrics> stalls_;  ///< newest last
};

}  // namespace asio_pulse::detail
