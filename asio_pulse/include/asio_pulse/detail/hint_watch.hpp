// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <asio_pulse/hints.hpp>
#include <asio_pulse/timing/timebase.hpp>
#include <cstdint>

namespace asio_pulse::detail {

/// What one worker makes of its control block. Decides, and reads no clock and no memory.
///
/// The rules:
/// - A sequence that has moved is a hint: the worker is pressured until none has come for `calm`.
/// - A count of lost hints that has moved makes it defensive until none was lost for `calm`.
/// - Pressure acts only on a worker that is not deterministic. So without hints nothing is
///   different, whatever the pressure; and a defensive worker behaves as under the highest.
///
/// \par Thread safety  One thread's.
class hint_watch {
 public:
  using ticks = timing::ticks;
  static constexpr std::uint32_t most_pressure = 100;

  struct sight {
    ticks now = 0;
    std::uint64_t sequence = 0;
    std::uint32_t lost = 0;
    std::uint32_t pressure = 0;  ///< clamped to 100
  };
  struct outcome {
    bool hint = false;           ///< the sequence has moved
    determinism mode{};          ///< from now on
    std::uint32_t pressure = 0;  ///< to act upon
    std::uint32_t lost = 0;      ///< hints since the last look
  };

  explicit hint_watch(ticks calm) noexcept : calm_(calm) {}

  /// What came before counts as seen.
  void start(std::uint64_t sequence, std::uint32_t lost) noexcept {
    sequence_ = sequence;
    lost_ = lost;
    hinted_ = lost_hint_ = false;
  }

  outcome look(const sight& s) noexcept {
    outcome o;
    o.hint = s.sequence != sequence_;
    o.lost = s.lost - lost_;  // modulo 2^32, as it is counted
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

  /// How long a checkpoint lets a poll run that may run for `quantum` without pressure: half of it
  /// under the highest, and never below `least`; a quarter would be as good a guess.
  [[nodiscard]] static ticks tightened(ticks quantum, ticks least,
                                       std::uint32_t pressure) noexcept {
    return std::max(quantum - quantum / (ticks{2} * most_pressure) * pressure,
                    std::min(least, quantum));
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
