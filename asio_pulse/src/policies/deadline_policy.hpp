// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "turn_heap.hpp"

/// \file
/// The earliest deadline first.
///
/// A poll is not preempted. If all work is ready, no other order on one CPU has a smaller greatest
/// lateness. Work that becomes ready later waits for the poll that is running, so it may be late by
/// that where an order with preemption would be on time.
///
/// \par Source  Jackson, "Scheduling a Production Line to Minimize Maximum Tardiness" (1955).

namespace asio_pulse::detail {

class deadline_policy final : public turn_policy {
 public:
  void add(turn& t, timing::ticks now) noexcept override {
    t.since = now;
    waiting_.push(t);
  }
  void remove(turn& t, timing::ticks now) noexcept override {
    t.left = now;
    waiting_.erase(t);
  }
  choice next(timing::ticks /*now*/) noexcept override {
    return {waiting_.empty() ? nullptr : &waiting_.front(), 0};
  }

 private:
  turn_heap<&turn::deadline> waiting_;
};

}  // namespace asio_pulse::detail
