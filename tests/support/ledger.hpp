// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <functional>
#include <utility>

namespace pulse_test {

/// Counts handlers that exist, have run, and were destroyed without having run.
struct ledger {
  std::atomic<int> alive{0};
  std::atomic<int> ran{0};
  std::atomic<int> dropped{0};
};

/// A handler that enters itself in the ledger. Move-only: no copy goes unnoticed.
class entry {
 public:
  explicit entry(ledger& l, std::function<void()> f = {}) : ledger_(&l), f_(std::move(f)) {
    ++l.alive;
  }
  entry(entry&& other) noexcept
      : ledger_(std::exchange(other.ledger_, nullptr)), f_(std::move(other.f_)), ran_(other.ran_) {}
  entry& operator=(entry&&) = delete;
  ~entry() {
    if (ledger_ == nullptr) return;
    --ledger_->alive;
    if (!ran_) ++ledger_->dropped;
  }
  void operator()() {
    ran_ = true;
    ++ledger_->ran;
    if (f_) f_();
  }

 private:
  ledger* ledger_;
  std::function<void()> f_;
  bool ran_ = false;
};

}  // namespace pulse_test
