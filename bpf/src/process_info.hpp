// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "block_store.hpp"

/// \file
/// What /proc says about another process and its threads.

namespace asio_pulse::scx {

/// A whole small file, as the kernel generates them: at most 64 KiB of it. Nothing where it cannot
/// be read.
std::optional<std::string> read_file(const std::string& path);
/// The same, relative to an open folder.
std::optional<std::string> read_file_at(int folder, const std::string& path);

/// Field 22 of a /proc/PID/task/TID/stat. The name in field 2 may hold any bytes, brackets, blanks
/// and line ends included: what counts comes after the last closing bracket.
std::optional<std::uint64_t> parse_start_ticks(std::string_view stat) noexcept;

/// The numbers of a thread in the "NSpid:" line of a status file: first ours, last the one that it
/// knows itself by. Empty where there is none.
std::vector<pid_t> parse_namespace_pids(std::string_view status);

/// A thread, as the kernel knows it.
struct thread_identity {
  pid_t tid = 0;      ///< in our PID namespace
  pid_t own_tid = 0;  ///< in its own
  std::uint64_t start_ticks = 0;

  bool operator==(const thread_identity&) const = default;
};

/// One process, for good: when it has ended, and its number is another's, this finds nothing.
///
/// \par Thread safety  Distinct objects: safe. Shared objects: constant members are safe.
class process_info {
 public:
  /// \par Errors  None; the object is false where there is no such process to see.
  explicit process_info(pid_t pid);

  [[nodiscard]] explicit operator bool() const noexcept { return static_cast<bool>(folder_); }

  /// The process's thread that knows itself by this number.
  /// \par Cost  Two small files; where the process has a PID namespace of its own, one for each of
  ///            its threads, up to `most_threads` (beyond it a thread may not be found).
  [[nodiscard]] std::optional<thread_identity> find_thread(pid_t own_tid) const;
  /// Whether the very thread is still there.
  [[nodiscard]] bool has_thread(const thread_identity& thread) const;

  /// The more, the longer one request of a hostile program takes. A guess: a program with more
  /// threads than this, in a container, and workers among the last of them has not been seen.
  static constexpr unsigned most_threads = 4096;

 private:
  unique_fd folder_;
};

}  // namespace asio_pulse::scx
