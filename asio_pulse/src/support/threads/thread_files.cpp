// SPDX-License-Identifier: BSL-1.0

#include "thread_files.hpp"

#if defined(__linux__)
#include "process/errno_kept.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>

namespace asio_pulse::detail {
namespace {

const char* name_of(thread_files::file f) noexcept {
  switch (f) {
    case thread_files::file::schedstat:
      return "schedstat";
    case thread_files::file::stat:
      return "stat";
    case thread_files::file::status:
      return "status";
    case thread_files::file::syscall:
      return "syscall";
    case thread_files::file::wchan:
      return "wchan";
  }
  return "";
}

/// Empty if the thread no longer exists, or the file cannot be read.
std::string_view read_from(int descriptor, std::span<char> buffer) noexcept {
  if (descriptor < 0) return {};
  const errno_kept keep;
  const ssize_t n = ::pread(descriptor, buffer.data(), buffer.size(), 0);
  return {buffer.data(), n > 0 ? static_cast<std::size_t>(n) : 0};
}

}  // namespace

int thread_files::open(pid_t tid, file what) noexcept {
  char path[64];
  std::snprintf(path, sizeof path, "/proc/self/task/%d/%s", static_cast<int>(tid), name_of(what));
  const errno_kept keep;
  const int descriptor = ::open(path, O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fault_ = errno;
  return descriptor;
}

void thread_files::drop(kept& k) noexcept {
  if (k.descriptor < 0) return;
  const errno_kept keep;
  ::close(std::exchange(k.descriptor, -1));
}

thread_files::kept* thread_files::find(pid_t tid, file what) noexcept {
  const auto at = std::find_if(kept_.begin(), kept_.end(), [&](const kept& k) {
    return k.descriptor >= 0 && k.tid == tid && k.what == what;
  });
  return at != kept_.end() ? &*at : nullptr;
}

thread_files::kept& thread_files::oldest() noexcept {
  const auto end = kept_.begin() + static_cast<std::ptrdiff_t>(room_);
  return *std::min_element(kept_.begin(), end, [](const kept& a, const kept& b) {
    return (a.descriptor >= 0 ? a.used : 0) < (b.descriptor >= 0 ? b.used : 0);
  });
}

std::string_view thread_files::read(pid_t tid, file what, std::span<char> buffer) noexcept {
  kept* k = find(tid, what);
  if (k != nullptr) {
    k->used = ++reads_;
    if (const std::string_view text = read_from(k->descriptor, buffer); !text.empty()) return text;
    // The thread has ended. Another one may have the same id by now.
    drop(*k);
  }
  k = &oldest();
  drop(*k);
  *k = {.tid = tid, .what = what, .descriptor = open(tid, what), .used = ++reads_};
  return read_from(k->descriptor, buffer);
}

std::string_view thread_files::read_if_room(pid_t tid, file what, std::span<char> buffer) noexcept {
  if (find(tid, what) == nullptr && oldest().descriptor >= 0) return {};
  return read(tid, what, buffer);
}

std::string_view thread_files::read_once(pid_t tid, file what, std::span<char> buffer) noexcept {
  const int descriptor = open(tid, what);
  if (descriptor < 0) return {};
  const std::string_view text = read_from(descriptor, buffer);
  const errno_kept keep;
  ::close(descriptor);
  return text;
}

int thread_files::open_own_syscall() noexcept {
  const errno_kept keep;
  return ::open("/proc/thread-self/syscall", O_RDONLY | O_CLOEXEC);
}

void thread_files::keep_open(pid_t tid, int descriptor) noexcept {
  let_go();
  kept_[most_kept] = {.tid = tid, .what = file::syscall, .descriptor = descriptor};
}

int thread_files::take_fault() noexcept { return std::exchange(fault_, 0); }

bool thread_files::any_of(pid_t tid) const noexcept {
  return std::any_of(kept_.begin(), kept_.end() - 1,
                     [tid](const kept& k) { return k.descriptor >= 0 && k.tid == tid; });
}

}  // namespace asio_pulse::detail

#else

namespace asio_pulse::detail {

void thread_files::drop(kept&) noexcept {}
int thread_files::open_own_syscall() noexcept { return -1; }
void thread_files::keep_open(pid_t, int) noexcept {}
std::string_view thread_files::read(pid_t, file, std::span<char>) noexcept { return {}; }
std::string_view thread_files::read_if_room(pid_t, file, std::span<char>) noexcept { return {}; }
std::string_view thread_files::read_once(pid_t, file, std::span<char>) noexcept { return {}; }
int thread_files::take_fault() noexcept { return 0; }
bool thread_files::any_of(pid_t) const noexcept { return false; }

}  // namespace asio_pulse::detail

#endif
