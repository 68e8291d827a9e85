// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "faults.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <exception>
#include <string>
#include <utility>
#include <vector>

/// \file
/// A sweep runs a scenario again and again, each time in its own process, and lets another of its
/// requests to the system fail.

namespace pulse_test {

/// What a scenario has requested from the library, and the results.
///
/// \par Thread safety  Shared objects: Safe.
class tally {
 public:
  /// A handler, or the end of one. It must be called exactly once.
  class done {
   public:
    done(tally& t, std::size_t index) noexcept : tally_(&t), index_(index) {}
    void operator()() const noexcept { tally_->ran_[index_].fetch_add(1); }

   private:
    tally* tally_;
    std::size_t index_;
  };

  /// `submit(done)` must arrange that done() is called, or throw. Returns false if it threw.
  template <class Submit>
  bool ask(Submit submit) {
    const std::size_t index = asked_.fetch_add(1);
    if (index >= most) std::terminate();
    try {
      submit(done(*this, index));
      return true;
    } catch (const std::exception&) {
      refused_[index] = true;
      return false;
    }
  }
  /// Runs a step of the scenario. An exception counts as a failure that was reported.
  template <class Step>
  bool attempt(Step step) {
    try {
      step();
      return true;
    } catch (const std::exception&) {
      told();
      return false;
    }
  }
  /// Counts a failure that was reported to the program, by an exception or an error code.
  void told() noexcept { ++told_; }
  /// Records that a failure has done harm.
  void wrong(const char* what) noexcept { wrong_ = what; }
  /// Records whether the scenario has reached what it tests. Without a failure it must.
  void reached(bool there) noexcept { reached_ = there; }

  [[nodiscard]] bool has_reached() const noexcept { return reached_; }
  [[nodiscard]] bool undisturbed() const noexcept;
  /// What is wrong, or null.
  [[nodiscard]] const char* fault() const noexcept;

 private:
  static constexpr std::size_t most = 256;

  std::array<std::atomic<int>, most> ran_{};
  std::array<std::atomic<bool>, most> refused_{};
  std::atomic<std::size_t> asked_{0};
  std::atomic<int> told_{0};
  std::atomic<const char*> wrong_{nullptr};
  std::atomic<bool> reached_{true};
};

struct scenario {
  const char* name;
  void (*run)(tally&);
  /// The most failures of each kind. They are spread over all requests.
  std::size_t most = 200;
  /// Whether the memory that is in use afterwards is independent of other threads.
  bool exact = true;
};

/// Expects that no failure does harm to the scenario.
void sweep(const scenario&);

/// Lets each allocation of the scenario fail once, and returns what harm that did.
[[nodiscard]] std::vector<std::string> harm_without_memory(const scenario&);

}  // namespace pulse_test
