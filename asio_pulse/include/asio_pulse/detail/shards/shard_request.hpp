// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/asio/handler_operation.hpp>
#include <asio_pulse/detail/shards/shard.hpp>
#include <asio_pulse/error.hpp>

#include <boost/asio/associated_executor.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/system/system_error.hpp>

#include <atomic>
#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

/// \file
/// Requests between shards: what sharded_context::on() sends, and what it answers.

namespace asio_pulse::detail {

/// What a function has returned or thrown.
template <class Result>
class shard_outcome {
 public:
  template <class F>
  void call(F&& f) noexcept {
    try {
      if constexpr (std::is_void_v<Result>) {
        std::forward<F>(f)();
      } else {
        value_.emplace(std::forward<F>(f)());
      }
    } catch (...) {
      thrown_ = std::current_exception();
    }
  }
  void refuse() {
    thrown_ = std::make_exception_ptr(boost::system::system_error(error::mailbox_full));
  }
  template <class Handler>
  void give(Handler&& h) && {
    if constexpr (std::is_void_v<Result>) {
      std::forward<Handler>(h)(std::move(thrown_));
    } else {
      std::forward<Handler>(h)(std::move(thrown_), value_ ? std::move(*value_) : Result());
    }
  }

 private:
  struct nothing {};
  std::exception_ptr thrown_;
  std::optional<std::conditional_t<std::is_void_v<Result>, nothing, Result>> value_;
};

/// A handler that waits for the result. It keeps the context of its executor at work.
template <class Handler, class Result>
class shard_waiter {
  using executor =
      boost::asio::associated_executor_t<Handler, boost::asio::io_context::executor_type>;

 public:
  shard_waiter(Handler&& h, shard_state& home)
      : work_(boost::asio::get_associated_executor(h, home.io.get_executor())),
        handler_(std::move(h)) {}

  void complete(shard_outcome<Result>&& with) && {
    const executor ex = work_.get_executor();
    const boost::asio::executor_work_guard<executor> work(std::move(work_));
    boost::asio::dispatch(ex, [h = std::move(handler_), o = std::move(with)]() mutable {
      std::move(o).give(std::move(h));
    });
  }

 private:
  boost::asio::executor_work_guard<executor> work_;
  Handler handler_;
};

/// A request from one shard to another, and its answer. It is allocated once, and freed on the
/// shard that it came from.
template <class F, class Handler, class Result>
class shard_request {
 public:
  shard_request(F&& f, Handler&& h, shard_state& from, shard_state& to)
      : from_(from), to_(to), function_(std::move(f)), waiter_(std::move(h), from) {
    // Announced here, so that the completion belongs to the task that asks.
    BOOST_ASIO_HANDLER_CREATION((from.io, answer_, "shard", &from, 0, "answer"));
  }
  /// Returns false, and does nothing, if there is no room. Afterwards it deletes itself.
  [[nodiscard]] bool send() noexcept {
    std::atomic<std::size_t>& open = from_.requests[to_.index];
    if (open.load(std::memory_order_relaxed) == from_.most) return false;
    from_.add(open, 1);
    if (to_.send(ask_, from_.index)) return true;
    from_.add(open, shard_state::minus_one);
    return false;
  }
  void refuse() {
    outcome_.refuse();
    std::move(waiter_).complete(std::move(outcome_));
  }

 private:
  struct ask final : handler_operation<ask, message> {
    explicit ask(shard_request& r) : whole(r) { this->announce_by(&introduce); }
    void completed(void* owner) {
      this->left_queue();
      if (owner == nullptr) {
        delete &whole;
        return;
      }
      whole.outcome_.call(std::move(whole.function_));
      whole.from_.answer(whole.answer_, whole.to_.index);  // it may be deleted now
    }
    static void introduce(message& m, [[maybe_unused]] shard_state& to) {
      [[maybe_unused]] auto& self = static_cast<ask&>(m);
      BOOST_ASIO_HANDLER_CREATION((to.io, self, "shard", &to, 0, "on"));
    }
    shard_request& whole;
  };
  struct answer final : handler_operation<answer, message> {
    explicit answer(shard_request& r) : whole(r) {}
    void completed(void* owner) {
      std::unique_ptr<shard_request> self(&whole);
      whole.from_.add(whole.from_.requests[whole.to_.index], shard_state::minus_one);
      shard_waiter<Handler, Result> asked(std::move(whole.waiter_));
      shard_outcome<Result> result(std::move(whole.outcome_));
      self.reset();  // as in posted
      if (owner != nullptr) std::move(asked).complete(std::move(result));
    }
    shard_request& whole;
  };

  shard_state& from_;
  shard_state& to_;
  F function_;
  shard_waiter<Handler, Result> waiter_;
  shard_outcome<Result> outcome_;
  ask ask_{*this};
  answer answer_{*this};
};

}  // namespace asio_pulse::detail
