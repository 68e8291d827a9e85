// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/detail/live_options.hpp>

#include <algorithm>

namespace asio_pulse::detail {
namespace {

using timing::to_ticks;

// Checkpoints read the clock at most this often. A guess: a reading takes about 8 ns, and a task
// notices at most this late that its time is up. It is a twenty-fifth of the default quantum.
constexpr std::chrono::nanoseconds checkpoint_interval = std::chrono::microseconds{20};

slice_limits slices_of(const options& o) noexcept {
  return {.quantum = to_ticks(o.quantum),
          .min_slice = to_ticks(o.min_slice),
          .check_interval = to_ticks(std::min(checkpoint_interval, o.min_slice))};
}

}  // namespace

live_options::live_options(const options& o) noexcept
    : limits_(make_tier_limits(o)), slices_(slices_of(o)) {
  set(o);
}

void live_options::set(const options& o) noexcept {
  constexpr auto relaxed = std::memory_order_relaxed;
  shadow_.store(o.shadow, relaxed);
  accept_rule_.store(o.accept_rule, relaxed);
  connect_rule_.store(o.connect_rule, relaxed);
  watched_.store(wants_watchdog(o), relaxed);
  silenced_.store(o.silenced, relaxed);
  max_critical_.store(o.max_critical, relaxed);
  limits_.set(make_tier_limits(o));
  slices_.set(slices_of(o));
  configure(accepted_, o.accepted);
  configure(connected_, o.connected);
}

}  // namespace asio_pulse::detail
