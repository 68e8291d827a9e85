// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "captured_stack.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

/// \file
/// Finds the coroutines that await the stuck one. Only the innermost coroutine is on the stack.
/// Those that await it are suspended, and each is known to the one that it awaits.

namespace asio_pulse::detail {

/// A coroutine that runs on the stack, and the coroutines that await it.
struct awaited_coroutine {
  std::size_t body = 0;                    ///< index into `bodies`
  std::vector<std::uintptr_t> awaiting{};  ///< entry addresses of their bodies, innermost first
};

/// Looks in a copied stack for the frame of a coroutine whose body is one of `bodies` (their entry
/// addresses) and that is running now, and follows it to the coroutines that await it.
///
/// The thread may continue meanwhile, and its coroutines may end. So memory is read through the
/// kernel, and everything is checked: a frame starts with the address of its body, its promise
/// points back to the frame, the innermost one runs, and those that await it do not. The chain ends
/// at the first failed check.
///
/// \par Cost    A system call for each word of the copy that could be an address, until the frame
///              is found. It is usually near the place where the body was interrupted.
/// \par Errors  std::bad_alloc. `awaiting` is empty if the layout is unknown, or no frame is found.
awaited_coroutine find_awaiting(const captured_stack&, std::span<const std::uintptr_t> bodies);

}  // namespace asio_pulse::detail
