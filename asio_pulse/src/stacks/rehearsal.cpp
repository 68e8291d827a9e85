// SPDX-License-Identifier: BSL-1.0
#include "rehearsal.hpp"

#if defined(__linux__)
#include "process/errno_kept.hpp"
#include "stack_copy.hpp"
#include "threads/thread_number.hpp"

#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <new>
#endif

namespace asio_pulse::detail {

#if defined(__linux__)
namespace {

enum stage : std::uint32_t { begun, may_be_waited_for, handled, complete };

// In memory that is shared with the child. Relaxed: the parent reads it after the child has ended.
using stage_word = std::atomic<std::uint32_t>;

constinit stage_word* word_of_child = nullptr;

// Makes the same system calls as the signal handler in stack_capture.cpp.
void on_signal(int, siginfo_t*, void* context) {
  std::byte stack[64];
  const bool read =
      copy_mapped(reinterpret_cast<std::uintptr_t>(context), stack, memory_reader::file) != 0;
  ::syscall(SYS_futex, word_of_child, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
  if (read) word_of_child->store(handled, std::memory_order_relaxed);
}

// Only system calls are made here, because other threads of the parent may have held any lock.
[[noreturn]] void rehearse(int signal, stage_word& word) noexcept {
  // Prevents a core dump. One byte is too small for a core file. Unlike 0, it also keeps the kernel
  // from starting a program that receives the core.
  const rlimit no_core{.rlim_cur = 1, .rlim_max = 1};
  ::syscall(SYS_prlimit64, 0, RLIMIT_CORE, &no_core, nullptr);
  struct sigaction action = {};
  action.sa_handler = SIG_DFL;
  ::sigaction(SIGSYS, &action, nullptr);
  ::syscall(SYS_wait4, -1, nullptr, WNOHANG | __WALL, nullptr);
  word.store(may_be_waited_for, std::memory_order_relaxed);

  word_of_child = &word;
  action.sa_sigaction = &on_signal;
  action.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
  ::sigfillset(&action.sa_mask);
  sigset_t only;
  ::sigemptyset(&only);
  ::sigaddset(&only, signal);
  ::sigaction(signal, &action, nullptr);
  ::sigprocmask(SIG_UNBLOCK, &only, nullptr);
  const pid_t self = this_thread_number();
  ::syscall(SYS_tgkill, self, self, signal);
  if (word.load(std::memory_order_relaxed) == handled) {
    word.store(complete, std::memory_order_relaxed);
  }
  for (;;) ::syscall(SYS_exit_group, 0);
}

/// Forks a child that sends no signal when it ends. The caller is suspended until then. It uses the
/// calls by which the C library starts threads, because a filter allows these.
long fork_quietly() noexcept {
  // The first version of struct clone_args. Its first member has the flags; the rest is not used.
  std::uint64_t arguments[8] = {CLONE_VFORK};
  const long child = ::syscall(SYS_clone3, arguments, sizeof arguments);
  if (child >= 0 || (errno != ENOSYS && errno != EPERM)) return child;
  return ::syscall(SYS_clone, static_cast<unsigned long>(CLONE_VFORK), 0UL, 0UL, 0UL, 0UL);
}

}  // namespace

std::optional<bool> rehearse_capture(int signal) noexcept {
  const errno_kept keep;
  if (!open_memory_file()) return std::nullopt;
  void* const memory = ::mmap(nullptr, sizeof(stage_word), PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return std::nullopt;
  auto& word = *new (memory) stage_word(begun);
  const long child = fork_quietly();
  if (child == 0) rehearse(signal, word);
  const std::uint32_t reached = word.load(std::memory_order_relaxed);
  // If the filter forbids wait4(), the child remains as a zombie.
  if (child > 0 && reached >= may_be_waited_for) {
    while (::wait4(static_cast<pid_t>(child), nullptr, __WALL, nullptr) < 0 && errno == EINTR) {
    }
  }
  ::munmap(memory, sizeof(stage_word));
  if (child < 0) return std::nullopt;
  return reached == complete;
}

#else

std::optional<bool> rehearse_capture(int) noexcept { return std::nullopt; }

#endif

}  // namespace asio_pulse::detail
