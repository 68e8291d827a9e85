// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/hints.hpp>

namespace asio_pulse {

std::string_view to_string(hint_source s) noexcept {
  switch (s) {
    case hint_source::environment:
      return "environment";
    case hint_source::off:
      return "off";
    case hint_source::automatic:
      return "automatic";
    case hint_source::kernel:
      return "kernel";
    case hint_source::local:
      return "local";
  }
  return "unknown";
}

std::string_view to_string(escalation_policy p) noexcept {
  switch (p) {
    case escalation_policy::none:
      return "none";
    case escalation_policy::thread_kick:
      return "thread_kick";
    case escalation_policy::cgroup_throttle:
      return "cgroup_throttle";
    case escalation_policy::hybrid:
      return "hybrid";
  }
  return "unknown";
}

std::string_view to_string(determinism d) noexcept {
  switch (d) {
    case determinism::deterministic:
      return "deterministic";
    case determinism::pressured:
      return "pressured";
    case determinism::defensive:
      return "defensive";
  }
  return "unknown";
}

}  // namespace asio_pulse
