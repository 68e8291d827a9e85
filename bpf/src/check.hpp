// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "pressure.hpp"

#include <array>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// \file
/// What scx_pulse needs, which of that this machine has, and what to do about the rest.

namespace asio_pulse::scx {

enum class btf_state { readable, unreadable, absent };

/// Which namespace this process is in: the one that the system boots with (the only one in a kernel
/// without namespaces), another one as in a container, or not known.
enum class namespace_state { first, other, unknown };

/// A kernel function that scx_pulse.bpf.c needs, under any of its names (one, two or three, the
/// newest first).
using kfunc = std::array<std::string_view, 3>;
std::span<const kfunc> needed_kfuncs() noexcept;

/// What was found on the machine.
struct machine {
  std::string kernel_release;  ///< for information only
  bool sched_ext = false;      ///< whether /sys/kernel/sched_ext exists
  std::string attached;        ///< the scheduler that is attached; empty if there is none
  btf_state btf = btf_state::absent;
  bool scheduler_type = false;              ///< struct sched_ext_ops, in the kernel's BTF
  std::vector<std::string> missing_kfuncs;  ///< alternatives joined by " or "
  /// CAP_SYS_ADMIN is in effect. For the kernel CAP_BPF and CAP_PERFMON would suffice, but libbpf
  /// needs it to look for the kfuncs of other kernel versions in all modules.
  bool may_load = false;
  namespace_state user_namespace = namespace_state::unknown;
  namespace_state pid_namespace = namespace_state::unknown;
  scx::pressure pressure = {};
  bool slice_request = false;    ///< sched_setattr() takes a slice, for the fair class
  bool slice_extension = false;  ///< whether rseq has the slice extension
  std::string socket_path;
  bool served = false;       ///< whether a scx_pulse answers there
  std::string serving = {};  ///< why none does
};

/// \par Cost    Reads the kernel's BTF: tens of milliseconds.
/// \par Errors  std::bad_alloc. What cannot be read counts as missing.
machine look_at_machine(const std::string& socket_path);

/// \param self  /proc/self.
/// \param name  "user" or "pid".
namespace_state look_at_namespace(const std::string& self, std::string_view name);

struct check_item {
  std::string name;
  bool present = false;
  bool needed = false;  ///< whether scx_pulse needs it; otherwise it is useful for programs
  std::string detail;
  std::string remedy;  ///< a sentence; empty if it is present, or nothing can be done
};

struct check_report {
  bool can_run = false;
  std::string kernel_release;
  std::vector<check_item> items;
  std::string hint_source;  ///< "scx_pulse", "local" or "none", for programs that want hints
  std::string hints;        ///< the same, as a sentence
};

check_report judge(const machine& found);

std::string check_text(const check_report& report);
std::string check_json(const check_report& report);

/// The remedies for what is needed and missing, one on each line, for a loader that cannot run.
std::string what_is_missing(const check_report& report);

}  // namespace asio_pulse::scx
