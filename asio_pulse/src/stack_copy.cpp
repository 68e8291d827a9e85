// SPDX-License-Identifier: BSL-1.0

#include <asio_pulse/detail/stack_copy.hpp>

#if defined(__linux__)
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <iterator>
#endif

namespace asio_pulse::detail {

#if defined(__linux__)
namespace {

// The smallest page that any kernel here has. With larger ones it is a finer division than needed.
constexpr std::size_t page = 4096;

// Written once, by best_memory_reader(), before anybody is asked to copy.
std::atomic<int> pipe_out{-1};
std::atomic<int> pipe_in{-1};
std::atomic_flag pipe_busy = ATOMIC_FLAG_INIT;

constexpr std::size_t to_page_end(std::uintptr_t address) noexcept { return page - address % page; }

// Its own system call instead of the C library's function: sanitizers intercept that one and would
// look at their shadow of memory that belongs to another frame.
//
// A vector that is not wholly readable is not read at all, hence one for each page.
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
      // NOLINTNEXTLINE(performance-no-int-to-ptr): an address is what there is
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

std::size_t by_pipe(std::uintptr_t address, std::span<std::byte> to) noexcept {
  if (pipe_busy.test_and_set(std::memory_order_acquire)) return 0;  // pairs with the clear below
  const int out = pipe_out.load(std::memory_order_relaxed);
  const int in = pipe_in.load(std::memory_order_relaxed);
  std::size_t copied = 0;
  while (out >= 0 && copied < to.size()) {
    const std::uintptr_t at = address + copied;
    const std::size_t length = std::min(to_page_end(at), to.size() - copied);
    const long written = ::syscall(SYS_write, out, at, length);
    if (written <= 0) break;
    std::size_t taken = 0;  // all of it: the next user must find the pipe empty
    while (taken < static_cast<std::size_t>(written)) {
      const long got = ::syscall(SYS_read, in, to.data() + copied + taken,
                                 static_cast<std::size_t>(written) - taken);
      if (got <= 0) break;
      taken += static_cast<std::size_t>(got);
    }
    copied += taken;
    if (taken != length) break;
  }
  pipe_busy.clear(std::memory_order_release);
  return copied;
}

bool make_pipe() noexcept {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return false;
  pipe_in.store(ends[0], std::memory_order_relaxed);  // never closed
  pipe_out.store(ends[1], std::memory_order_relaxed);
  return true;
}

memory_reader choose() noexcept {
  const std::byte source{42};
  std::byte target{};
  if (by_process_vm(reinterpret_cast<std::uintptr_t>(&source), {&target, 1}) == 1 &&
      target == source) {
    return memory_reader::process_vm;
  }
  return memory_reader::pipe;
}

}  // namespace

memory_reader best_memory_reader() noexcept {
  static const memory_reader best = [] {
    const int saved = errno;
    // The pipe too: who asks for it by name gets it.
    const memory_reader chosen = choose();
    const bool piped = make_pipe();
    errno = saved;
    return chosen == memory_reader::pipe && !piped ? memory_reader::none : chosen;
  }();
  return best;
}

std::size_t copy_mapped(std::uintptr_t address, std::span<std::byte> to,
                        memory_reader reader) noexcept {
  to = to.first(std::min<std::size_t>(to.size(), ~std::uintptr_t{0} - address));
  switch (reader) {
    case memory_reader::process_vm:
      return by_process_vm(address, to);
    case memory_reader::pipe:
      return by_pipe(address, to);
    case memory_reader::none:
      break;
  }
  return 0;
}

#else

memory_reader best_memory_reader() noexcept { return memory_reader::none; }

std::size_t copy_mapped(std::uintptr_t, std::span<std::byte>, memory_reader) noexcept { return 0; }

#endif

}  // namespace asio_pulse::detail
