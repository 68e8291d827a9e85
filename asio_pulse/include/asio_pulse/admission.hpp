// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/requirements.hpp>
//
#include <cstdint>
#include <string_view>

namespace asio_pulse {

/// Why a request is refused.
enum class refusal : std::uint8_t {
  none,      ///< it is not
  share,     ///< the context is overloaded, and the group has had its share of the CPU
  overload,  ///< the context is overloaded, and not by one of several groups
};

/// "none", "share", "overload"; "unknown" for a value that is not an enumerator.
std::string_view to_string(refusal) noexcept;

/// The answer of admit(). It is true if the request is to be served.
class admission {
 public:
  constexpr admission() noexcept = default;
  constexpr explicit admission(refusal why) noexcept : why_(why) {}

  constexpr explicit operator bool() const noexcept { return why_ == refusal::none; }
  [[nodiscard]] constexpr refusal why() const noexcept { return why_; }

 private:
  refusal why_ = refusal::none;
};

}  // namespace asio_pulse
