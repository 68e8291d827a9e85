// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/requirements.hpp>
//
#include <asio_pulse/detail/shards/movable_steps.hpp>
#include <asio_pulse/detail/shards/shard.hpp>
#include <asio_pulse/detail/shards/shard_drain.hpp>
#include <asio_pulse/detail/shards/shard_moves.hpp>
#include <asio_pulse/detail/shards/shard_request.hpp>
#include <asio_pulse/error.hpp>
#include <asio_pulse/io_context.hpp>
#include <asio_pulse/options.hpp>
#include <asio_pulse/placement.hpp>
#include <asio_pulse/shard_balance.hpp>
#include <asio_pulse/shard_options.hpp>

#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/execution_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/system_error.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <concepts>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace asio_pulse {

/// Empty if the options are in range. Otherwise a text that names the option and the rule.
///
/// \par Errors  std::bad_alloc.
[[nodiscard]] inline std::string invalid_reason(std::size_t shards, const shard_options& o);

namespace detail {

template <class T>
inline constexpr bool is_awaitable = false;
template <class T, class Executor>
inline constexpr bool is_awaitable<boost::asio::awaitable<T, Executor>> = true;

}  // namespace detail

/// Several contexts with one thread each, the *shards*. They share nothing on the path of a handler.
/// So they do not slow each other down as the threads of one context do, which share a queue and its
/// mutex. But a handler never moves to another shard: work has to be placed well when it begins, or has to
/// be a session that may move (movable.hpp).
///
///     asio_pulse::sharded_context shards;                    // one for each CPU
///     asio_pulse::co_spawn(shards.place(), session(), asio::detached);
///     shards.run();                                          // until stop() or join()
///
/// A shard is an ordinary asio_pulse::io_context with a concurrency hint of 1. Code that takes one,
/// or a boost::asio::io_context, can use it from any thread, but must not run it. Its stop() has no
/// effect: it is run again. As only one thread runs it, `isolatable` and `spare_workers` (options.hpp)
/// have no effect, unless shard_options::rescue is set.
///
/// **Messages.** Shards talk by messages: post(), on(), broadcast(). What one shard sends to another
/// one arrives in the order in which it was sent. A message becomes a handler of the receiver, with
/// a poll of its own, and belongs to no task. Answers of on() may overtake messages.
///
/// A message between shards goes through a lock-free mailbox of limited size. If it is full,
/// post() throws, try_post() returns false and leaves its arguments as they are, and on() completes with
/// an error. A sender never waits, because two shards that waited for each other would wait for ever.
/// Threads that do not belong to a shard, and a shard that posts to itself, use Asio's own queue, which
/// is not limited. Messages of such a thread are ordered among themselves.
///
/// \par Signals        The threads have the signal mask of the thread that calls run(). Use a
///                     boost::asio::signal_set on one of the shards.
/// \par Fork           Not while run() is active, except to call exec(). Otherwise as for an
///                     io_context, with notify_fork().
/// \par Thread safety  post(), on(), place(), shard(), size(), stop(), finish(), join() and the
///                     figures: any thread. Otherwise: Unsafe.
class sharded_context {
 public:
  /// A guess: with 64 shards the mailboxes of each take 0.3 MiB, and a driver looks into 126.
  static constexpr std::size_t max_shards = 64;

  /// As many shards as there are CPUs that the process may use: affinity and the quota of its
  /// control groups allow them. At most max_shards.
  [[nodiscard]] static std::size_t usable_shards() {
    return std::min(detail::usable_cpus(), max_shards);
  }

