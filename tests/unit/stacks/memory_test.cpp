// SPDX-License-Identifier: BSL-1.0
//
// Each allocation of a trace fails once: ours, and those of libdw and the libraries that it uses.

#include "symbolizer.hpp"

#include <support/sanitizers.hpp>

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>

#if defined(__GLIBC__) && !defined(PULSE_TEST_ASAN) && !defined(PULSE_TEST_TSAN)
#define PULSE_TEST_FAILING_MALLOC

namespace {
/// How many more allocations of this thread succeed before one fails; negative if all succeed.
constinit thread_local long until_failure = -1;

bool fails() noexcept {
  if (until_failure < 0 || until_failure-- != 0) return false;
  errno = ENOMEM;
  return true;
}
}  // namespace

// The executable's malloc(), which all libraries use. NOLINTBEGIN(bugprone-reserved-identifier)
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);

void* malloc(std::size_t size) noexcept { return fails() ? nullptr : __libc_malloc(size); }
void* calloc(std::size_t count, std::size_t size) noexcept {
  return fails() ? nullptr : __libc_calloc(count, size);
}
void* realloc(void* old, std::size_t size) noexcept {
  return fails() ? nullptr : __libc_realloc(old, size);
}
}
// NOLINTEND(bugprone-reserved-identifier)
#endif

namespace {

using asio_pulse::format;
using asio_pulse::stack_detail;
using asio_pulse::stack_support;
using asio_pulse::stack_trace;
using asio_pulse::detail::captured_stack;
using asio_pulse::detail::symbolizer;

#if defined(PULSE_TEST_FAILING_MALLOC) && defined(__x86_64__)

/// The current stack of this thread.
class position {
 public:
  [[gnu::noinline]] position() {
    ::ucontext_t context;
    if (::getcontext(&context) != 0) return;
    const auto& registers = context.uc_mcontext.gregs;
    stack_.only_position = true;
    stack_.registers[captured_stack::program_counter] =
        static_cast<std::uint64_t>(registers[REG_RIP]);
    stack_.registers[captured_stack::stack_register] =
        static_cast<std::uint64_t>(registers[REG_RSP]);
    stack_.address = stack_.stack_pointer();
    std::memcpy(bytes_, reinterpret_cast<const void*>(stack_.address), sizeof bytes_);
    stack_.bytes = bytes_;
    stack_.truncated = true;
  }
  [[nodiscard]] const captured_stack& stack() const noexcept { return stack_; }

 private:
  captured_stack stack_;
  std::byte bytes_[2048]{};
};

constexpr int libdws_own_fault = 77;

/// libdw does not check the allocations of its hash tables. It then crashes or fails an assertion.
void exit_if_in_libdw(int signal, siginfo_t*, void* context) {
  const auto* const at = static_cast<const ::ucontext_t*>(context);
  Dl_info info{};
  const bool in_libdw =
      signal == SIGABRT ||
      (::dladdr(reinterpret_cast<void*>(at->uc_mcontext.gregs[REG_RIP]), &info) != 0 &&
       std::strstr(info.dli_fname, "/libdw") != nullptr);
  ::_exit(in_libdw ? libdws_own_fault : 2);
}

/// The exit code of a process in which an allocation of a trace fails after `n` successful ones.
int exit_code_when_failing(long n, const captured_stack& stack, const std::string& whole) {
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    std::set_terminate([] { ::_exit(3); });
    struct sigaction action = {};
    action.sa_sigaction = exit_if_in_libdw;
    action.sa_flags = SA_SIGINFO;
    ::sigaction(SIGSEGV, &action, nullptr);
    ::sigaction(SIGABRT, &action, nullptr);
    symbolizer fresh;
    until_failure = n;
    const stack_trace cut = fresh.trace(stack);
    const bool reached = until_failure == -1;
    until_failure = -1;
    if (!reached || cut.size() > 64) ::_exit(4);
    // The failed trace was reported as such. The next one must be complete.
    ::_exit(cut.empty() && format(fresh.trace(stack)) != whole ? 5 : 0);
  }
  int status = 0;
  return ::waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(memory, that_fails_once_shortens_one_trace) {
  if (stack_support() != stack_detail::full) GTEST_SKIP() << "built without libdw";
  const position here;
  const std::string whole = format(symbolizer{}.trace(here.stack()));
  ASSERT_NE(whole.find("memory_that_fails_once_shortens_one_trace"), std::string::npos) << whole;

  constexpr long many = 1'000'000;
  until_failure = many;
  static_cast<void>(symbolizer{}.trace(here.stack()));
  const long allocations = many - until_failure;
  until_failure = -1;
  ASSERT_GT(allocations, 100);
  std::printf("%ld allocations in a trace\n", allocations);

  int tried = 0;
  int left_to_libdw = 0;
  for (long n = 0; n < allocations; n += n < 150 ? 1 : 2) {
    const int code = exit_code_when_failing(n, here.stack(), whole);
    ++tried;
    left_to_libdw += code == libdws_own_fault ? 1 : 0;
    EXPECT_TRUE(code == 0 || code == libdws_own_fault) << "allocation " << n << ": " << code;
  }
  std::printf("%d of them failed, of which libdw does not check %d\n", tried, left_to_libdw);
  EXPECT_LT(left_to_libdw * 20, tried);
}

#endif

}  // namespace
