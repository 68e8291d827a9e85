// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/requirements.hpp>

#if defined(ASIO_PULSE_DISABLE)
#include <asio_pulse/detail/disabled.hpp>
#else

#include <asio_pulse/changes.hpp>
#include <asio_pulse/detail/asio/context_service.hpp>
#include <asio_pulse/options.hpp>
#include <asio_pulse/recording.hpp>
#include <asio_pulse/statistics.hpp>

#include <boost/asio/io_context.hpp>
#include <boost/asio/version.hpp>

#include <chrono>
#include <cstddef>
#include <limits>
#include <stdexcept>
#include <type_traits>
#include <utility>

namespace asio_pulse {

/// A boost::asio::io_context that measures the CPU time of every handler and limits the tasks that
/// use more than their share.
///
/// It is a drop-in replacement: it derives from boost::asio::io_context and has its executor type.
/// Code that takes a `boost::asio::io_context&` continues to work. The run functions return the
/// same counts, exceptions leave them as before, and the order within a strand and within a task is
/// the same. The order between tasks may change when one of them is over its budget; see
/// options::order.
///
/// \par Thread safety  As boost::asio::io_context: Distinct objects: Safe. Shared objects: Safe,
///                     with the exceptions stated there.
/// \par Cost           About 10 ns for each handler with one thread (see benches/RESULTS.md), and 8
///                     bytes for each operation.
class io_context : public boost::asio::io_context {
 public:
  using base_type = boost::asio::io_context;

  /// \par Errors  std::invalid_argument, naming the option and the rule.
  io_context() : io_context(options{}) {}
  /// The constructors of the base class in this Boost: with a concurrency hint; from Boost 1.87 on
  /// with an object that sets up services, such as boost::asio::config_from_env; from 1.90 on with
  /// an allocator before these.
  // NOLINTBEGIN(google-explicit-constructor): it is, with one argument
  template <class... Args>
  requires(std::is_constructible_v<base_type, Args...> &&
           sizeof...(Args) != 0) explicit(sizeof...(Args) == 1) io_context(Args&&... args)
      : io_context(options{}, std::forward<Args>(args)...) {}
  // NOLINTEND(google-explicit-constructor)
  /// The same with our options before the arguments of the base class.
  template <class... Args>
  requires(std::is_constructible_v<base_type, Args...>) explicit io_context(options opts,
                                                                            Args&&... args)
      : base_type(std::forward<Args>(args)...),
        service_(boost::asio::use_service<detail::context_service>(*this)) {
    open(std::move(opts));
  }

  /// Waits for handlers that run on the isolation pool or on a spare worker. Handlers that are
  /// parked or queued are destroyed without being run, as Asio does with all pending handlers.
  ~io_context() { service_.close(); }

  /// The registry in which the program can install its own hooks; see hooks::registry.
  [[nodiscard]] hooks::registry& hooks() noexcept { return core_->hooks(); }
  /// The counters of this context, since it was made.
  ///
  /// \par Cost           A mutex, which the poll path does not take.
  /// \par Thread safety  Any thread but a signal handler.
  [[nodiscard]] statistics stats() const noexcept { return core_->stats(); }
  /// The metrics of its workers, sites, tasks and groups (metrics.hpp). If options::metrics is `on_demand`,
  /// the first call starts the collection, which stops 90 s after the last call.
  ///
  /// \par Cost           Off the poll path: copies the counters of the workers, then walks the
  ///                     tasks, 128 at a time under the mutex that new tasks take, and in the same
  ///                     way the groups; see benches/RESULTS.md.
  /// \par Thread safety  Any thread but a signal handler. Concurrent calls wait for each other.
  /// \par Errors         std::bad_alloc.
  [[nodiscard]] context_metrics metrics(const metrics_request& what = {}) {
    return core_->metrics(what);
  }
  /// The most recent events of its workers (recording.hpp). If options::trace is `on_demand`, the
  /// first call starts the tracing and returns no events; the tracing stops 90 s after the last
  /// call.
  ///
  /// \par Thread safety  As metrics().
  /// \par Errors         std::bad_alloc.
  [[nodiscard]] recording trace() { return core_->trace(); }
  /// The options, as they are now.
  ///
  /// \par Cost           A mutex, and a copy of the options.
  /// \par Thread safety  Any thread but a signal handler.
  /// \par Errors         std::bad_alloc.
  [[nodiscard]] options get_options() const { return core_->current(); }

