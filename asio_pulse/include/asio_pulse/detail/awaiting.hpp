// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>

/// \file
/// What Asio's headers tell the library about coroutines: where a promise refers to its awaiter.

namespace asio_pulse::detail {

/// Where Asio's promises keep the link from a coroutine to the one that awaits it. These are
/// offsets in boost::asio::detail::awaitable_frame_base, which are the same for every result and
/// executor.
struct awaitable_layout {
  std::uint16_t coroutine = 0;  ///< the handle of its own frame
  std::uint16_t thread = 0;     ///< a pointer that is not null only in the running coroutine
  std::uint16_t caller = 0;     ///< the promise of the coroutine that awaits it, or null
};

/// Passes the layout to the library, which does not include Asio's headers. May be called
/// repeatedly and from any thread, always with the same values.
void set_awaitable_layout(const awaitable_layout&) noexcept;

}  // namespace asio_pulse::detail