  /// \par Errors  std::invalid_argument, naming the argument or option and the rule; what the
  ///              constructor of io_context throws; std::bad_alloc.
  sharded_context() : sharded_context(usable_shards()) {}
  explicit sharded_context(std::size_t shards, shard_options opts = {})
      : options_(std::move(opts)) {
    if (std::string reason = invalid_reason(shards, options_); !reason.empty()) {
      throw std::invalid_argument(reason);
    }
    if (options_.pinned && options_.cpus.empty()) options_.cpus = detail::allowed_cpus();
    thrown_.reserve(shards);
    shards_.reserve(shards);
    const std::uint64_t set = detail::shard_figures::new_set();
    for (std::size_t i = 0; i != shards; ++i) {
      options its = options_.context;
      if (!its.name.empty()) its.name += '/' + std::to_string(i);
      if (options_.rescue != 0) {
        its.spare_workers = options_.rescue;
        its.spare_cooldown =
            std::min<std::chrono::nanoseconds>(its.spare_cooldown, std::chrono::milliseconds{10});
      }
      shards_.push_back(std::make_unique<detail::shard_state>(
          i, shards, set, options_.mailbox, std::move(its), options_.rescue != 0));
      shards_.back()->work.emplace(shards_.back()->io.get_executor());
    }
    board_.balance = options_.balance;
    board_.settings = options_.balancing;
    board_.on_move = options_.on_move;
    board_.drained = [this](std::size_t shard) { end_drain(shard); };
    for (const auto& s : shards_) {
      moves_.push_back(std::make_unique<detail::shard_moves>(*s, board_));
      s->moves = moves_.back().get();
      board_.all.push_back(s->moves);
    }
  }
  sharded_context(const sharded_context&) = delete;
  sharded_context& operator=(const sharded_context&) = delete;

  /// Stops the shards and waits for run(). Messages that are under way and handlers that are queued
  /// are destroyed and not run. All contexts are still there meanwhile, so a handler of one shard
  /// may own a socket or a timer of another one.
  ///
  /// \pre  It is not called in a handler of a shard.
  ~sharded_context() {
    stop();
    wait_for_run();
    board_.from_outside->close();  // whoever moves a session by its handle
    for (const auto& s : shards_) s->destroy_messages();
    for (const auto& s : shards_) s->work.reset();
    drains_.clear();
    // A coroutine whose operation is destroyed is unwound by its executor, which may be that of a
    // context that was shut down already. It uses what the body of this class still has.
    for (std::size_t pass = 0; pass <= size(); ++pass) {
      for (const auto& s : shards_) s->io.shutdown();
    }
  }

  [[nodiscard]] std::size_t size() const noexcept { return shards_.size(); }
  /// \par Errors  std::out_of_range.
  [[nodiscard]] io_context& shard(std::size_t i) const { return at(i).io; }
  /// The number of the shard whose thread this is. Empty on other threads, and on those of another
  /// sharded_context.
  ///
  /// \par Cost  A call and two loads.
  [[nodiscard]] std::optional<std::size_t> this_shard() const noexcept {
    const detail::shard_state* const s = here();
    return s != nullptr ? std::optional<std::size_t>(s->index) : std::nullopt;
  }

  // ---- running

  /// Runs all shards, each on a thread of its own, and waits for them. Unlike a single context it
  /// does not end when there is nothing to do, because others may send work at any time. It ends
  /// after
  /// - stop(): the handlers that are running end, and others stay where they are;
  /// - finish() or join(), as soon as no shard has work and no message is under way;
  /// - an exception that leaves a handler: the shards stop, and the exception is thrown here. No
  ///   other handler is lost: call run() again to go on. If several shards throw, the other
  ///   exceptions are thrown by the next calls.
  ///
  /// Returns the number of handlers that were run. As with run() of one context, those of a shard
  /// whose handler threw are not counted.
  ///
  /// \par Errors  What a handler throws; std::logic_error if it is running; std::system_error if a
  ///              thread cannot be started: then the shards are stopped as for an exception.
  std::size_t run() {
    {
      const std::lock_guard lock(mutex_);
      if (running_) throw std::logic_error("asio_pulse::sharded_context: run() is running already");
      if (!thrown_.empty()) rethrow_first();
      if (stopped_) return 0;
      running_ = true;
      finished_ = halted_ = false;
      idle_ = ran_ = handlers_ = 0;
      // A context whose work finish() has ended has stopped, and may have been sent something since.
      for (const auto& s : shards_) s->io.restart();
    }
    board_.stopped.store(false, std::memory_order_relaxed);
    for (const auto& m : moves_) m->go_on();
    std::vector<std::thread> threads;
    std::exception_ptr failure;
    try {
      threads.reserve(size());
      for (const auto& s : shards_) threads.emplace_back([this, &s] { serve(*s); });
    } catch (...) {
      failure = std::current_exception();
      const std::lock_guard lock(mutex_);
      halt();
    }
    for (std::thread& t : threads) t.join();
    const std::lock_guard lock(mutex_);
    running_ = false;
    board_.stopped.store(true, std::memory_order_relaxed);
    if (!stopped_) {
      for (const auto& s : shards_) s->io.restart();
    }
    ended_.notify_all();
    if (failure) std::rethrow_exception(failure);
    if (!thrown_.empty()) rethrow_first();
    return handlers_;
  }

