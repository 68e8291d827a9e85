// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "block_store.hpp"

/// \file
/// The sched_ext program, loaded: all that knows libbpf.

namespace asio_pulse::scx {

struct scheduler_options {
  asio_pulse_mode mode = ASIO_PULSE_MODE_OBSERVER_ONLY;
  scx_pulse_local_policy policy = SCX_PULSE_ROUND_ROBIN;
  std::chrono::nanoseconds slice = std::chrono::milliseconds{5};
  std::chrono::nanoseconds grace = std::chrono::milliseconds{100};
  std::chrono::nanoseconds max_critical = std::chrono::milliseconds{50};
  std::chrono::nanoseconds throttle = std::chrono::seconds{1};
  unsigned throttle_percent = 25;
  unsigned imbalance = 2;
  std::size_t ring_bytes = std::size_t{1} << 16;
  bool debug = false;  ///< libbpf's own messages too
};

/// Why the scheduler is not there any more, in the kernel's words.
struct scheduler_exit {
  std::uint64_t kind = 0;  ///< enum scx_exit_kind
  std::int64_t code = 0;
  std::string reason;
  std::string message;
  bool asked_for = false;  ///< by ourselves
  bool restart = false;    ///< the kernel wants it loaded again (a CPU came or went)
};

/// Loads, attaches and talks to scx_pulse.bpf.c. It goes with the object, and with the process,
/// however that ends.
///
/// \par Thread safety  One thread.
class scheduler final : public block_store {
 public:
  /// \par Errors  std::runtime_error: one sentence that says what is missing and what to do.
  explicit scheduler(const scheduler_options& options);
  ~scheduler() override;

  process_blocks open_process(pid_t tgid) override;
  void close_process(pid_t tgid) noexcept override;
  void add_worker(pid_t tid, const scx_pulse_registration& worker) override;
  void remove_worker(pid_t tid) noexcept override;

  /// Readable when there are hints: for an event loop.
  [[nodiscard]] int hints_fd() const noexcept;
  /// Calls `f` for each record that is there; returns how many.
  int consume_hints(const std::function<void(const asio_pulse_hint&)>& f);

  /// Takes effect at the next switch, tick or hint; nothing is loaded again.
  void set(const scx_pulse_settings& settings);
  [[nodiscard]] scx_pulse_settings settings() const;
  /// Added up over all CPUs.
  [[nodiscard]] scx_pulse_counts counts() const;
  /// Threads that wait in our queues, as each CPU saw it at its last tick.
  [[nodiscard]] std::uint32_t queued() const;
  [[nodiscard]] std::uint32_t cpus() const noexcept;

  /// Set when the kernel has thrown the scheduler out, or it ended otherwise.
  [[nodiscard]] std::optional<scheduler_exit> exited() const;

 private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

}  // namespace asio_pulse::scx
