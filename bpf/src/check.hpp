// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pressure.hpp"

/// \file
/// What scx_pulse needs of a machine, what this one has, and what to do about the rest.

namespace asio_pulse::scx {

enum class btf_state { readable, unreadable, absent };

/// A kernel function that scx_pulse.bpf.c calls, under any of its names (one, two or three; the
/// newest first). Those that it does without are not among them.
using kfunc = std::array<std::string_view, 3>;
std::span<const kfunc> needed_kfuncs() noexcept;

/// What was found; no judgement.
struct machine {
  std::string kernel_release;  ///< for information: nothing is decided by it
  bool sched_ext = false;      ///< /sys/kernel/sched_ext
  std::string attached;        ///< the scheduler that is attached; empty: none
  btf_state btf = btf_state::absent;
  bool scheduler_type = false;              ///< struct sched_ext_ops, in the kernel's BTF
  std::vector<std::string> missing_kfuncs;  ///< alternatives joined by " or "
  /// CAP_SYS_ADMIN is in effect. The kernel would be content with CAP_BPF and CAP_PERFMON; libbpf,
  /// which looks for the kfuncs of other kernel versions in every module, is not.
  bool may_load = false;
  bool first_user_namespace = false;
  bool first_pid_namespace = false;
  scx::pressure pressure = {};
  bool slice_request = false;    ///< sched_setattr() takes a slice, for the fair class
  bool slice_extension = false;  ///< rseq's
  std::string socket_path;
  bool served = false;       ///< a scx_pulse answers there
  std::string serving = {};  ///< where none does: why
};

/// \par Cost    Reads the kernel's BTF: tens of milliseconds.
/// \par Errors  std::bad_alloc; what cannot be looked at is missing.
machine look_at_machine(const std::string& socket_path);

struct check_item {
  std::string name;
  bool present = false;
  bool needed = false;  ///< by scx_pulse; else it is of use to programs
  std::string detail;
  std::string remedy;  ///< one sentence; empty where it is present, or nothing can be done
};

struct check_report {
  bool can_run = false;
  std::string kernel_release;
  std::vector<check_item> items;
  std::string hint_source;  ///< "scx_pulse", "local" or "none": of programs that want hints
  std::string hints;        ///< the same, as a sentence
};

check_report judge(const machine& found);

std::string check_text(const check_report& report);
std::string check_json(const check_report& report);

/// The remedies of what is needed and missing, for a loader that cannot run: one a line.
std::string what_is_missing(const check_report& report);

}  // namespace asio_pulse::scx
