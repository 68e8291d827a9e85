// SPDX-License-Identifier: BSL-1.0
//
// When a fiber's stack overflows into its guard, the process gets SIGSEGV (SIGBUS on some systems).
// The handler here prints a line on stderr that explains it, and passes the signal on to the
// previous handler or to the default action with its core dump.

#include "files/standard_error.hpp"
#include "process/loaded_module.hpp"

#include <asio_pulse/detail/fiber_stack.hpp>
#include <asio_pulse/hooks/poll_path.hpp>

#include <dlfcn.h>
#include <signal.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace asio_pulse::detail {
namespace {

struct sigaction before_segv;
struct sigaction before_bus;

/// Builds a line without the C library, which must not be used in a signal handler.
class line {
 public:
  line& operator<<(const char* text) noexcept {
    for (; *text != '\0'; ++text) put(*text);
    return *this;
  }
  line& operator<<(std::size_t number) noexcept {
    char digits[20];
    std::size_t n = 0;
    do {
      digits[n++] = static_cast<char>('0' + number % 10);
      number /= 10;
    } while (number != 0);
    while (n != 0) put(digits[--n]);
    return *this;
  }
  line& hex(std::uintptr_t number) noexcept {
    *this << "0x";
    int shift = 60;
    while (shift > 0 && number >> shift == 0) shift -= 4;
    for (; shift >= 0; shift -= 4) put("0123456789abcdef"[number >> shift & 15]);
    return *this;
  }
  /// Adds a text of the program, which may be any bytes.
  line& quote(const char* text) noexcept {
    for (; *text != '\0'; ++text) put(*text >= ' ' && *text <= '~' ? *text : '?');
    return *this;
  }
  void write_to_stderr() noexcept {
    put('\n');
    const std::size_t size = std::min(size_, sizeof text_);
    text_[size - 1] = '\n';
    write_last_words(text_, size);
  }

 private:
  void put(char c) noexcept {
    if (size_ < sizeof text_) text_[size_] = c;
    ++size_;
  }
  char text_[512];
  std::size_t size_ = 0;
};

/// The instruction that has faulted; 0 if that is not known.
std::uintptr_t instruction_of([[maybe_unused]] const void* context) noexcept {
#if defined(__x86_64__)
  return static_cast<std::uintptr_t>(
      static_cast<const ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]);
#elif defined(__aarch64__)
  return static_cast<const ucontext_t*>(context)->uc_mcontext.pc;
#else
  return 0;
#endif
}

/// Adds the function: as it is mangled, or as the place in its module, which addr2line(1) understands.
/// dladdr(3) takes a lock of the dynamic linker, and nothing else. If a thread holds it for ever, the
/// process, which is lost, hangs instead of ending.
void tell_function(line& text, std::uintptr_t instruction) noexcept {
  Dl_info at{};
  if (instruction == 0 || dladdr(reinterpret_cast<void*>(instruction), &at) == 0) return;
  text << " in ";
  if (at.dli_sname != nullptr) {
    text.quote(at.dli_sname);
  } else {
    text.quote(at.dli_fname) << "+";
    text.hex(instruction - reinterpret_cast<std::uintptr_t>(at.dli_fbase));
  }
}

void tell_overflow(const fiber_region& region, std::uintptr_t address,
                   std::uintptr_t instruction) noexcept {
  const std::size_t size = fiber_stack_size(region.size_class(address));
  line text;
  text << "asio_pulse: stack overflow on a fiber";
  const hooks::thread_state& ts = hooks::this_thread();
  const hooks::poll_frame* const frame = ts.top;
  if (frame != nullptr && frame->task() != nullptr) {
    text << " of task \"";
    const hooks::task_record& t = *frame->task();
    text.quote(t.home->name_of(t)) << "\"";
  }
  tell_function(text, instruction);
  text << ": its stack has " << size
       << " bytes; raise asio_pulse::options.fiber_stack (preemptible, spawn)";
  text.write_to_stderr();
}

void reset_action(int signal) noexcept {
  struct sigaction fatal {};
  fatal.sa_handler = SIG_DFL;
  sigaction(signal, &fatal, nullptr);
}

// Does what the kernel would have done without our handler. `real`: a fault, not kill() or raise().
void pass_on(int signal, siginfo_t* info, void* context, bool real) noexcept {
  const struct sigaction& before = signal == SIGBUS ? before_bus : before_segv;
  if (before.sa_handler == SIG_IGN && !real) return;
  if (before.sa_handler == SIG_DFL || before.sa_handler == SIG_IGN) {
    // The faulting instruction runs again when the handler returns, and is then fatal.
    reset_action(signal);
    if (!real) raise(signal);  // delivered when the handler returns
    return;
  }
  const auto flags = static_cast<unsigned>(before.sa_flags);
  if ((flags & static_cast<unsigned>(SA_RESETHAND)) != 0) reset_action(signal);
  pthread_sigmask(SIG_BLOCK, &before.sa_mask, nullptr);
  if ((flags & static_cast<unsigned>(SA_NODEFER)) != 0 &&
      sigismember(&before.sa_mask, signal) == 0 &&
      sigismember(&static_cast<const ucontext_t*>(context)->uc_sigmask, signal) == 0) {
    sigset_t own;
    sigemptyset(&own);
    sigaddset(&own, signal);
    pthread_sigmask(SIG_UNBLOCK, &own, nullptr);
  }
  if ((flags & static_cast<unsigned>(SA_SIGINFO)) != 0) {
    before.sa_sigaction(signal, info, context);
  } else {
    before.sa_handler(signal);
  }
}

void on_fault(int signal, siginfo_t* info, void* context) {
  const fiber_region* const region = the_fiber_region.load(std::memory_order_acquire);
  const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
  const bool real = info->si_code > 0;  // a real fault, not sent by kill() or raise()
  if (real && region != nullptr && region->contains(address) &&
      region->slot_end(address) - address > fiber_stack_size(region->size_class(address))) {
    tell_overflow(*region, address, instruction_of(context));
  }
  pass_on(signal, info, context, real);
}

}  // namespace

void install_overflow_message() noexcept {
  keep_this_module();
  struct sigaction ours {};
  ours.sa_sigaction = &on_fault;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&ours.sa_mask);
  // The previous handler must be known before ours is installed.
  if (sigaction(SIGSEGV, nullptr, &before_segv) == 0) sigaction(SIGSEGV, &ours, nullptr);
  if (sigaction(SIGBUS, nullptr, &before_bus) == 0) sigaction(SIGBUS, &ours, nullptr);
}

}  // namespace asio_pulse::detail
