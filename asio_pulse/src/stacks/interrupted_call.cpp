// SPDX-License-Identifier: BSL-1.0

#include "interrupted_call.hpp"

#if defined(__linux__) && defined(__x86_64__)

#include <features.h>
#include <sys/syscall.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <initializer_list>
#include <iterator>
#if defined(__GLIBC__)
#include <gnu/libc-version.h>

#include <charconv>
#include <string_view>
#endif

#include "stack_copy.hpp"

namespace asio_pulse::detail {
namespace {

// Calls that return EINTR even if the handler has SA_RESTART, in ascending order. The kernel does
// not change the registers with their arguments, so the same call can be made again. A relative
// time-out then starts again, and so ends later by the time that the call had lasted.
//
// close is missing, since its descriptor is gone, and sigsuspend, which waits for a signal.
constexpr long repeatable[] = {
    SYS_read,
    SYS_write,
    SYS_poll,
    SYS_readv,
    SYS_writev,
    SYS_select,
    SYS_pause,
    SYS_nanosleep,
    SYS_connect,
    SYS_accept,
    SYS_sendto,
    SYS_recvfrom,
    SYS_sendmsg,
    SYS_recvmsg,
    SYS_semop,
    SYS_msgsnd,
    SYS_msgrcv,
    SYS_rt_sigtimedwait,
    SYS_futex,
    SYS_io_getevents,
    SYS_semtimedop,
    SYS_clock_nanosleep,
    SYS_epoll_wait,
    SYS_mq_timedsend,
    SYS_mq_timedreceive,
    SYS_pselect6,
    SYS_ppoll,
    SYS_epoll_pwait,
    SYS_accept4,
    SYS_recvmmsg,
    SYS_sendmmsg,
    426,  // io_uring_enter
    441,  // epoll_pwait2
};
static_assert(std::is_sorted(std::begin(repeatable), std::end(repeatable)));

/// Which argument is a signal mask for the duration of the call; negative if none is. With such a
/// call a program waits for a signal, so it must return for every signal.
int mask_argument(long number) noexcept {
  switch (number) {
    case SYS_ppoll:
      return 3;
    case SYS_pselect6:
      return 5;
    case SYS_epoll_pwait:
    case 441:
    case 426:
      return 4;
    default:
      return -1;
  }
}

// The longest sequence that is recognised: a byte before it, the number, two arguments from the
// stack, and the call.
constexpr std::size_t longest_sequence = 1 + 5 + 2 * 5 + 2;

using code_bytes = std::span<const std::uint8_t>;

bool ends_with(code_bytes code, std::initializer_list<std::uint8_t> with) noexcept {
  return code.size() >= with.size() &&
         std::equal(with.begin(), with.end(),
                    code.end() - static_cast<std::ptrdiff_t>(with.size()));
}

bool rex(std::uint8_t byte) noexcept { return (byte & 0xf0U) == 0x40; }

/// The length of the last instruction if it loads a register other than the accumulator from the
/// stack: mov (%rsp) or mov disp8(%rsp). 0 if it is another instruction.
std::size_t stack_load(code_bytes code) noexcept {
  for (const bool displaced : {true, false}) {
    const std::size_t length = displaced ? 4 : 3;
    if (code.size() <= length) continue;
    const code_bytes load = code.last(length);
    if (load[0] != 0x8b || (load[1] & 0xc7U) != (displaced ? 0x44U : 0x04U) || load[2] != 0x24) {
      continue;
    }
    const std::uint8_t before = code[code.size() - length - 1];
    const bool prefixed = rex(before);
    const bool extended = prefixed && (before & 4U) != 0;  // REX.R: %r8 to %r15
    if ((load[1] & 0x38U) == 0 && !extended) return 0;
    return length + (prefixed ? 1 : 0);
  }
  return 0;
}

std::span<const std::uint64_t, 6> arguments_of(const gregset_t& registers,
                                               std::array<std::uint64_t, 6>& to) noexcept {
  static constexpr int order[] = {REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8, REG_R9};
  for (std::size_t i = 0; i != to.size(); ++i) {
    to[i] = static_cast<std::uint64_t>(registers[order[i]]);
  }
  return to;
}

}  // namespace

std::optional<long> call_number(code_bytes code) noexcept {
  if (!ends_with(code, {0x0f, 0x05})) return std::nullopt;
  code = code.first(code.size() - 2);
  for (int loads = 0; loads != 2; ++loads) {
    const std::size_t length = stack_load(code);
    if (length == 0) break;
    code = code.first(code.size() - length);
  }
  // With a prefix it would be another register.
  if (ends_with(code, {0x31, 0xc0}) && code.size() > 2 && !rex(code[code.size() - 3])) return 0;
  if (code.size() < 6) return std::nullopt;
  const code_bytes load = code.last(5);
  if (load[0] != 0xb8 || rex(code[code.size() - 6])) return std::nullopt;
  std::uint32_t number = 0;
  for (std::size_t i = 4; i != 0; --i) number = number << 8U | load[i];
  return static_cast<long>(number);
}

bool may_be_made_again(long number, std::span<const std::uint64_t, 6> arguments) noexcept {
  if (!std::binary_search(std::begin(repeatable), std::end(repeatable), number)) return false;
  const int mask = mask_argument(number);
  if (mask < 0) return true;
  const std::uint64_t word = arguments[static_cast<std::size_t>(mask)];
  if (word == 0 || number != SYS_pselect6) return word == 0;
  // A pointer to the address and size of the mask, which the kernel has read before.
  std::uint64_t address = 0;
  // NOLINTNEXTLINE(performance-no-int-to-ptr): the address is in a register
  std::memcpy(&address, reinterpret_cast<const void*>(word), sizeof address);
  return address == 0;
}

void make_interrupted_call_again(void* context) noexcept {
  gregset_t& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  if (registers[REG_RAX] != -EINTR) return;
  const auto end = static_cast<std::uintptr_t>(registers[REG_RIP]);
  std::array<std::uint8_t, longest_sequence> code{};
  const std::size_t read = copy_mapped(end - code.size(), std::as_writable_bytes(std::span(code)),
                                       chosen_memory_reader());
  if (read != code.size()) return;
  const std::optional<long> number = call_number(code);
  std::array<std::uint64_t, 6> arguments{};
  if (!number || !may_be_made_again(*number, arguments_of(registers, arguments))) return;
  constexpr greg_t instruction = 2;
  registers[REG_RIP] -= instruction;
  registers[REG_RAX] = *number;
}

bool calls_can_be_made_again() noexcept {
#if defined(__GLIBC__)
  // From glibc 2.41 on the instructions before the call no longer load the number.
  static const bool known = [] {
    const std::string_view version = ::gnu_get_libc_version();
    const auto dot = version.find('.');
    int major = 0;
    int minor = 0;
    if (dot == version.npos) return false;
    std::from_chars(version.data(), version.data() + dot, major);
    std::from_chars(version.data() + dot + 1, version.data() + version.size(), minor);
    return major == 2 && minor <= 40;
  }();
  return known;
#else
  return false;
#endif
}

}  // namespace asio_pulse::detail

#else

namespace asio_pulse::detail {

std::optional<long> call_number(std::span<const std::uint8_t>) noexcept { return std::nullopt; }
bool may_be_made_again(long, std::span<const std::uint64_t, 6>) noexcept { return false; }
void make_interrupted_call_again(void*) noexcept {}
bool calls_can_be_made_again() noexcept { return false; }

}  // namespace asio_pulse::detail

#endif
