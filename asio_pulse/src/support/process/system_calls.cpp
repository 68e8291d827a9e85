// SPDX-License-Identifier: BSL-1.0

#include "system_calls.hpp"

#include <algorithm>
#include <iterator>

#if defined(__linux__)
#include <sys/syscall.h>
#endif

namespace asio_pulse::detail {
namespace {

struct call {
  long number;
  std::string_view name;
};

#if defined(__linux__)
constexpr call of_the_headers[] = {
#define ASIO_PULSE_SYSTEM_CALL(name) {SYS_##name, #name},
#include "system_call_names.inc"
#undef ASIO_PULSE_SYSTEM_CALL
};
#else
constexpr call of_the_headers[] = {{-1, {}}};
#endif

// From 424 on a call has the same number on every processor, so these need not be in the headers.
constexpr call of_later_kernels[] = {
    {424, "pidfd_send_signal"},
    {425, "io_uring_setup"},
    {426, "io_uring_enter"},
    {427, "io_uring_register"},
    {428, "open_tree"},
    {429, "move_mount"},
    {430, "fsopen"},
    {431, "fsconfig"},
    {432, "fsmount"},
    {433, "fspick"},
    {434, "pidfd_open"},
    {435, "clone3"},
    {436, "close_range"},
    {437, "openat2"},
    {438, "pidfd_getfd"},
    {439, "faccessat2"},
    {440, "process_madvise"},
    {441, "epoll_pwait2"},
    {442, "mount_setattr"},
    {443, "quotactl_fd"},
    {444, "landlock_create_ruleset"},
    {445, "landlock_add_rule"},
    {446, "landlock_restrict_self"},
    {447, "memfd_secret"},
    {448, "process_mrelease"},
    {449, "futex_waitv"},
    {450, "set_mempolicy_home_node"},
    {451, "cachestat"},
    {452, "fchmodat2"},
    {453, "map_shadow_stack"},
    {454, "futex_wake"},
    {455, "futex_wait"},
    {456, "futex_requeue"},
    {457, "statmount"},
    {458, "listmount"},
    {459, "lsm_get_self_attr"},
    {460, "lsm_set_self_attr"},
    {461, "lsm_list_modules"},
    {462, "mseal"},
    {463, "setxattrat"},
    {464, "getxattrat"},
    {465, "listxattrat"},
    {466, "removexattrat"},
    {467, "open_tree_attr"},
    {468, "file_getattr"},
    {469, "file_setattr"},
    {470, "listns"},
    {471, "rseq_slice_yield"},
};

// In alphabetical order.
constexpr std::string_view with_descriptor[] = {
    "accept",
    "accept4",
    "bind",
    "close",
    "connect",
    "copy_file_range",
    "dup",
    "dup2",
    "dup3",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_wait",
    "fadvise64",
    "fallocate",
    "fchdir",
    "fchmod",
    "fchown",
    "fcntl",
    "fdatasync",
    "fgetxattr",
    "flistxattr",
    "flock",
    "fremovexattr",
    "fsetxattr",
    "fstat",
    "fstatfs",
    "fsync",
    "ftruncate",
    "getdents",
    "getdents64",
    "getpeername",
    "getsockname",
    "getsockopt",
    "io_uring_enter",
    "ioctl",
    "listen",
    "lseek",
    "pidfd_getfd",
    "pidfd_send_signal",
    "pread64",
    "preadv",
    "preadv2",
    "pwrite64",
    "pwritev",
    "pwritev2",
    "read",
    "readahead",
    "readv",
    "recvfrom",
    "recvmmsg",
    "recvmsg",
    "sendfile",
    "sendmmsg",
    "sendmsg",
    "sendto",
    "setsockopt",
    "shutdown",
    "signalfd4",
    "splice",
    "sync_file_range",
    "syncfs",
    "tee",
    "timerfd_gettime",
    "timerfd_settime",
    "vmsplice",
    "write",
    "writev",
};
static_assert(std::is_sorted(std::begin(with_descriptor), std::end(with_descriptor)));

template <class Calls>
std::string_view find(const Calls& calls, long number) noexcept {
  const auto* const at = std::find_if(std::begin(calls), std::end(calls),
                                      [number](const call& c) { return c.number == number; });
  return at != std::end(calls) ? at->name : std::string_view{};
}

}  // namespace

std::string_view system_call_name(long number) noexcept {
  if (number < 0) return {};
  const std::string_view name = find(of_the_headers, number);
  return !name.empty() ? name : find(of_later_kernels, number);
}

bool takes_descriptor(std::string_view call) noexcept {
  return std::binary_search(std::begin(with_descriptor), std::end(with_descriptor), call);
}

}  // namespace asio_pulse::detail
