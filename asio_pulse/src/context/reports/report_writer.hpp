// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "process/process_wide.hpp"

#include <asio_pulse/report.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

/// \file
/// Writes reports to stderr without blocking the threads that report. Standard error may be a full
/// pipe, a pipe without a reader, a stopped terminal, or a file on a disk that was removed.

namespace asio_pulse::detail {

/// Counts the reports of a context that could not be written. The writer may outlive the context.
using lost_reports = std::shared_ptr<std::atomic<std::uint64_t>>;

/// One thread of the process writes the reports. It is started with the first one and blocks all
/// signals: only this thread waits for stderr, and neither SIGPIPE nor SIGTTOU reaches it. Between
/// it and the reporting threads is a queue of `capacity` texts. A text is dropped and counted if
/// the queue is full or it cannot be written. The next text that can be written has the number at
/// the end of its first line: " dropped=3".
///
/// It writes only to standard error; see is_standard_error().
class report_writer {
 public:
  static constexpr fork_handler::order fork_order = fork_handler::order::others;

  static constexpr std::size_t capacity = 32;

  static report_writer& get() noexcept;

  /// Queues a report: its text, as format_with_stack() makes it.
  ///
  /// \param lost          Where to count it if it is dropped, besides dropped(); may be null.
  /// \par Cost            Allocates, and takes a lock that is held briefly. The first report starts
  ///                      the thread.
  /// \par Thread safety   Any thread. errno is preserved.
  /// \par Errors          None (noexcept). If there is no memory, the report is dropped.
  void post(const report& r, const lost_reports& lost) noexcept;

  /// Waits until all reports that were queued before are written or dropped, but at most 100 ms,
  /// and not at all if stderr has taken nothing for as long.
  static void flush() noexcept;

  /// The number of reports that were dropped in this process.
  [[nodiscard]] std::uint64_t dropped() const noexcept {
    return dropped_.load(std::memory_order_relaxed);
  }

  /// The thread's function.
  void run() noexcept;

 private:
  friend report_writer& process_wide<report_writer>() noexcept;

  struct entry {
    std::string text;
    lost_reports lost;
  };
  using clock = std::chrono::steady_clock;

  void drop(const lost_reports& lost) noexcept;
  void give_up() noexcept;
  [[nodiscard]] bool write(std::string& text) noexcept;
  void wait_until_written() noexcept;
  void before_fork() noexcept;
  void after_fork(bool child) noexcept;

  std::mutex mutex_;  ///< guards the members below
  std::condition_variable work_;
  std::condition_variable written_;
  std::array<entry, capacity> queue_{};
  std::size_t first_ = 0;
  std::size_t size_ = 0;
  std::uint64_t posted_ = 0;    ///< texts that were queued
  std::uint64_t finished_ = 0;  ///< of these, texts that were written or dropped
  bool running_ = false;        ///< the thread exists, or is being started
  bool writing_ = false;
  clock::time_point since_{};  ///< the start of the present write

  // Used by the thread only. It is here and not on its stack, so that a forked child finds it.
  entry current_;
  std::uint64_t told_ = 0;  ///< the part of `dropped_` that written texts have reported
  bool torn_ = false;       ///< the last text was written only partly

  std::atomic<std::uint64_t> dropped_{0};  ///< relaxed: a count
};

}  // namespace asio_pulse::detail
