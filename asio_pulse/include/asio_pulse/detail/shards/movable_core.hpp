// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/asio/handler_operation.hpp>
#include <asio_pulse/detail/shards/visitors.hpp>
#include <asio_pulse/hooks/assert.hpp>
#include <asio_pulse/hooks/thread_state.hpp>
#include <asio_pulse/io_context.hpp>
#include <asio_pulse/shard_balance.hpp>
#if !defined(ASIO_PULSE_DISABLE)
#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/detail/task_ref.hpp>
#include <asio_pulse/hooks/sockets.hpp>
#endif

#include <boost/asio/error.hpp>
#include <boost/smart_ptr/intrusive_ptr.hpp>
#include <boost/system/error_code.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

/// \file
/// A session that may move: which thread owns it at present, and what resumes it. shard_moves.hpp moves
/// it, and movable_objects.hpp knows its sockets and timers.

namespace asio_pulse::detail {

class shard_moves;

/// The handler with which a session continues after a quiet point: an operation for the queue of its
/// shard. The owner of the session owns it, too.
class resumption : public operation_type {
 public:
  /// The session continues there.
  virtual void goes_to(io_context& to) noexcept = 0;
  /// Announces it to Asio as an operation of that context. Once, before it is queued.
  virtual void announce_in(io_context& in) noexcept = 0;
  /// Calls the handler in this poll, and ends the object.
  virtual void resume() = 0;
  /// Ends it without calling the handler.
  virtual void drop() noexcept = 0;

  boost::system::error_code result;
  /// When it has its turn, the session continues to wait, and the handler is not called.
  bool waits_again = false;

 protected:
  explicit resumption(func_type function) noexcept : operation_type(function) {}
  ~resumption() = default;
};

/// The tasks that move with a session: each is continued by one of the other context.
class moved_tasks {
 public:
#if defined(ASIO_PULSE_DISABLE)
  moved_tasks(io_context&, io_context&) noexcept {}
#else
  moved_tasks(io_context& from, io_context& to) noexcept
      : from_(service_of(from).core()), to_(service_of(to).core()) {}

  /// What continues the task there. Null if there is none, and the task itself if it is not one of
  /// the session's context. It lives as long as this object, and `t`.
  ///
  /// \par Errors  std::bad_alloc.
  [[nodiscard]] hooks::task_record* of(hooks::task_record* t) {
    if (t == nullptr || t->home != from_) return t;
    for (const auto& [before, now] : pairs_) {
      if (before == t) return now.get();
    }
    pairs_.emplace_back(t, task_ref());
    pairs_.back().second = task_ref(to_->continue_task(static_cast<task_state&>(*t)));
    return pairs_.back().second.get();
  }

 private:
  context_core* from_;
  context_core* to_;
  std::vector<std::pair<hooks::task_record*, task_ref>> pairs_;
#endif
};

/// One word says which thread may use a session: the *number* of its present wait, and a state.
///
///     running ──► starting ──► waiting ──► running     the socket is ready, or the wait is cancelled
///        ▲            │           │                    (both only with the number of this wait)
///        │            ▼           ▼
///        │          taken       taken ──► running      its own move_to(): it is queued on the other shard
///        │     (ready already)    │
///        └────────────────────────┴─────► waiting      it has moved and waits there; or it could not be
///                                                      moved, and stays
///
/// *running*: the thread of the shard that runs its handlers, and the operation in that shard's queue,
/// own it. *waiting*: it has no owner; the thread that changes the state becomes its owner. *taken*: a
/// thread that moves it owns it, of any shard. A wait of Asio with an old number finds another number, and
/// does nothing; so it does not matter when the reactor of the shard that the session has left completes
/// it. A wait that is over while the state is starting or taken sets `fired`, and one that is cancelled
/// then sets `cancelled`; the owner sees it when it gives the session back. A thread that moves a waiting
/// session starts its wait on the other shard itself, so that it can be taken again even if that shard is
/// stuck. Only if that wait is over at once, cannot be started or was cancelled, the session stays *taken*
/// until its operation has a turn there.
///
/// \par Memory order  The state `waiting` is set with release, after the last use of the session, and is
///                    changed with acquire.
class movable_core {  // NOLINT(*-virtual-class-destructor): intrusive_ptr_release() deletes it
 public:
  using time = std::chrono::steady_clock::time_point;

