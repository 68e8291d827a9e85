// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <asio_pulse/detail/asio_internals.hpp>
#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/detail/isolation_threads.hpp>
#include <asio_pulse/detail/owed_count.hpp>
#include <asio_pulse/hooks/poll_path.hpp>
#include <atomic>
#include <boost/asio/execution_context.hpp>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <list>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

/// \file
/// Compensation: when every worker of a context is stuck in a handler, a spare thread takes over.
///
/// Words. A *caller* is a thread of the program's inside run(), run_for() or run_until() of the
/// context (of calls inside one another, the outermost counts). A *spare* is a thread of ours. It
/// is *active* while it takes the scheduler's turns, and parked otherwise.
///
/// Invariants, each with its test in tests/integration/compensation_test.cpp:
///
/// S1. **No handler runs on a spare while no caller is inside.** The last caller to leave, however
///     it leaves (out of work, stopped, timed out, an exception), waits until no spare is active.
///     So what holds of a plain io_context when its run() has returned holds here: no handler runs,
///     what they refer to may go, restart() may be called. The wait is for handlers only that this
///     run() would have had to run itself; idle spares are woken. Where such a handler is stuck,
///     and the context not stopped, another spare goes on meanwhile. Other callers wait for
///     nothing.
/// S2. **Counts are exact.** What a spare ran, without phantom and extra turns, is owed to the
///     callers: each one that returns adds what is owed by then, and by S1 the last one adds the
///     rest. run_one(), poll() and the others never do.
/// S3. **A spare holds no work**, so run() ends when it would have ended; and it takes turns only
///     while a caller is inside, so it does not end (stop) a context that no run() would have
///     ended.
/// S4. **An exception leaves through a caller**, one per run(): thrown by an operation of ours
/// where
///     a worker comes free, else by run() as it returns, else as it begins. Until then it is kept.
///     A spare whose handler threw leaves, as run() does, if another worker is free.
/// S5. **At most `options::spare_workers` threads**, started one at a time and the slower the more
///     are active; parked ones are taken first. Active only after all workers were stuck; until a
///     worker is free without it, and for options::spare_cooldown after that.
/// S6. **Nobody waits for us with a lock held**: under `mutex_` no handler, no destructor of the
///     program's and no report is called; Asio's scheduler mutex is taken inside it, never outside.
/// S7. **No spare outlives close()**, but one that close() is called on.
///
/// What a stuck handler has deferred (asio::defer, or a continuation's post) waits in its own
/// thread's queue inside Asio, where nobody else can reach it: it runs when the handler has ended.

namespace asio_pulse::detail {

/// The spare threads of one context.
///
/// \par Thread safety  All members, from any thread.
/// \par Cost           A caller locks a mutex as it comes and as it goes; polls are not touched.
class spare_workers {
 public:
  using clock = std::chrono::steady_clock;

  /// The core and the scheduler must live until close() has returned.
  spare_workers(context_core& core, scheduler_type& scheduler)
      : core_(core),
        scheduler_(scheduler),
        cap_(core.opts().spare_workers),
        cooldown_(std::chrono::duration_cast<clock::duration>(core.opts().spare_cooldown)),
        spacing_(std::clamp<clock::duration>(core.opts().stall_threshold, shortest_spacing,
                                             longest_spacing)),
        kick_(*this) {}
  spare_workers(const spare_workers&) = delete;
  spare_workers& operator=(const spare_workers&) = delete;

  /// A caller. leave() or the destructor, on an exception, ends it.
  class caller {
   public:
    /// \par Errors  What a handler threw on a spare, and nobody has got yet.
    explicit caller(spare_workers& s) : spares_(s.enter() ? &s : nullptr) {}
    ~caller() {
      if (spares_ != nullptr) spares_->left_by_caller();
    }
    caller(const caller&) = delete;
    caller& operator=(const caller&) = delete;

    /// Call it when the run function has returned `n`: the count to return.
    /// \par Errors  As the constructor.
    [[nodiscard]] std::size_t leave(std::size_t n) {
      spare_workers* const s = std::exchange(spares_, nullptr);
      if (s == nullptr) return n;
      s->left_by_caller();
      s->rethrow_one();
      return s->owed_.added_to(n);
    }

   private:
    spare_workers* spares_;
  };

