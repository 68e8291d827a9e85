// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <string>

/// \file
/// Legacy work for the bench of automatic checkpoints: nothing in it knows of asio-pulse. It is compiled
/// with checks, and without.

namespace legacy {

/// Searches lines for addresses; returns how many there are.
std::size_t regex(std::size_t lines);
/// Sorts numbers; returns the one in the middle.
std::size_t sort(std::size_t count);
/// Parses an array with Boost.JSON; returns its length.
std::size_t json(std::size_t elements);
/// Multiplies two matrices; returns an element of the product.
std::size_t matmul(std::size_t rows);

}  // namespace legacy
