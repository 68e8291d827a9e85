// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <functional>
#include <utility>

namespace pulse_test {

/// Counts handlers that exist, have run, and were destroyed without having run.
struct handler_log {
  std::atomic<int> alive{0};
  std::atomic<int> ran{0};
  std::atomic<int> dropped{0};
};

/// A handler that records its run in the handler_log. It is move-only, so a copy does not compile.
class entry {
 public:
  explicit entry(handler_log& l, std::function<void()> f = {}) : log_(&l), f_(std::move(f)) {
    ++l.alive;
  }
  entry(entry&& other) noexcept
      : log_(std::exchange(other.log_, nullptr)), f_(std::move(other.f_)), ran_(other.ran_) {}
  entry& operator=(entry&&) = delete;
  ~entry() {
    if (log_ == nullptr) return;
    --log_->alive;
    if (!ran_) ++log_->dropped;
  }
  void operator()() {
    ran_ = true;
    ++log_->ran;
    if (f_) f_();
  }

 private:
  handler_log* log_;
  std::function<void()> f_;
  bool ran_ = false;
};

}  // namespace pulse_test
