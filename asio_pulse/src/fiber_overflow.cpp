// SPDX-License-Identifier: BSL-1.0
//
// A fiber's stack overflows into its guard, and the process gets SIGSEGV (SIGBUS on some systems),
// which by itself says nothing. Here one line on stderr does, and the signal goes on to whoever
// handled it before, or to its default action with the core dump.

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>
#include <algorithm>
#include <asio_pulse/detail/fiber_stack.hpp>
#include <asio_pulse/detail/task_state.hpp>
#include <asio_pulse/hooks/poll_path.hpp>
#include <cstring>

namespace asio_pulse::detail {
namespace {

struct sigaction before_segv;
struct sigaction before_bus;

/// A line that is put together without the C library: in a signal handler there is none.
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
  /// A user's text: any bytes.
  line& quote(const char* text) noexcept {
    for (; *text != '\0'; ++text) put(*text >= ' ' && *text <= '~' ? *text : '?');
    return *this;
  }
  void write_to_stderr() noexcept {
    put('\n');
    text_[std::min(size_, sizeof text_) - 1] = '\n';
    const char* from = text_;
    for (std::size_t left = std::min(size_, sizeof text_); left != 0;) {
      const ssize_t n = ::write(STDERR_FILENO, from, left);
      if (n <= 0) return;
      from += n;
      left -= static_cast<std::size_t>(n);
    }
  }

 private:
  void put(char c) noexcept {
    if (size_ < sizeof text_) text_[size_] = c;
    ++size_;
  }
  char text_[512];
  std::size_t size_ = 0;
};

void tell_overflow(const fiber_region& region, std::uintptr_t address) noexcept {
  const std::size_t size = fiber_stack_size(region.size_class(address));
  line text;
  text << "asio_pulse: stack overflow on a fiber";
  const hooks::thread_state& ts = hooks::this_thread();
  const hooks::poll_frame* const frame = ts.top;
  if (frame != nullptr && frame->task() != nullptr) {
    text << " of task \"";
    text.quote(static_cast<const task_state*>(frame->task())->name.get()) << "\"";
  }
  text << ": its stack has " << size
       << " bytes; raise asio_pulse::options.fiber_stack (preemptible, spawn)";
  text.write_to_stderr();
}

void on_fault(int signal, siginfo_t* info, void* context) {
  const fiber_region* const region = the_fiber_region.load(std::memory_order_acquire);
  const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
  const bool real = info->si_code > 0;  // not sent by kill() or raise()
  if (real && region != nullptr && region->contains(address) &&
      region->slot_end(address) - address > fiber_stack_size(region->size_class(address))) {
    tell_overflow(*region, address);
  }
  const struct sigaction& before = signal == SIGBUS ? before_bus : before_segv;
  if ((before.sa_flags & SA_SIGINFO) != 0) {
    before.sa_sigaction(signal, info, context);
    return;
  }
  if (before.sa_handler == SIG_IGN && !real) return;
  if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
    before.sa_handler(signal);
    return;
  }
  // The default: the faulting instruction runs again when we return, and this time it is fatal.
  struct sigaction fatal {};
  fatal.sa_handler = SIG_DFL;
  sigaction(signal, &fatal, nullptr);
  if (!real) raise(signal);  // blocked until we return
}

std::size_t signal_stack_size() noexcept {
  const long least = sysconf(_SC_MINSIGSTKSZ);
  return std::max<std::size_t>(least > 0 ? static_cast<std::size_t>(least) : 0, 16384) * 2;
}

}  // namespace

void install_overflow_message() noexcept {
  struct sigaction ours {};
  ours.sa_sigaction = &on_fault;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&ours.sa_mask);
  // Whoever was there is known before ours is in place.
  if (sigaction(SIGSEGV, nullptr, &before_segv) == 0) sigaction(SIGSEGV, &ours, nullptr);
  if (sigaction(SIGBUS, nullptr, &before_bus) == 0) sigaction(SIGBUS, &ours, nullptr);
}

void* make_signal_stack() noexcept {
  stack_t now{};
  if (sigaltstack(nullptr, &now) != 0 || (now.ss_flags & SS_DISABLE) == 0) return nullptr;
  const std::size_t size = signal_stack_size();
  void* const at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return nullptr;
  stack_t ours{};
  ours.ss_sp = at;
  ours.ss_size = size;
  if (sigaltstack(&ours, nullptr) == 0) return at;
  munmap(at, size);
  return nullptr;
}

void drop_signal_stack(void* stack) noexcept {
  if (stack == nullptr) return;
  stack_t now{};
  if (sigaltstack(nullptr, &now) != 0) return;
  if (now.ss_sp == stack) {
    stack_t off{};
    off.ss_flags = SS_DISABLE;
    if (sigaltstack(&off, nullptr) != 0) return;
  }
  munmap(stack, signal_stack_size());
}

}  // namespace asio_pulse::detail