  /// The watchdog: `stuck` workers, callers and spares, are in a handler that does not end. A spare
  /// becomes active if these are all, and something else is queued or waited for.
  ///
  /// \par Cost    A mutex; may start a thread.
  /// \par Errors  None (noexcept): where no thread can be had, the next call tries again.
  void compensate(std::size_t stuck) noexcept {
    const std::lock_guard lock(mutex_);
    stuck_ = stuck;
    if (closing_ || pausing_ || (callers_.empty() && waiting_ == 0)) return;
    const auto now = clock::now();
    if (stuck >= callers_.size()) needed_ = now;
    if (stuck < workers() || now < not_before_) return;
    // A stuck handler is a unit of work itself. (Two, if it was put back before: then a spare may
    // start that finds nothing to do.)
    if (outstanding_work(scheduler_) <= static_cast<long>(stuck) || scheduler_.stopped()) return;
    if (activate()) {
      const auto doubled = spacing_ * (1U << std::min<std::size_t>(active_, 10));
      not_before_ = now + std::min<clock::duration>(doubled, longest_spacing);
    }
  }

  /// The watchdog: a stall ended, and so many last.
  void relieved(std::size_t still_stuck) noexcept {
    const std::lock_guard lock(mutex_);
    if (stuck_ >= callers_.size()) needed_ = clock::now();
    stuck_ = still_stuck;
    if (!thrown_.empty() && !callers_.empty() && !closing_) kick();
  }

  /// The context is being destroyed. Waits for handlers that run on spares, unless it is one of
  /// them that destroys it: false then, and this object must be given up, not destroyed.
  [[nodiscard]] bool close() noexcept {
    end_threads(closing_);
    return serving != this;
  }

  /// Before a fork: ends the spares, and waits for handlers that they run; unless it is a handler
  /// on a spare that forks. Until resume() there are no new ones.
  void pause() noexcept {
    if (serving != this) return end_threads(pausing_);
    const std::lock_guard lock(mutex_);
    pausing_ = true;
  }
  /// After it, on the same thread, in the parent and in the child.
  void resume(boost::asio::execution_context::fork_event event) noexcept {
    if (event != boost::asio::execution_context::fork_child) {
      const std::lock_guard lock(mutex_);
      pausing_ = false;
      recheck_.store(closing_, std::memory_order_relaxed);
      return;
    }
    // Nobody else exists here; who waited, or was just inside, has left traces.
    std::construct_at(&mutex_);
    std::construct_at(&parked_);
    std::construct_at(&left_);
    const auto me = std::this_thread::get_id();
    std::erase_if(callers_, [me](std::thread::id other) { return other != me; });
    stuck_ = tickets_ = leaving_ = waiting_ = 0;
    for (spare& s : threads_) s.thread.detach();
    threads_.clear();
    active_ = 0;
    set_alive(0);
    pausing_ = false;
    recheck_.store(closing_, std::memory_order_relaxed);
    if (serving == this) {
      callers_ = {me};  // it goes on in the caller's place
      active_ = 1;
      set_alive(1);
    }
  }

  /// For tests and statistics.
  struct counts {
    std::size_t active, alive;
    std::uint64_t started;    ///< threads
    std::uint64_t activated;  ///< times that a spare became active
  };
  [[nodiscard]] counts snapshot() const noexcept {
    const std::lock_guard lock(mutex_);
    return {active_, alive_, started_, activated_};
  }

