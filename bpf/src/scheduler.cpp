// SPDX-License-Identifier: BSL-1.0
#include "scheduler.hpp"

#include "scx_pulse.skel.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fmt/core.h>
#include <linux/bpf.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <map>
#include <stdexcept>
#include <system_error>
#include <vector>

namespace asio_pulse::scx {
namespace {

// The kernel headers of the build may be older than these.
constexpr std::uint32_t flag_link = 1U << 13;            // BPF_F_LINK
constexpr std::uint32_t attach_type_struct_ops = 44;     // BPF_STRUCT_OPS
constexpr std::uint64_t exit_kind_unregistered = 64;     // SCX_EXIT_UNREG
constexpr std::uint64_t exit_code_restart = 1ULL << 48;  // SCX_ECODE_ACT_RESTART

constexpr char sched_ext_folder[] = "/sys/kernel/sched_ext";
constexpr char kernel_btf[] = "/sys/kernel/btf/vmlinux";

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

[[noreturn]] void fail(const std::string& sentence) { throw std::runtime_error(sentence); }

[[noreturn]] void fail_errno(int error, const char* what) {
  throw std::system_error(error, std::system_category(), what);
}

// libbpf has one message callback for the whole process. A warning says more than errno does.
std::string first_warning;
bool print_all = false;

[[gnu::format(printf, 2, 0)]] int on_message(libbpf_print_level level, const char* format,
                                             va_list arguments) {
  va_list again;
  va_copy(again, arguments);
  if (level == LIBBPF_WARN) {
    char text[512];
    std::vsnprintf(text, sizeof(text), format, arguments);
    // The first warning is closest to the cause.
    if (first_warning.empty()) first_warning = text;
    while (!first_warning.empty() && first_warning.back() == '\n') first_warning.pop_back();
  }
  if (print_all) std::vfprintf(stderr, format, again);
  va_end(again);
  return 0;
}

/// "0-3,8" as numbers, all below `most`.
std::vector<unsigned> parse_cpu_list(const std::string& list, unsigned most) {
  std::vector<unsigned> cpus;
  for (std::size_t at = 0; at < list.size();) {
    std::size_t used = 0;
    const unsigned first = static_cast<unsigned>(std::stoul(list.substr(at), &used));
    at += used;
    unsigned last = first;
    if (at < list.size() && list[at] == '-') {
      last = static_cast<unsigned>(std::stoul(list.substr(at + 1), &used));
      at += used + 1;
    }
    if (last >= most) fail(fmt::format("CPU {} is more than scx_pulse can serve ({})", last, most));
    for (unsigned cpu = first; cpu <= last; ++cpu) cpus.push_back(cpu);
    if (at < list.size()) ++at;  // the comma
  }
  return cpus;
}

std::vector<unsigned> cpus_in(const char* file) {
  const std::string list = first_line(fmt::format("/sys/devices/system/cpu/{}", file));
  if (list.empty()) fail(fmt::format("cannot read /sys/devices/system/cpu/{}", file));
  return parse_cpu_list(list, SCX_PULSE_MOST_CPUS);
}

/// The CPUs that share the last-level cache with this one, as the kernel writes them. Empty if it
/// does not say; such CPUs form one domain.
std::string cache_of(unsigned cpu) {
  std::string shared;
  int highest = 0;
  for (int index = 0; index < 16; ++index) {
    const std::string folder =
        fmt::format("/sys/devices/system/cpu/cpu{}/cache/index{}/", cpu, index);
    const std::string level = first_line(folder + "level");
    if (level.empty()) break;
    if (std::atoi(level.c_str()) <= highest) continue;
    highest = std::atoi(level.c_str());
    shared = first_line(folder + "shared_cpu_list");
  }
  return shared;
}

void check_machine() {
  if (::access(sched_ext_folder, F_OK) != 0)
    fail(
        "this kernel has no sched_ext: it takes Linux 6.12 or later, built with "
        "CONFIG_SCHED_CLASS_EXT");
  if (::access(kernel_btf, R_OK) != 0)
    fail(fmt::format(
        "the kernel's type information, {}, cannot be read ({}): it takes a kernel built with "
        "CONFIG_DEBUG_INFO_BTF",
        kernel_btf, std::strerror(errno)));
  const std::string state = first_line(fmt::format("{}/state", sched_ext_folder));
  if (state == "disabled" || state.empty()) return;
  const std::string ops = first_line(fmt::format("{}/root/ops", sched_ext_folder));
  fail(fmt::format("another sched_ext scheduler is attached ({}): end it first",
                   ops.empty() ? state : ops));
}

void check_settings(const scx_pulse_settings& s) {
  const auto require = [](bool holds, const char* rule) {
    if (!holds) throw std::invalid_argument(rule);
  };
  require(s.slice_ns >= 100'000 && s.slice_ns <= 1'000'000'000,
          "slice: it must be from 100 us to 1 s");
  require(s.grace_ns <= 60'000'000'000, "grace: it must be at most 60 s");
  // The kernel ends a scheduler that lets a runnable thread wait for 30 s.
  require(s.max_critical_ns <= 10'000'000'000, "max_critical: it must be at most 10 s");
  require(s.throttle_ns >= 1'000'000 && s.throttle_ns <= 60'000'000'000,
          "throttle: it must be from 1 ms to 60 s");
  require(s.throttle_percent >= 1 && s.throttle_percent <= 100,
          "throttle_percent: it must be from 1 to 100");
  require(s.mode <= ASIO_PULSE_MODE_ENFORCED, "mode: it must be observer or enforced");
}

struct process {
  unique_fd map;
  asio_pulse_scb* blocks = nullptr;
  std::size_t bytes = 0;
};

}  // namespace

struct scheduler::impl {
  scx_pulse_bpf* skeleton = nullptr;
  unique_fd link;
  ring_buffer* ring = nullptr;
  const std::function<void(const asio_pulse_hint&)>* on_hint = nullptr;
  std::exception_ptr thrown;
  std::map<pid_t, process> processes;
  std::map<pid_t, pid_t> workers;  // tid to thread group
  std::uint64_t serial = 0;
  std::uint32_t cpu_numbers = 0;  // one more than the largest CPU number
  std::uint32_t cpus = 0;

  ~impl() {
    link.reset();  // detaches, and waits until that is complete
    ring_buffer__free(ring);
    for (auto& [tgid, p] : processes) ::munmap(p.blocks, p.bytes);
    scx_pulse_bpf__destroy(skeleton);
  }

  void describe_machine();
  void load(const scheduler_options& options);
  void attach();
  void changed_workers() noexcept {
    __atomic_add_fetch(&skeleton->data->generation, 1, __ATOMIC_RELEASE);
  }
  static int hint(void* self, void* record, std::size_t bytes);
};

void scheduler::impl::describe_machine() {
  auto& rodata = *skeleton->rodata;
  const std::vector<unsigned> online = cpus_in("online");
  cpu_numbers = 1 + cpus_in("possible").back();
  cpus = static_cast<std::uint32_t>(online.size());
  std::map<std::string, std::vector<unsigned>> domains;
  for (const unsigned cpu : online) domains[cache_of(cpu)].push_back(cpu);
  unsigned at = 0;
  unsigned domain = 0;
  for (const auto& [name, members] : domains) {
    rodata.domain_first[domain] = static_cast<std::uint16_t>(at);
    rodata.domain_size[domain] = static_cast<std::uint16_t>(members.size());
    for (const unsigned cpu : members) {
      rodata.cpu_domain[cpu] = static_cast<std::uint16_t>(domain);
      rodata.domain_cpus[at++] = static_cast<std::uint16_t>(cpu);
    }
    ++domain;
  }
  rodata.nr_cpus = cpu_numbers;
  rodata.nr_online = cpus;
  rodata.nr_domains = domain;
}

void scheduler::impl::load(const scheduler_options& options) {
  skeleton = scx_pulse_bpf__open();
  if (skeleton == nullptr)
    fail(fmt::format("the sched_ext program cannot be opened: {}", first_warning));
  skeleton->rodata->local_policy = options.policy;
  describe_machine();
  bpf_program__set_flags(skeleton->progs.scx_pulse_init, BPF_F_SLEEPABLE);
  bpf_map__set_map_flags(skeleton->maps.scx_pulse, flag_link);
  std::uint32_t ring_bytes = 4096;  // the kernel requires a power of two, and whole pages
  while (ring_bytes < options.ring_bytes && ring_bytes < 1U << 30) ring_bytes *= 2;
  bpf_map__set_max_entries(skeleton->maps.hints, ring_bytes);

  const int error = scx_pulse_bpf__load(skeleton);
  if (error == -EPERM || error == -EACCES) {
    if (::geteuid() != 0)
      fail(
          "loading a scheduler is not permitted: run as root, or with CAP_BPF, CAP_PERFMON and "
          "CAP_SYS_ADMIN");
    fail(fmt::format("loading the scheduler is not permitted here ({}): {}", std::strerror(-error),
                     first_warning));
  }
  if (error != 0)
    fail(fmt::format("the kernel refuses the sched_ext program ({}): {}", std::strerror(-error),
                     first_warning));
}

// With a BPF link, the scheduler ends with the link's last descriptor, and so also if this process
// is killed. libbpf 1.1 does not support such links. It fills in the map, and the rest is a system
// call.
void scheduler::impl::attach() {
  bpf_link* filled = bpf_map__attach_struct_ops(skeleton->maps.scx_pulse);
  if (filled == nullptr)
    fail(fmt::format("the scheduler cannot be registered ({}): {}", std::strerror(errno),
                     first_warning));
  bpf_link__disconnect(filled);
  bpf_link__destroy(filled);

  bpf_attr attr{};
  attr.link_create.prog_fd = static_cast<std::uint32_t>(bpf_map__fd(skeleton->maps.scx_pulse));
  attr.link_create.attach_type = attach_type_struct_ops;
  link = unique_fd(static_cast<int>(::syscall(__NR_bpf, BPF_LINK_CREATE, &attr, sizeof(attr))));
  if (link) return;
  const int error = errno;
  if (error == EBUSY) check_machine();  // another scheduler was attached meanwhile; this names it
  if (skeleton->bss->exit_info.kind != 0)
    fail(fmt::format("the kernel refuses the scheduler ({}): {}", std::strerror(error),
                     skeleton->bss->exit_info.message));
  fail(fmt::format("the scheduler cannot be attached: {}", std::strerror(error)));
}

int scheduler::impl::hint(void* self, void* record, std::size_t bytes) {
  auto& me = *static_cast<impl*>(self);
  if (bytes < sizeof(asio_pulse_hint)) return 0;
  try {
    (*me.on_hint)(*static_cast<const asio_pulse_hint*>(record));
  } catch (...) {  // exceptions must not pass through libbpf
    me.thrown = std::current_exception();
    return -ECANCELED;
  }
  return 0;
}

scheduler::scheduler(const scheduler_options& options) : impl_(std::make_unique<impl>()) {
  scx_pulse_settings first{};
  first.slice_ns = static_cast<std::uint64_t>(options.slice.count());
  first.grace_ns = static_cast<std::uint64_t>(options.grace.count());
  first.max_critical_ns = static_cast<std::uint64_t>(options.max_critical.count());
  first.throttle_ns = static_cast<std::uint64_t>(options.throttle.count());
  first.throttle_percent = options.throttle_percent;
  first.mode = options.mode;
  first.imbalance = options.imbalance;
  check_settings(first);

  print_all = options.debug;
  first_warning.clear();
  libbpf_set_print(on_message);
  check_machine();
  impl_->load(options);
  set(first);
  impl_->ring =
      ring_buffer__new(bpf_map__fd(impl_->skeleton->maps.hints), impl::hint, impl_.get(), nullptr);
  if (impl_->ring == nullptr) fail_errno(errno, "the ring buffer of hints");
  impl_->attach();
}

scheduler::~scheduler() = default;

process_blocks scheduler::open_process(pid_t tgid) {
  bpf_map_create_opts opts{};
  opts.sz = sizeof opts;
  opts.map_flags = BPF_F_MMAPABLE;
  process p;
  p.map = unique_fd(bpf_map_create(BPF_MAP_TYPE_ARRAY, "control_block", sizeof(std::uint32_t),
                                   sizeof(asio_pulse_scb), ASIO_PULSE_SLOT_COUNT, &opts));
  if (!p.map) fail_errno(errno, "a process's control blocks");
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  p.bytes = (ASIO_PULSE_SLOT_COUNT * sizeof(asio_pulse_scb) + page - 1) / page * page;
  void* const memory = ::mmap(nullptr, p.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, p.map.get(), 0);
  if (memory == MAP_FAILED) fail_errno(errno, "mapping a process's control blocks");
  p.blocks = static_cast<asio_pulse_scb*>(memory);

  const scx_pulse_settings now = settings();
  auto& system = *static_cast<asio_pulse_system*>(memory);
  system.abi_version = ASIO_PULSE_ABI_VERSION;
  system.mode = static_cast<std::uint8_t>(now.mode);
  for (unsigned slot = 1; slot < ASIO_PULSE_SLOT_COUNT; ++slot)
    p.blocks[slot].mode = static_cast<std::uint8_t>(now.mode);

  const auto key = static_cast<std::uint32_t>(tgid);
  const int fd = p.map.get();
  if (bpf_map_update_elem(bpf_map__fd(impl_->skeleton->maps.control_blocks), &key, &fd,
                          BPF_NOEXIST) != 0) {
    const int error = errno;
    ::munmap(p.blocks, p.bytes);
    fail_errno(error, "one more process with control blocks");
  }
  const process& kept = impl_->processes.insert_or_assign(tgid, std::move(p)).first->second;
  return {.fd = kept.map.get(), .blocks = {kept.blocks, ASIO_PULSE_SLOT_COUNT}};
}

void scheduler::close_process(pid_t tgid) noexcept {
  const auto found = impl_->processes.find(tgid);
  if (found == impl_->processes.end()) return;
  const int workers = bpf_map__fd(impl_->skeleton->maps.workers);
  std::erase_if(impl_->workers, [&](const auto& worker) {
    if (worker.second != tgid) return false;
    const auto key = static_cast<std::uint32_t>(worker.first);
    bpf_map_delete_elem(workers, &key);
    return true;
  });
  impl_->changed_workers();
  // The kernel returns from this only when no program runs any more that could see the array.
  const auto key = static_cast<std::uint32_t>(tgid);
  bpf_map_delete_elem(bpf_map__fd(impl_->skeleton->maps.control_blocks), &key);
  ::munmap(found->second.blocks, found->second.bytes);
  impl_->processes.erase(found);
}

void scheduler::add_worker(pid_t tid, const scx_pulse_registration& worker) {
  const auto key = static_cast<std::uint32_t>(tid);
  const scx_pulse_worker value{worker, ++impl_->serial};
  if (worker.slot < 1 || worker.slot >= ASIO_PULSE_SLOT_COUNT)
    throw std::invalid_argument("slot: it must be from 1 to 128");
  if (bpf_map_update_elem(bpf_map__fd(impl_->skeleton->maps.workers), &key, &value, BPF_ANY) != 0)
    fail_errno(errno, "one more worker");
  impl_->workers[tid] = static_cast<pid_t>(worker.tgid);
  impl_->changed_workers();
}

void scheduler::remove_worker(pid_t tid) noexcept {
  const auto key = static_cast<std::uint32_t>(tid);
  if (impl_->workers.erase(tid) == 0) return;
  bpf_map_delete_elem(bpf_map__fd(impl_->skeleton->maps.workers), &key);
  impl_->changed_workers();
}

int scheduler::hints_fd() const noexcept { return ring_buffer__epoll_fd(impl_->ring); }

int scheduler::consume_hints(const std::function<void(const asio_pulse_hint&)>& f) {
  impl_->on_hint = &f;
  const int count = ring_buffer__consume(impl_->ring);
  impl_->on_hint = nullptr;
  if (impl_->thrown) std::rethrow_exception(std::exchange(impl_->thrown, nullptr));
  if (count < 0) fail_errno(-count, "reading hints");
  return count;
}

void scheduler::set(const scx_pulse_settings& settings) {
  check_settings(settings);
  const std::uint32_t key = 0;
  if (bpf_map_update_elem(bpf_map__fd(impl_->skeleton->maps.settings), &key, &settings, BPF_ANY) !=
      0)
    fail_errno(errno, "the scheduler's settings");
}

scx_pulse_settings scheduler::settings() const {
  const std::uint32_t key = 0;
  scx_pulse_settings result{};
  if (bpf_map_lookup_elem(bpf_map__fd(impl_->skeleton->maps.settings), &key, &result) != 0)
    fail_errno(errno, "the scheduler's settings");
  return result;
}

scx_pulse_counts scheduler::counts() const {
  constexpr std::size_t words = sizeof(scx_pulse_counts) / sizeof(std::uint64_t);
  static_assert(words * sizeof(std::uint64_t) == sizeof(scx_pulse_counts));
  const std::uint32_t key = 0;
  std::vector<std::uint64_t> all(words * static_cast<std::size_t>(libbpf_num_possible_cpus()));
  if (bpf_map_lookup_elem(bpf_map__fd(impl_->skeleton->maps.counts), &key, all.data()) != 0)
    fail_errno(errno, "the scheduler's counts");
  std::uint64_t sums[words] = {};
  for (std::size_t i = 0; i < all.size(); ++i) sums[i % words] += all[i];
  scx_pulse_counts result{};
  std::memcpy(&result, sums, sizeof(result));
  return result;
}

std::uint32_t scheduler::queued() const {
  const volatile std::uint32_t* const lengths = impl_->skeleton->bss->queue_lengths;
  std::uint32_t sum = 0;
  for (std::uint32_t cpu = 0; cpu < impl_->cpu_numbers; ++cpu) sum += lengths[cpu];
  return sum;
}

std::uint32_t scheduler::cpus() const noexcept { return impl_->cpus; }

std::optional<scheduler_exit> scheduler::exited() const {
  const auto& info = impl_->skeleton->bss->exit_info;
  scheduler_exit result;
  result.kind = __atomic_load_n(&info.kind, __ATOMIC_ACQUIRE);
  if (result.kind == 0) return std::nullopt;
  result.code = info.code;
  result.reason.assign(info.reason, ::strnlen(info.reason, sizeof(info.reason)));
  result.message.assign(info.message, ::strnlen(info.message, sizeof(info.message)));
  result.asked_for = result.kind == exit_kind_unregistered;
  result.restart = (static_cast<std::uint64_t>(result.code) & exit_code_restart) != 0;
  return result;
}

}  // namespace asio_pulse::scx
