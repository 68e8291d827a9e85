// SPDX-License-Identifier: BSL-1.0
#include "check.hpp"

#include <boost/json.hpp>

#include <fmt/core.h>

#include <algorithm>
#include <iterator>
#include <utility>

namespace asio_pulse::scx {
namespace {

namespace json = boost::json;

json::string to_json(const std::string& text) { return json::string(text.data(), text.size()); }

check_item item(std::string name, bool needed, bool present, std::string detail,
                std::string remedy) {
  return {.name = std::move(name),
          .present = present,
          .needed = needed,
          .detail = std::move(detail),
          .remedy = present ? std::string() : std::move(remedy)};
}

check_item judge_btf(const machine& found) {
  switch (found.btf) {
    case btf_state::readable:
      return item("btf", true, true, "/sys/kernel/btf/vmlinux can be read", "");
    case btf_state::unreadable:
      return item("btf", true, false, "/sys/kernel/btf/vmlinux cannot be read",
                  "run scx_pulse as root, outside of containers that hide /sys");
    case btf_state::absent:
      break;
  }
  return item("btf", true, false, "there is no /sys/kernel/btf/vmlinux",
              "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y (Debian's are), with /sys mounted");
}

check_item judge_kfuncs(const machine& found) {
  constexpr const char* remedy =
      "boot another kernel, 6.12 or later: this one lacks functions that the scheduler needs";
  if (found.btf != btf_state::readable) {
    return item("kfuncs", true, false, "unknown without the kernel's BTF", remedy);
  }
  if (!found.scheduler_type) {
    return item("kfuncs", true, false, "the kernel has no struct sched_ext_ops", remedy);
  }
  if (found.missing_kfuncs.empty()) {
    return item("kfuncs", true, true, "the kernel has all functions that the scheduler calls", "");
  }
  std::string missing;
  for (const std::string& name : found.missing_kfuncs)
    missing += (missing.empty() ? "" : ", ") + name;
  return item("kfuncs", true, false, fmt::format("the kernel lacks {}", missing), remedy);
}

check_item judge_privileges(const machine& found) {
  const bool user = found.user_namespace == namespace_state::other;
  if (user || found.pid_namespace == namespace_state::other) {
    return item(
        "privileges", true, false,
        fmt::format("this is a {} namespace of its own, and the kernel knows threads by their "
                    "numbers outside",
                    user ? "user" : "PID"),
        "run scx_pulse outside of containers (or with the host's PID and user namespaces)");
  }
  if (found.user_namespace == namespace_state::unknown ||
      found.pid_namespace == namespace_state::unknown) {
    return item("privileges", true, false,
                "it is not known whether this is a container: /proc/self/ns cannot be read",
                "mount /proc");
  }
  return item("privileges", true, found.may_load,
              found.may_load ? "CAP_SYS_ADMIN is in effect" : "CAP_SYS_ADMIN is not in effect",
              "run scx_pulse as root, or give it CAP_SYS_ADMIN");
}

}  // namespace

check_report judge(const machine& found) {
  check_report report;
  report.kernel_release = found.kernel_release;
  auto& items = report.items;
  items.push_back(
      item("sched_ext", true, found.sched_ext,
           found.sched_ext ? "/sys/kernel/sched_ext is there"
                           : "this kernel has no sched_ext (no /sys/kernel/sched_ext)",
           "boot a kernel built with CONFIG_SCHED_CLASS_EXT=y: Linux has it from 6.12 on, "
           "Debian's kernels from 6.16 on (trixie-backports)"));
  items.push_back(judge_btf(found));
  items.push_back(judge_kfuncs(found));
  items.push_back(judge_privileges(found));
  items.push_back(item("no_other_scheduler", true, found.attached.empty() || found.served,
                       found.attached.empty() ? std::string("no scheduler is attached")
                       : found.served
                           ? fmt::format("scx_pulse runs here already, as {}", found.attached)
                           : fmt::format("the scheduler {} is attached", found.attached),
                       "end that scheduler first: the kernel attaches one at a time"));
  items.push_back(item(
      "pressure", false, found.pressure.known,
      found.pressure.known ? "/proc/pressure can be read" : "the kernel reports no pressure (PSI)",
      "boot with psi=1, or a kernel built with CONFIG_PSI=y; until then programs see "
      "a pressure of 0"));
  items.push_back(
      item("slice_request", false, found.slice_request,
           found.slice_request ? "sched_setattr() takes a slice length for ordinary threads (EEVDF)"
                               : "ordinary threads cannot ask for a slice length",
           "Linux has it from 6.12 on; without it the watchdog is served a little later"));
  items.push_back(
      item("slice_extension", false, found.slice_extension,
           found.slice_extension ? "threads can ask for a longer slice (rseq)"
                                 : "absent: threads cannot ask for a longer slice (rseq)",
           "Linux has it from 7.0 on, built with CONFIG_RSEQ_SLICE_EXTENSION=y; nothing "
           "here depends on it"));
  report.can_run = std::all_of(items.begin(), items.end(),
                               [](const check_item& i) { return i.present || !i.needed; });
  if (found.served) {
    report.hint_source = "scx_pulse";
    report.hints = fmt::format("from the scx_pulse that serves {}", found.socket_path);
  } else if (found.pressure.known) {
    report.hint_source = "local";
    report.hints = fmt::format(
        "local, from /proc/pressure and the threads' own involuntary switches ({})", found.serving);
  } else {
    report.hint_source = "none";
    report.hints =
        fmt::format("none ({}); programs use only their own clocks and watchdog", found.serving);
  }
  return report;
}

std::string check_text(const check_report& report) {
  std::string out = fmt::format("scx_pulse {} run here (kernel {})\n",
                                report.can_run ? "can" : "cannot", report.kernel_release);
  for (const check_item& one : report.items) {
    const char* const state = one.present ? "ok" : one.needed ? "MISSING" : "absent";
    out += fmt::format("  {:<8} {:<20} {}\n", state, one.name, one.detail);
    if (!one.remedy.empty()) {
      out += fmt::format("  {:<8} {:<20} -> {}\n", "", "", one.remedy);
    }
  }
  out += fmt::format("hints for programs: {}\n", report.hints);
  return out;
}

std::string check_json(const check_report& report) {
  json::object out;
  out["can_run"] = report.can_run;
  out["kernel"] = to_json(report.kernel_release);
  json::array items;
  for (const check_item& one : report.items) {
    json::object entry;
    entry["name"] = to_json(one.name);
    entry["present"] = one.present;
    entry["needed"] = one.needed;
    entry["detail"] = to_json(one.detail);
    entry["remedy"] = to_json(one.remedy);
    items.push_back(std::move(entry));
  }
  out["items"] = std::move(items);
  out["hint_source"] = to_json(report.hint_source);
  out["hints"] = to_json(report.hints);
  return std::string(json::serialize(out));
}

std::string what_is_missing(const check_report& report) {
  std::string out;
  for (const check_item& one : report.items) {
    if (one.present || !one.needed) continue;
    if (!out.empty()) out += '\n';
    out += fmt::format("{}: {}: {}", one.name, one.detail, one.remedy);
  }
  return out;
}

}  // namespace asio_pulse::scx
