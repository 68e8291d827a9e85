// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "context_telemetry.hpp"

#include <asio_pulse/hooks/poll_recorder.hpp>
#include <asio_pulse/recording.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace asio_pulse::detail {

/// Makes a recording of the events in a context's rings or, if it is called often enough, of all
/// events that pass through them.
///
/// \par Thread safety  Distinct objects: Safe. The context must not be destroyed meanwhile.
class trace_taker {
 public:
  enum class from { oldest, now };  ///< whether it includes events that are in the rings already

  /// Keeps at most `limit` events; later ones count as lost.
  explicit trace_taker(context_telemetry& context, from where = from::oldest,
                       std::size_t limit = std::size_t{1} << 22);

  [[nodiscard]] bool of(const context_telemetry& context) const noexcept {
    return &context_ == &context;
  }
  /// Reads new events.
  /// \par Errors  std::bad_alloc.
  void take();
  /// Returns the recording. The object must not be used afterwards.
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

  context_telemetry& context_;
  const from where_;
  const std::size_t limit_;
  const timing::ticks base_;  ///< until finish(), times of events count from here
  const timing::ticks began_;
  std::size_t kept_ = 0;
  std::vector<hooks::poll_recorder::event> raw_;
  std::unordered_map<const hooks::poll_recorder*, track> tracks_;
  std::unordered_map<std::uint64_t, std::uint32_t> sites_;  ///< by key
  recording made_;
};

}  // namespace asio_pulse::detail