 private:
  // After a spare became active the next one waits for `spacing_`, the stall threshold, doubled for
  // every spare that is active: between a queue of hogs that is served late and a thread for each
  // of them at once. The bounds are guesses.
  static constexpr clock::duration shortest_spacing = std::chrono::milliseconds{1};
  static constexpr clock::duration longest_spacing = std::chrono::milliseconds{100};
  // A spare waits this long in one go, at most: how late it notices that it may leave, and that a
  // wake-up came just before it began to wait.
  static constexpr std::chrono::microseconds longest_slice{20'000};
  static constexpr std::chrono::microseconds shortest_slice{1'000};
  // A busy spare looks whether it may leave this often. A guess: one more clock reading a turn, one
  // more mutex a millisecond.
  static constexpr clock::duration look_interval = std::chrono::milliseconds{1};
  // A parked thread ends after this many cool-downs: 30 s by default. A guess.
  static constexpr int idle_cooldowns = 30;

  struct spare {
    std::thread thread{};
    bool ended = false;
  };

  /// An operation of ours: a worker other than a spare that gets it throws what is kept.
  struct kick_operation : operation_type {
    explicit kick_operation(spare_workers& s) noexcept
        : operation_type(&kick_operation::run), spares(s) {}
    static void run(void* owner, operation_type* self, const boost::system::error_code&,
                    std::size_t) {
      // Null: it is destroyed with the context, which owns it.
      if (owner != nullptr) static_cast<kick_operation*>(self)->spares.kicked();
    }
    spare_workers& spares;
  };

  // ---- callers

  /// False: a call inside a handler of the same context, on a caller's thread or on a spare.
  [[nodiscard]] bool enter() {
    if (serving == this) return false;
    std::exception_ptr thrown;
    {
      const std::lock_guard lock(mutex_);
      const auto me = std::this_thread::get_id();
      if (std::find(callers_.begin(), callers_.end(), me) != callers_.end()) return false;
      if (thrown_.empty()) {
        callers_.push_back(me);
        settings_.remember();
        return true;
      }
      thrown = take_thrown();
    }
    std::rethrow_exception(std::move(thrown));
  }

  void left_by_caller() noexcept {
    std::unique_lock lock(mutex_);
    std::erase(callers_, std::this_thread::get_id());
    if (!callers_.empty()) return;
    active_ -= std::exchange(tickets_, 0);  // nobody has set out with them yet
    recheck_.store(true, std::memory_order_relaxed);
    auto pause = shortest_slice;
    ++waiting_;
    stuck_ = 0;  // none that is known of: the watchdog's next word is about spares only
    // Another caller may come in meanwhile: then it is that one who waits.
    while (active_ != 0 && callers_.empty()) {
      // Again and again: one may have been about to wait when it was woken.
      wake_all(scheduler_);
      left_.wait_for(lock, pause);
      pause = std::min(2 * pause, longest_slice);
    }
    --waiting_;
    if (!closing_ && !pausing_) recheck_.store(false, std::memory_order_relaxed);
  }

  // Held; there is one.
  [[nodiscard]] std::exception_ptr take_thrown() noexcept {
    std::exception_ptr first = std::move(thrown_.front());
    thrown_.pop_front();
    return first;
  }

  void rethrow_one() {
    std::exception_ptr thrown;
    {
      const std::lock_guard lock(mutex_);
      if (thrown_.empty()) return;
      thrown = take_thrown();
    }
    std::rethrow_exception(std::move(thrown));
  }

  // ---- spares; the mutex is held where a comment says so

  // Held.
  void set_alive(std::size_t n) noexcept {
    core_.count_spare(static_cast<int>(n) - static_cast<int>(alive_));
    alive_ = n;
  }

  /// Sets the flag, by which every spare ends, and waits for all but the calling one.
  void end_threads(bool& flag) noexcept {
    std::list<spare> threads;
    {
      const std::lock_guard lock(mutex_);
      flag = true;
      threads.swap(threads_);
      set_alive(0);
      recheck_.store(true, std::memory_order_relaxed);
    }
    parked_.notify_all();
    for (spare& s : threads) {
      if (s.thread.get_id() == std::this_thread::get_id()) {
        s.thread.detach();
        continue;
      }
      // One that was about to wait when we woke them all comes back by itself: longest_slice.
      wake_all(scheduler_);
      s.thread.join();
    }
  }

  // Held. True: a spare is on its way.
  bool activate() noexcept {
    if (alive_ == active_) {
      if (alive_ >= cap_) return false;
      threads_.remove_if([](spare& s) {
        if (s.ended) s.thread.join();  // it has let go of the mutex, the last thing it does
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
      set_alive(alive_ + 1);
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
    std::unique_lock lock(mutex_);
    // The watchdog, which starts us, blocks all signals and keeps off some CPUs; handlers, and
    // programs that they start, are used to what the callers have.
    settings_.apply();
    const auto idle = cooldown_ * idle_cooldowns;
    for (;;) {
      const bool in_time =
          parked_.wait_for(lock, idle, [this] { return tickets_ != 0 || closing_ || pausing_; });
      if (closing_ || pausing_) break;
      if (!in_time) {
        set_alive(alive_ - 1);
        self.ended = true;
        return;
      }
      --tickets_;
      lock.unlock();
      serve();
      lock.lock();
    }
    active_ -= std::exchange(tickets_, 0);
    left_.notify_all();
  }

  void serve() {
    {
      hooks::worker_scope worker(&scheduler_, core_, true, true);
      clock::time_point looked{};
      std::chrono::microseconds slice{0};
      outcome last = outcome::nothing;
      do {
        const auto now = clock::now();
        // Relaxed: whoever sets it wakes us until we have left; see left_by_caller().
        if (last != outcome::ran || now - looked >= look_interval ||
            recheck_.load(std::memory_order_relaxed)) {
          looked = now;
          if (may_leave(now, slice)) break;
        }
        last = turn(worker, slice);
      } while (last != outcome::leave);
    }
    const std::lock_guard lock(mutex_);
    --active_;
    --leaving_;
    left_.notify_all();
  }

  enum class outcome : std::uint8_t { nothing, ran, leave };

  outcome turn(hooks::worker_scope& worker, std::chrono::microseconds slice) {
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
      // Out of the catch block, which holds the exception too: it is the caller's alone from here.
      const std::lock_guard lock(mutex_);
      thrown_.push_back(std::move(thrown));
      return leave || give_up() ? outcome::leave : outcome::nothing;
    }
    if (leave) return outcome::leave;
    owed_.add(n, worker.phantom_turns() + worker.extra_turns());
    return n != 0 ? outcome::ran : outcome::nothing;
  }

  // Held. Callers and spares, without those on their way out.
  [[nodiscard]] std::size_t workers() const noexcept {
    return callers_.size() + active_ - leaving_;
  }
  // Held. Without the calling spare somebody is free, as far as the watchdog knows.
  [[nodiscard]] bool surplus() const noexcept { return workers() > stuck_ + 1; }

  [[nodiscard]] bool may_leave(clock::time_point now, std::chrono::microseconds& slice) noexcept {
    const std::lock_guard lock(mutex_);
    const auto over = needed_ + cooldown_;
    const bool wanted = !callers_.empty() || (waiting_ != 0 && stuck_ != 0);
    if (!wanted || closing_ || pausing_ || scheduler_.stopped() || (surplus() && now >= over)) {
      ++leaving_;
      return true;
    }
    slice = std::clamp(std::chrono::ceil<std::chrono::microseconds>(over - now), shortest_slice,
                       longest_slice);
    return false;
  }

  // Held. An exception is kept that no spare can deliver: the calling spare makes room, unless it
  // is the only one that is free. True: it must leave.
  [[nodiscard]] bool give_up() noexcept {
    if (!surplus()) return false;
    ++leaving_;
    kick();
    return true;
  }

  // Held. Sends the kick, unless it is under way.
  void kick() noexcept {
    if (!std::exchange(kicked_off_, true)) scheduler_.post_immediate_completion(&kick_, false);
  }

  void kicked() {
    {
      const std::lock_guard lock(mutex_);
      kicked_off_ = false;
      if (thrown_.empty() || serving == this) {
        // Not for us: with a worker free it is sent again, else when one comes free: relieved().
        dismissed = dismissed || (!thrown_.empty() && give_up());
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
  const clock::duration spacing_;
  kick_operation kick_;

  /// Handlers that spares ran and no caller has counted yet.
  owed_count owed_;
  /// Spares look whether they may leave at each turn. Set under the mutex.
  std::atomic<bool> recheck_{false};

  mutable std::mutex mutex_;  ///< below: guarded by it
  std::condition_variable parked_;
  std::condition_variable left_;
  std::list<spare> threads_;
  std::vector<std::thread::id> callers_;
  std::size_t waiting_ = 0;         ///< for spares, in order to leave
  std::size_t alive_ = 0;           ///< threads that have not ended
  std::size_t active_ = 0;          ///< those that take turns, and those that have been sent for it
  std::size_t tickets_ = 0;         ///< sent for it, not set out yet
  std::size_t leaving_ = 0;         ///< of the active: in no turn any more
  std::size_t stuck_ = 0;           ///< as the watchdog said last
  clock::time_point needed_{};      ///< when no caller was free last
  clock::time_point not_before_{};  ///< the next start
  std::deque<std::exception_ptr> thrown_;
  std::uint64_t started_ = 0;
  std::uint64_t activated_ = 0;
  bool kicked_off_ = false;
  bool closing_ = false;
  bool pausing_ = false;
  thread_settings settings_;

  /// Whose spare the calling thread is, and that it must leave after this turn.
  inline static thread_local const spare_workers* serving = nullptr;
  inline static thread_local bool dismissed = false;
};

}  // namespace asio_pulse::detail
