// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <vector>

/// \file
/// Seccomp filters without libseccomp.

namespace pulse_test {

/// Installs a filter that returns `listed` for these system calls and `others` for all others, in
/// this process and the programs that it executes. `flags` are those of seccomp(2). Ends the
/// process if the filter cannot be installed.
inline void filter_calls(std::span<const long> calls, std::uint32_t listed, std::uint32_t others,
                         unsigned long flags = 0) {
  std::vector<sock_filter> code;
  code.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)));
  for (const long call : calls) {
    code.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(call), 0, 1));
    code.push_back(BPF_STMT(BPF_RET | BPF_K, listed));
  }
  code.push_back(BPF_STMT(BPF_RET | BPF_K, others));
  const sock_fprog filter{.len = static_cast<unsigned short>(code.size()), .filter = code.data()};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &filter) != 0) {
    std::perror("cannot install the seccomp filter");
    ::_exit(127);
  }
}

}  // namespace pulse_test
