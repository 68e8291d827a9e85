// SPDX-License-Identifier: BSL-1.0
#pragma once

#if !defined(ASIO_PULSE_DISABLE)
#error "asio_pulse/detail/disabled.hpp is included where ASIO_PULSE_DISABLE is defined"
#endif
#if defined(BOOST_ASIO_CUSTOM_HANDLER_TRACKING)
#error \
    "asio_pulse: ASIO_PULSE_DISABLE and BOOST_ASIO_CUSTOM_HANDLER_TRACKING exclude each other: link \
asio_pulse::disabled instead of asio_pulse::asio_pulse"
#include "the error above says what is missing"
#endif

/// \file
/// asio-pulse switched off at compile time: the same names for plain Asio, with no hook and no
/// extra word in an operation. The library is linked only for options and reports.

#include <asio_pulse/hooks/requirements.hpp>

// Boost 1.74's awaitable.hpp uses std::exchange, but does not include this.
#include <asio_pulse/accepted_connection.hpp>
#include <asio_pulse/admission.hpp>
#include <asio_pulse/changes.hpp>
#include <asio_pulse/hooks/registry.hpp>
#include <asio_pulse/metrics.hpp>
#include <asio_pulse/options.hpp>
#include <asio_pulse/recording.hpp>
#include <asio_pulse/statistics.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/defer.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

#include <chrono>
#include <coroutine>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace asio_pulse {
// The library has classes and functions of the same names. With an inline namespace the linker cannot
// take one for the other.
inline namespace switched_off {

class io_context : public boost::asio::io_context {
 public:
  using base_type = boost::asio::io_context;
  io_context() = default;
  using base_type::base_type;
  template <class... Args>
  requires(std::is_constructible_v<base_type, Args...>) explicit io_context(const options&,
                                                                            Args&&... args)
      : base_type(std::forward<Args>(args)...) {}
  [[nodiscard]] statistics stats() const noexcept { return {}; }
  [[nodiscard]] static context_metrics metrics(const metrics_request& = {}) { return {}; }
  [[nodiscard]] static recording trace() { return {}; }
  [[nodiscard]] static options get_options() { return {}; }
  // There is nothing to change.
  static void update(const changes&) noexcept {}
  static void update(const changes&, boost::system::error_code& ec) noexcept { ec.clear(); }
  static void update_to(const options&) noexcept {}
  static void update_to(const options&, boost::system::error_code& ec) noexcept { ec.clear(); }
  static void classify(const std::function<group_ref(const accepted_connection&)>&) noexcept {}
  /// A registry in which hooks can be installed. They are never called.
  [[nodiscard]] static hooks::registry& hooks() noexcept {
    static hooks::registry none;
    return none;
  }
};

/// A task that only refers to its context: nothing is accounted for.
class task {
 public:
  using executor_type = boost::asio::io_context::executor_type;
  explicit task(boost::asio::io_context& context, const task_options& = {}) noexcept
      : context_(&context) {}
  [[nodiscard]] std::string_view name() const noexcept { return {}; }
  [[nodiscard]] std::uint64_t id() const noexcept { return 0; }
  [[nodiscard]] tier current_tier() const noexcept { return tier::monitor; }
  [[nodiscard]] task_statistics stats() const noexcept { return {}; }
  [[nodiscard]] executor_type get_executor() const noexcept { return context_->get_executor(); }
  [[nodiscard]] boost::asio::any_io_executor start_executor() const { return get_executor(); }
  [[nodiscard]] bool isolatable() const noexcept { return false; }
  void update(const task_options&) const noexcept {}
  void update(const task_options&, boost::system::error_code& ec) const noexcept { ec.clear(); }
  [[nodiscard]] boost::asio::io_context& context() const noexcept { return *context_; }
  friend bool operator==(const task&, const task&) noexcept = default;

 private:
  boost::asio::io_context* context_;
};

class task_scope {
 public:
  explicit task_scope(const task&) noexcept {}
};

/// A group that measures nothing and refuses nothing.
class task_group {
 public:
  explicit task_group(boost::asio::io_context&, const group_options& opts = {})
      : weight_(opts.weight) {}
  // NOLINTNEXTLINE(google-explicit-constructor): members of options are assigned that way
  operator group_ref() const noexcept { return {}; }
  [[nodiscard]] std::uint64_t id() const noexcept { return 0; }
  [[nodiscard]] std::string_view name() const noexcept { return {}; }
  [[nodiscard]] unsigned weight() const noexcept { return weight_; }
  void set_weight(unsigned weight) noexcept { weight_ = weight; }
  [[nodiscard]] group_statistics stats() const noexcept { return {}; }
  friend bool operator==(const task_group&, const task_group&) noexcept = default;

 private:
  unsigned weight_;
};
constexpr admission admit(const task_group&) noexcept { return {}; }

class critical_section {
 public:
  critical_section() noexcept {}  // not defaulted, so that a guard does not look unused
  ~critical_section() {}          // NOLINT(modernize-use-equals-default): as above
  critical_section(const critical_section&) = delete;
  critical_section& operator=(const critical_section&) = delete;
};

namespace this_task {
constexpr std::uint64_t id() noexcept { return 0; }
inline void begin(const task_options&) noexcept {}
inline bool join(const group_ref&) noexcept { return false; }
}  // namespace this_task

constexpr bool should_yield() noexcept { return false; }

namespace this_fiber {
constexpr void checkpoint() noexcept {}
}  // namespace this_fiber

using mutex = std::mutex;

class no_yield_scope {
 public:
  no_yield_scope() noexcept {}  // as above
  ~no_yield_scope() {}          // NOLINT(modernize-use-equals-default): as above
  no_yield_scope(const no_yield_scope&) = delete;
  no_yield_scope& operator=(const no_yield_scope&) = delete;
};

template <class Handler>
constexpr std::decay_t<Handler> preemptible(Handler&& handler) {
  return std::forward<Handler>(handler);
}

template <class CompletionToken>
auto post(const task& t, CompletionToken&& token) {
  return boost::asio::post(t.get_executor(), std::forward<CompletionToken>(token));
}
template <class CompletionToken>
auto defer(const task& t, CompletionToken&& token) {
  return boost::asio::defer(t.get_executor(), std::forward<CompletionToken>(token));
}
template <class CompletionToken>
auto dispatch(const task& t, CompletionToken&& token) {
  return boost::asio::dispatch(t.get_executor(), std::forward<CompletionToken>(token));
}
template <class Coroutine, class CompletionToken>
auto co_spawn(const task& t, Coroutine&& coroutine, CompletionToken&& token) {
  return boost::asio::co_spawn(t.start_executor(), std::forward<Coroutine>(coroutine),
                               std::forward<CompletionToken>(token));
}

/// `co_await checkpoint()` still awaits a coroutine here. ASIO_PULSE_CHECKPOINT() costs nothing.
inline boost::asio::awaitable<void> checkpoint() { co_return; }

}  // namespace switched_off
}  // namespace asio_pulse

#define ASIO_PULSE_PREEMPTION_BUDGET(duration) static_cast<void>(0)
#define ASIO_PULSE_CHECKPOINT() static_cast<void>(0)
