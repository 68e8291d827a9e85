// SPDX-License-Identifier: BSL-1.0
#include "settings.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <limits>

namespace asio_pulse::scx {
namespace {

constexpr unsigned all_fields = ASIO_PULSE_SET_MODE | ASIO_PULSE_SET_SLICE | ASIO_PULSE_SET_GRACE |
                                ASIO_PULSE_SET_MAX_CRITICAL | ASIO_PULSE_SET_THROTTLE |
                                ASIO_PULSE_SET_THROTTLE_PERCENT;

constexpr auto policy_names = std::to_array<std::string_view>({
#define ASIO_PULSE_TEXT(NAME, name, text, ...) text,
    SCX_PULSE_POLICIES(ASIO_PULSE_TEXT, )
#undef ASIO_PULSE_TEXT
});

std::chrono::nanoseconds clamped_ns(std::uint64_t ns) noexcept {
  constexpr auto most = std::numeric_limits<std::int64_t>::max();
  return std::chrono::nanoseconds{
      ns > static_cast<std::uint64_t>(most) ? most : static_cast<std::int64_t>(ns)};
}

}  // namespace

std::string in_ms(std::chrono::nanoseconds value) {
  return fmt::format("{:g}ms", std::chrono::duration<double, std::milli>(value).count());
}

std::optional<std::string> broken(const duration_rule& rule, std::chrono::nanoseconds value) {
  if (value >= rule.least && value <= rule.most) return std::nullopt;
  return fmt::format("{} must be from {} to {}, and is {}", rule.option, in_ms(rule.least),
                     in_ms(rule.most), in_ms(value));
}

std::optional<std::string> apply(const asio_pulse_set_request& change,
                                 scx_pulse_settings& settings) {
  if (change.fields == 0 || (change.fields & ~all_fields) != 0 || change.reserved != 0) {
    return fmt::format(
        "the settings to change are {:#x}: this scx_pulse knows {:#x}, and at least "
        "one must be named",
        change.fields, all_fields);
  }
  scx_pulse_settings changed = settings;
  std::optional<std::string> wrong;
  const auto duration = [&](asio_pulse_setting field, std::uint64_t value,
                            const duration_rule& rule, std::uint64_t& target) {
    if ((change.fields & static_cast<std::uint32_t>(field)) == 0 || wrong) return;
    wrong = broken(rule, clamped_ns(value));
    target = value;
  };
  duration(ASIO_PULSE_SET_SLICE, change.slice_ns, slice_rule, changed.slice_ns);
  duration(ASIO_PULSE_SET_GRACE, change.grace_ns, grace_rule, changed.grace_ns);
  duration(ASIO_PULSE_SET_MAX_CRITICAL, change.max_critical_ns, max_critical_rule,
           changed.max_critical_ns);
  duration(ASIO_PULSE_SET_THROTTLE, change.throttle_ns, throttle_rule, changed.throttle_ns);
  if (wrong) return wrong;
  if ((change.fields & ASIO_PULSE_SET_THROTTLE_PERCENT) != 0) {
    if (change.throttle_percent < least_throttle_percent ||
        change.throttle_percent > most_throttle_percent) {
      return fmt::format("--throttle-percent must be from {} to {}, and is {}",
                         least_throttle_percent, most_throttle_percent, change.throttle_percent);
    }
    changed.throttle_percent = change.throttle_percent;
  }
  if ((change.fields & ASIO_PULSE_SET_MODE) != 0) {
    if (change.mode != ASIO_PULSE_MODE_OBSERVER_ONLY && change.mode != ASIO_PULSE_MODE_ENFORCED) {
      return fmt::format("--mode must be observer or enforced, and is {}", change.mode);
    }
    changed.mode = change.mode;
  }
  settings = changed;
  return std::nullopt;
}

std::string_view mode_name(std::uint32_t mode) noexcept {
  switch (mode) {
    case ASIO_PULSE_MODE_OBSERVER_ONLY:
      return "observer";
    case ASIO_PULSE_MODE_ENFORCED:
      return "enforced";
    case ASIO_PULSE_MODE_NONE:
      return "none";
    default:
      return "unknown";
  }
}

std::span<const std::string_view> local_policy_names() noexcept { return policy_names; }

std::string_view local_policy_name(scx_pulse_local_policy policy) noexcept {
  const auto number = static_cast<std::size_t>(policy);
  return number < policy_names.size() ? policy_names[number] : "unknown";
}

std::optional<scx_pulse_local_policy> local_policy_of(std::string_view name) noexcept {
  const auto found = std::ranges::find(policy_names, name);
  if (found == policy_names.end()) return std::nullopt;
  return static_cast<scx_pulse_local_policy>(found - policy_names.begin());
}

}  // namespace asio_pulse::scx
