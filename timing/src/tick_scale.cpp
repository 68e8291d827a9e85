// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/timing/detail/tick_scale.hpp>

#include <cmath>

namespace asio_pulse::detail {

tick_scale::tick_scale(double ratio) noexcept {
  constexpr int widest = 60;
  if (!(ratio >= std::ldexp(1.0, -widest) && ratio <= std::ldexp(1.0, widest))) {
    ratio = 1.0;
  }
  int exponent = 0;
  const double fraction = std::frexp(ratio, &exponent);  // [0.5, 1)
  mantissa_ = static_cast<std::uint64_t>(std::ldexp(fraction, 63));
  shift_ = static_cast<std::uint32_t>(63 - exponent);  // 2 .. 122
}

#if !defined(__SIZEOF_INT128__)
void tick_scale::multiply(std::uint64_t value, std::uint64_t& high,
                          std::uint64_t& low) const noexcept {
  constexpr std::uint64_t mask = 0xFFFFFFFFU;
  const std::uint64_t a0 = value & mask;
  const std::uint64_t a1 = value >> 32U;
  const std::uint64_t b0 = mantissa_ & mask;
  const std::uint64_t b1 = mantissa_ >> 32U;
  const std::uint64_t middle = a1 * b0 + ((a0 * b0) >> 32U);
  const std::uint64_t inner = a0 * b1 + (middle & mask);
  high = a1 * b1 + (middle >> 32U) + (inner >> 32U);
  low = value * mantissa_;
  const std::uint32_t bit = shift_ - 1U;  // round to nearest
  if (bit >= 64U) {
    high += std::uint64_t{1} << (bit - 64U);
  } else {
    const std::uint64_t half = std::uint64_t{1} << bit;
    low += half;
    high += low < half ? 1U : 0U;
  }
}
#endif

}  // namespace asio_pulse::detail
