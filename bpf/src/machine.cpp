// SPDX-License-Identifier: BSL-1.0
//
// Finds out what the machine has. What cannot be read counts as missing.
#include "check.hpp"
#include "process_info.hpp"
#include "service/client.hpp"
#include "threads/thread_slices.hpp"

#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <fmt/core.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <exception>
#include <memory>

namespace asio_pulse::scx {
namespace {

constexpr const char* btf_path = "/sys/kernel/btf/vmlinux";

// kernel.bpf.h declares them.
constexpr kfunc kfuncs[] = {
    {"scx_bpf_create_dsq"},
    {"scx_bpf_dsq_nr_queued"},
    {"scx_bpf_kick_cpu"},
    {"scx_bpf_pick_idle_cpu"},
    {"scx_bpf_test_and_clear_cpu_idle"},
    {"scx_bpf_task_cpu"},
    {"bpf_cpumask_test_cpu"},
    {"bpf_rcu_read_lock"},
    {"bpf_rcu_read_unlock"},
    {"bpf_iter_scx_dsq_new"},
    {"bpf_iter_scx_dsq_next"},
    {"bpf_iter_scx_dsq_destroy"},
    {"scx_bpf_dsq_insert", "scx_bpf_dispatch"},
    {"scx_bpf_dsq_move_to_local", "scx_bpf_consume"},
    {"scx_bpf_dsq_move", "scx_bpf_dispatch_from_dsq"},
    {"scx_bpf_dsq_move_vtime", "scx_bpf_dispatch_vtime_from_dsq"},
    {"__scx_bpf_dsq_insert_vtime", "scx_bpf_dsq_insert_vtime", "scx_bpf_dispatch_vtime"},
};

// include/linux/proc_ns.h: the inodes of the namespaces that the system boots with.
constexpr ino_t first_user_inode = 0xEFFFFFFDU;
constexpr ino_t first_pid_inode = 0xEFFFFFFCU;

std::string trimmed(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

std::uint64_t effective_capabilities() {
  constexpr std::string_view key = "\nCapEff:\t";
  const auto status = read_file("/proc/self/status");
  if (!status) return 0;
  const std::size_t at = status->find(key);
  if (at == std::string::npos) return 0;
  std::uint64_t mask = 0;
  const char* const start = status->data() + at + key.size();
  std::from_chars(start, status->data() + status->size(), mask, 16);
  return mask;
}

constexpr unsigned cap_sys_admin = 21;

int silent(libbpf_print_level, const char*, va_list) { return 0; }

struct btf_deleter {
  void operator()(btf* types) const noexcept { btf__free(types); }
};

void look_at_btf(machine& found) {
  if (::access(btf_path, F_OK) != 0) return;
  found.btf = btf_state::unreadable;
  if (::access(btf_path, R_OK) != 0) return;
  const libbpf_print_fn_t before = libbpf_set_print(silent);
  const std::unique_ptr<btf, btf_deleter> types(btf__parse(btf_path, nullptr));
  libbpf_set_print(before);
  if (!types) return;
  found.btf = btf_state::readable;
  found.scheduler_type = btf__find_by_name_kind(types.get(), "sched_ext_ops", BTF_KIND_STRUCT) > 0;
  for (const kfunc& names : kfuncs) {
    std::string all;
    bool known = false;
    for (const std::string_view name : names) {
      if (name.empty()) continue;
      if (!all.empty()) all += " or ";
      all += name;
      // The names are literals, and so terminated.
      known = known || btf__find_by_name_kind(types.get(), name.data(), BTF_KIND_FUNC) > 0;
    }
    if (!known) found.missing_kfuncs.push_back(std::move(all));
  }
}

// From 6.12 on, sched_getattr() reports the slice of an ordinary thread.
bool takes_slice_requests() {
  detail::scheduling_attributes mine;
  return ::syscall(SYS_sched_getattr, 0, &mine, sizeof mine, 0) == 0 && mine.runtime != 0;
}

bool extends_slices() {
  constexpr int pr_rseq_slice_extension = 79;  // include/uapi/linux/prctl.h
  constexpr unsigned long get = 1;
  return ::prctl(pr_rseq_slice_extension, get, 0UL, 0UL, 0UL) >= 0;
}

}  // namespace

std::span<const kfunc> needed_kfuncs() noexcept { return kfuncs; }

namespace_state look_at_namespace(const std::string& self, std::string_view name) {
  struct stat found {};
  if (::stat(fmt::format("{}/ns/{}", self, name).c_str(), &found) == 0) {
    const ino_t first = name == "user" ? first_user_inode : first_pid_inode;
    return found.st_ino == first ? namespace_state::first : namespace_state::other;
  }
  // A kernel without such namespaces does not have this file, but the rest of /proc.
  const bool absent = errno == ENOENT;
  return absent && ::access((self + "/status").c_str(), F_OK) == 0 ? namespace_state::first
                                                                   : namespace_state::unknown;
}

machine look_at_machine(const std::string& socket_path) {
  machine found;
  utsname names{};
  if (::uname(&names) == 0) found.kernel_release = names.release;
  struct stat folder {};
  found.sched_ext = ::stat("/sys/kernel/sched_ext", &folder) == 0 && S_ISDIR(folder.st_mode);
  if (found.sched_ext) {
    const std::string state = trimmed(read_file("/sys/kernel/sched_ext/state").value_or(""));
    if (state != "disabled") {
      found.attached = trimmed(read_file("/sys/kernel/sched_ext/root/ops").value_or(""));
      if (found.attached.empty() && !state.empty()) found.attached = "one that is " + state;
    }
  }
  look_at_btf(found);
  found.may_load = ((effective_capabilities() >> cap_sys_admin) & 1U) != 0;
  found.user_namespace = look_at_namespace("/proc/self", "user");
  found.pid_namespace = look_at_namespace("/proc/self", "pid");
  found.pressure = read_pressure();
  found.slice_request = takes_slice_requests();
  found.slice_extension = extends_slices();
  found.socket_path = socket_path;
  try {
    static_cast<void>(ask_status(socket_path));
    found.served = true;
  } catch (const std::exception& why) {
    found.serving = why.what();
  }
  return found;
}

}  // namespace asio_pulse::scx
