// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

/// \file
/// Reads files in /proc about this process's threads, with a few descriptors for all of them.

namespace asio_pulse::detail {

/// Reads files of /proc/self/task/TID. The most recently read ones stay open, because opening one
/// costs ten times as much as reading it again. Their number is fixed and does not depend on that
/// of threads.
///
/// \par Thread safety  Distinct objects: Safe. Shared objects: Unsafe.
/// \par Errors         If a file cannot be read, the text is empty, and take_fault() returns why.
///                     Nothing throws.
class thread_files {
 public:
  enum class file : std::uint8_t { schedstat, stat, status, syscall, wchan };

  /// As many as are needed for one thread that is looked at closely.
  static constexpr std::size_t most_kept = 3;

  /// \param room  How many files stay open; from 1 to most_kept.
  explicit thread_files(std::size_t room = most_kept) noexcept : room_(room) {}
  ~thread_files() { close_all(); }
  thread_files(const thread_files&) = delete;
  thread_files& operator=(const thread_files&) = delete;

  /// The file's text, as far as it fits. Opens the file if it is not open, and closes the least
  /// recently used one if there is no room.
  ///
  /// \par Cost  If it is open, a system call of 2 to 30 us. Otherwise three or four, and 40 us
  ///            more.
  [[nodiscard]] std::string_view read(pid_t tid, file what, std::span<char> buffer) noexcept;

  /// As read(), but closes no file for it: empty if the file is not open and there is no room.
  [[nodiscard]] std::string_view read_if_room(pid_t tid, file what,
                                              std::span<char> buffer) noexcept;

  /// As read(), but the file does not stay open.
  [[nodiscard]] std::string_view read_once(pid_t tid, file what, std::span<char> buffer) noexcept;

  /// Opens the calling thread's `syscall` for keep_open(). Negative on failure.
  [[nodiscard]] static int open_own_syscall() noexcept;
  /// Takes over the thread's `syscall`, which stays open in addition to the others until let_go().
  /// It cannot be opened any more once the process has changed its user.
  void keep_open(pid_t tid, int descriptor) noexcept;
  void let_go() noexcept { drop(kept_[most_kept]); }

  /// The errno of the last file that could not be opened since the last call; 0 if there was none.
  [[nodiscard]] int take_fault() noexcept;

  /// Closes the files of threads for which `alive(tid)` is false, except the one of keep_open().
  template <class Predicate>
  void close_unless(Predicate alive) noexcept {
    for (std::size_t i = 0; i != most_kept; ++i) {
      if (kept_[i].descriptor >= 0 && !alive(kept_[i].tid)) drop(kept_[i]);
    }
  }
  void close_all() noexcept {
    for (kept& k : kept_) drop(k);
  }
  [[nodiscard]] bool any_of(pid_t tid) const noexcept;

 private:
  struct kept {
    pid_t tid = 0;
    file what = file::stat;
    int descriptor = -1;
    std::uint64_t used = 0;  ///< larger if used later
  };

  static void drop(kept& k) noexcept;
  [[nodiscard]] kept* find(pid_t tid, file what) noexcept;
  /// The place for another file: a free one, or the least recently used one.
  [[nodiscard]] kept& oldest() noexcept;
  [[nodiscard]] int open(pid_t tid, file what) noexcept;

  std::array<kept, most_kept + 1> kept_{};  ///< the last one is that of keep_open()
  std::size_t room_;
  std::uint64_t reads_ = 0;
  int fault_ = 0;
};

}  // namespace asio_pulse::detail
