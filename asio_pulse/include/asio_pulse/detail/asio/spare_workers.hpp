// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/asio/asio_internals.hpp>
#include <asio_pulse/detail/asio/owed_count.hpp>
#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/detail/isolation_threads.hpp>
#include <asio_pulse/detail/scoped_lock.hpp>
#include <asio_pulse/hooks/assert.hpp>
#include <asio_pulse/hooks/poll_path.hpp>

#include <boost/asio/execution_context.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <list>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

/// \file
/// Compensation: when every worker of a context is stuck in a handler, a spare thread takes over.
///
/// Terms. A *caller* is a thread of the program that is inside run(), run_for() or run_until() of
/// the context (of nested calls, the outermost counts). A *spare* is a thread of the library. It is
/// *active* while it takes turns of the scheduler, and parked otherwise.
///
/// Invariants, each with its test in tests/integration/stalls/compensation_test.cpp:
///
/// S1. **No handler runs on a spare while no caller is inside.** The last caller that leaves, for
///     whatever reason (out of work, stopped, timed out, an exception), waits until no spare is
///     active. So when run() has returned, the same holds as for a plain io_context: no handler
///     runs, objects that handlers refer to may be destroyed, and restart() may be called. The
///     caller waits only for handlers that this run() would have had to run itself; idle spares are
///     woken. If such a handler is stuck and the context is not stopped, another spare takes over
///     meanwhile. Other callers do not wait.
/// S2. **Counts are exact.** What a spare has run, without phantom and extra turns, is added to
///     what callers return: each caller that returns adds what there is by then, and because of S1
///     the last one adds the rest. run_one(), poll() and the other run functions never add any.
/// S3. **A spare holds no work**, so run() ends when it would have ended without it. It takes turns
///     only while a caller is inside, so it does not stop a context that no run() would have
///     stopped.
/// S4. **An exception leaves through a caller**, one for each run(). An operation of ours throws it
///     on a worker that becomes free; otherwise run() throws it when it returns, or when it begins.
///     Until then it is kept. A spare whose handler threw stops taking turns, as run() does, if
///     another worker is free. A spare allocates the memory that keeps an exception before it calls
///     a handler. If there is no memory, it takes no turn.
/// S5. **There are at most `options::spare_workers` threads.** They are started one at a time, and
///     more slowly the more are active; parked ones are used first. One becomes active only after
///     all workers were stuck. It stays active until a worker is free without it, and for
///     options::spare_cooldown after that.
/// S6. **No code of the program runs with our lock held.** Under `mutex_` no handler, no destructor
///     of the program and no report is called. Asio's scheduler mutex is taken inside it, never
///     outside.
/// S7. **No spare outlives close()**, except one on which close() is called.
///
/// What a stuck handler has deferred (asio::defer, or the post of a continuation) waits in the
/// thread's private queue inside Asio, which no other thread can reach. It runs when the handler
/// has ended.

namespace asio_pulse::detail {

/// The spare threads of one context.
///
/// \par Thread safety  All members may be called from any thread.
/// \par Cost           A caller locks a mutex when it enters and leaves. Polls cost nothing.
class spare_workers {
 public:
  using clock = std::chrono::steady_clock;

  /// A caller's entry in the list of callers. It is on the caller's stack, so adding it cannot
  /// fail.
  struct presence {
    std::thread::id thread{};
    presence* next = nullptr;
  };

  /// The core and the scheduler must live until close() has returned.
  spare_workers(context_core& core, scheduler_type& scheduler)
      : core_(core),
        scheduler_(scheduler),
        cap_(core.opts().spare_workers),
        cooldown_(std::chrono::duration_cast<clock::duration>(core.opts().spare_cooldown)),
        kick_(*this) {}
  spare_workers(const spare_workers&) = delete;
  spare_workers& operator=(const spare_workers&) = delete;

  /// A caller. It ends with leave() or, after an exception, with the destructor.
  class caller {
   public:
    /// \par Errors  Throws what a handler threw on a spare, if it was not thrown to a caller yet.
    explicit caller(spare_workers& s) : spares_(s.enter(here_) ? &s : nullptr) {}
    ~caller() {
      if (spares_ != nullptr) spares_->left_by_caller(here_);
    }
    caller(const caller&) = delete;
    caller& operator=(const caller&) = delete;

    /// Call it when the run function has returned `n`. Returns the count to return.
    ///
    /// \par Errors  As the constructor.
    [[nodiscard]] std::size_t leave(std::size_t n) {
      spare_workers* const s = std::exchange(spares_, nullptr);
      if (s == nullptr) return n;
      s->left_by_caller(here_);
      s->rethrow_one();
      return s->owed_.added_to(n);
    }