  /// Ends run() as soon as the handlers that are running have returned. Later calls of run() return
  /// at once, until restart() is called. Does not wait.
  void stop() {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    halt();
  }
  /// Makes run() end when there is nothing left to do. While it finishes, a shard that has run out
  /// of work looks for new work every millisecond. Does not wait.
  void finish() {
    const std::lock_guard lock(mutex_);
    for (const auto& s : shards_) s->work.reset();
  }
  /// finish(), then waits until run() has returned. If nothing runs, it returns at once.
  ///
  /// \pre  It is not called in a handler of a shard, which would wait for itself.
  void join() {
    finish();
    wait_for_run();
  }
  [[nodiscard]] bool stopped() const {
    const std::lock_guard lock(mutex_);
    return stopped_;
  }
  /// Undoes stop() and finish(). run() must not be active.
  void restart() {
    const std::lock_guard lock(mutex_);
    stopped_ = false;
    for (const auto& s : shards_) {
      s->io.restart();
      if (!s->work) s->work.emplace(s->io.get_executor());
    }
  }
  /// Calls notify_fork() of every shard.
  void notify_fork(boost::asio::execution_context::fork_event event) {
    for (const auto& s : shards_) s->io.notify_fork(event);
  }

  // ---- messages

  /// Calls `f` on a shard, later, as a handler.
  ///
  /// \par Cost    Between shards an allocation, a fence and two stores; waking a shard that sleeps
  ///              is Asio's post() to it.
  /// \par Errors  boost::system::system_error with error::mailbox_full; std::out_of_range;
  ///              std::bad_alloc; what moving `f` throws. Then nothing was sent.
  template <std::move_constructible F>
  void post(std::size_t shard, F f) {
    if (!try_post(shard, std::move(f))) throw boost::system::system_error(error::mailbox_full);
  }
  /// The same, but returns false if the mailbox is full. Then `f` is as it was. After std::bad_alloc on
  /// a spare thread, or a thread of no shard, it may have been moved from.
  template <class F>
  [[nodiscard]] bool try_post(std::size_t shard, F&& f) {
    using function = std::decay_t<F>;
    detail::shard_state& to = at(shard);
    const detail::shard_state* const from = sender();
    if (from == nullptr || from == &to) {
      boost::asio::post(to.io, function(std::forward<F>(f)));
      return true;
    }
    // Only this thread sends to that mailbox, so the room stays.
    if (!to.has_room(from->index)) return false;
    return to.send(*new detail::posted<function>(std::forward<F>(f)), from->index);
  }

  /// Calls a copy of `f` on every shard, later, also on this one.
  ///
  /// \par Errors  As post(). On a shard: either all are sent, or none. On another thread some may
  ///              have been sent.
  template <std::copy_constructible F>
  void broadcast(const F& f) {
    const detail::shard_state* const from = sender();
    if (from == nullptr) {
      for (const auto& to : shards_) boost::asio::post(to->io, F(f));
      return;
    }
    std::vector<std::unique_ptr<detail::posted<F>>> copies;
    copies.reserve(size());
    for (const auto& to : shards_) {
      if (to.get() == from) continue;
      if (!to->has_room(from->index)) throw boost::system::system_error(error::mailbox_full);
      copies.push_back(std::make_unique<detail::posted<F>>(f));
    }
    boost::asio::post(shards_[from->index]->io, F(f));  // the last that can fail
    std::size_t next = 0;
    for (const auto& to : shards_) {
      if (to.get() != from) (void)to->send(*copies[next++].release(), from->index);
    }
  }