  /// Changes options while threads run the context. All of the changes are made, or none of them.
  /// A worker uses them from its next poll on, and does not wait for that: it takes no lock and
  /// makes no copy. Updates from several threads are made one after the other.
  ///
  /// An update that changes anything counts in statistics::updates, is an event for the hook
  /// options_changed, and is shown in traces.
  ///
  ///     io.update({.shadow = false, .quantum = 1ms});
  ///
  /// \par Cost           Off the poll path. Changes of thresholds, of `shadow` and of the budgets of
  ///                     connections walk through the tasks, 128 at a time.
  /// \par Blocking       Waits for updates in other threads.
  /// \par Thread safety  Any thread but a signal handler; also inside a handler, a hook or
  ///                     on_report.
  /// \par Errors         std::invalid_argument, if the options with the changes are not valid: the
  ///                     text is invalid_reason() of them. std::bad_alloc.
  void update(const changes& what) { throw_if(core_->update(what)); }
  /// The same with an error code: sets `ec` to error::invalid_option, or clears it.
  void update(const changes& what, boost::system::error_code& ec) {
    ec = code_of(core_->update(what));
  }

  /// Changes the options to these. For a program that reads its options again:
  ///
  ///     asio_pulse::options o = io.get_options();
  ///     read_settings(o);  // the program's own
  ///     io.update_to(o);
  ///
  /// Callbacks cannot be compared. The context keeps its `on_report`, and refuses options with one
  /// if it has none, and the reverse.
  ///
  /// Otherwise as update().
  ///
  /// \par Errors  std::invalid_argument, if the options are not valid, or if one of them differs
  ///              that cannot change (those that are no members of `changes`). The text names it and
  ///              says why: "asio_pulse::options.clock cannot change while the context exists: ...".
  ///              std::bad_alloc.
  void update_to(const options& to) { throw_if(core_->update_to(to)); }
  /// The same with an error code: sets `ec` to error::invalid_option or error::fixed_option, or
  /// clears it.
  void update_to(const options& to, boost::system::error_code& ec) {
    ec = code_of(core_->update_to(to));
  }

  /// Replaces options::classify, also while connections are accepted: those whose accept completes
  /// after the call has returned are classified by `chooses`, or not at all if it is empty. Calls of
  /// the function before may be in progress on other threads.
  ///
  /// It counts as an update: in statistics::updates, and as an event for the hook options_changed,
  /// which names "classify".
  ///
  /// \par Blocking       Waits for updates in other threads.
  /// \par Thread safety  As update().
  /// \par Errors         std::bad_alloc; then nothing has changed.
  void classify(std::function<group_ref(const accepted_connection&)> chooses) {
    core_->classify_by(std::move(chooses));
  }

  // The run functions return the counts of the base class: a turn in which an operation was put
  // back does not count, and the rest of a broken strand batch was counted with its first part.
  count_type run() {
    return all([this] { return base_type::run(); });
  }
  count_type poll() {
    return all_ready([this] { return base_type::poll(); },
                     [this] { return base_type::poll_one(); });
  }
  count_type run_one() {
    return one([this] { return base_type::run_one(); });
  }
  count_type poll_one() {
    return one([this] { return base_type::poll_one(); }, true);
  }
  template <class Rep, class Period>
  count_type run_for(const std::chrono::duration<Rep, Period>& rel_time) {
    return run_until(std::chrono::steady_clock::now() + rel_time);
  }
  template <class Clock, class Duration>
  count_type run_until(const std::chrono::time_point<Clock, Duration>& abs_time) {
    return all([&] { return base_type::run_until(abs_time); });
  }
  template <class Rep, class Period>
  count_type run_one_for(const std::chrono::duration<Rep, Period>& rel_time) {
    return run_one_until(std::chrono::steady_clock::now() + rel_time);
  }
  template <class Clock, class Duration>
  count_type run_one_until(const std::chrono::time_point<Clock, Duration>& abs_time) {
    return one([&] { return base_type::run_one_until(abs_time); });
  }

#if !defined(BOOST_ASIO_NO_DEPRECATED) && BOOST_ASIO_VERSION < 103300
  // The deprecated overloads exist only if this Asio has them: `&io_context::run`, as an argument
  // of std::thread for example, is ambiguous when the name is overloaded.
  count_type run(boost::system::error_code& ec) {
    return all([this, &ec] { return base_type::run(ec); });
  }
  count_type poll(boost::system::error_code& ec) {
    return all_ready([this, &ec] { return base_type::poll(ec); },
                     [this, &ec] { return base_type::poll_one(ec); });
  }
  count_type run_one(boost::system::error_code& ec) {
    return one([this, &ec] { return base_type::run_one(ec); });
  }
  count_type poll_one(boost::system::error_code& ec) {
    return one([this, &ec] { return base_type::poll_one(ec); }, true);
  }
#endif

