// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "reports/stalled_poll.hpp"

#include <asio_pulse/hooks/poll_recorder.hpp>
#include <asio_pulse/metrics.hpp>
#include <asio_pulse/options.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace asio_pulse::detail {

/// The longest time between two calls of a program that reads now and then, as a scraper does once
/// a minute.
inline constexpr std::chrono::seconds looks_again{90};

/// How many bytes of a name metrics and recordings contain.
inline constexpr std::size_t told_name = 128;

/// \par Errors  std::bad_alloc.
[[nodiscard]] inline source_place place_of(const hooks::location& where) {
  return {where.file != nullptr ? where.file : "", where.line,
          where.function != nullptr ? where.function : ""};
}

/// The type and the place for a key of poll_recorder.
/// \par Errors  std::bad_alloc.
[[nodiscard]] inline std::string type_of(std::uint64_t key) {
  return short_type(hooks::poll_recorder::entry::site_in(key)->type_name);
}
[[nodiscard]] inline source_place place_of(std::uint64_t key) {
  return place_of(hooks::location_of(hooks::poll_recorder::entry::location_in(key)));
}

/// The instruments of a context: a recorder for each worker while figures are read, and the last
/// stalls.
///
/// Collection depends on leases. Every reading renews one. When it has expired, the workers return
/// their recorders at their next poll. The figures are kept.
///
/// Locks: no other lock is taken while `mutex_` is held. Workers take it when they enter or leave
/// and when their services have changed, but never in a poll.
class instruments {
 public:
  using clock = std::chrono::steady_clock;

  explicit instruments(const options& o);

  // ---- workers

  /// Gives the calling worker the recorder that it should have now, or takes it away.
  void renew(hooks::thread_state& ts) noexcept;
  /// The worker leaves.
  void leave(hooks::thread_state& ts) noexcept;
  /// Called in the child of a fork: workers other than the calling thread do not exist.
  void forked() noexcept;

  // ---- leases

  /// Extends the collection until then. Returns true if the workers have to be informed.
  [[nodiscard]] bool want_metrics(clock::time_point until) noexcept;
  [[nodiscard]] bool want_trace(clock::time_point until) noexcept;
  /// Ends expired collections. Returns true if the workers have to be informed.
  [[nodiscard]] bool expire(clock::time_point now) noexcept;
  [[nodiscard]] bool collecting() const noexcept {
    return collecting_.load(std::memory_order_relaxed);
  }
  [[nodiscard]] bool tracing() const noexcept { return tracing_.load(std::memory_order_relaxed); }
  /// Whether a worker has polled since the last call, or is in a poll.
  [[nodiscard]] bool busy() noexcept;

  // ---- reading

  /// Calls `f(const hooks::poll_recorder&)` for each. Workers cannot enter or leave meanwhile.
  template <class Function>
  void for_each(Function&& f) const {
    const std::lock_guard lock(mutex_);
    for (const auto& r : recorders_) f(*r);
  }
  [[nodiscard]] std::size_t bytes() const noexcept;
  [[nodiscard]] std::uint64_t refused() const noexcept {
    return refused_.load(std::memory_order_relaxed);
  }
  /// Held while a snapshot is made, so that there is one at a time.
  [[nodiscard]] std::mutex& snapshot_mutex() noexcept { return snapshot_mutex_; }
  clock::time_point rolled{};         ///< guarded by snapshot_mutex(); see recent_cost
  clock::duration recent_interval{};  ///< likewise

  std::uint64_t most_polls = 0;  ///< likewise; as of the last snapshot
  std::uint64_t most_cost = 0;

  // ---- stalls

  void stall_began(const stalled_poll& s, const task_state& t) noexcept;
  void stall_described(const stalled_poll& s, std::string_view system_call,
                       std::span<const stack_frame> stack) noexcept;
  /// Sets that there was a stall, and whether there was one since the last call. Relaxed: a flag.
  void stalled() noexcept { stalled_.store(true, std::memory_order_relaxed); }
  [[nodiscard]] bool take_stalled() noexcept {
    return stalled_.exchange(false, std::memory_order_relaxed);
  }
  void stall_over(const stalled_poll& s) noexcept;
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

  mutable std::mutex mutex_;  ///< guards the members below
  std::vector<std::unique_ptr<hooks::poll_recorder>> recorders_;
  clock::time_point metrics_until_{};
  clock::time_point trace_until_{};
  std::vector<stall_metrics> stalls_;  ///< newest last
};

}  // namespace asio_pulse::detail