  /// Calls `f` on a shard and completes with its result, on the executor of the handler (of a
  /// coroutine: its own; otherwise that of the calling shard). If `f` throws, it completes with the
  /// exception. The result has to be default-constructible and movable, and no reference.
  ///
  ///     const std::size_t n = co_await shards.on(2, [] { return cache.size(); });
  ///
  /// The completion belongs to the task that was in force here, so a coroutine continues as the same
  /// task. The signature is void(std::exception_ptr) or void(std::exception_ptr, R).
  ///
  /// \par Cost    That of two messages, with one allocation.
  /// \par Errors  std::out_of_range and std::bad_alloc are thrown here. If the mailbox is full, or
  ///              this shard has as many unanswered requests to that one as a mailbox holds, it
  ///              completes with a boost::system::system_error with error::mailbox_full.
  template <class F, class CompletionToken = boost::asio::use_awaitable_t<>>
  auto on(std::size_t shard, F f, CompletionToken&& token = CompletionToken{}) {
    using result = std::invoke_result_t<F&&>;
    static_assert(!std::is_reference_v<result>, "return a copy: the other shard owns the object");
    static_assert(!detail::is_awaitable<result>, "to start a coroutine on a shard, use co_spawn");
    return initiate_on<result>(at(shard), std::move(f), token);
  }

  // ---- placement

  /// The shard for new work, by shard_options::placement or shard_options::place.
  ///
  /// \par Cost           round_robin: a few ns. Otherwise about 60 ns and 5 ns for each shard, and a
  ///                     measurement of each shard whose load is older than 5 ms.
  /// \par Thread safety  Any thread.
  [[nodiscard]] std::size_t place_index() {
    if (detail::shard_state* const s = sender()) return choose(s->choices, s->index);
    placer mine(foreign_choices_.fetch_add(1, std::memory_order_relaxed));
    return choose(mine, std::nullopt);
  }
  [[nodiscard]] io_context& place() { return shards_[place_index()]->io; }
  /// The shard of a key, such as a user's name or number: always the same one.
  [[nodiscard]] std::size_t place_index(std::uint64_t key) const noexcept {
    return placer::by_key(key, size(), drained());
  }
  [[nodiscard]] std::size_t place_index(std::string_view key) const noexcept {
    return placer::by_key(key, size(), drained());
  }
  template <class Key>
  requires(std::unsigned_integral<Key> || std::convertible_to<Key, std::string_view>)
      [[nodiscard]] io_context& place(const Key& key) const noexcept {
    return shards_[place_index(key)]->io;
  }
  /// How often shard_options::place threw, or returned a number that no shard has. Then another shard
  /// was taken.
  [[nodiscard]] std::uint64_t placement_failures() const noexcept {
    return placement_failures_.load(std::memory_order_relaxed);
  }

  // ---- moves

