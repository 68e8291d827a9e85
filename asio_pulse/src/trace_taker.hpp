// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/context_core.hpp>
#include <asio_pulse/hooks/poll_recorder.hpp>
#include <asio_pulse/recording.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace asio_pulse::detail {

/// Makes a recording of what a context's rings hold, or, read often enough, of what passes through
/// them.
///
/// \par Thread safety  Distinct objects: Safe. The context must not be destroyed meanwhile.
class trace_taker {
 public:
  enum class from { oldest, now };  ///< what is in the rings already belongs to it, or not

  /// Keeps `limit` events at most; what comes then counts as lost.
  explicit trace_taker(context_core& core, from where = from::oldest,
                       std::size_t limit = std::size_t{1} << 22);

  [[nodiscard]] bool of(const context_core& core) const noexcept { return &core_ == &core; }
  /// Reads what is new.
  /// \par Errors  std::bad_alloc.
  void take();
  /// The recording; the taker is of no use afterwards.
  /// \par Errors  std::bad_alloc.
  [[nodiscard]] recording finish();

 private:
  struct track {
    std::uint64_t next = 0;
    recorded_worker worker;
  };

  [[nodiscard]] std::uint32_t site_of(const hooks::poll_recorder& r, std::uint32_t entry);
  void add_stalls();
  void convert(const hooks::poll_recorder& r, timing::ticks last, track& to);

  context_core& core_;
  const from where_;
  const std::size_t limit_;
  const timing::ticks base_;  ///< events count from here until they are finished
  const timing::ticks began_;
  std::size_t kept_ = 0;
  std::vector<hooks::poll_recorder::event> raw_;
  std::unordered_map<const hooks::poll_recorder*, track> tracks_;
  std::unordered_map<std::uint64_t, std::uint32_t> sites_;  ///< by key
  recording made_;
};

}  // namespace asio_pulse::detail
