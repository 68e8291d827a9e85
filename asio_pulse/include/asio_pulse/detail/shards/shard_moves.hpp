// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/shards/movable_core.hpp>
#include <asio_pulse/detail/shards/shard.hpp>
#include <asio_pulse/detail/shards/visitors.hpp>
#include <asio_pulse/error.hpp>
#include <asio_pulse/hooks/poll_path.hpp>
#include <asio_pulse/shard_balance.hpp>
#include <asio_pulse/shard_options.hpp>
#include <asio_pulse/timing/timebase.hpp>

#include <boost/asio/error.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <span>
#include <utility>
#include <vector>

/// \file
/// Moves sessions from one shard to another: by order, and as shard_balancer decides.

namespace asio_pulse::detail {

/// What the shards of one sharded_context share for moves.
struct move_board {
  bool balance = false;
  balance_settings settings{};
  std::function<void(const move_record&)> on_move{};
  /// Called by a shard that is being drained, while nothing seems to be left on it.
  std::function<void(std::size_t)> drained{};
  /// Threads that use a session's handle.
  std::shared_ptr<visitors> from_outside = std::make_shared<visitors>();
  std::vector<class shard_moves*> all{};
  /// A bit for each shard that is being drained. There are at most 64.
  std::atomic<std::uint64_t> drained_shards{0};
  /// Sessions that may move, and shards that are drained: while there are none, nothing ticks.
  std::atomic<std::size_t> movables{0};
  std::atomic<std::size_t> drains{0};
  /// The shards do not run.
  std::atomic<bool> stopped{true};
};

/// The part of a shard that moves sessions.
///
/// \par Thread safety  As stated at each member.
class shard_moves {
 public:
  using clock = std::chrono::steady_clock;
  using nanoseconds = std::chrono::nanoseconds;

  shard_moves(shard_state& s, move_board& b)
      : shard(s), board(b), balancer_(s.index, s.shards(), b.settings), timer_(s.io) {
    reports_.resize(s.shards());
    if (watches_turns()) s.figures.stuck_ticks = timing::to_ticks(b.settings.stuck_after);
  }
  shard_moves(const shard_moves&) = delete;
  shard_moves& operator=(const shard_moves&) = delete;

  // ---- any thread

  void add(movable_core& c) noexcept {
    c.long_seen_ = c.long_polls();
    {
      const std::lock_guard lock(mutex_);
      link(c);
    }
    if (board.movables.fetch_add(1, std::memory_order_relaxed) == 0) start_all();
  }
  void remove(movable_core& c) noexcept {
    {
      const std::lock_guard lock(mutex_);
      unlink(c);
    }
    board.movables.fetch_sub(1, std::memory_order_relaxed);
  }

