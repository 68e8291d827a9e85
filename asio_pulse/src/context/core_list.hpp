// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "process/process_wide.hpp"

#include <mutex>
#include <vector>

namespace asio_pulse::detail {

class context_core;

/// All contexts of the process. A fork waits until no thread changes the options or the groups of
/// one of them, so that the child can.
///
/// \par Thread safety  Any thread.
class core_list {
 public:
  static constexpr fork_handler::order fork_order = fork_handler::order::contexts;

  static core_list& get() noexcept;
  /// \par Errors  std::bad_alloc.
  void add(context_core& core);
  void remove(context_core& core) noexcept;

 private:
  friend core_list& process_wide<core_list>() noexcept;

  core_list() = default;
  void before_fork() noexcept;
  void after_fork(bool child) noexcept;

  std::mutex mutex_;  ///< taken before those of the contexts; guards the next
  std::vector<context_core*> cores_;
};

}  // namespace asio_pulse::detail