  /// Takes everything off a shard, for example before it is stopped for good: place() chooses others, a
  /// sharded_acceptor gives it no more connections, and sessions that may move leave at their next quiet
  /// point. Completes when neither such a session nor the task of an accepted connection is left; it waits
  /// for connections that cannot move. A connection without a task of its own (options::accept_rule is off,
  /// or the library is disabled) is not seen, unless it has made a movable.
  ///
  /// Work that names the shard, such as post() and shard(), still comes to it. A moved coroutine counts
  /// as work of the shard on which it was started (by Asio's own work guard), and completes there.
  ///
  /// The signature is void(boost::system::error_code).
  ///
  /// \par Thread safety  Any thread.
  /// \par Errors         std::out_of_range and std::bad_alloc are thrown. Completes with
  ///                     operation_aborted if undrain() is called, and with error::shard_drained if no
  ///                     other shard would be left.
  template <class CompletionToken>
  auto drain(std::size_t shard, CompletionToken&& token) {
    return boost::asio::async_initiate<CompletionToken, void(boost::system::error_code)>(
        [this, s = &at(shard)](auto handler) { this->start_drain(*s, std::move(handler)); }, token);
  }
  /// Ends a drain. The shard gets work again.
  ///
  /// \par Errors  std::out_of_range.
  void undrain(std::size_t shard) {
    detail::shard_drains::waiters waiting;
    {
      const std::lock_guard lock(drain_mutex_);
      (void)at(shard).moves->set_draining(false);
      waiting = drains_.take(shard);
    }
    detail::shard_drains::complete(waiting, boost::asio::error::operation_aborted);
  }
  /// \par Errors  std::out_of_range.
  [[nodiscard]] bool draining(std::size_t shard) const { return at(shard).moves->draining(); }
  /// What a shard publishes for balancing.
  ///
  /// \par Errors  std::out_of_range.
  [[nodiscard]] shard_report report(std::size_t shard) const { return at(shard).moves->report(); }

  // ---- figures

  /// The load of a shard, as it has measured it. Starts a measurement if the last one is older than
  /// 5 ms.
  ///
  /// \par Errors  std::out_of_range.
  [[nodiscard]] shard_load load(std::size_t i) const { return at(i).load(); }
  /// \par Errors  std::out_of_range.
  [[nodiscard]] shard_statistics stats(std::size_t i) const {
    const detail::shard_figures& f = at(i).figures;
    const detail::shard_moves& m = *at(i).moves;
    shard_statistics r{.received = f.received.load(std::memory_order_relaxed),
                       .wakes = f.wakes.load(std::memory_order_relaxed),
                       .pinned = f.cpu.load(std::memory_order_relaxed) >= 0,
                       .movables = m.movables(),
                       .move_failures = m.failures(),
                       .draining = m.draining(),
                       .hogs = f.load.read().hogs};
    for (std::size_t why = 0; why != move_reasons; ++why) {
      r.moved_out[why] = f.moves_out[why].load(std::memory_order_relaxed);
      r.moved_in[why] = f.moves_in[why].load(std::memory_order_relaxed);
    }
    return r;
  }

  /// io_context::trace() of each shard. write_trace() makes one trace of them, with a lane for each.
  ///
  /// \par Errors  std::bad_alloc.
  [[nodiscard]] std::vector<recording> traces() const {
    std::vector<recording> all;
    all.reserve(size());
    for (const auto& s : shards_) all.push_back(s->io.trace());
    return all;
  }

 private:
  [[nodiscard]] detail::shard_state& at(std::size_t i) const {
    if (i < size()) return *shards_[i];
    throw std::out_of_range("asio_pulse::sharded_context: shard " + std::to_string(i) + " of " +
                            std::to_string(size()));
  }
  /// The shard whose handlers this thread runs, if it is one of these.
  [[nodiscard]] detail::shard_state* here() const noexcept {
    detail::shard_state* const s = detail::shard_state::current();
    return s != nullptr && s->index < size() && shards_[s->index].get() == s ? s : nullptr;
  }
  /// The same, if the thread may use the shard's mailboxes.
  [[nodiscard]] detail::shard_state* sender() const noexcept {
    return detail::shard_state::helps() ? nullptr : here();
  }

  // ---- running

  void serve(detail::shard_state& s) noexcept {
    detail::name_shard_thread(s.index);
    if (options_.pinned && !options_.cpus.empty()) {
      const int cpu = options_.cpus[s.index % options_.cpus.size()];
      s.figures.cpu.store(detail::pin_this_thread(cpu) ? cpu : -1, std::memory_order_relaxed);
    }
    s.thread_begins();
    s.moves->thread_begins();
    try {
      std::size_t n = 0;
      do n = s.run();
      while (go_on(s, n));
    } catch (...) {
      const std::lock_guard lock(mutex_);
      thrown_.push_back(std::current_exception());  // it has room for one of each shard
      halt();
    }
    s.moves->thread_ends();
    s.thread_ends();
  }

