// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace simulation {

/// xoshiro256+ (Blackman and Vigna, 2018).
class generator {
 public:
  explicit generator(std::uint64_t seed) {
    for (std::uint64_t& word : state_) {
      seed += 0x9e3779b97f4a7c15U;
      std::uint64_t z = (seed ^ (seed >> 30U)) * 0xbf58476d1ce4e5b9U;
      z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
      word = z ^ (z >> 31U);
    }
  }
  std::uint64_t operator()() {
    const std::uint64_t value = state_[0] + state_[3];
    const std::uint64_t t = state_[1] << 17U;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= t;
    state_[3] = std::rotl(state_[3], 45);
    return value;
  }
  /// From 0 to 1, without 1.
  double unit() { return static_cast<double>((*this)() >> 11U) * 0x1p-53; }
  double exponential(double mean) { return -mean * std::log(1 - unit()); }
  std::size_t below(std::size_t n) {
    return static_cast<std::size_t>(unit() * static_cast<double>(n));
  }

 private:
  std::uint64_t state_[4];
};

/// Draws numbers by weight, in constant time (Walker's alias method, as built by Vose, 1991).
class weighted {
 public:
  void set(const std::vector<double>& weights) {
    const std::size_t n = weights.size();
    double total = 0;
    for (const double w : weights) total += w;
    part_.assign(n, 1);
    alias_.resize(n);
    std::vector<double> scaled(n);
    std::vector<std::uint32_t> small;
    std::vector<std::uint32_t> large;
    for (std::size_t i = 0; i != n; ++i) {
      scaled[i] = weights[i] * static_cast<double>(n) / total;
      (scaled[i] < 1 ? small : large).push_back(static_cast<std::uint32_t>(i));
    }
    while (!small.empty() && !large.empty()) {
      const std::uint32_t less = small.back();
      const std::uint32_t more = large.back();
      small.pop_back();
      part_[less] = static_cast<float>(scaled[less]);
      alias_[less] = more;
      scaled[more] -= 1 - scaled[less];
      if (scaled[more] < 1) {
        large.pop_back();
        small.push_back(more);
      }
    }
  }
  std::uint32_t draw(generator& g) const {
    const auto i = static_cast<std::uint32_t>(g.below(part_.size()));
    return g.unit() < static_cast<double>(part_[i]) ? i : alias_[i];
  }

 private:
  std::vector<float> part_;
  std::vector<std::uint32_t> alias_;
};

}  // namespace simulation
