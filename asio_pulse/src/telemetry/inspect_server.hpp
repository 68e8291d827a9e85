// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "context_control.hpp"
#include "context_telemetry.hpp"
#include "files/descriptor.hpp"
#include "inspection.hpp"
#include "process/process_wide.hpp"
#include "trace_taker.hpp"

#include <sys/socket.h>
#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

/// \file
/// The thread that answers inspectors of this process. Private to inspect_server.cpp (contexts,
/// thread, fork), inspect_clients.cpp (connections) and inspect_answer.cpp (answers).

namespace asio_pulse::detail {

/// How long a client may take to read an answer.
inline constexpr std::chrono::seconds answer_patience{10};
/// How long the socket stays open without a context. Programs that make a context for each request
/// should not pay for a socket and a wake-up each time. A guess: it is not noticed by a person.
inline constexpr std::chrono::milliseconds linger{100};
/// The backlog of connections. It is larger than the number that usually comes at once, so that
/// refused users delay others only for the time of the refusals.
inline constexpr int most_waiting = 128;

/// Answers inspectors through a unix socket, and does the slow work for the instruments: probes
/// queues while figures are collected, ends leases, writes recordings, and makes the changes that
/// inspectors ask for. It sleeps without a time-out
/// while there is nothing to do.
///
/// It answers root, and the user that this process acts as when the client connects; it changes
/// nothing for a user as whom the process does not act any more. Other users
/// are refused at once and take no place from others, and refusals take at most a twentieth of a
/// CPU. When the process can open no more descriptors, one client at a time is served with a
/// reserved one.
///
/// Lock order: `mutex_`, then the mutexes of instruments and cores. The thread holds `mutex_`
/// except while it sleeps, so that hiding a context waits until the thread no longer uses it, and
/// while it calls the program's hooks for a change that was made. Hiding the context waits for these,
/// too, unless it is done by such a hook. A fork does not wait for them.
class inspect_server {
 public:
  using clock = std::chrono::steady_clock;
  static constexpr fork_handler::order fork_order = fork_handler::order::inspection;

  static inspect_server& get() noexcept;

  void show(context_telemetry& context);
  void worker_joined(const context_telemetry& context) noexcept;
  void hide(context_telemetry& context) noexcept;
  void stalled(context_telemetry& context) noexcept;
  void resume() noexcept;
  /// A context has begun to collect. The caller must hold no lock of a core or of instruments.
  void begun() noexcept;
  /// The metrics of all contexts that are shown.
  /// \par Errors  std::bad_alloc.
  [[nodiscard]] process_metrics collect(const metrics_request& what);
  /// The thread's function.
  void run() noexcept;

 private:
  friend inspect_server& process_wide<inspect_server>() noexcept;

  struct client {
    descriptor socket{};
    uid_t user = 0;  ///< as which it has connected
    std::string in{};
    std::string out{};
    std::size_t sent = 0;
    clock::time_point deadline{};  ///< for the rest of the request or of the answer
    bool last = false;             ///< the answer is a refusal, after which the client is closed
    bool done = false;
    // The trace that it waits for:
    std::vector<std::unique_ptr<trace_taker>> takers{};
    clock::time_point trace_until{};
  };
  struct shown {
    context_telemetry* context;
    bool has_run = false;          ///< a thread has run it
    clock::time_point to_write{};  ///< when to write a recording; zero: none
    clock::time_point last_written{};
    context_control control{};
  };
  /// A change that was made, whose hooks have not been called yet.
  struct announcement {
    context_telemetry* context;
    core_ref core;
    context_core::made_update made;
  };

  // inspect_server.cpp; the mutex is held
  void open_for(const shown& context) noexcept;
  [[nodiscard]] bool any_inspectable() const noexcept;
  void start() noexcept;
  void wake() noexcept;
  void listen() noexcept;
  [[nodiscard]] int timeout(clock::time_point now) const noexcept;
  void work(clock::time_point now);
  void announce_changes(std::unique_lock<std::mutex>& lock) noexcept;
  void end_announcements() noexcept;
  void before_fork() noexcept { mutex_.lock(); }
  void after_fork(bool child) noexcept;

  // inspect_clients.cpp; the mutex is held
  void accept_waiting(clock::time_point now);
  /// Returns false if it was refused.
  [[nodiscard]] bool admit(descriptor socket, clock::time_point now);
  [[nodiscard]] descriptor accept_one() noexcept;
  void reserve() noexcept;
  void tell_own_user() noexcept;
  void forget_gone() noexcept;
  [[nodiscard]] bool has_place(bool root) const noexcept;
  [[nodiscard]] std::string_view why_refused(const ucred& who) noexcept;
  void serve(client& c, clock::time_point now);

  // inspect_answer.cpp; the mutex is held
  void answer(client& c, clock::time_point now);
  void change(client& c, std::uint64_t context, std::string_view what, unsigned weight,
              const std::string& group, clock::time_point now);
  [[nodiscard]] bool may_change(clock::time_point now) noexcept;
  void refuse(client& c, std::string_view why);
  void send_answer(client& c, const std::string& body, std::size_t longest);
  void follow(client& c, clock::time_point now);
  void write_wanted(clock::time_point now);
  [[nodiscard]] bool visible(std::uint64_t number) const noexcept;
  [[nodiscard]] process_metrics collect_now(const metrics_request& what,
                                            std::chrono::milliseconds lease);

  std::mutex mutex_;  ///< guards the members below
  std::vector<shown> contexts_;
  std::vector<client> clients_;
  std::uint64_t written_ = 0;  ///< how many recordings were written
  bool running_ = false;
  bool may_start_ = true;
  /// Changed with the mutex held; relaxed: a thread that signals it needs only the number.
  std::atomic<int> wakeup_{-1};
  descriptor socket_;
  uid_t listens_as_ = 0;  ///< the user that the kernel reports to clients
  /// Reserved for a client when the process can open no more descriptors.
  descriptor reserve_;
  clock::time_point accept_from_{};      ///< no client is accepted before
  clock::time_point close_at_{};         ///< when to close the socket, unless there is a context
  clock::time_point changes_until_{};    ///< the time that the changes of late stand for
  std::list<announcement> to_announce_;  // a deque allocates in its constructor
  context_telemetry* announcing_ = nullptr;  ///< the context whose hooks the thread calls now
  std::condition_variable announced_;
  /// The thread that answers. Relaxed: a thread that compares it with itself has written it, or not.
  std::atomic<std::thread::id> thread_{};
  bool at_exit_ = false;  ///< end_announcements() will be called
  bool over_ = false;     ///< the process is ending: the program is not called any more
};

}  // namespace asio_pulse::detail