  template <class Handler>
  void start_drain(detail::shard_state& s, Handler handler) {
    auto waiting = detail::shard_drains::waiting(std::move(handler), s.io.get_executor());
    {
      const std::lock_guard lock(drain_mutex_);
      const bool others = std::any_of(moves_.begin(), moves_.end(), [&s](const auto& m) {
        return m.get() != s.moves && !m->draining();
      });
      if (others) {
        drains_.add(s.index, std::move(waiting));
        (void)s.moves->set_draining(true);
        return;
      }
    }
    waiting->complete(error::shard_drained);
  }

  /// The shard seems to be empty. Its thread.
  void end_drain(std::size_t shard) {
    detail::shard_drains::waiters waiting;
    {
      const std::lock_guard lock(drain_mutex_);
      if (!moves_[shard]->be_drained()) return;
      waiting = drains_.take(shard);
    }
    detail::shard_drains::complete(waiting, {});
  }

  /// A shard's context has stopped, or has run out of work after `n` handlers. Returns true when it
  /// should look again.
  ///
  /// The shards finish together. In a *round* each of them looks for work at least once. If a round
  /// ends in which no handler ran, no shard has sent anything since it began, and none had work:
  /// there is none left. A message in a mailbox is work, because a driver is queued for it.
  bool go_on(detail::shard_state& s, std::size_t n) {
    std::unique_lock lock(mutex_);
    handlers_ += n;
    ran_ += n;
    if (halted_) return false;
    // The program has stopped the context itself, which has no effect. (It also stops without work.)
    if (s.work || s.has_work()) {
      s.io.restart();
      return true;
    }
    const std::uint64_t mine = round_;
    if (++idle_ == size()) {
      if (ran_ == 0) {
        finished_ = true;
      } else {
        idle_ = ran_ = 0;
        ++round_;
      }
      changed_.notify_all();
    }
    constexpr std::chrono::milliseconds pause{1};
    if (!finished_ && !halted_ && round_ == mine) changed_.wait_for(lock, pause);
    if (finished_ || halted_) return false;
    if (round_ == mine) --idle_;
    s.io.restart();
    return true;
  }

  // Ends run(); the mutex is held.
  void halt() {
    halted_ = true;
    board_.stopped.store(true, std::memory_order_relaxed);
    for (const auto& s : shards_) s->io.stop();
    changed_.notify_all();
  }
  [[noreturn]] void rethrow_first() {
    const std::exception_ptr e = thrown_.front();
    thrown_.erase(thrown_.begin());
    std::rethrow_exception(e);
  }
  void wait_for_run() {
    std::unique_lock lock(mutex_);
    ended_.wait(lock, [this] { return !running_; });
  }

  // ---- requests

  template <class Result>
  struct signature {
    using type = void(std::exception_ptr, Result);
  };
  template <class Result>
  requires std::is_void_v<Result>
  struct signature<Result> {
    using type = void(std::exception_ptr);
  };

  template <class Result, class F, class CompletionToken>
  auto initiate_on(detail::shard_state& to, F&& f, CompletionToken& token) {
    return boost::asio::async_initiate<CompletionToken, typename signature<Result>::type>(
        [this, &to](auto handler, F function) {
          using handler_type = decltype(handler);
          detail::shard_state* const from = sender();
          if (from != nullptr && from != &to) {
            auto r = std::make_unique<detail::shard_request<F, handler_type, Result>>(
                std::move(function), std::move(handler), *from, to);
            if (r->send()) {
              (void)r.release();
            } else {
              boost::asio::post(from->io, [r = std::move(r)] { r->refuse(); });
            }
            return;
          }
          // From a thread that is no shard, or a spare one, and from the shard itself.
          detail::shard_state* const home = here() != nullptr ? here() : &to;
          boost::asio::post(
              to.io, [f = std::move(function), w = detail::shard_waiter<handler_type, Result>(
                                                   std::move(handler), *home)]() mutable {
                detail::shard_outcome<Result> o;
                o.call(std::move(f));
                std::move(w).complete(std::move(o));
              });
        },
        token, std::forward<F>(f));
  }

