// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/types.h>

#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/detail/hint_hub.hpp>
#include <asio_pulse/detail/thread_usage.hpp>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <asio_pulse/detail/hint_local.hpp>
#include "hint_client.hpp"
#include "process_wide.hpp"
#include "thread_slices.hpp"

/// \file
/// The hub itself. Private to hint_hub.cpp (members, workers, fork) and hint_hub_thread.cpp
/// (sources).

namespace asio_pulse::detail {

/// Workers on one side, sources on the other, one mutex, and one thread that does what takes time.
///
/// A member's link goes: none -> offered (by the hub's thread) -> taken (by the worker, at its next
/// poll) -> none (by the worker: it leaves, or its source is gone).
class hint_hub {
 public:
  static hint_hub& get() noexcept;

  void join(hooks::thread_state& ts, context_core& core);
  void leave(hooks::thread_state& ts, context_core& core) noexcept;
  void take(hooks::thread_state& ts) noexcept;
  [[nodiscard]] hint_status status();
  void resume() noexcept;
  /// The thread's function.
  void run() noexcept;

 private:
  friend hint_hub& process_wide<hint_hub>() noexcept;

  using clock = std::chrono::steady_clock;

  /// A worker that wants hints.
  struct member {
    hooks::thread_state* ts = nullptr;
    context_core* core = nullptr;  ///< alive: the worker is inside its run()
    pid_t tid = 0;
    std::uint64_t serial = 0;
    hint_source wanted = hint_source::off;
    std::uint32_t line = 0;  ///< the connection that it is for
    std::unique_ptr<hint_link> offered;
    std::unique_ptr<hint_link> link;  ///< taken: its thread's
    bool gone = false;                ///< what it has taken is no more
    std::uint32_t refused = 0;        ///< the session that refused it
    scheduling_attributes before;     ///< to be given back
    bool changed = false;
    // For local hints; the hub's thread's.
    thread_probe probe;
    std::unique_ptr<local_hints> local;
  };

  /// A loader, there or not.
  struct line {
    std::string path;
    hint_client client;         ///< the hub's thread's
    std::uint32_t session = 0;  ///< of the connection; counts them
    bool up = false;
    clock::time_point retry{};
    std::chrono::milliseconds pause{};
    std::string fault;  ///< why it is not up
  };
  struct departure {
    std::uint32_t line;
    std::uint32_t session;
    pid_t tid;
    std::uint32_t slot;
  };

  // hint_hub.cpp; the mutex is held
  [[nodiscard]] member* find(const hooks::thread_state& ts) noexcept;
  [[nodiscard]] member* find(std::uint64_t serial) noexcept;
  [[nodiscard]] std::uint32_t line_of(const std::string& path);
  [[nodiscard]] static std::unique_ptr<hint_link> new_link();
  void install(member& m) noexcept;
  void let_go(member& m) noexcept;
  void part(const member& m, const hint_link& link) noexcept;
  void start() noexcept;
  void wake() noexcept;
  void before_fork() noexcept { mutex_.lock(); }
  void after_fork(bool child) noexcept;

  // hint_hub_thread.cpp; the hub's thread
  void serve(std::unique_lock<std::mutex>& lock);
  void connect(std::unique_lock<std::mutex>& lock, line& l);
  void lost(line& l) noexcept;
  void say_goodbye(std::unique_lock<std::mutex>& lock);
  [[nodiscard]] bool offer_kernel(std::unique_lock<std::mutex>& lock, std::uint64_t serial);
  void offer_local(member& m);
  void sample(clock::time_point now) noexcept;
  [[nodiscard]] int next_timeout(clock::time_point now) const noexcept;
  void wait(std::unique_lock<std::mutex>& lock);

  std::mutex mutex_;  ///< below: guarded by it
  std::vector<std::unique_ptr<member>> members_;
  std::vector<std::unique_ptr<line>> lines_;
  std::vector<departure> departures_;
  std::uint64_t last_serial_ = 0;
  std::string local_fault_;
  bool running_ = false;
  int bell_ = -1;  ///< an eventfd

  // The hub's thread's:
  pressure_source pressure_;
  bool pressure_tried_ = false;
  bool local_works_ = false;
  clock::time_point hot_until_{};
  clock::time_point next_sample_{};
};

}  // namespace asio_pulse::detail
