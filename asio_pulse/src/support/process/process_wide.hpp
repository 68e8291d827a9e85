// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "fork_order.hpp"
#include "loaded_module.hpp"

namespace asio_pulse::detail {

/// The only T of the process, or of this copy of the library if a plugin has another copy. It is
/// never destroyed, because its thread runs to the end of the process. Around a fork,
/// before_fork() is called, and then after_fork(child) in the parent and in the child, in the order
/// that T::fork_order says. T must declare this function a friend.
///
/// The visibility is hidden, so that the object is not shared with another copy of the library. gcc
/// marks static objects in templates as unique (STB_GNU_UNIQUE), and the loader would merge them.
template <class T>
[[gnu::visibility("hidden")]] T& process_wide() noexcept {
  union forever {
    forever() noexcept : only() {
      keep_this_module();
      add_fork_handler({.when = T::fork_order,
                        .before = [] { process_wide<T>().before_fork(); },
                        .after = [](bool child) { process_wide<T>().after_fork(child); }});
    }
    ~forever() {}
    T only;
  };
  static forever storage;
  return storage.only;
}

}  // namespace asio_pulse::detail
