// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/io_context.hpp>

#include <boost/asio/associated_executor.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/system/error_code.hpp>

#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace asio_pulse::detail {

/// Those who wait until a shard is drained.
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
  static waiter_ptr waiting(Handler&& h, boost::asio::io_context::executor_type of_shard) {
    using executor =
        boost::asio::associated_executor_t<Handler, boost::asio::io_context::executor_type>;
    class with_handler final : public waiter {
     public:
      with_handler(Handler&& its, executor ex) : work_(std::move(ex)), handler_(std::move(its)) {}
      void complete(boost::system::error_code ec) override {
        const auto work = std::move(work_);
        boost::asio::post(work.get_executor(),
                          [f = std::move(handler_), ec]() mutable { std::move(f)(ec); });
      }

     private:
      boost::asio::executor_work_guard<executor> work_;
      Handler handler_;
    };
    executor ex = boost::asio::get_associated_executor(h, of_shard);
    return std::make_unique<with_handler>(std::move(h), std::move(ex));
  }

  void add(std::size_t shard, waiter_ptr w) {
    const std::lock_guard lock(mutex_);
    waiters_.emplace_back(shard, std::move(w));
  }
  /// Completes those who wait for this shard.
  void end(std::size_t shard, boost::system::error_code ec) {
    std::vector<std::pair<std::size_t, waiter_ptr>> ended;
    {
      const std::lock_guard lock(mutex_);
      for (std::size_t i = 0; i != waiters_.size();) {
        if (waiters_[i].first != shard) {
          ++i;
          continue;
        }
        ended.push_back(std::move(waiters_[i]));
        std::swap(waiters_[i], waiters_.back());
        waiters_.pop_back();
      }
    }
    for (auto& [of, w] : ended) w->complete(ec);
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
    const std::lock_guard lock(mutex_);
    waiters_.clear();
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::pair<std::size_t, waiter_ptr>> waiters_;
};

}  // namespace asio_pulse::detail
