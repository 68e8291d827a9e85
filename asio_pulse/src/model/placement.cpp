// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/placement.hpp>

#include <algorithm>

namespace asio_pulse {
namespace {

// The finaliser of splitmix64 (Steele, Lea and Flood, 2014): every bit of the result depends on
// every bit of the key.
constexpr std::uint64_t mixed(std::uint64_t x) noexcept {
  x += 0x9e3779b97f4a7c15U;
  x = (x ^ (x >> 30U)) * 0xbf58476d1ce4e5b9U;
  x = (x ^ (x >> 27U)) * 0x94d049bb133111ebU;
  return x ^ (x >> 31U);
}

}  // namespace

std::string_view to_string(placement_rule r) noexcept {
  switch (r) {
    case placement_rule::round_robin:
      return "round_robin";
    case placement_rule::least_loaded:
      return "least_loaded";
  }
  return "unknown";
}

std::size_t placer::round_robin(std::size_t shards) noexcept { return next_++ % shards; }

std::uint64_t placer::score(const shard_load& l) noexcept {
  const auto ns = std::max<std::chrono::nanoseconds::rep>(l.delay.count(), 0);
  return l.cpu_permille + static_cast<std::uint64_t>(ns) / 10000U;
}

std::size_t placer::least_loaded(std::span<const shard_load> loads) noexcept {
  std::uint64_t least = score(loads.front());
  for (const shard_load& l : loads) least = std::min(least, score(l));
  for (;;) {
    const std::size_t shard = round_robin(loads.size());
    if (score(loads[shard]) <= least + tolerance) return shard;
  }
}

std::size_t placer::by_key(std::uint64_t key, std::size_t shards, std::uint64_t without) noexcept {
  std::size_t best = 0;
  std::uint64_t most = 0;
  const std::uint64_t spread = mixed(key);
  for (std::size_t shard = 0; shard != shards; ++shard) {
    if (shard < 64 && (without >> shard & 1) != 0) continue;
    const std::uint64_t weight = mixed(spread + shard);
    if (weight > most) {
      most = weight;
      best = shard;
    }
  }
  return best;
}

std::size_t placer::by_key(std::string_view key, std::size_t shards,
                           std::uint64_t without) noexcept {
  std::uint64_t hash = 0xcbf29ce484222325U;
  for (const char c : key) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
  return by_key(hash, shards, without);
}

placed_on placer::by_function(const placement_function& f, const placement_view& view) noexcept {
  try {
    const std::size_t shard = f(view);
    if (shard < view.loads.size()) return {shard, false};
  } catch (...) {  // the program's function may throw anything
  }
  return {round_robin(view.loads.size()), true};
}

}  // namespace asio_pulse
