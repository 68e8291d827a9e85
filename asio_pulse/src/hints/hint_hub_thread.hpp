// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "hint_client.hpp"
#include "hint_hub.hpp"
#include "hint_link.hpp"
#include "hint_local.hpp"
#include "process/process_wide.hpp"
#include "threads/thread_slices.hpp"
#include "threads/thread_usage.hpp"

#include <asio_pulse/detail/context_core.hpp>

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

/// \file
/// The hub itself. Private to hint_hub.cpp (subscribers, workers, fork) and hint_hub_thread.cpp
/// (sources).

namespace asio_pulse::detail {

/// The hub has workers on one side, sources on the other, a mutex, and a thread that does
/// everything that takes time.
///
/// The states of a subscriber's link are: none -> offered (by the hub's thread) -> taken (by the
/// worker, at its next poll) -> none (by the worker, when it leaves or its source is gone).
class hint_hub {
 public:
  static constexpr fork_handler::order fork_order = fork_handler::order::others;

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
  struct subscriber {
    hooks::thread_state* ts = nullptr;
    context_core* core = nullptr;  ///< valid, because the worker is inside its run()
    pid_t tid = 0;
    std::uint64_t serial = 0;
    hint_source wanted = hint_source::off;
    std::uint32_t connection_index = 0;
    std::unique_ptr<hint_link> offered;
    std::unique_ptr<hint_link> link;  ///< once taken, only its thread uses it
    bool gone = false;                ///< the source of the taken link is gone
    std::uint32_t refused = 0;        ///< the session that has refused it
    scheduling_attributes before;     ///< the scheduling to restore
    bool changed = false;
    bool shadow = false;  ///< what the control block says; see permit()
    // For local hints; used by the hub's thread only.
    thread_probe probe;
    std::unique_ptr<local_hints> local;
  };

  /// A source of hints, connected or not.
  struct connection {
    std::string path;
    hint_client client;         ///< used by the hub's thread only
    std::uint32_t session = 0;  ///< the number of the current connection
    bool up = false;
    clock::time_point since{};  ///< the start of the last connection
    clock::time_point retry{};
    std::chrono::milliseconds pause{};
    std::string fault;  ///< why it is not connected
  };
  struct departure {
    std::uint32_t connection_index;
    std::uint32_t session;
    pid_t tid;
    std::uint32_t slot;
  };

  // hint_hub.cpp; the mutex is held
  [[nodiscard]] subscriber* find(const hooks::thread_state& ts) noexcept;
  [[nodiscard]] subscriber* find(std::uint64_t serial) noexcept;
  [[nodiscard]] std::uint32_t connection_to(const std::string& path);
  [[nodiscard]] static std::unique_ptr<hint_link> new_link();
  void install(subscriber& sub) noexcept;
  static void permit(subscriber& sub) noexcept;
  void let_go(subscriber& sub) noexcept;
  void part(const subscriber& sub, const hint_link& link) noexcept;
  void start() noexcept;
  void wake() noexcept;
  void before_fork() noexcept { mutex_.lock(); }
  void after_fork(bool child) noexcept;

  // hint_hub_thread.cpp; the hub's thread
  void serve(std::unique_lock<std::mutex>& lock);
  void connect(std::unique_lock<std::mutex>& lock, connection& c);
  static void retry_later(connection& c) noexcept;
  void lost(connection& c) noexcept;
  void say_goodbye(std::unique_lock<std::mutex>& lock);
  [[nodiscard]] bool offer_kernel(std::unique_lock<std::mutex>& lock, std::uint64_t serial);
  void offer_local(subscriber& sub);
  void sample(clock::time_point now) noexcept;
  [[nodiscard]] int next_timeout(clock::time_point now) const noexcept;
  void wait(std::unique_lock<std::mutex>& lock, bool soon) noexcept;

  std::mutex mutex_;  ///< guards the members below
  std::vector<std::unique_ptr<subscriber>> subscribers_;
  std::vector<std::unique_ptr<connection>> connections_;
  std::vector<departure> departures_;
  std::uint64_t last_serial_ = 0;
  std::string local_fault_;
  bool running_ = false;
  int wakeup_ = -1;  ///< an eventfd

  thread_files files_{1};  ///< opened by the hub's thread alone

  // Used by the hub's thread only:
  pressure_source pressure_;
  bool pressure_tried_ = false;
  bool local_works_ = false;
  clock::time_point hot_until_{};
  clock::time_point next_sample_{};
};

}  // namespace asio_pulse::detail
