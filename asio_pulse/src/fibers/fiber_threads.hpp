// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>

namespace asio_pulse::detail {

/// The calling thread's count of locks (asio_pulse_locks_held).
[[nodiscard]] int* counted_locks() noexcept;

/// A cell for thread_pin; 0 if there is none left. It is returned when the thread ends.
[[nodiscard]] std::uint32_t take_cell() noexcept;
void give_cell(std::uint32_t cell) noexcept;

}  // namespace asio_pulse::detail