  movable_core(const movable_core&) = delete;
  movable_core& operator=(const movable_core&) = delete;

  friend void intrusive_ptr_add_ref(movable_core* c) noexcept {
    c->references_.fetch_add(1, std::memory_order_relaxed);
  }
  friend void intrusive_ptr_release(movable_core* c) noexcept {
    if (c->references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete c;
  }

  // ---- the session's thread

  /// The session waits until its first socket can be read, or `until`; then `op` has the result.
  /// Takes `op` over, unless it throws.
  ///
  /// \par Errors  What starting to wait throws.
  void idle(resumption& op, std::optional<time> until);
  /// Moves to that shard, or completes: with the error, or without one if the session is there already.
  void move_now(resumption& op, std::size_t shard) noexcept;
  /// A turn of a `resumption` that waits again.
  void go_on_waiting(resumption& op);
  /// Whether something wants it to move at its next quiet point.
  [[nodiscard]] inline bool wanted() const noexcept;
  /// The shard that it should move to, if any. At a quiet point.
  [[nodiscard]] inline std::optional<std::size_t> wanted_shard() noexcept;
  /// It is at a quiet point: a turn has ended.
  void turn_ends() noexcept;
  /// The session has ended.
  void end() noexcept;

  // ---- any thread

  /// An order to move. See movable_ref.
  [[nodiscard]] boost::system::error_code order(std::size_t shard) noexcept;
  [[nodiscard]] bool cancel() noexcept;
  /// The number of its shard. Empty if it has ended.
  [[nodiscard]] inline std::optional<std::size_t> shard() const noexcept;
  [[nodiscard]] bool ended() const noexcept { return ended_.load(std::memory_order_acquire); }
  [[nodiscard]] shard_moves* home() const noexcept { return home_.load(std::memory_order_acquire); }
  void forbid() noexcept { holds_.fetch_add(1, std::memory_order_relaxed); }
  void allow() noexcept { holds_.fetch_sub(1, std::memory_order_relaxed); }
  [[nodiscard]] bool forbidden() const noexcept {
    return holds_.load(std::memory_order_relaxed) != 0;
  }

  // ---- the waits of the reactor

  /// The wait with this number is over.
  void ready(std::uint64_t number, boost::system::error_code ec);
  /// It was destroyed with its context.
  void abandoned(std::uint64_t number) noexcept;

 protected:
  explicit movable_core(shard_moves& home);
  virtual ~movable_core();

  /// Starts a wait on the first socket, and on the time limit if there is one.
  virtual void wait(std::uint64_t number, std::optional<time> until) = 0;
  /// Ends a wait that is not needed any more.
  virtual void stop_waiting(bool for_socket) noexcept = 0;
#if defined(ASIO_PULSE_DISABLE)
  struct session_task {};
#else
  using session_task = task_ref;
#endif
  /// Moves all objects to the other context, or none. Sets `task` to the one that the session
  /// continues as.
  [[nodiscard]] virtual boost::system::error_code rebind(io_context& from, io_context& to,
                                                         session_task& task) noexcept = 0;

  /// The task that it belongs to; none if it belongs to no task. The owner's, and changed under the
  /// mutex of `home_` only, so that this may read it as well.
  session_task task_;

 private:
  friend class shard_moves;

  using word = std::uint64_t;
  static constexpr word running = 0, starting = 1, waiting = 2, taken = 3;
  static constexpr word states = 3, fired = 4, cancelled = 8;
  static constexpr unsigned number_shift = 4;

  /// Starts the next wait. The state is `during` meanwhile, and afterwards, also if this throws. Returns
  /// false if it was cancelled while it was taken: then it is queued.
  [[nodiscard]] bool start_waiting(word during);
  /// It has come to its shard by a move, and continues to wait there. For the thread that has moved it.
  void wait_there() noexcept;
  /// Makes it the caller's if it waits.
  [[nodiscard]] bool take() noexcept {
    word w = word_.load(std::memory_order_seq_cst);
    return (w & states) == waiting && !forbidden() &&
           word_.compare_exchange_strong(w, (w & ~states) | taken, std::memory_order_acq_rel,
                                         std::memory_order_relaxed);
  }
  /// Gives a session back whose wait was started. It waits then, or is queued, or moves on if there is an
  /// order.
  void give_back() noexcept;
  /// Its wait could not be started. Makes it running, and forgets what has happened meanwhile.
  void run_again() noexcept {
    const word w = word_.load(std::memory_order_relaxed);
    word_.store(w >> number_shift << number_shift | running, std::memory_order_release);
  }
  [[nodiscard]] bool want(std::size_t shard, move_reason why) noexcept {
    std::uint32_t none = 0;
    return wanted_.compare_exchange_strong(none, wish(shard, why), std::memory_order_seq_cst,
                                           std::memory_order_relaxed);
  }
  /// It moves to that shard. An order for another one stays in place: whoever gave it was told that it
  /// was accepted.
  void forget_wish(std::size_t shard) noexcept {
    std::uint32_t w = wanted_.load(std::memory_order_relaxed);
    const bool other =
        static_cast<move_reason>(w >> 16U) == move_reason::ordered && (w & 0xffffU) != shard + 1;
    // Not a store: an order that comes in this moment must not be lost.
    if (w != 0 && !other) wanted_.compare_exchange_strong(w, 0, std::memory_order_relaxed);
  }
  static std::uint32_t wish(std::size_t shard, move_reason why) noexcept {
    return static_cast<std::uint32_t>(shard + 1) | static_cast<std::uint32_t>(why) << 16U;
  }
  /// Where it goes now, if anywhere; and why.
  [[nodiscard]] shard_moves* target(move_reason& why) const noexcept;
  [[nodiscard]] std::string_view name() const noexcept {
#if !defined(ASIO_PULSE_DISABLE)
    if (task_.get() != nullptr) return task_->name.get();
#endif
    return {};
  }
  /// How often its task has stuck a shard.
  [[nodiscard]] std::uint8_t long_polls() const noexcept {
#if !defined(ASIO_PULSE_DISABLE)
    if (task_.get() != nullptr) return task_->long_polls.load(std::memory_order_relaxed);
#endif
    return 0;
  }
  /// What it has used, in ticks; or how often it was at a quiet point, if that is not known.
  [[nodiscard]] std::uint64_t used() const noexcept;

  std::atomic<std::uint32_t> references_{0};
  std::atomic<std::uint32_t> holds_{0};
  std::atomic<word> word_{running};
  /// A shard and a reason, see wish(); 0: none. It publishes nothing; see give_back().
  std::atomic<std::uint32_t> wanted_{0};
  std::atomic<bool> ended_{false};
  std::atomic<shard_moves*> home_;  ///< changed by its owner
  /// It outlives the shards.
  const std::shared_ptr<visitors> from_outside_;
  // The owner's.
  resumption* op_ = nullptr;
  std::optional<time> until_;
  /// A wait may be in the reactor of `home_`, or its limit.
  bool wait_left_ = false;
  std::atomic<std::uint32_t> turns_{0};  ///< written by the owner
  std::uint8_t long_seen_ = 0;           ///< long_polls() when its last turn ended, or it moved
  std::uint32_t short_turns_ = 0;        ///< since the last long one
  // Guarded by the mutex of `home_`.
  movable_core* previous_ = nullptr;
  movable_core* next_ = nullptr;
  bool listed_ = false;
  bool hog_ = false;             ///< see shard_balancer; changed by the owner
  std::uint64_t used_then_ = 0;  ///< used() at the last sample
  /// Of a CPU, in millionths: what it has used between the last two samples; see movable_load.
  std::uint32_t ppm_ = movable_load::unknown;
  std::uint32_t before_ = movable_load::unknown;  ///< and before that
};

/// The handler of a wait of the reactor.
class wait_handler {
 public:
  wait_handler(movable_core& c, std::uint64_t number, bool limit) noexcept
      : core_(&c), number_(number), limit_(limit) {}
  wait_handler(wait_handler&&) noexcept = default;
  wait_handler& operator=(wait_handler&&) = delete;
  ~wait_handler() {
    if (core_ != nullptr && !limit_) core_->abandoned(number_);
  }
  void operator()(boost::system::error_code ec) {
    const boost::intrusive_ptr<movable_core> core = std::move(core_);
    if (!limit_) return core->ready(number_, ec);
    if (!ec) core->ready(number_, boost::asio::error::timed_out);
  }

 private:
  boost::intrusive_ptr<movable_core> core_;
  std::uint64_t number_;
  bool limit_;
};

}  // namespace asio_pulse::detail
