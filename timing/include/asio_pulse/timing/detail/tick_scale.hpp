// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>

namespace asio_pulse::detail {

/// A multiplication by a fixed positive ratio, in integers: no division, no overflow, no wrap.
///
/// The ratio is kept as mantissa / 2^shift with the mantissa in [2^62, 2^63), so the relative error
/// is that of the double it came from (2^-53). Results are rounded to nearest and saturate.
class tick_scale {
 public:
  constexpr tick_scale() noexcept = default;

  /// \param ratio  Finite, within [2^-60, 2^60]; anything else is taken as 1.
  explicit tick_scale(double ratio) noexcept;

  [[nodiscard]] std::uint64_t apply(std::uint64_t value) const noexcept {
#if defined(__SIZEOF_INT128__)
    __extension__ using wide = unsigned __int128;
    const wide product = static_cast<wide>(value) * mantissa_ + (wide{1} << (shift_ - 1U));
    const auto high = static_cast<std::uint64_t>(product >> 64U);
    const auto low = static_cast<std::uint64_t>(product);
#else
    std::uint64_t high = 0;
    std::uint64_t low = 0;
    multiply(value, high, low);
#endif
    if (shift_ >= 64U) {
      return shift_ == 64U ? high : high >> (shift_ - 64U);
    }
    if ((high >> shift_) != 0) {
      return UINT64_MAX;
    }
    return (high << (64U - shift_)) | (low >> shift_);
  }

 private:
#if !defined(__SIZEOF_INT128__)
  void multiply(std::uint64_t value, std::uint64_t& high, std::uint64_t& low) const noexcept;
#endif

  std::uint64_t mantissa_ = std::uint64_t{1} << 62U;
  std::uint32_t shift_ = 62;
};

}  // namespace asio_pulse::detail
