// SPDX-License-Identifier: BSL-1.0
#pragma once

namespace asio_pulse::detail {

/// What a process-wide object does around a fork, so that none of its locks is held in the child.
struct fork_handler {
  /// The order in which before() is called: that in which the locks are taken elsewhere.
  enum class order : unsigned char { inspection, contexts, watchdog, others };

  order when;
  void (*before)();
  void (*after)(bool child);
};

/// Calls before() of all handlers around each fork, in their order, and then after() in the reverse
/// order, in the parent and in the child. pthread_atfork() would call them in the order in which the
/// objects happened to be made.
///
/// \par Thread safety  Any thread. Waits for a fork that is in progress.
/// \par Errors         None (noexcept). Without memory, the C library calls no handlers.
[[gnu::visibility("hidden")]] void add_fork_handler(const fork_handler& handler) noexcept;

}  // namespace asio_pulse::detail
