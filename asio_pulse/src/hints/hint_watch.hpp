// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "yields/tightened_quantum.hpp"

#include <asio_pulse/hints.hpp>
#include <asio_pulse/timing/timebase.hpp>

#include <algorithm>
#include <cstdint>

namespace asio_pulse::detail {

/// How a worker interprets its control block. It only decides, and reads neither clock nor memory.
///
/// The rules:
/// - A changed sequence is a hint. The worker is pressured until there was no hint for `calm`.
/// - A changed count of lost hints makes the worker defensive until none was lost for `calm`.
/// - Pressure acts only on a worker that is not deterministic. So without hints pressure changes
///   nothing, and a defensive worker behaves as under the highest pressure.
///
/// \par Thread safety  For one thread only.
class hint_watch {
 public:
  using ticks = timing::ticks;

  struct sight {
    ticks now = 0;
    std::uint64_t sequence = 0;
    std::uint32_t lost = 0;
    std::uint32_t pressure = 0;  ///< limited to most_pressure
  };
  struct outcome {
    bool hint = false;           ///< the sequence has changed
    determinism mode{};          ///< the mode from now on
    std::uint32_t pressure = 0;  ///< the pressure to react to
    std::uint32_t lost = 0;      ///< hints that were lost since the last look
  };

  explicit hint_watch(ticks calm) noexcept : calm_(calm) {}

  /// Starts with these values, which count as seen.
  void start(std::uint64_t sequence, std::uint32_t lost) noexcept {
    sequence_ = sequence;
    lost_ = lost;
    hinted_ = lost_hint_ = false;
  }

  outcome look(const sight& s) noexcept {
    outcome o;
    o.hint = s.sequence != sequence_;
    o.lost = s.lost - lost_;  // modulo 2^32, like the counter
    sequence_ = s.sequence;
    lost_ = s.lost;
    if (o.hint) {
      hinted_ = true;
      hinted_at_ = s.now;
    } else if (hinted_ && over(hinted_at_, s.now)) {
      hinted_ = false;
    }
    if (o.lost != 0) {
      lost_hint_ = true;
      lost_at_ = s.now;
    } else if (lost_hint_ && over(lost_at_, s.now)) {
      lost_hint_ = false;
    }
    o.mode = lost_hint_ ? determinism::defensive
             : hinted_  ? determinism::pressured
                        : determinism::deterministic;
    o.pressure = o.mode == determinism::defensive   ? most_pressure
                 : o.mode == determinism::pressured ? std::min(s.pressure, most_pressure)
                                                    : 0;
    return o;
  }

 private:
  [[nodiscard]] bool over(ticks since, ticks now) const noexcept {
    return now > since && now - since >= calm_;
  }

  ticks calm_;
  ticks hinted_at_ = 0;
  ticks lost_at_ = 0;
  std::uint64_t sequence_ = 0;
  std::uint32_t lost_ = 0;
  bool hinted_ = false;
  bool lost_hint_ = false;
};

}  // namespace asio_pulse::detail