  /// Moves a session that the caller owns. If it fails, the session still is the caller's. One that
  /// `waits_again` waits on the other shard when this returns, or in that shard's queue if it cannot.
  ///
  /// \par Cost  Some system calls for each socket; the mutexes of both shards.
  [[nodiscard]] boost::system::error_code move(movable_core& c, shard_moves& to,
                                               move_reason why) noexcept {
    const nanoseconds began(now_ns());
    c.forget_wish(to.shard.index);
    // rebind() ends the old wait, and with callbacks nothing else is work of a context then.
    const shard_work until_it_is_there(to.shard);
    boost::system::error_code ec;
    movable_core::session_task task;
    // Before the look at draining(): either this sees the drain, or empty() sees this.
    to.arriving_.fetch_add(1, std::memory_order_seq_cst);
    if (board.stopped.load(std::memory_order_relaxed)) {
      ec = error::shards_stopped;
    } else if (to.draining()) {
      ec = error::shard_drained;
    } else {
      ec = c.rebind(shard.io, to.shard.io, task);
    }
    if (ec) {
      to.arriving_.fetch_sub(1, std::memory_order_relaxed);
      failures_.fetch_add(1, std::memory_order_relaxed);
      tell({shard.index, to.shard.index, why, ec});
      return ec;
    }
    // From here on nothing fails.
    c.wait_left_ = false;  // it was ended with the old sockets
    {
      const std::lock_guard lock(mutex_);
      unlink(c);
      std::swap(c.task_, task);
      c.long_seen_ = c.long_polls();
    }
    c.home_.store(&to, std::memory_order_release);
    {
      const std::lock_guard lock(to.mutex_);
      to.link(c);
    }
    to.arriving_.fetch_sub(1, std::memory_order_release);
    const nanoseconds now(now_ns());
    note_move(shard.figures, to.shard.figures, why, c.name(), now - began, now);
    c.op_->goes_to(to.shard.io);
    tell({shard.index, to.shard.index, why, {}});
    c.op_->waits_again ? c.wait_there() : to.enqueue(c);  // it is not the caller's any more
    return {};
  }
  /// Puts the operation of a session that the caller owns into the queue of this shard, its home.
  void enqueue(movable_core& c) noexcept {
    resumption& op = *std::exchange(c.op_, nullptr);
    {
#if !defined(ASIO_PULSE_DISABLE)
      const label_scope scope(c.task_.get());
#endif
      op.announce_in(shard.io);
    }
    using core = movable_core;
    for (core::word w = c.word_.load(std::memory_order_relaxed);;) {
      if ((w & core::cancelled) != 0) {
        op.waits_again = false;
        op.result = boost::asio::error::operation_aborted;
      }
      const core::word next = w >> core::number_shift << core::number_shift |
                              (op.waits_again ? core::taken : core::running);
      if (c.word_.compare_exchange_weak(w, next, std::memory_order_acq_rel,
                                        std::memory_order_relaxed)) {
        break;
      }
    }
    shard.enqueue(op);
  }

