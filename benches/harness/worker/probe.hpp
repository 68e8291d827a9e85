// SPDX-License-Identifier: BSL-1.0
//
// The timer whose lateness is measured, and the hog beside it.

#pragma once

#include "../../annotations.hpp"
#include "../../measure.hpp"
#include "worker.hpp"

#include <boost/asio/steady_timer.hpp>

#include <atomic>
#include <functional>

namespace worker {

/// Has an absolute deadline every millisecond. Each counts with its own lateness, also if it passed
/// while the probe was still late (no coordinated omission).
class probe {
 public:
  /// Continues until \p over returns true.
  probe(bench::io_context& io, std::function<bool()> over) : timer_{io}, over_{std::move(over)} {}

  void start(clock_type::time_point now) {
    started_ = now;
    due_ = now + period;
    wait();
  }

  /// Allocates and touches the memory for this many samples in advance.
  void reserve(std::size_t count) {
    fired_.resize(count);
    fired_.clear();
  }

  /// The samples, the timeline, and whether every deadline was counted.
  void add_to(outcome& to) const {
    auto& late = to.samples_ns["probe_lateness"];
    for (const auto& [due, lateness] : fired_) {
      late.push_back(std::chrono::nanoseconds{lateness}.count());
      to.timeline.probe.emplace_back(ms(due - started_), ms(lateness));
    }
    to.check(!fired_.empty(), "the probe fired");
    to.check(fired_.size() == static_cast<std::size_t>((last_ - started_) / period),
             "each deadline of the probe was counted once");
  }

  std::size_t fired() const { return fired_.size(); }

 private:
  static constexpr std::chrono::milliseconds period{1};

  void wait() {
    timer_.expires_at(due_);
    timer_.async_wait([this](const boost::system::error_code& error) {
      if (error) return;
      last_ = clock_type::now();
      for (; due_ <= last_; due_ += period) fired_.emplace_back(due_, last_ - due_);
      if (!over_()) wait();
    });
  }

  boost::asio::steady_timer timer_;
  std::function<bool()> over_;
  clock_type::time_point started_;
  clock_type::time_point due_;
  clock_type::time_point last_;
  std::vector<std::pair<clock_type::time_point, clock_type::duration>> fired_;
};

/// Records the hog's steps: their number, their order, and when it was on the CPU.
class hog_work {
 public:
  static constexpr std::chrono::microseconds step_length{10};

  explicit hog_work(std::chrono::milliseconds burst)
      : steps_a_burst_{static_cast<std::uint64_t>(burst / step_length)} {}

  std::uint64_t steps_a_burst() const { return steps_a_burst_; }
  std::uint64_t done() const { return done_; }

  /// A step of another run, which is too long to be drawn.
  void count() { ++done_; }

  void step(std::uint64_t number) {
    const auto begin = clock_type::now();
    // The first step of a burst follows the hog's own sleep. Before any other step, a gap is a
    // wait.
    if (runs_.empty() || begin - runs_.back().end > gap) {
      runs_.push_back({begin, begin, number % steps_a_burst_ == 0});
    }
    bench::spin(step_length);
    runs_.back().end = clock_type::now();
    ordered_ = ordered_ && number == done_;
    ++done_;
  }

  void add_to(outcome& to, clock_type::time_point start) const {
    const run* before = nullptr;
    for (const run& r : runs_) {
      if (to.timeline.spans.size() > most_spans) break;
      if (before != nullptr && !r.first) {
        to.timeline.spans.emplace_back(ms(before->end - start), ms(r.begin - before->end),
                                       "parked");
      }
      to.timeline.spans.emplace_back(ms(r.begin - start), ms(r.end - r.begin), "hog");
      before = &r;
    }
    to.values["hog_steps"] = static_cast<double>(done_);
    to.check(done_ > 0 && done_ % steps_a_burst_ == 0, "the hog ended each burst it began");
    to.check(ordered_, "the hog's steps ran once and in order");
  }

 private:
  struct run {
    clock_type::time_point begin;
    clock_type::time_point end;
    bool first;
  };
  static constexpr std::chrono::microseconds gap{30};
  static constexpr std::size_t most_spans = 4000;

  std::uint64_t steps_a_burst_;
  std::uint64_t done_ = 0;
  bool ordered_ = true;
  std::vector<run> runs_;
};

}  // namespace worker
