// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/detail/inspect_server.hpp>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "process_wide.hpp"
#include "trace_taker.hpp"

/// \file
/// The thread that answers whoever looks into this process. Private to inspect_server.cpp
/// (contexts, thread, fork) and inspect_answer.cpp (what it says).

namespace asio_pulse::detail {

/// Answers over a unix socket, and does what takes time for the instruments: probes the queues
/// while somebody collects, ends leases, writes recordings. Sleeps for good while there is nothing
/// to do.
///
/// Locks: `mutex_`, held by the thread whenever it does anything but sleep, so that a context that
/// is being hidden waits for what is done with it; then instruments' and cores' mutexes.
class inspect_server {
 public:
  using clock = std::chrono::steady_clock;

  static inspect_server& get() noexcept;

  void show(context_core& core);
  void hide(context_core& core) noexcept;
  void stalled(context_core& core) noexcept;
  void resume() noexcept;
  /// A context has begun to collect. Whoever calls holds no lock of a core's or of instruments.
  void begun() noexcept;
  /// All that are shown.
  /// \par Errors  std::bad_alloc.
  [[nodiscard]] process_metrics collect(const metrics_request& what);
  /// The thread's function.
  void run() noexcept;

 private:
  friend inspect_server& process_wide<inspect_server>() noexcept;

  /// Somebody who asks.
  struct guest {
    int socket = -1;
    std::string in{};
    std::string out{};
    std::size_t sent = 0;
    clock::time_point deadline{};  ///< for the rest of its request or of the answer
    bool last = false;             ///< the answer is a refusal: then it is done
    bool done = false;
    // A trace that it waits for:
    std::vector<std::unique_ptr<trace_taker>> takers{};
    clock::time_point trace_until{};
  };
  struct shown {
    context_core* core;
    clock::time_point to_write{};  ///< a recording, then; zero: none
    clock::time_point last_written{};
  };

  // inspect_server.cpp; the mutex is held
  void open_for(const context_core& core) noexcept;
  void start() noexcept;
  void wake() noexcept;
  void listen() noexcept;
  void close_all() noexcept;
  [[nodiscard]] int timeout(clock::time_point now) const noexcept;
  void work(clock::time_point now);
  void before_fork() noexcept { mutex_.lock(); }
  void after_fork(bool child) noexcept;

  // inspect_answer.cpp; the mutex is held
  void welcome() noexcept;
  void serve(guest& g, clock::time_point now);
  void answer(guest& g, clock::time_point now);
  void refuse(guest& g, std::string_view why);
  void give(guest& g, const std::string& body);
  void follow(guest& g, clock::time_point now);
  void write_wanted(clock::time_point now);
  [[nodiscard]] bool visible(std::uint64_t number) const noexcept;
  [[nodiscard]] process_metrics collect_now(const metrics_request& what,
                                            std::chrono::milliseconds lease);

  std::mutex mutex_;  ///< below: guarded by it
  std::vector<shown> contexts_;
  std::vector<guest> guests_;
  std::uint64_t written_ = 0;  ///< recordings
  bool running_ = false;
  bool may_start_ = true;
  /// An eventfd. Changed with the mutex held; relaxed: whoever rings needs nothing but the number.
  std::atomic<int> bell_{-1};
  int socket_ = -1;
};

}  // namespace asio_pulse::detail
