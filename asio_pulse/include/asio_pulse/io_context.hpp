// SPDX-License-Identifier: BSL-1.0
#pragma once

#if defined(ASIO_PULSE_DISABLE)
#include <asio_pulse/detail/disabled.hpp>
#else

#if !defined(BOOST_ASIO_CUSTOM_HANDLER_TRACKING) && !defined(ASIO_PULSE_EXECUTOR_ONLY)
#error \
    "asio_pulse: link the CMake target asio_pulse::asio_pulse (or compile every file of the program with \
-DBOOST_ASIO_CUSTOM_HANDLER_TRACKING='\"asio_pulse/hooks/tracking.hpp\"'); where that cannot be, link \
asio_pulse::executor_only"
#endif

#include <asio_pulse/detail/context_service.hpp>
#include <asio_pulse/options.hpp>
#include <asio_pulse/recording.hpp>
#include <asio_pulse/statistics.hpp>
#include <boost/asio/detail/concurrency_hint.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <utility>

#if !defined(ASIO_PULSE_TRACKING) && !defined(ASIO_PULSE_EXECUTOR_ONLY)
#error \
    "asio_pulse: BOOST_ASIO_CUSTOM_HANDLER_TRACKING names another header than asio_pulse/hooks/tracking.hpp"
#endif

namespace asio_pulse {

/// A boost::asio::io_context that accounts for every handler and takes the CPU back from those that
/// hog it.
///
/// A drop-in: it is an io_context, has its executor type, and everything written against
/// `boost::asio::io_context&` goes on working: the same counts from the run functions, the same
/// order within a strand and within a task, the same exceptions. Across tasks the order may change,
/// once one of them is over its budget.
///
/// \par Thread safety  As boost::asio::io_context: Distinct objects: Safe. Shared objects: Safe,
/// with the exceptions
///                     stated there.
/// \par Cost           About 10 ns a handler with one thread (see benches/RESULTS.md), 8 bytes an
/// operation.
class io_context : public boost::asio::io_context {
 public:
  using base_type = boost::asio::io_context;

  /// \par Errors  std::invalid_argument, naming the option and the rule.
  io_context() : io_context(options{}) {}
  explicit io_context(int concurrency_hint) : io_context(options{}, concurrency_hint) {}
  explicit io_context(options opts)
      : service_(boost::asio::use_service<detail::context_service>(*this)) {
    open(std::move(opts), false);
  }
  io_context(options opts, int concurrency_hint)
      : base_type(concurrency_hint),
        service_(boost::asio::use_service<detail::context_service>(*this)) {
    // As Asio decides whether there is one thread only.
    open(std::move(opts),
         concurrency_hint == 1 ||
             !BOOST_ASIO_CONCURRENCY_HINT_IS_LOCKING(SCHEDULER, concurrency_hint) ||
             !BOOST_ASIO_CONCURRENCY_HINT_IS_LOCKING(REACTOR_IO, concurrency_hint));
  }

  /// Waits for handlers that run on the isolation pool or on a spare worker; destroys what is
  /// parked or queued without running it, as Asio does with every other pending handler.
  ~io_context() { service_.close(); }

  /// User hooks: see hooks::registry.
  [[nodiscard]] hooks::registry& hooks() noexcept { return core_->hooks(); }
  /// What was done so far. Any thread; takes a mutex that the poll path does not.
  [[nodiscard]] statistics stats() const noexcept { return core_->stats(); }
  /// What its workers, sites and tasks did (metrics.hpp). Where options::metrics is `on_demand` the
  /// first call begins to collect, and it goes on for 90 s after the last one.
  ///
  /// \par Cost           Off the poll path: copies what the workers count, then walks the tasks,
  ///                     128 at a time under the mutex that new tasks take; see benches/RESULTS.md.
  /// \par Thread safety  Any thread but a signal handler; calls wait for each other.
  /// \par Errors         std::bad_alloc.
  [[nodiscard]] context_metrics metrics(const metrics_request& what = {}) {
    return core_->metrics(what);
  }
  /// What its workers did in the last moments (recording.hpp). Where options::trace is `on_demand`
  /// the first call begins to trace, for 90 s after the last one, and returns nothing yet.
  ///
  /// \par Thread safety  As metrics().
  /// \par Errors         std::bad_alloc.
  [[nodiscard]] recording trace() { return core_->trace(); }
  /// What was set. Any thread.
  [[nodiscard]] const options& get_options() const noexcept { return core_->opts(); }

