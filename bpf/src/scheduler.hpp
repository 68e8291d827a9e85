// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "program/policies.h"
#include "service/block_store.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

/// \file
/// The loaded sched_ext program. Only this part uses libbpf.

namespace asio_pulse::scx {

struct scheduler_options {
  asio_pulse_mode mode = ASIO_PULSE_MODE_OBSERVER_ONLY;
  scx_pulse_local_policy policy{};
  std::chrono::nanoseconds slice = std::chrono::milliseconds{5};
  std::chrono::nanoseconds grace = std::chrono::milliseconds{100};
  std::chrono::nanoseconds max_critical = std::chrono::milliseconds{50};
  std::chrono::nanoseconds throttle = std::chrono::seconds{1};
  unsigned throttle_percent = 25;
  unsigned imbalance = 2;
  std::size_t ring_bytes = std::size_t{1} << 16;
  bool debug = false;  ///< prints libbpf's messages as well
};

/// Why the scheduler has ended, as the kernel reports it.
struct scheduler_exit {
  std::uint64_t kind = 0;  ///< enum scx_exit_kind
  std::int64_t code = 0;
  std::string reason;
  std::string message;
  bool asked_for = false;  ///< the loader has ended it
  bool restart = false;    ///< the kernel asks to load it again (a CPU was added or removed)
};

/// Loads and attaches scx_pulse.bpf.c, and communicates with it. The scheduler ends with this
/// object, and with the process, even if that is killed.
///
/// \par Thread safety  For one thread only.
class scheduler final : public block_store {
 public:
  /// \par Errors  std::runtime_error with a sentence that says what is missing and what to do.
  explicit scheduler(const scheduler_options& options);
  ~scheduler() override;

  process_blocks open_process(pid_t tgid) override;
  void close_process(pid_t tgid) noexcept override;
  void add_worker(pid_t tid, const scx_pulse_registration& worker) override;
  void remove_worker(pid_t tid) noexcept override;

  /// A descriptor for an event loop, which is readable when there are hints.
  [[nodiscard]] int hints_fd() const noexcept;
  /// Calls `f` for each record in the ring buffer, and returns how many there were.
  int consume_hints(const std::function<void(const asio_pulse_hint&)>& f);

  /// Changes the settings. They take effect at the next switch, tick or hint, without a reload.
  void set(const scx_pulse_settings& settings);
  [[nodiscard]] scx_pulse_settings settings() const;
  /// The counts, added up over all CPUs.
  [[nodiscard]] scx_pulse_counts counts() const;
  /// The number of threads in our queues, as each CPU saw at its last tick.
  [[nodiscard]] std::uint32_t queued() const;
  [[nodiscard]] std::uint32_t cpus() const noexcept;

  /// Set when the kernel has ended the scheduler, or it ended otherwise.
  [[nodiscard]] std::optional<scheduler_exit> exited() const;

 private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

}  // namespace asio_pulse::scx
