// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/asio/asio_internals.hpp>
#include <asio_pulse/detail/shards/movable_core.hpp>

#include <boost/asio/associated_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <type_traits>
#include <utility>

/// \file
/// The handler of a session that moves. A coroutine has its executor in its frame, where it is replaced.

namespace asio_pulse::detail {

template <class Executor>
asio_detail::awaitable_thread<Executor>* as_coroutine(
    asio_detail::awaitable_thread<Executor>& h) noexcept {
  return &h;
}
/// The coroutine that a handler resumes, also behind redirect_error and as_tuple; null if it is none.
template <class Handler>
auto coroutine_in(Handler& h) noexcept {
  if constexpr (requires { as_coroutine(h); }) {
    return as_coroutine(h);
  } else if constexpr (requires { h.handler_; }) {
    return coroutine_in(h.handler_);
  } else {
    return nullptr;
  }
}

/// Stands for the executor of handlers that have none.
struct no_own_executor : boost::asio::io_context::executor_type {
  using boost::asio::io_context::executor_type::executor_type;
};

template <class Handler>
inline constexpr bool resumes_coroutine =
    !std::is_null_pointer_v<decltype(coroutine_in(std::declval<Handler&>()))>;

/// Whether the handler can go on in another context than `home`.
template <class Handler>
[[nodiscard]] bool may_leave(Handler& h, io_context& home) noexcept {
  if constexpr (resumes_coroutine<Handler>) {
    return executor_of(*coroutine_in(h)) == home.get_executor();
  } else {
    using executor = boost::asio::associated_executor_t<Handler, no_own_executor>;
    return std::is_same_v<executor, no_own_executor>;
  }
}

template <class Handler>
class resumption_of final : public handler_operation<resumption_of<Handler>, resumption> {
 public:
  resumption_of(movable_core& core, Handler&& h) : core_(&core), handler_(std::move(h)) {}

  void goes_to([[maybe_unused]] io_context& to) noexcept override {
    if constexpr (resumes_coroutine<Handler>) {
      executor_of(*coroutine_in(handler_)) = to.get_executor();
    }
  }
  void announce_in([[maybe_unused]] io_context& in) noexcept override {
    BOOST_ASIO_HANDLER_CREATION((in, *this, "shard", &in, 0, "movable"));
  }
  void resume() override {
    Handler h(std::move(handler_));
    const boost::system::error_code ec = this->result;
    delete this;  // as in Asio: the memory is free when the handler runs
    std::move(h)(ec);
  }
  void drop() noexcept override { delete this; }

  void completed(void* owner) {
    if (owner == nullptr) return drop();
    if (!this->waits_again) return resume();
    const boost::intrusive_ptr<movable_core> core = core_;
    core->go_on_waiting(*this);
  }

 private:
  boost::intrusive_ptr<movable_core> core_;
  Handler handler_;
};

}  // namespace asio_pulse::detail