  // The run functions of the base class, whose counts they keep: a turn in which an operation was
  // put back ran nothing, and what is left of a broken strand batch has been counted.
  count_type run() {
    return all([this] { return base_type::run(); });
  }
  count_type poll() {
    hooks::worker_scope worker(service_.scheduler(), *core_, enabled());
    return net(base_type::poll(), worker);
  }
  count_type run_one() {
    return one([this] { return base_type::run_one(); });
  }
  count_type poll_one() {
    return one([this] { return base_type::poll_one(); });
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

  // The deprecated forms, where this Asio has them.
  template <std::same_as<boost::system::error_code> ErrorCode, class Base = base_type>
  requires requires(Base& b, ErrorCode& ec) { b.run(ec); }
  count_type run(ErrorCode& ec) {
    return all([&] { return static_cast<Base&>(*this).run(ec); });
  }
  template <std::same_as<boost::system::error_code> ErrorCode, class Base = base_type>
  requires requires(Base& b, ErrorCode& ec) { b.poll(ec); }
  count_type poll(ErrorCode& ec) {
    hooks::worker_scope worker(service_.scheduler(), *core_, enabled());
    return net(static_cast<Base&>(*this).poll(ec), worker);
  }
  template <std::same_as<boost::system::error_code> ErrorCode, class Base = base_type>
  requires requires(Base& b, ErrorCode& ec) { b.run_one(ec); }
  count_type run_one(ErrorCode& ec) {
    return one([&] { return static_cast<Base&>(*this).run_one(ec); });
  }
  template <std::same_as<boost::system::error_code> ErrorCode, class Base = base_type>
  requires requires(Base& b, ErrorCode& ec) { b.poll_one(ec); }
  count_type poll_one(ErrorCode& ec) {
    return one([&] { return static_cast<Base&>(*this).poll_one(ec); });
  }

 private:
  void open(options opts, bool one_thread) {
#if defined(ASIO_PULSE_TRACKING)
    if (!service_.laid_out_as_expected()) asio_pulse_refuse_untracked();
#endif
    core_ = new detail::context_core(std::move(opts), one_thread);
    service_.open(core_);
    core_->release();  // the service holds it
  }

  [[nodiscard]] bool enabled() const noexcept { return core_->opts().enabled; }

  [[nodiscard]] static count_type net(count_type turns,
                                      const hooks::worker_scope& worker) noexcept {
    const count_type none = worker.phantom_turns() + worker.extra_turns();
    return turns > none ? turns - none : 0;
  }

  /// Everything until the end: spare workers may take over, and what they ran is counted here.
  template <class Run>
  count_type all(Run run) {
    detail::spare_workers* const spares = service_.spares();
    if (spares == nullptr) {
      hooks::worker_scope worker(service_.scheduler(), *core_, enabled(), true);
      return net(run(), worker);
    }
    detail::spare_workers::caller inside(*spares);
    hooks::worker_scope worker(service_.scheduler(), *core_, enabled(), true);
    return inside.leave(net(run(), worker));
  }

  /// At most one handler: turns that ran none do not count.
  template <class Turn>
  count_type one(Turn turn) {
    hooks::worker_scope worker(service_.scheduler(), *core_, enabled());
    for (;;) {
      worker.reset_turns();
      const count_type n = turn();
      if (n == 0 || worker.phantom_turns() == 0) return n;
    }
  }

  detail::context_service& service_;
  detail::context_core* core_ = nullptr;
};

}  // namespace asio_pulse

#endif
