// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "service/block_store.hpp"

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// \file
/// What /proc shows about another process and its threads.

namespace asio_pulse::scx {

/// Reads a small file that the kernel generates, at most 64 KiB of it. Empty if it cannot be read.
std::optional<std::string> read_file(const std::string& path);
/// The same, relative to an open folder.
std::optional<std::string> read_file_at(int folder, const std::string& path);

/// Field 22 of /proc/PID/task/TID/stat. The name in field 2 may contain any bytes, including
/// parentheses, blanks and line ends. So only the text after the last closing parenthesis is used.
std::optional<std::uint64_t> parse_start_ticks(std::string_view stat) noexcept;

/// The ids of a thread in the "NSpid:" line of a status file: the first is that in our PID
/// namespace, the last that in its own. Empty if there is no such line.
std::vector<pid_t> parse_namespace_pids(std::string_view status);

/// A thread, as the kernel knows it.
struct thread_identity {
  pid_t tid = 0;      ///< in our PID namespace
  pid_t own_tid = 0;  ///< in its own
  std::uint64_t start_ticks = 0;

  bool operator==(const thread_identity&) const = default;
};

/// A process. When it has ended, this finds nothing, even if another process has the same id.
///
/// \par Thread safety  Distinct objects: Safe. Shared objects: const members are safe.
class process_info {
 public:
  /// \par Errors  None. The object is false if no such process is visible.
  explicit process_info(pid_t pid);

  [[nodiscard]] explicit operator bool() const noexcept { return static_cast<bool>(folder_); }

  /// The thread of the process with this id in the process's own PID namespace.
  ///
  /// \par Cost  Two small files. If the process has a PID namespace of its own, one for each of its
  ///            threads, up to `most_threads`; further threads may not be found.
  [[nodiscard]] std::optional<thread_identity> find_thread(pid_t own_tid) const;
  /// Whether this thread still exists.
  [[nodiscard]] bool has_thread(const thread_identity& thread) const;

  /// With a larger value a request of a hostile program takes longer. A guess: programs in
  /// containers with more threads than this, and with workers among the last of them, are not
  /// known.
  static constexpr unsigned most_threads = 4096;

 private:
  unique_fd folder_;
};

}  // namespace asio_pulse::scx
