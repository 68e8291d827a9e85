// SPDX-License-Identifier: BSL-1.0
//
// Work that must not keep the screen waiting.

#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

namespace asio_pulse::top {

/// A function on a thread of its own, for which the destructor waits. One at a time.
template <class Result>
class background {
 public:
  [[nodiscard]] bool running() const noexcept { return thread_.joinable(); }

  /// \pre    !running()
  /// \throws std::system_error if the thread cannot be started. `work()` must not throw.
  template <class Work>
  void start(Work work) {
    shared_ = std::make_shared<shared>();
    thread_ = std::jthread([work = std::move(work), to = shared_] {
      to->result = work();
      to->done.store(true, std::memory_order_release);
    });
  }

  /// The result, once, when the function has returned.
  std::optional<Result> take() {
    if (!running() || !shared_->done.load(std::memory_order_acquire)) return std::nullopt;
    thread_.join();
    return std::move(shared_->result);
  }

 private:
  struct shared {
    Result result{};
    std::atomic<bool> done{false};  // stored with release after the result; loaded with acquire
  };

  std::shared_ptr<shared> shared_;
  std::jthread thread_;
};

}  // namespace asio_pulse::top
