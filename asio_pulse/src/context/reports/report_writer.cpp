// SPDX-License-Identifier: BSL-1.0

#include "report_writer.hpp"

#include "files/standard_error.hpp"

#include <algorithm>
#include <cerrno>
#include <new>
#include <string_view>
#include <utility>

#if defined(_WIN32)
#include <io.h>
#else
#include "process/errno_kept.hpp"
#include "process/process_wide.hpp"
#include "threads/background_thread.hpp"
#include "threads/thread_name.hpp"

#include <poll.h>
#include <unistd.h>
#endif

namespace asio_pulse {

void write_to_stderr(const report& r) noexcept { detail::report_writer::get().post(r, nullptr); }

namespace detail {

void report_writer::drop(const lost_reports& lost) noexcept {
  dropped_.fetch_add(1, std::memory_order_relaxed);
  if (lost != nullptr) lost->fetch_add(1, std::memory_order_relaxed);
}

#if defined(_WIN32)

report_writer& report_writer::get() noexcept {
  static report_writer only;
  return only;
}

void report_writer::post(const report& r, const lost_reports& lost) noexcept {
  const errno_kept keep;
  try {
    const std::string text = format_with_stack(r);
    if (::_write(2, text.data(), static_cast<unsigned>(text.size())) < 0) drop(lost);
  } catch (const std::bad_alloc&) {
    drop(lost);
  }
}

void report_writer::flush() noexcept {}

#else

namespace {

// How long the end of a program, or of a context, waits while nothing can be written to stderr. A
// guess: if it is too short, the last lines, which may explain the end, are lost; if it is too
// long, the program seems to hang. Even on a busy machine the writing thread is scheduled sooner.
constexpr std::chrono::milliseconds patience{100};

// Set with the first report, so that flush() costs nothing in programs without reports. Relaxed: a
// thread that flushes its own reports has posted them before.
std::atomic<bool> in_use{false};

// Runs when the program calls exit(), or the module is unloaded.
struct at_exit {
  ~at_exit() { report_writer::flush(); }
};

void append_remark(std::string& text, std::uint64_t dropped) {
  const auto end = std::min(text.find('\n'), text.size());
  text.insert(end, " dropped=" + std::to_string(dropped));
}

}  // namespace

report_writer& report_writer::get() noexcept { return process_wide<report_writer>(); }

void report_writer::post(const report& r, const lost_reports& lost) noexcept {
  const errno_kept keep;
  bool start = false;
  try {
    entry e{.text = format_with_stack(r), .lost = lost};
    static const at_exit flush_at_exit;
    in_use.store(true, std::memory_order_relaxed);
    std::unique_lock lock(mutex_);
    if (size_ == capacity) {
      lock.unlock();
      drop(lost);
    } else {
      queue_[(first_ + size_) % capacity] = std::move(e);
      ++size_;
      ++posted_;
      start = !std::exchange(running_, true);
      lock.unlock();
      work_.notify_one();
    }
  } catch (const std::bad_alloc&) {
    drop(lost);
  }
  // Without the lock, since starting a thread may take long, and others may report meanwhile.
  if (start && !start_background_thread(this)) give_up();
}

// The thread could not be started. The next report tries again.
void report_writer::give_up() noexcept {
  const std::lock_guard lock(mutex_);
  running_ = false;
  for (; size_ != 0; --size_) {
    const entry lost = std::exchange(queue_[first_], {});
    first_ = (first_ + 1) % capacity;
    ++finished_;
    drop(lost.lost);
  }
  written_.notify_all();
}

void report_writer::run() noexcept {
  name_this_thread("pulse-report");
  std::unique_lock lock(mutex_);
  for (;;) {
    work_.wait(lock, [this] { return size_ != 0; });
    current_ = std::exchange(queue_[first_], {});
    first_ = (first_ + 1) % capacity;
    --size_;
    writing_ = true;
    since_ = clock::now();
    lock.unlock();
    if (!write(current_.text)) drop(current_.lost);
    current_ = {};
    lock.lock();
    writing_ = false;
    ++finished_;
    written_.notify_all();
  }
}

// Returns false if not everything was written.
bool report_writer::write(std::string& text) noexcept {
  const std::uint64_t dropped = this->dropped();
  bool told = dropped == told_;
  try {
    if (torn_) text.insert(0, 1, '\n');
    if (!told) {
      append_remark(text, dropped - told_);
      told = true;
    }
  } catch (const std::bad_alloc&) {  // NOLINT(bugprone-empty-catch): a later report has the number
  }
  std::string_view left = text;
  while (!left.empty() && is_standard_error()) {
    const ssize_t n = ::write(STDERR_FILENO, left.data(), left.size());
    if (n > 0) {
      left.remove_prefix(static_cast<std::size_t>(n));
    } else if (n < 0 && errno == EAGAIN) {
      // The program, or another process that shares the file, has made it non-blocking.
      pollfd ready{.fd = STDERR_FILENO, .events = POLLOUT, .revents = 0};
      if (::poll(&ready, 1, -1) < 0) break;
    } else if (n == 0 || errno != EINTR) {
      break;
    }
  }
  if (left.size() != text.size()) torn_ = !left.empty();
  if (!left.empty()) return false;
  if (told) told_ = dropped;
  return true;
}

void report_writer::flush() noexcept {
  if (in_use.load(std::memory_order_relaxed)) get().wait_until_written();
}

void report_writer::wait_until_written() noexcept {
  std::unique_lock lock(mutex_);
  const std::uint64_t last = posted_;
  auto end = clock::now() + patience;
  if (writing_) end = std::min(end, since_ + patience);
  written_.wait_until(lock, end, [this, last] { return finished_ >= last; });
}

void report_writer::before_fork() noexcept { mutex_.lock(); }

void report_writer::after_fork(bool child) noexcept {
  if (child) {
    // The queue belongs to the parent, as does the thread that writes. In the child no thread waits
    // for the queue.
    new (&work_) std::condition_variable;
    new (&written_) std::condition_variable;
    queue_ = {};
    current_ = {};
    size_ = 0;
    finished_ = posted_;
    running_ = writing_ = false;
    told_ = dropped();
    torn_ = false;
  }
  mutex_.unlock();
}

#endif

}  // namespace detail
}  // namespace asio_pulse
