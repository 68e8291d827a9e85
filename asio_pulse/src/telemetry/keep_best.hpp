// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

namespace asio_pulse::detail {

/// Adds `one` to the heap `best` of at most `most` elements, in place of the last of them if there
/// are so many. `most` is not zero, and then `one` goes before that one. Afterwards,
/// std::sort_heap() puts them in order.
///
/// \par Errors  std::bad_alloc.
template <class T, class Before>
void keep_best(std::vector<T>& best, T one, std::size_t most, Before before) {
  if (best.size() == most) {
    std::pop_heap(best.begin(), best.end(), before);
    best.back() = std::move(one);
  } else {
    best.push_back(std::move(one));
  }
  std::push_heap(best.begin(), best.end(), before);
}

}  // namespace asio_pulse::detail
