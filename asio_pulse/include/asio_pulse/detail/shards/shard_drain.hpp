// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/io_context.hpp>

#include <boost/asio/associated_executor.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/system/error_code.hpp>

#include <cstddef>
#include <exception>
#include <iterator>
#include <list>
#include <memory>
#include <mutex>
#include <utility>

namespace asio_pulse::detail {

/// The handlers that wait until a shard is drained.
///
/// \par Thread safety  Any thread. Handlers are posted, with no lock held.
class shard_drains {
 public:
  class waiter {
   public:
    waiter() = default;
    waiter(const waiter&) = delete;
    waiter& operator=(const waiter&) = delete;
    virtual ~waiter() = default;
    virtual void complete(boost::system::error_code ec) = 0;
  };
  using waiter_ptr = std::unique_ptr<waiter>;

  /// A handler that is posted to its executor, or to that of the shard.
  template <class Handler>
  static waiter_ptr waiting(Handler h, const boost::asio::io_context::executor_type& of_shard) {
    using executor =
        boost::asio::associated_executor_t<Handler, boost::asio::io_context::executor_type>;
    class with_handler final : public waiter {
     public:
      with_handler(Handler&& its, const executor& ex,
                   const boost::asio::io_context::executor_type& drained)
          : work_(ex), ticks_(drained), handler_(std::move(its)) {}
      void complete(boost::system::error_code ec) override {
        const auto work = std::move(work_);
        boost::asio::post(work.get_executor(),
                          [f = std::move(handler_), ec]() mutable { std::move(f)(ec); });
      }

     private:
      boost::asio::executor_work_guard<executor> work_;
      /// Keeps the shard at work, so that it continues to check whether it is empty.
      boost::asio::executor_work_guard<boost::asio::io_context::executor_type> ticks_;
      Handler handler_;
    };
    const executor ex = boost::asio::get_associated_executor(h, of_shard);
    return std::make_unique<with_handler>(std::move(h), ex, of_shard);
  }

  void add(std::size_t shard, waiter_ptr w) {
    const std::lock_guard lock(mutex_);
    waiters_.emplace_back(shard, std::move(w));
  }
  using waiters = std::list<std::pair<std::size_t, waiter_ptr>>;

  /// Takes out the handlers that wait for this shard. They are completed when no lock is held.
  [[nodiscard]] waiters take(std::size_t shard) noexcept {
    const std::lock_guard lock(mutex_);
    waiters taken;
    for (auto at = waiters_.begin(); at != waiters_.end();) {
      const auto next = std::next(at);
      if (at->first == shard) taken.splice(taken.end(), waiters_, at);
      at = next;
    }
    return taken;
  }
  /// \par Errors  Those of posting a handler. The others are completed all the same.
  static void complete(const waiters& taken, boost::system::error_code ec) {
    std::exception_ptr thrown;
    for (const auto& [of, w] : taken) {
      try {
        w->complete(ec);
      } catch (...) {
        thrown = std::current_exception();
      }
    }
    if (thrown) std::rethrow_exception(thrown);
  }
  [[nodiscard]] bool any(std::size_t shard) const {
    const std::lock_guard lock(mutex_);
    for (const auto& [of, w] : waiters_) {
      if (of == shard) return true;
    }
    return false;
  }
  /// Destroys them; their handlers are not called.
  void clear() {
    waiters ended;
    const std::lock_guard lock(mutex_);
    ended.swap(waiters_);
  }

 private:
  mutable std::mutex mutex_;
  waiters waiters_;
};

}  // namespace asio_pulse::detail