  /// Where a session may go that has to leave this shard. Null if there is no other one.
  [[nodiscard]] shard_moves* somewhere() noexcept {
    const std::size_t n = board.all.size();
    const std::size_t first = next_.fetch_add(1, std::memory_order_relaxed);
    shard_moves* any = nullptr;
    for (std::size_t i = 0; i != n; ++i) {
      shard_moves& m = *board.all[(first + i) % n];
      if (&m == this || m.draining()) continue;
      if (!m.stuck()) return &m;
      any = &m;
    }
    return any;
  }
  [[nodiscard]] bool draining() const noexcept {
    return shard.figures.load.is(published_load::draining);
  }
  /// Returns whether that has changed. The caller has sharded_context::drain_mutex_.
  bool set_draining(bool on) noexcept {
    if (draining() == on) return false;
    board.drained_shards.fetch_xor(std::uint64_t{1} << shard.index, std::memory_order_relaxed);
    if (!on) {
      shard.figures.load.lower(published_load::draining);
      shard.figures.load.lower(published_load::drained);
      board.drains.fetch_sub(1, std::memory_order_relaxed);
    } else {
      shard.figures.load.raise(published_load::draining);
      if (board.drains.fetch_add(1, std::memory_order_relaxed) == 0) start_all();
    }
    return true;
  }
  /// Whether nothing is left on this shard, which is being drained. The caller has the same mutex, so
  /// that it is this drain which ends, and not an older one.
  [[nodiscard]] bool be_drained() noexcept {
    if (!draining() || !empty()) return false;
    shard.figures.load.raise(published_load::drained);
    return true;
  }
  /// Whether a handler of this shard does not end.
  [[nodiscard]] bool stuck() noexcept {
    const nanoseconds now(now_ns());
    return shard_balancer::is_stuck(report(), board.settings, now);
  }
  [[nodiscard]] std::size_t movables() const noexcept {
    return count_.load(std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint64_t failures() const noexcept {
    return failures_.load(std::memory_order_relaxed);
  }

  /// What the shard publishes.
  [[nodiscard]] shard_report report() noexcept {
    shard_report r = shard.figures.load.read();
    r.poll_began = nanoseconds(poll_began());
    r.stopped = board.stopped.load(std::memory_order_relaxed);
    return r;
  }

  // ---- the shard's thread

  void thread_begins() noexcept {
    const std::lock_guard lock(mutex_);
#if defined(ASIO_PULSE_TRACKING)
    thread_ = &hooks::this_thread();
#endif
  }
  void thread_ends() noexcept {
    const std::lock_guard lock(mutex_);
    thread_ = nullptr;
  }
  /// A session of this shard is at a quiet point. `was_long`: its turn has stuck the shard.
  void turn_ended(movable_core& c, bool was_long) noexcept {
    if (!watches_turns()) return;
    shard.figures.load.turn(was_long);
    if (was_long) {
      c.short_turns_ = 0;
      if (!c.hog_) mark(c, true);
      send_home(c);
    } else if (c.hog_ && ++c.short_turns_ >= shard_balancer::short_turns_of_hog) {
      mark(c, false);
    }
  }
  /// run() begins.
  void go_on() noexcept {
    if (wanted()) start();
  }

  shard_state& shard;
  move_board& board;

 private:
  static constexpr nanoseconds window = std::chrono::milliseconds{20};
  /// While no shard does anything, a shard looks this much less often: waking up costs power.
  static constexpr int idle_factor = 5;
  /// How often half of the turns are forgotten. As balance_settings::stuck_memory.
  static constexpr nanoseconds memory = std::chrono::seconds{1};
  static constexpr std::size_t most_at_once = 64;
  static constexpr std::size_t most_sampled = 4096;

  static std::int64_t now_ns() noexcept {
    return nanoseconds(clock::now().time_since_epoch()).count();
  }

  void link(movable_core& c) noexcept {
    c.previous_ = nullptr;
    c.next_ = first_;
    if (first_ != nullptr) first_->previous_ = &c;
    first_ = &c;
    c.listed_ = true;
    c.used_then_ = c.used();
    if (c.hog_) ++hogs_;
    show(count_.load(std::memory_order_relaxed) + 1);
  }
  void show(std::size_t n) noexcept {
    count_.store(n, std::memory_order_relaxed);
    shard.figures.load.movable(static_cast<std::uint32_t>(n));
    shard.figures.load.hogs(hogs_);
  }
  void unlink(movable_core& c) noexcept {
    if (!std::exchange(c.listed_, false)) return;
    (c.previous_ != nullptr ? c.previous_->next_ : first_) = c.next_;
    if (c.next_ != nullptr) c.next_->previous_ = c.previous_;
    if (c.hog_) --hogs_;
    show(count_.load(std::memory_order_relaxed) - 1);
  }

  void tell(const move_record& r) noexcept {
    if (!board.on_move) return;
    try {
      board.on_move(r);
    } catch (...) {  // the move is made, and the session goes on
    }
  }

  // ---- hogs

  /// Turns are counted where something may be decided by them.
  [[nodiscard]] bool watches_turns() const noexcept { return board.balance && shard.shards() > 1; }
  void mark(movable_core& c, bool hog) noexcept {
    const std::lock_guard lock(mutex_);
    c.hog_ = hog;
    hogs_ += hog ? 1U : ~0U;
    shard.figures.load.hogs(hogs_);
  }
  /// A hog leaves at this quiet point if it lives elsewhere.
  void send_home(movable_core& c) noexcept {
    if (c.forbidden() || board.stopped.load(std::memory_order_relaxed)) return;
    // Taken: by a spare thread, in a tick. Then it may leave after its next long turn.
    if (deciding_.test_and_set(std::memory_order_acquire)) return;
    read_reports();
    reports_[shard.index].poll_began = nanoseconds{0};
    const std::size_t home = balancer_.home_of_hog(reports_, nanoseconds(now_ns()));
    deciding_.clear(std::memory_order_release);
    if (home != shard.index) (void)c.want(home, move_reason::stuck);
  }
  void read_reports() noexcept {
    for (std::size_t i = 0; i != reports_.size(); ++i) reports_[i] = board.all[i]->report();
  }

  /// When the handler that the shard's thread runs began; 0 if there is none, or it is not known.
  [[nodiscard]] std::int64_t poll_began() noexcept {
#if defined(ASIO_PULSE_TRACKING)
    const std::lock_guard lock(mutex_);
    if (thread_ == nullptr) return 0;
    if (thread_->top.load(std::memory_order_relaxed) == nullptr) return 0;
    const timing::ticks last = thread_->clock.last();
    const timing::ticks now = timing::timebase::get().now();
    if (thread_->top.load(std::memory_order_relaxed) == nullptr || last >= now) return 0;
    return now_ns() - timing::to_ns(now - last).count();
#else
    // Polls are not seen. An operation that does not get its turn is as good a sign.
    return shard.probe_began();
#endif
  }

  // ---- ticks

  [[nodiscard]] bool wanted() const noexcept {
    if (board.all.size() < 2) return board.drains.load(std::memory_order_relaxed) != 0;
    return board.drains.load(std::memory_order_relaxed) != 0 ||
           (board.balance && board.movables.load(std::memory_order_relaxed) != 0);
  }
  [[nodiscard]] nanoseconds shortest() const noexcept {
    return std::clamp<nanoseconds>(board.settings.stuck_after, std::chrono::milliseconds{1},
                                   std::chrono::milliseconds{10});
  }
  void start_all() noexcept {
    if (!wanted()) return;
    for (shard_moves* const m : board.all) m->start();
  }
  void start() noexcept {
    if (ticking_.exchange(true, std::memory_order_acq_rel)) return;
    shard.enqueue(starter_);
  }
  struct starter final : operation_type {
    explicit starter(shard_moves& m) noexcept : operation_type(&starter::run), moves(m) {}
    static void run(void* owner, operation_type* self, const boost::system::error_code&,
                    std::size_t) {
      if (owner == nullptr) return;
      shard_moves& m = static_cast<starter*>(self)->moves;
      m.shard.uncounted();
      m.arm(m.shortest());
    }
    shard_moves& moves;
  };

  // The wait is no work of the context: finish() does not wait for it.
  void arm(nanoseconds pause) noexcept {
    try {
      timer_.expires_after(pause);
      timer_.async_wait([this](boost::system::error_code ec) {
        shard.work_started();
        shard.uncounted();
        if (!ec) tick();
      });
      shard.work_finished();
    } catch (...) {  // no memory: in the next turn again
      shard.enqueue(starter_);
    }
  }

  void tick() noexcept {
    if (!wanted() || board.stopped.load(std::memory_order_relaxed)) {
      // It may have been wanted again meanwhile. An exchange, so that the look at wanted() comes after
      // it, and sees what a start() that came before it was called for.
      (void)ticking_.exchange(false, std::memory_order_acq_rel);
      if (!wanted() || ticking_.exchange(true, std::memory_order_acq_rel)) return;
    }
    // Taken: by send_home(), in a handler that goes on beside the spare thread which runs this.
    if (deciding_.test_and_set(std::memory_order_acquire)) return arm(shortest());
    measure();
    if (const std::int64_t now = now_ns(); now - forgot_at_ >= nanoseconds(memory).count()) {
      shard.figures.load.forget_turns();
      forgot_at_ = now;
    }
    read_reports();
    bool busy = false;
    for (std::size_t i = 0; i != reports_.size(); ++i) {
      busy = busy || reports_[i].load.cpu_permille > 10 ||
             (i != shard.index && reports_[i].poll_began.count() != 0);
    }
    // The handler that runs on this thread is this one, unless another thread stands in for it.
    if (!shard_state::helps()) reports_[shard.index].poll_began = nanoseconds{0};
    if (board.balance || draining()) decide();
    deciding_.clear(std::memory_order_release);
    if (draining() && empty()) {
      try {
        board.drained(shard.index);
      } catch (...) {  // no memory: at the next tick
      }
    }
    const nanoseconds least = shortest();
    arm(busy || draining() ? least : std::min<nanoseconds>(idle_factor * least, window));
  }

  /// Whether neither a session that may move nor an accepted connection is left.
  [[nodiscard]] bool empty() noexcept {
    // Acquire pairs with the release after a session was linked.
    if (arriving_.load(std::memory_order_seq_cst) != 0 || movables() != 0) return false;
    bool found = false;
#if !defined(ASIO_PULSE_DISABLE)
    service_of(shard.io).core()->tasks().for_each([&found](const task_state& t) {
      found = found || (t.accepted && !t.ended.load(std::memory_order_relaxed));
    });
#endif
    return !found;
  }

  void measure() noexcept {
    (void)shard.load(window);
    const std::int64_t ended = shard.figures.load.window_ended().count();
    if (ended != sampled_ && balancer_.excess_permille() > 0) sample(ended);
  }

  // What each session has used lately.
  void sample(std::int64_t ended) noexcept {
    const std::lock_guard lock(mutex_);
    const std::int64_t now = now_ns();  // the window has ended before, and sessions have run since
    const std::int64_t elapsed = std::max<std::int64_t>(now - std::exchange(read_at_, now), 1000);
    // No samples are taken while there is no excess. The mean over such a time says nothing about now.
    const bool known = elapsed <= 4 * window.count();
    std::size_t n = 0;
    for (movable_core* c = first_; c != nullptr && n != most_sampled; c = c->next_, ++n) {
      const std::uint64_t used = c->used();
      const auto ns = timing::to_ns(used - std::min(c->used_then_, used)).count();
      c->used_then_ = used;
      const auto ppm =
          static_cast<std::uint32_t>(std::min<std::int64_t>(ns * 1000 / (elapsed / 1000), 1000000));
      c->before_ = std::exchange(c->ppm_, known ? ppm : movable_load::unknown);
    }
    sampled_ = ended;
  }

  void decide() noexcept {
    // The reports are of this time. Moves take time as well, and a shard that makes them for long is
    // stuck itself: the rest is left to the next tick.
    const nanoseconds now(now_ns());
    const nanoseconds enough =
        now + std::min<nanoseconds>(board.settings.stuck_after / 2, std::chrono::milliseconds{1});
    for (int rounds = 0; rounds != 16; ++rounds) {
      if (rounds != 0 && nanoseconds(now_ns()) > enough) return;
      const balance_decision d = balancer_.decide(reports_, now);
      shard.figures.stays.store(static_cast<std::uint8_t>(d.why), std::memory_order_relaxed);
      if (d.what == balance_decision::kind::stay) return;
      shard_moves& other = *board.all[d.shard];
      const bool gives = d.what == balance_decision::kind::give;
      const moved m = gives ? give(other, d) : take(other, d);
      balancer_.moved(d, m.things, m.ppm, now);
      for (const std::size_t i : {shard.index, d.shard}) {
        reports_[i].movable = static_cast<std::uint32_t>(board.all[i]->movables());
        reports_[i].hogs = board.all[i]->shard.figures.load.read().hogs;
      }
      if (m.things == 0 && !gives) reports_[d.shard].movable = 0;
    }
  }

  struct moved {
    std::uint32_t things = 0;
    std::uint32_t ppm = 0;
  };
  using some = std::array<movable_core*, most_at_once>;

  moved take(shard_moves& from, const balance_decision& d) noexcept {
    some chosen;
    const shard_work until_they_are_moved(from.shard);  // or back
    const std::size_t n = from.take_waiting(chosen, d);
    return {from.move_all(std::span(chosen).first(n), *this, d.reason), 0};
  }
  moved give(shard_moves& to, const balance_decision& d) noexcept {
    some chosen;
    if (d.load_ppm == balance_decision::any) {
      const std::size_t n = take_waiting(chosen, d);
      return {move_all(std::span(chosen).first(n), to, d.reason), 0};
    }
    return give_load(to, d);
  }
  moved give_load(shard_moves& to, const balance_decision& d) noexcept {
    some waiting;
    std::size_t n = 0;
    moved m;
    try {
      const std::lock_guard lock(mutex_);
      things_.clear();
      std::uint64_t sum = 0;
      std::size_t seen = 0;
      for (movable_core* c = first_; c != nullptr && seen != most_sampled; c = c->next_, ++seen) {
        if (c->forbidden() || c->ppm_ == movable_load::unknown) continue;
        sum += c->ppm_;
        if (c->hog_ && !d.hogs) continue;
        things_.push_back(
            {.id = reinterpret_cast<std::uintptr_t>(c), .ppm = c->ppm_, .before = c->before_});
      }
      // Sessions whose work is not known share what was used, by their turns. Sessions of one declared
      // task, each of which seems to use what the task uses, share it as well.
      const std::uint64_t all = std::uint64_t{reports_[shard.index].load.cpu_permille} * 1000;
      if (sum != 0 && (sum < all / 4 || sum > all + all / 4)) {
        for (movable_load& l : things_) {
          l.ppm = static_cast<std::uint32_t>(l.ppm * all / sum);
          if (l.before != movable_load::unknown)
            l.before = static_cast<std::uint32_t>(l.before * all / sum);
        }
      }
      balance_decision limited = d;
      limited.things = std::min<std::uint32_t>(d.things, most_at_once);
      const std::size_t chosen = choose_moves(things_, limited);
      for (std::size_t i = 0; i != chosen; ++i) {
        movable_core& c = *reinterpret_cast<movable_core*>(things_[i].id);
        if (!c.want(to.shard.index, d.reason)) continue;
        ++m.things;
        m.ppm += things_[i].ppm;
        if (c.take()) waiting[n++] = &c;  // otherwise it moves when it waits next
      }
    } catch (const std::bad_alloc&) {
      return {};
    }
    (void)move_all(std::span(waiting).first(n), to, d.reason);
    return m;
  }

  /// Takes sessions that wait; any thread. They stay in the list until they have moved, so that the shard
  /// is not taken for empty: a move may fail.
  std::size_t take_waiting(some& chosen, const balance_decision& d) noexcept {
    const std::size_t most = std::min<std::size_t>(d.things, chosen.size());
    const std::lock_guard lock(mutex_);
    std::size_t n = 0;
    for (movable_core* c = first_; c != nullptr && n != most; c = c->next_) {
      if (c->hog_ && !d.hogs) continue;
      if (c->take()) chosen[n++] = c;
    }
    return n;
  }
  /// Of this shard; any thread that owns them. Returns how many were moved.
  std::uint32_t move_all(std::span<movable_core*> sessions, shard_moves& to,
                         move_reason why) noexcept {
    std::uint32_t n = 0;
    for (movable_core* const c : sessions) {
      if (!move_waiting(*c, to, why)) ++n;
    }
    return n;
  }

 public:
  /// Moves a session that was taken while it waited. If that fails, it continues to wait here.
  [[nodiscard]] boost::system::error_code move_waiting(movable_core& c, shard_moves& to,
                                                       move_reason why) noexcept {
    c.op_->waits_again = true;
    const boost::system::error_code ec = move(c, to, why);
    if (ec) c.give_back();
    return ec;
  }

 private:
  alignas(apart) std::mutex mutex_;  // the list, and thread_
  movable_core* first_ = nullptr;
  hooks::thread_state* thread_ = nullptr;
  std::uint32_t hogs_ = 0;

  alignas(apart) std::atomic<std::size_t> count_{0};
  std::atomic<std::uint32_t> arriving_{0};  ///< moves to this shard under way; see move()
  std::atomic<std::uint64_t> failures_{0};
  std::atomic<std::size_t> next_{0};
  std::atomic<bool> ticking_{false};

  // Whoever has `deciding_`, which nobody waits for.
  alignas(apart) std::atomic_flag deciding_ = ATOMIC_FLAG_INIT;
  shard_balancer balancer_;
  std::vector<shard_report> reports_;
  // The tick.
  std::int64_t forgot_at_ = 0;  ///< when turns were last forgotten
  std::vector<movable_load> things_;
  std::int64_t sampled_ = 0;  ///< the end of the window at whose end sample() ran last
  std::int64_t read_at_ = 0;  ///< when it did
  boost::asio::steady_timer timer_;
  starter starter_{*this};
};

}  // namespace asio_pulse::detail
