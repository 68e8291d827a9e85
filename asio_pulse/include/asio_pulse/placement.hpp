// SPDX-License-Identifier: BSL-1.0
//
// Which shard gets new work. Plain values and pure decisions: nothing here reads a clock or knows
// threads.

#pragma once

#include <asio_pulse/hooks/requirements.hpp>
//
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>

namespace asio_pulse {

/// The load of a shard, as it was last measured.
struct shard_load {
  /// The part of a CPU that its thread has used, in thousandths, since the measurement before.
  std::uint32_t cpu_permille = 0;
  /// How long an operation that was ready had to wait for its turn. If a measurement is under way,
  /// at least the time since that began: so a shard that is stuck shows at once.
  std::chrono::nanoseconds delay{0};

  friend bool operator==(const shard_load&, const shard_load&) = default;
};

/// How a shard is chosen for work that names none.
enum class placement_rule : std::uint8_t {
  round_robin,   ///< one after the other
  least_loaded,  ///< by measured CPU time and queue delay
};

/// "round_robin", "least_loaded"; "unknown" for a value that is not an enumerator.
std::string_view to_string(placement_rule) noexcept;

/// What the program's own placement function may look at.
struct placement_view {
  std::span<const shard_load> loads{};  ///< one for each shard; valid during the call
  std::optional<std::size_t> from{};    ///< the calling shard, if it is one
};

/// The program's own placement: returns the number of a shard. It is called on the thread that
/// places, so on several at once.
using placement_function = std::function<std::size_t(const placement_view&)>;

/// The result of a placement.
struct placed_on {
  std::size_t shard = 0;
  bool fell_back = false;  ///< the program's function threw, or returned a number that no shard has

  friend bool operator==(const placed_on&, const placed_on&) = default;
};

/// Chooses shards. Each thread that places has one of its own, so that no two of them write to the
/// same memory.
///
/// \par Cost           round_robin: a few instructions. by_key and least_loaded: linear in the
///                     number of shards, a few ns for each.
/// \par Thread safety  Distinct objects: Safe. Shared objects: Unsafe.
class placer {
 public:
  /// Loads that differ by less than this are the same to least_loaded: 100 thousandths of a CPU, or
  /// 1 ms of queue delay. A guess. Below it work that arrives between two measurements would all go
  /// to one shard; above it real differences are ignored.
  static constexpr std::uint64_t tolerance = 100;

  /// \param first  Where it begins. Different numbers keep threads from choosing in step.
  explicit placer(std::size_t first = 0) noexcept : next_(first) {}

  /// The shards in turn. `shards` is at least 1.
  [[nodiscard]] std::size_t round_robin(std::size_t shards) noexcept;

  /// In turn among the shards whose score is within `tolerance` of the smallest one. A score is the
  /// CPU in thousandths, plus 1 for each 10 us of delay. `loads` is not empty.
  [[nodiscard]] std::size_t least_loaded(std::span<const shard_load> loads) noexcept;

  /// The shard of the key: always the same one for as long as the number of shards is the same.
  /// With another number of shards only the keys move that have to. (Rendezvous hashing: Thaler and
  /// Ravishankar, 1998.) `shards` is at least 1.
  ///
  /// `without` has a bit for each of the first 64 shards that is not chosen: its keys are on others
  /// meanwhile, and no other key moves. Not all shards may have one.
  [[nodiscard]] static std::size_t by_key(std::uint64_t key, std::size_t shards,
                                          std::uint64_t without = 0) noexcept;
  /// The same for text, by its FNV-1a hash.
  [[nodiscard]] static std::size_t by_key(std::string_view key, std::size_t shards,
                                          std::uint64_t without = 0) noexcept;

  /// The shard that the program's function returns. If it throws, or returns a number that no shard has,
  /// the next one in turn.
  [[nodiscard]] placed_on by_function(const placement_function& f,
                                      const placement_view& view) noexcept;

  /// The score of a load; see least_loaded().
  [[nodiscard]] static std::uint64_t score(const shard_load& l) noexcept;

 private:
  std::size_t next_;
};

}  // namespace asio_pulse