   private:
    presence here_;
    spare_workers* spares_;
  };

  /// Called by the watchdog: `stuck` workers (callers and spares) are in a handler that does not
  /// end. If these are all workers, and something else is queued or waited for, a spare becomes
  /// active.
  ///
  /// \par Cost    A mutex; may start a thread.
  /// \par Errors  None (noexcept). If no thread can be started, the next call tries again.
  void compensate(std::size_t stuck) noexcept {
    const scoped_lock lock(mutex_);
    stuck_ = stuck;
    if (closing_ || pausing_ || (callers_ == nullptr && waiting_ == 0)) return;
    const auto now = clock::now();
    if (stuck >= caller_count_) needed_ = now;
    if (stuck < workers(lock) || now < not_before_) return;
    // A stuck handler is a unit of work itself. (If it was put back before, it is two. Then a spare
    // may start that finds nothing to do.)
    if (outstanding_work(scheduler_) <= static_cast<long>(stuck) || scheduler_.stopped()) return;
    if (activate(lock)) {
      const clock::duration spacing = std::clamp<clock::duration>(
          timing::to_ns(core_.live().limits().slow_poll), shortest_spacing, longest_spacing);
      const auto doubled = spacing * (1U << std::min<std::size_t>(active_, 10));
      not_before_ = now + std::min<clock::duration>(doubled, longest_spacing);
    }
  }

  /// Called by the watchdog: a stall has ended, and this many workers are still stuck.
  void relieved(std::size_t still_stuck) noexcept {
    const scoped_lock lock(mutex_);
    if (stuck_ >= caller_count_) needed_ = clock::now();
    stuck_ = still_stuck;
    if (!thrown_.empty() && callers_ != nullptr && !closing_) kick(lock);
  }

  /// The context is being destroyed. Waits for handlers that run on spares. If one of them destroys
  /// the context, returns false; then this object must be leaked, not destroyed.
  [[nodiscard]] bool close() noexcept {
    end_threads(closing_);
    return serving != this;
  }

  /// Before a fork: ends the spares, and waits for handlers that they run, unless such a handler
  /// calls fork(). No new ones are started until resume().
  void pause() noexcept {
    if (serving != this) return end_threads(pausing_);
    const scoped_lock lock(mutex_);
    pausing_ = true;
  }
  /// After the fork, on the same thread, in the parent and in the child.
  void resume(boost::asio::execution_context::fork_event event) noexcept {
    if (event != boost::asio::execution_context::fork_child) {
      const scoped_lock lock(mutex_);
      pausing_ = false;
      recheck_.store(closing_, std::memory_order_relaxed);
      return;
    }
    // In the child there are no other threads. Those that held or waited for these objects have
    // left them in an unusable state.
    std::construct_at(&mutex_);
    std::construct_at(&parked_);
    std::construct_at(&left_);
    const scoped_lock lock(mutex_);
    presence* const mine = find(lock, std::this_thread::get_id());
    only_caller(lock, mine);
    stuck_ = tickets_ = leaving_ = waiting_ = 0;
    for (spare& s : threads_) s.thread.detach();
    threads_.clear();
    active_ = 0;
    set_alive(lock, 0);
    pausing_ = false;
    recheck_.store(closing_, std::memory_order_relaxed);
    if (serving == this) {
      only_caller(lock, &forked_here_);  // the spare that forked continues as the caller
      forked_here_.thread = std::this_thread::get_id();
      active_ = 1;
      set_alive(lock, 1);
    }
  }

  /// Called on a spare when it begins to take turns, with true, and when it stops. Set before there
  /// is a caller.
  using helper = void (*)(void* about, bool begins) noexcept;
  void tell(helper f, void* about) noexcept {
    helper_ = f;
    about_ = about;
  }

  /// For tests and statistics.
  struct counts {
    std::size_t active, alive;
    std::uint64_t started;    ///< how many threads were started
    std::uint64_t activated;  ///< how often a spare became active
  };
  [[nodiscard]] counts snapshot() const noexcept {
    const scoped_lock lock(mutex_);
    return {active_, alive_, started_, activated_};
  }

