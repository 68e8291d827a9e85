// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <pthread.h>

namespace asio_pulse::detail {

/// The only T of the process. It is never destroyed, for its thread runs to the end of the process,
/// and is told of forks: before_fork(), then after_fork(child) on either side. T names this
/// function its friend.
template <class T>
T& process_wide() noexcept {
  union forever {
    forever() noexcept : only() {
      ::pthread_atfork([] { process_wide<T>().before_fork(); },
                       [] { process_wide<T>().after_fork(false); },
                       [] { process_wide<T>().after_fork(true); });
    }
    ~forever() {}
    T only;
  };
  static forever storage;
  return storage.only;
}

}  // namespace asio_pulse::detail