 protected:
  /// For sharded_context: the context is a shard.
  void be_shard(std::shared_ptr<const detail::shard_figures> figures) noexcept {
    core_->be_shard(std::move(figures));
  }

 private:
  void open(options opts) {
#if defined(ASIO_PULSE_TRACKING)
    if (!service_.laid_out_as_expected()) asio_pulse_refuse_untracked();
#endif
    core_ = new detail::context_core(std::move(opts), service_.one_thread());
    const detail::core_ref released(core_);  // open() makes the service hold a reference as well
    service_.open(core_);
  }

  static void throw_if(const detail::context_core::refusal& r) {
    if (!r.text.empty()) throw std::invalid_argument(r.text);
  }
  [[nodiscard]] static boost::system::error_code code_of(const detail::context_core::refusal& r) {
    return r.text.empty() ? boost::system::error_code() : make_error_code(r.what);
  }

  [[nodiscard]] bool enabled() const noexcept { return core_->opts().enabled; }

  // stopped() locks the scheduler's mutex, so it is called only where the answer matters.
  void run_begins() noexcept {
    if (core_->stop_noted() && !this->stopped()) core_->run_begins();
  }

  [[nodiscard]] static count_type net(count_type turns,
                                      const hooks::worker_scope& worker) noexcept {
    const count_type none = worker.phantom_turns() + worker.extra_turns();
    return turns > none ? turns - none : 0;
  }

  /// Runs handlers until the run function ends. Spare workers may take over meanwhile; the handlers
  /// that they ran are added to the count.
  template <class Run>
  count_type all(Run run) {
    detail::spare_workers* const spares = service_.spares();
    if (spares == nullptr) {
      hooks::worker_scope worker(service_.scheduler(), *core_, enabled(), true);
      run_begins();
      const count_type n = run();
      return net(n + what_stop_overtook(), worker);
    }
    detail::spare_workers::caller inside(*spares);
    hooks::worker_scope worker(service_.scheduler(), *core_, enabled(), true);
    run_begins();
    const count_type n = run();
    return inside.leave(net(n + what_stop_overtook(), worker));
  }

  /// Runs the handlers that are ready. Those that were suspended by automatic checkpoints, and that
  /// another thread has to run, stay in the queue, so Asio's own loop would not end before that
  /// thread has run them.
  template <class Poll, class Turn>
  count_type all_ready(Poll poll, Turn turn) {
    hooks::worker_scope worker(service_.scheduler(), *core_, enabled());
    worker.polls();
    run_begins();
    if (!core_->pins_threads()) {
      const count_type n = poll();
      return net(n + what_stop_overtook(), worker);
    }
    count_type done = 0;
    long idle = 0;  // turns in a row that ran nothing
    while (!worker.waits_for_another() && idle <= service_.outstanding()) {
      worker.reset_turns();
      const count_type turns = turn();
      if (turns == 0) break;
      const count_type n = net(turns, worker);
      done += n;
      idle = worker.phantom_turns() == 0 ? 0 : idle + 1;
    }
    worker.reset_turns();
    return done + net(what_stop_overtook(), worker);
  }

  /// Runs at most one handler. Turns that ran none are repeated, unless it `polls` and only another
  /// thread could do more.
  template <class Turn>
  count_type one(Turn turn, bool polls = false) {
    hooks::worker_scope worker(service_.scheduler(), *core_, enabled());
    if (polls) worker.polls();
    run_begins();
    for (long idle = 0;; ++idle) {
      worker.reset_turns();
      const count_type n = turn();
      if (n == 0) return what_stop_overtook(1);
      if (worker.phantom_turns() == 0) return n;
      if (polls && (worker.waits_for_another() ||
                    (core_->pins_threads() && idle > service_.outstanding()))) {
        return 0;
      }
    }
  }

  /// If stop() was called in a handler that overtook operations that are held back, plain Asio
  /// would have run those operations first. This runs them now, at most `most` of them, and returns
  /// how many it has run.
  count_type what_stop_overtook(count_type most = std::numeric_limits<count_type>::max()) {
    count_type n = 0;
    while (n < most && core_->parks() && this->stopped() && core_->requeue_overtaken()) {
      struct stop_again {
        io_context& context;
        ~stop_again() {
          context.core_->released_ended(context.stopped());
          context.stop();
        }
      } on_exit{*this};
      this->restart();
      n += base_type::run_one();
    }
    return n;
  }

  detail::context_service& service_;
  detail::context_core* core_ = nullptr;
};

}  // namespace asio_pulse

#endif