 private:
  // After a spare became active, the next one waits for the stall threshold, doubled
  // for each active spare. With a longer wait, a queue of slow handlers is served late; with a
  // shorter one, each of them gets a thread at once. The bounds are guesses.
  static constexpr clock::duration shortest_spacing = std::chrono::milliseconds{1};
  static constexpr clock::duration longest_spacing = std::chrono::milliseconds{100};
  // A spare waits for at most this long at a time. So it notices at most this late that it may
  // leave, even if it was woken just before it began to wait.
  static constexpr std::chrono::microseconds longest_slice{20'000};
  static constexpr std::chrono::microseconds shortest_slice{1'000};
  // How often a busy spare checks whether it may leave. A guess: this costs a clock reading in each
  // turn, and a mutex in each millisecond.
  static constexpr clock::duration look_interval = std::chrono::milliseconds{1};
  // A parked thread ends after this many cool-downs, which are 30 s by default. A guess.
  static constexpr int idle_cooldowns = 30;

  struct spare {
    std::thread thread{};
    bool ended = false;
  };

  /// An operation of ours. A worker that runs it and is not a spare throws the kept exception.
  struct kick_operation : operation_type {
    explicit kick_operation(spare_workers& s) noexcept
        : operation_type(&kick_operation::run), spares(s) {}
    static void run(void* owner, operation_type* self, const boost::system::error_code&,
                    std::size_t) {
      // If the owner is null, the operation is destroyed with the context, which owns it.
      if (owner != nullptr) static_cast<kick_operation*>(self)->spares.kicked();
    }
    spare_workers& spares;
  };

  // ---- callers

  [[nodiscard]] presence* find([[maybe_unused]] const scoped_lock& lock,
                               std::thread::id thread) const noexcept {
    ASIO_PULSE_ASSERT(holds(lock, mutex_));
    presence* p = callers_;
    while (p != nullptr && p->thread != thread) p = p->next;
    return p;
  }
  void only_caller([[maybe_unused]] const scoped_lock& lock, presence* p) noexcept {
    ASIO_PULSE_ASSERT(holds(lock, mutex_));
    callers_ = p;
    caller_count_ = p != nullptr ? 1 : 0;
    if (p != nullptr) p->next = nullptr;
  }

  /// Returns false for a call inside a handler of the same context, on a caller's thread or on a
  /// spare. Then no spare takes over for it.
  [[nodiscard]] bool enter(presence& here) {
    if (serving == this) return false;
    std::exception_ptr thrown;
    {
      const scoped_lock lock(mutex_);
      const auto me = std::this_thread::get_id();
      if (find(lock, me) != nullptr) return false;
      if (thrown_.empty()) {
        here = {.thread = me, .next = callers_};
        callers_ = &here;
        ++caller_count_;
        settings_.remember();
        return true;
      }
      thrown = take_thrown(lock);
    }
    std::rethrow_exception(std::move(thrown));
  }

  void left_by_caller(const presence& here) noexcept {
    scoped_lock lock(mutex_);
    for (presence** p = &callers_; *p != nullptr; p = &(*p)->next) {
      if (*p != &here) continue;
      *p = here.next;
      --caller_count_;
      break;
    }
    if (callers_ != nullptr) return;
    ASIO_PULSE_ASSERT(tickets_ <= active_);
    active_ -= std::exchange(tickets_, 0);  // no spare has used them yet
    recheck_.store(true, std::memory_order_relaxed);
    auto pause = shortest_slice;
    ++waiting_;
    stuck_ = 0;  // from now on the watchdog reports about spares only
    // Another caller may enter meanwhile. Then that one will wait instead.
    while (active_ != 0 && callers_ == nullptr) {
      // Repeated, because a spare may have been just about to wait when it was woken.
      wake_all(scheduler_);
      left_.wait_for(lock, pause);
      pause = std::min(2 * pause, longest_slice);
    }
    --waiting_;
    if (!closing_ && !pausing_) recheck_.store(false, std::memory_order_relaxed);
  }

  // \pre An exception is kept.
  [[nodiscard]] std::exception_ptr take_thrown([[maybe_unused]] const scoped_lock& lock) noexcept {
    ASIO_PULSE_ASSERT(holds(lock, mutex_) && !thrown_.empty());
    std::exception_ptr first = std::move(thrown_.front());
    thrown_.pop_front();
    return first;
  }

  void rethrow_one() {
    std::exception_ptr thrown;
    {
      const scoped_lock lock(mutex_);
      if (thrown_.empty()) return;
      thrown = take_thrown(lock);
    }
    std::rethrow_exception(std::move(thrown));
  }

  // ---- spares

  void set_alive([[maybe_unused]] const scoped_lock& lock, std::size_t n) noexcept {
    ASIO_PULSE_ASSERT(holds(lock, mutex_));
    if (n > alive_) {
      core_.counted().add<&statistics::spares_started>();
      core_.counted().add<&statistics::spares>(n - alive_);
    } else {
      core_.counted().subtract<&statistics::spares>(alive_ - n);
    }
    alive_ = n;
  }

  /// Sets the flag, which makes every spare end, and waits for all except the calling one.
  void end_threads(bool& flag) noexcept {
    std::list<spare> threads;
    {
      const scoped_lock lock(mutex_);
      flag = true;
      threads.swap(threads_);
      set_alive(lock, 0);
      recheck_.store(true, std::memory_order_relaxed);
    }
    parked_.notify_all();
    for (spare& s : threads) {
      if (s.thread.get_id() == std::this_thread::get_id()) {
        s.thread.detach();
        continue;
      }
      // A spare that was about to wait when all were woken returns by itself after longest_slice.
      wake_all(scheduler_);
      s.thread.join();
    }
  }

  // Makes a spare active, and returns whether it could.
  bool activate(const scoped_lock& lock) noexcept {
    ASIO_PULSE_ASSERT(holds(lock, mutex_));
    ASIO_PULSE_ASSERT(alive_ >= active_);
    if (alive_ == active_) {
      if (alive_ >= cap_) return false;
      threads_.remove_if([](spare& s) {
        if (s.ended) s.thread.join();  // does not block: the thread has released the mutex
        return s.ended;
      });
      try {
        spare& s = threads_.emplace_back();
        try {
          s.thread = std::thread([this, &s] { live(s); });
        } catch (...) {
          threads_.pop_back();
          return false;
        }
      } catch (...) {
        return false;
      }
      set_alive(lock, alive_ + 1);
      ++started_;
    }
    ++active_;
    ++tickets_;
    ++activated_;
    parked_.notify_one();
    return true;
  }

  void live(spare& self) {
    name_thread("pulse-spare");
    serving = this;
    scoped_lock lock(mutex_);
    // The watchdog, which starts this thread, blocks all signals and avoids some CPUs. Handlers,
    // and programs that they start, expect the settings of the callers.
    settings_.apply();
    const auto idle = cooldown_ * idle_cooldowns;
    for (;;) {
      const bool in_time =
          parked_.wait_for(lock, idle, [this] { return tickets_ != 0 || closing_ || pausing_; });
      if (closing_ || pausing_) break;
      if (!in_time) {
        set_alive(lock, alive_ - 1);
        self.ended = true;
        return;
      }
      ASIO_PULSE_ASSERT(tickets_ <= active_);
      --tickets_;
      lock.unlock();
      serve();
      lock.lock();
    }
    active_ -= std::exchange(tickets_, 0);
    left_.notify_all();
  }

  /// Memory for an exception that a handler may throw.
  using room_for_one = std::list<std::exception_ptr>;

  [[nodiscard]] static bool has_room(room_for_one& room) noexcept {
    try {
      if (room.empty()) room.emplace_back();
      return true;
    } catch (const std::bad_alloc&) {
      return false;
    }
  }

  void serve() {
    room_for_one room;
    {
      hooks::worker_scope worker(&scheduler_, core_, true, true);
      struct helping {
        explicit helping(spare_workers& s) noexcept : spares(s) { say(true); }
        ~helping() { say(false); }
        void say(bool begins) const noexcept {
          if (spares.helper_ != nullptr) spares.helper_(spares.about_, begins);
        }
        spare_workers& spares;
      } const helps(*this);
      clock::time_point looked{};
      std::chrono::microseconds slice{0};
      outcome last = outcome::nothing;
      do {
        const auto now = clock::now();
        // Relaxed: the thread that sets it wakes this one until it has left; see left_by_caller().
        if (last != outcome::ran || now - looked >= look_interval ||
            recheck_.load(std::memory_order_relaxed)) {
          looked = now;
          if (may_leave(now, slice)) break;
        }
        if (!has_room(room)) {
          // The watchdog activates it again if it is still needed.
          const scoped_lock lock(mutex_);
          ++leaving_;
          break;
        }
        last = turn(worker, slice, room);
      } while (last != outcome::leave);
    }
    const scoped_lock lock(mutex_);
    ASIO_PULSE_ASSERT(leaving_ != 0 && leaving_ <= active_);
    --active_;
    --leaving_;
    left_.notify_all();
  }

  enum class outcome : std::uint8_t { nothing, ran, leave };

  outcome turn(hooks::worker_scope& worker, std::chrono::microseconds slice, room_for_one& room) {
    worker.reset_turns();
    std::size_t n = 0;
    std::exception_ptr thrown;
    try {
      boost::system::error_code ec;
      n = scheduler_.wait_one(static_cast<long>(slice.count()), ec);
    } catch (...) {
      thrown = std::current_exception();
    }
    const bool leave = std::exchange(dismissed, false);
    if (thrown) {
      // After the catch block, which also holds the exception. From here on only the caller has it.
      room.front() = std::move(thrown);
      const scoped_lock lock(mutex_);
      thrown_.splice(thrown_.end(), room);
      return leave || give_up(lock) ? outcome::leave : outcome::nothing;
    }
    if (leave) return outcome::leave;
    owed_.add(n, worker.phantom_turns() + worker.extra_turns());
    return n != 0 ? outcome::ran : outcome::nothing;
  }

  // Callers and spares, without those that are leaving.
  [[nodiscard]] std::size_t workers([[maybe_unused]] const scoped_lock& lock) const noexcept {
    ASIO_PULSE_ASSERT(holds(lock, mutex_) && leaving_ <= active_);
    return caller_count_ + active_ - leaving_;
  }
  // Whether a worker is free without the calling spare, as far as the watchdog knows.
  [[nodiscard]] bool surplus(const scoped_lock& lock) const noexcept {
    return workers(lock) > stuck_ + 1;
  }

  [[nodiscard]] bool may_leave(clock::time_point now, std::chrono::microseconds& slice) noexcept {
    const scoped_lock lock(mutex_);
    const auto over = needed_ + cooldown_;
    const bool wanted = callers_ != nullptr || (waiting_ != 0 && stuck_ != 0);
    if (!wanted || closing_ || pausing_ || scheduler_.stopped() || (surplus(lock) && now >= over)) {
      ++leaving_;
      return true;
    }
    slice = std::clamp(std::chrono::ceil<std::chrono::microseconds>(over - now), shortest_slice,
                       longest_slice);
    return false;
  }

  // An exception is kept, which no spare can deliver. The calling spare makes room for a caller,
  // unless it is the only free worker. Returns whether it must leave.
  [[nodiscard]] bool give_up(const scoped_lock& lock) noexcept {
    ASIO_PULSE_ASSERT(serving == this && !thrown_.empty());
    if (!surplus(lock)) return false;
    ++leaving_;
    kick(lock);
    return true;
  }

  // Queues the kick, unless it is queued already.
  void kick([[maybe_unused]] const scoped_lock& lock) noexcept {
    ASIO_PULSE_ASSERT(holds(lock, mutex_));
    if (!std::exchange(kicked_off_, true)) scheduler_.post_immediate_completion(&kick_, false);
  }

  void kicked() {
    {
      const scoped_lock lock(mutex_);
      ASIO_PULSE_ASSERT(kicked_off_);
      kicked_off_ = false;
      if (thrown_.empty() || serving == this) {
        // A spare cannot use it. It is sent again if a worker is free, otherwise when one becomes
        // free; see relieved().
        dismissed = dismissed || (!thrown_.empty() && give_up(lock));
        ++hooks::this_thread().phantom_turns;
        return;
      }
    }
    rethrow_one();
  }

  context_core& core_;
  scheduler_type& scheduler_;
  const std::size_t cap_;
  const clock::duration cooldown_;
  kick_operation kick_;
  helper helper_ = nullptr;
  void* about_ = nullptr;

  /// Handlers that spares have run and no caller has counted yet.
  owed_count owed_;
  /// If it is true, spares check in each turn whether they may leave. Set under the mutex.
  std::atomic<bool> recheck_{false};

  mutable std::mutex mutex_;  ///< guards the members below
  std::condition_variable parked_;
  std::condition_variable left_;
  std::list<spare> threads_;
  presence* callers_ = nullptr;
  std::size_t caller_count_ = 0;
  presence forked_here_;            ///< the entry of a spare that has called fork()
  std::size_t waiting_ = 0;         ///< callers that wait for spares, in order to leave
  std::size_t alive_ = 0;           ///< threads that have not ended
  std::size_t active_ = 0;          ///< spares that take turns, or were activated to do so
  std::size_t tickets_ = 0;         ///< activations that no spare has taken yet
  std::size_t leaving_ = 0;         ///< active spares that take no more turns
  std::size_t stuck_ = 0;           ///< stuck workers, as the watchdog reported last
  clock::time_point needed_{};      ///< the last time at which no caller was free
  clock::time_point not_before_{};  ///< the earliest time of the next start
  std::list<std::exception_ptr> thrown_;
  std::uint64_t started_ = 0;
  std::uint64_t activated_ = 0;
  bool kicked_off_ = false;
  bool closing_ = false;
  bool pausing_ = false;
  thread_settings settings_;

  /// The object whose spare the calling thread is, and whether it must leave after this turn.
  inline static thread_local const spare_workers* serving = nullptr;
  inline static thread_local bool dismissed = false;
};

}  // namespace asio_pulse::detail
