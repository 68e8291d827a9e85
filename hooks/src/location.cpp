// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/hooks/location.hpp>

#include <array>
#include <atomic>

namespace asio_pulse::hooks {
namespace {

// A slot is claimed with its key (a hash of the file's address and the line, never 0), then filled,
// then published with `ready`.
struct slot {
  std::atomic<std::uint64_t> key{0};
  std::atomic<bool> ready{false};
  location where;
};

// A power of two, and below the 65 535 locations that an operation's word can distinguish.
constexpr std::size_t slots = 4096;
constexpr std::size_t max_probe = 32;

std::array<slot, slots> places;

std::uint64_t key_of(const location& where) noexcept {
  const auto file = reinterpret_cast<std::uintptr_t>(where.file);
  return ((std::uint64_t{file} << 16) ^ where.line) * 0x9e3779b97f4a7c15ULL | 1U;
}

}  // namespace

location_id intern(const location& where) noexcept {
  if (where.file == nullptr) return 0;
  const std::uint64_t key = key_of(where);
  for (std::size_t probe = 0; probe < max_probe; ++probe) {
    const std::size_t index = ((key >> 40) + probe) % slots;
    if (index == 0) continue;  // number 0 means "unknown"
    slot& s = places[index];
    std::uint64_t seen = s.key.load(std::memory_order_relaxed);
    if (seen == 0 && s.key.compare_exchange_strong(seen, key, std::memory_order_relaxed)) {
      s.where = where;
      s.ready.store(true, std::memory_order_release);  // pairs with the acquire in location_of()
      return static_cast<location_id>(index);
    }
    if (seen == key) return static_cast<location_id>(index);
  }
  return 0;
}

location location_of(location_id id) noexcept {
  if (id == 0 || id >= slots) return {};
  const slot& s = places[id];
  if (!s.ready.load(std::memory_order_acquire)) return {};  // pairs with the release in intern()
  return s.where;
}

}  // namespace asio_pulse::hooks
