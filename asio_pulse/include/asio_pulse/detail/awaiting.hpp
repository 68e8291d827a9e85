// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/captured_stack.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

/// \file
/// Who awaits the coroutine that is stuck. Only the innermost one is on the stack: those that await
/// it are suspended, and each is known to the one that it awaits.

namespace asio_pulse::detail {

/// Where Asio's promises keep what leads from a coroutine to the one that awaits it: offsets in
/// boost::asio::detail::awaitable_frame_base, the same for every result and executor.
struct awaitable_layout {
  std::uint16_t coroutine = 0;  ///< the handle of its own frame
  std::uint16_t thread = 0;     ///< not null in the one that runs, and only there
  std::uint16_t caller = 0;     ///< the promise of the one that awaits it, or null
};

/// Tells the library. Asio's headers know; the library does not include them. Any number of times,
/// from any thread; all say the same.
void tell_awaitable_layout(const awaitable_layout&) noexcept;

/// A coroutine that runs on the stack, and who awaits it.
struct awaited_coroutine {
  std::size_t body = 0;                    ///< index into what was asked for
  std::vector<std::uintptr_t> awaiting{};  ///< entries of their bodies; innermost first
};

/// Looks in a copied stack for the frame of a coroutine whose body is one of `bodies` (their entry
/// addresses) and that is running now, and follows it to the coroutines that await it.
///
/// The thread goes on meanwhile, and its coroutines may end: memory is read through the kernel, and
/// nothing is believed that does not prove itself. A frame starts with the address of its body, its
/// promise says where the frame is, and that it runs; those that await it say that they do not.
/// What ends in doubt ends there.
///
/// \par Cost    A system call for each word of the copy that could be an address, until the frame
///              is found: it lies near where the body was interrupted.
/// \par Errors  std::bad_alloc. Nothing awaiting: the layout is unknown, or no frame is found.
awaited_coroutine find_awaiting(const captured_stack&, std::span<const std::uintptr_t> bodies);

}  // namespace asio_pulse::detail
