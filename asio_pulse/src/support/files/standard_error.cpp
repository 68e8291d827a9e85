// SPDX-License-Identifier: BSL-1.0

#include "standard_error.hpp"

#if defined(_WIN32)

#include <io.h>

namespace asio_pulse::detail {

// Here descriptors belong to the C library, and other objects do not get their numbers.
bool is_standard_error() noexcept { return true; }
void adopt_standard_error() noexcept {}
void write_last_words(const char* text, std::size_t size) noexcept {
  (void)::_write(2, text, static_cast<unsigned>(size));
}

}  // namespace asio_pulse::detail

#else

#include "process/errno_kept.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

namespace asio_pulse::detail {
namespace {

// Identifies the file that a descriptor refers to.
struct file_identity {
  std::uint64_t device = 0;
  std::uint64_t number = 0;
  mode_t type = 0;  // zero: the descriptor is closed
  [[nodiscard]] bool open() const noexcept { return type != 0; }
  friend bool operator==(const file_identity&, const file_identity&) = default;
};

file_identity identify(int descriptor) noexcept {
  struct stat s {};
  if (::fstat(descriptor, &s) != 0) return {};
  return {static_cast<std::uint64_t>(s.st_dev), static_cast<std::uint64_t>(s.st_ino),
          static_cast<mode_t>(s.st_mode & S_IFMT)};
}

bool write_only(int flags) noexcept { return flags != -1 && (flags & O_ACCMODE) == O_WRONLY; }

// The files that count as standard error.
class known_files {
 public:
  explicit known_files(const file_identity& at_start) noexcept : at_start_(at_start) {}
  void adopt(const file_identity& now) noexcept {
    device_.store(now.device, std::memory_order_relaxed);
    number_.store(now.number, std::memory_order_relaxed);
    type_.store(now.type, std::memory_order_relaxed);
  }
  [[nodiscard]] bool have(const file_identity& f) const noexcept {
    return f == at_start_ || f == file_identity{device_.load(std::memory_order_relaxed),
                                                number_.load(std::memory_order_relaxed),
                                                type_.load(std::memory_order_relaxed)};
  }
  /// Whether the program was started with a standard error.
  [[nodiscard]] bool began_with_one() const noexcept { return at_start_.open(); }

 private:
  const file_identity at_start_;
  // No lock, because signal handlers read it. Relaxed: a mixture of two identities matches no file,
  // and a later read sees the new one.
  std::atomic<std::uint64_t> device_{0};
  std::atomic<std::uint64_t> number_{0};
  std::atomic<mode_t> type_{0};
};

known_files& known() noexcept {
  static known_files files(identify(STDERR_FILENO));
  return files;
}
// Initialised before main(), so that the program cannot have closed it yet.
[[maybe_unused]] const bool looked_at_start = (static_cast<void>(known()), true);

}  // namespace

bool is_standard_error() noexcept {
  const errno_kept keep;
  const file_identity now = identify(STDERR_FILENO);
  if (!now.open()) return false;
  if (known().have(now) || now == identify(STDOUT_FILENO)) return true;
  if (!S_ISREG(now.type)) return false;
  const int flags = ::fcntl(STDERR_FILENO, F_GETFL);
  return write_only(flags) && (flags & O_APPEND) != 0;
}

void adopt_standard_error() noexcept {
  const errno_kept keep;
  const file_identity now = identify(STDERR_FILENO);
  if (!now.open() || known().have(now) || !known().began_with_one() || S_ISSOCK(now.type)) return;
  if (write_only(::fcntl(STDERR_FILENO, F_GETFL))) known().adopt(now);
}

void write_last_words(const char* text, std::size_t size) noexcept {
  const errno_kept keep;
  if (!is_standard_error()) return;
  pollfd ready{.fd = STDERR_FILENO, .events = POLLOUT, .revents = 0};
  // POLLERR means that the pipe has no reader any more.
  if (::poll(&ready, 1, 0) != 1 || ready.revents != POLLOUT) return;
  (void)!::write(STDERR_FILENO, text, size);
}

}  // namespace asio_pulse::detail

#endif