  // ---- placement

  /// A bit for each shard that gets no work. 0 if all are drained.
  [[nodiscard]] std::uint64_t drained() const noexcept {
    const std::uint64_t bits = board_.drained_shards.load(std::memory_order_relaxed);
    return bits == ~std::uint64_t{0} >> (max_shards - size()) ? 0 : bits;
  }
  [[nodiscard]] std::size_t in_turn(placer& choices, std::uint64_t without) const noexcept {
    std::size_t shard = choices.round_robin(size());
    while ((without >> shard & 1) != 0) shard = choices.round_robin(size());
    return shard;
  }
  [[nodiscard]] std::size_t choose(placer& choices, std::optional<std::size_t> from) noexcept {
    const std::uint64_t without = drained();
    if (!options_.place && options_.placement == placement_rule::round_robin) {
      return in_turn(choices, without);
    }
    std::array<shard_load, max_shards> loads;
    for (std::size_t i = 0; i != size(); ++i) {
      loads[i] =
          (without >> i & 1) != 0 ? shard_load{1000, std::chrono::hours{1}} : shards_[i]->load();
    }
    const std::span<const shard_load> known(loads.data(), size());
    if (!options_.place) return choices.least_loaded(known);
    const placed_on p = choices.by_function(options_.place, {known, from});
    if (p.fell_back) placement_failures_.fetch_add(1, std::memory_order_relaxed);
    return (without >> p.shard & 1) != 0 ? in_turn(choices, without) : p.shard;
  }

  shard_options options_;
  std::vector<std::unique_ptr<detail::shard_state>> shards_;
  detail::move_board board_;
  std::vector<std::unique_ptr<detail::shard_moves>> moves_;
  detail::shard_drains drains_;
  std::mutex drain_mutex_;  // a drain begins or ends
  std::atomic<std::uint64_t> placement_failures_{0};
  std::atomic<std::size_t> foreign_choices_{0};  // of threads that are no shards

  mutable std::mutex mutex_;         // all that follows
  std::condition_variable changed_;  // for shards that finish
  std::condition_variable ended_;    // run() has returned
  bool running_ = false;
  bool stopped_ = false;      // by the program
  bool halted_ = false;       // this run() ends
  bool finished_ = false;     // because nothing is left
  std::size_t idle_ = 0;      // shards that have found nothing in this round
  std::size_t ran_ = 0;       // handlers, in this round
  std::size_t handlers_ = 0;  // in this run()
  std::uint64_t round_ = 0;
  std::vector<std::exception_ptr> thrown_;  // by handlers, and not yet by run()
};

inline std::string invalid_reason(std::size_t shards, const shard_options& o) {
  const auto refused = [](std::string_view what) {
    return "asio_pulse::sharded_context: " + std::string(what);
  };
  if (shards == 0) return refused("the number of shards must be at least 1");
  if (shards > sharded_context::max_shards) {
    return refused("the number of shards must be at most " +
                   std::to_string(sharded_context::max_shards) + ", not " + std::to_string(shards));
  }
  if (o.mailbox == 0 || o.mailbox > 65536) {
    return "asio_pulse::shard_options.mailbox must be from 1 to 65536, not " +
           std::to_string(o.mailbox);
  }
  if (to_string(o.placement) == "unknown") {
    return "asio_pulse::shard_options.placement is not one of placement_rule";
  }
  if (std::string cpus = detail::invalid_cpus(o.cpus); !cpus.empty()) {
    return "asio_pulse::shard_options.cpus: " + cpus;
  }
  if (std::string reason = invalid_reason(o.balancing); !reason.empty()) return reason;
  if (o.rescue > 64) {
    return "asio_pulse::shard_options.rescue must be at most 64, not " + std::to_string(o.rescue);
  }
  return invalid_reason(o.context);
}

}  // namespace asio_pulse
