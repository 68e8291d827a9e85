// SPDX-License-Identifier: BSL-1.0

#include "stack_copy.hpp"

#if defined(__linux__)
#include "process/errno_kept.hpp"
#include "threads/thread_usage.hpp"

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <iterator>
#endif

namespace asio_pulse::detail {

#if defined(__linux__)
namespace {

// The smallest page size of any supported kernel. With larger pages this divides more finely than
// needed.
constexpr std::size_t page = 4096;

// Relaxed: the file is opened before the reader is chosen that uses it.
std::atomic<int> memory_file{-1};

constexpr int undecided = -1;
std::atomic<int> chosen{undecided};

constexpr std::size_t to_page_end(std::uintptr_t address) noexcept { return page - address % page; }

// Calls the kernel directly and not through the C library, because sanitizers intercept that
// function and would check the shadow of memory that belongs to another frame.
//
// The kernel does not read an element that is only partly readable, hence one element for each
// page.
std::size_t by_process_vm(std::uintptr_t address, std::span<std::byte> to) noexcept {
  const auto self = static_cast<pid_t>(::syscall(SYS_getpid));
  std::size_t copied = 0;
  while (copied < to.size()) {
    iovec remote[32];
    std::size_t count = 0;
    std::size_t asked = 0;
    while (count < std::size(remote) && copied + asked < to.size()) {
      const std::uintptr_t at = address + copied + asked;
      const std::size_t length = std::min(to_page_end(at), to.size() - copied - asked);
      // NOLINTNEXTLINE(performance-no-int-to-ptr): only the address is known
      remote[count++] = {reinterpret_cast<void*>(at), length};
      asked += length;
    }
    const iovec local{to.data() + copied, asked};
    const long got = ::syscall(SYS_process_vm_readv, self, &local, 1UL, remote, count, 0UL);
    if (got > 0) copied += static_cast<std::size_t>(got);
    if (got != static_cast<long>(asked)) break;
  }
  return copied;
}

std::size_t by_file(std::uintptr_t address, std::span<std::byte> to) noexcept {
  const int file = memory_file.load(std::memory_order_relaxed);
  std::size_t copied = 0;
  while (file >= 0 && copied < to.size()) {
    const long got = ::syscall(SYS_pread64, file, to.data() + copied, to.size() - copied,
                               static_cast<long>(address + copied));
    if (got <= 0) break;
    copied += static_cast<std::size_t>(got);
  }
  return copied;
}

bool process_vm_works() noexcept {
  const std::byte source{42};
  std::byte target{};
  return by_process_vm(reinterpret_cast<std::uintptr_t>(&source), {&target, 1}) == 1 &&
         target == source;
}

}  // namespace

bool open_memory_file() noexcept {
  if (memory_file.load(std::memory_order_relaxed) >= 0) return true;
  const errno_kept keep;
  const int file = ::open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
  memory_file.store(file, std::memory_order_relaxed);
  return file >= 0;
}

void renew_memory_file() noexcept {
  const int file = memory_file.exchange(-1, std::memory_order_relaxed);
  if (file < 0) return;
  const errno_kept keep;
  ::close(file);
  (void)open_memory_file();  // if this fails, nothing is copied
}

void choose_memory_reader(bool filtered) noexcept {
  memory_reader best = memory_reader::none;
  if (!filtered) {
    static const bool works = [] {
      const errno_kept keep;
      return process_vm_works();
    }();
    if (works) best = memory_reader::process_vm;
  }
  if (best == memory_reader::none && open_memory_file()) best = memory_reader::file;
  chosen.store(static_cast<int>(best), std::memory_order_relaxed);
}

memory_reader chosen_memory_reader() noexcept {
  if (chosen.load(std::memory_order_relaxed) == undecided) {
    choose_memory_reader(own_seccomp_filters() != 0);
  }
  return static_cast<memory_reader>(chosen.load(std::memory_order_relaxed));
}

std::size_t copy_mapped(std::uintptr_t address, std::span<std::byte> to,
                        memory_reader reader) noexcept {
  to = to.first(std::min<std::size_t>(to.size(), ~std::uintptr_t{0} - address));
  switch (reader) {
    case memory_reader::process_vm:
      return by_process_vm(address, to);
    case memory_reader::file:
      return by_file(address, to);
    case memory_reader::none:
      break;
  }
  return 0;
}

#else

void choose_memory_reader(bool) noexcept {}
memory_reader chosen_memory_reader() noexcept { return memory_reader::none; }
bool open_memory_file() noexcept { return false; }
void renew_memory_file() noexcept {}

std::size_t copy_mapped(std::uintptr_t, std::span<std::byte>, memory_reader) noexcept { return 0; }

#endif

}  // namespace asio_pulse::detail
