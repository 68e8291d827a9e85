// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/fiber_stack.hpp>

#include <cstdint>

namespace asio_pulse::detail {

/// The locks that the calling thread holds.
[[nodiscard]] asio_pulse_held_locks* counted_locks() noexcept;

/// A cell for thread_pin; 0 if there is none left. It is returned when the thread ends.
[[nodiscard]] std::uint32_t take_cell() noexcept;
void give_cell(std::uint32_t number) noexcept;

}  // namespace asio_pulse::detail
