// SPDX-License-Identifier: BSL-1.0

#include <asio_pulse/detail/thread_usage.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#if defined(__linux__)
#include <fcntl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#endif

namespace asio_pulse::detail {
namespace parse {
namespace {

/// The number at the front of the text, which is then stepped over, blanks before it included.
template <class Number>
bool take_number(std::string_view& text, Number& value, int base = 10) noexcept {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc{}) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return true;
}

bool named_number(std::string_view text, std::string_view name, std::uint64_t& value) noexcept {
  const std::size_t at = text.find(name);
  if (at == text.npos) return false;
  text.remove_prefix(at + name.size());
  return take_number(text, value);
}

struct call {
  long number;
  std::string_view name;
  bool descriptor;  ///< the first argument is one
};

// The calls that a thread is found waiting in. Not every processor has every one.
#if defined(__linux__)
constexpr call calls[] = {
#define ASIO_PULSE_CALL(name) \
  { SYS_##name, #name, false }
#define ASIO_PULSE_CALL_ON(name) \
  { SYS_##name, #name, true }
    ASIO_PULSE_CALL_ON(read),
    ASIO_PULSE_CALL_ON(write),
    ASIO_PULSE_CALL_ON(readv),
    ASIO_PULSE_CALL_ON(writev),
    ASIO_PULSE_CALL_ON(pread64),
    ASIO_PULSE_CALL_ON(pwrite64),
    ASIO_PULSE_CALL_ON(preadv),
    ASIO_PULSE_CALL_ON(pwritev),
    ASIO_PULSE_CALL_ON(recvfrom),
    ASIO_PULSE_CALL_ON(sendto),
    ASIO_PULSE_CALL_ON(recvmsg),
    ASIO_PULSE_CALL_ON(sendmsg),
    ASIO_PULSE_CALL_ON(recvmmsg),
    ASIO_PULSE_CALL_ON(sendmmsg),
    ASIO_PULSE_CALL_ON(connect),
    ASIO_PULSE_CALL_ON(accept),
    ASIO_PULSE_CALL_ON(accept4),
    ASIO_PULSE_CALL_ON(close),
    ASIO_PULSE_CALL_ON(fsync),
    ASIO_PULSE_CALL_ON(fdatasync),
    ASIO_PULSE_CALL_ON(sync_file_range),
    ASIO_PULSE_CALL_ON(ftruncate),
    ASIO_PULSE_CALL_ON(fallocate),
    ASIO_PULSE_CALL_ON(flock),
    ASIO_PULSE_CALL_ON(fcntl),
    ASIO_PULSE_CALL_ON(ioctl),
    ASIO_PULSE_CALL_ON(getdents64),
    ASIO_PULSE_CALL_ON(fstat),
    ASIO_PULSE_CALL_ON(splice),
    ASIO_PULSE_CALL_ON(tee),
    ASIO_PULSE_CALL_ON(vmsplice),
    ASIO_PULSE_CALL_ON(sendfile),
    ASIO_PULSE_CALL_ON(epoll_pwait),
    ASIO_PULSE_CALL_ON(copy_file_range),
    ASIO_PULSE_CALL(futex),
    ASIO_PULSE_CALL(nanosleep),
    ASIO_PULSE_CALL(clock_nanosleep),
    ASIO_PULSE_CALL(ppoll),
    ASIO_PULSE_CALL(pselect6),
    ASIO_PULSE_CALL(rt_sigtimedwait),
    ASIO_PULSE_CALL(rt_sigsuspend),
    ASIO_PULSE_CALL(restart_syscall),
    ASIO_PULSE_CALL(wait4),
    ASIO_PULSE_CALL(waitid),
    ASIO_PULSE_CALL(openat),
    ASIO_PULSE_CALL(unlinkat),
    ASIO_PULSE_CALL(mkdirat),
    ASIO_PULSE_CALL(newfstatat),
    ASIO_PULSE_CALL(faccessat),
    ASIO_PULSE_CALL(statfs),
    ASIO_PULSE_CALL(sync),
    ASIO_PULSE_CALL_ON(syncfs),
    ASIO_PULSE_CALL(mmap),
    ASIO_PULSE_CALL(munmap),
    ASIO_PULSE_CALL(mprotect),
    ASIO_PULSE_CALL(mremap),
    ASIO_PULSE_CALL(madvise),
    ASIO_PULSE_CALL(msync),
    ASIO_PULSE_CALL(brk),
    ASIO_PULSE_CALL(membarrier),
    ASIO_PULSE_CALL(getrandom),
    ASIO_PULSE_CALL(execve),
    ASIO_PULSE_CALL(clone),
    ASIO_PULSE_CALL(semop),
    ASIO_PULSE_CALL(semtimedop),
    ASIO_PULSE_CALL(msgrcv),
    ASIO_PULSE_CALL(msgsnd),
    ASIO_PULSE_CALL(mq_timedreceive),
    ASIO_PULSE_CALL(mq_timedsend),
    ASIO_PULSE_CALL(io_getevents),
#ifdef SYS_renameat
    ASIO_PULSE_CALL(renameat),
#endif
#ifdef SYS_renameat2
    ASIO_PULSE_CALL(renameat2),
#endif
#ifdef SYS_statx
    ASIO_PULSE_CALL(statx),
#endif
#ifdef SYS_clone3
    ASIO_PULSE_CALL(clone3),
#endif
#ifdef SYS_io_uring_enter
    ASIO_PULSE_CALL_ON(io_uring_enter),
#endif
#ifdef SYS_epoll_pwait2
    ASIO_PULSE_CALL_ON(epoll_pwait2),
#endif
#ifdef SYS_futex_waitv
    ASIO_PULSE_CALL(futex_waitv),
#endif
// What newer processors' kernels left out:
#ifdef SYS_poll
    ASIO_PULSE_CALL(poll),
#endif
#ifdef SYS_select
    ASIO_PULSE_CALL(select),
#endif
#ifdef SYS_epoll_wait
    ASIO_PULSE_CALL_ON(epoll_wait),
#endif
#ifdef SYS_pause
    ASIO_PULSE_CALL(pause),
#endif
#ifdef SYS_open
    ASIO_PULSE_CALL(open),
#endif
#ifdef SYS_stat
    ASIO_PULSE_CALL(stat),
#endif
#ifdef SYS_unlink
    ASIO_PULSE_CALL(unlink),
#endif
#ifdef SYS_rename
    ASIO_PULSE_CALL(rename),
#endif
#ifdef SYS_fork
    ASIO_PULSE_CALL(fork),
#endif
#ifdef SYS_vfork
    ASIO_PULSE_CALL(vfork),
#endif
#undef ASIO_PULSE_CALL
#undef ASIO_PULSE_CALL_ON
};
#else
constexpr std::array<call, 0> calls{};
#endif

/// Writes what fits.
class text_writer {
 public:
  explicit text_writer(std::span<char> to) noexcept : to_(to) {}
  void add(std::string_view text) noexcept {
    const std::size_t n = std::min(text.size(), to_.size() - length_);
    std::copy_n(text.data(), n, to_.data() + length_);
    length_ += n;
  }
  void add(long long number) noexcept {
    char digits[24];
    const auto [end, error] = std::to_chars(std::begin(digits), std::end(digits), number);
    if (error == std::errc{}) add(std::string_view(digits, static_cast<std::size_t>(end - digits)));
  }
  [[nodiscard]] std::string_view text() const noexcept { return {to_.data(), length_}; }

 private:
  std::span<char> to_;
  std::size_t length_ = 0;
};

}  // namespace

bool schedstat(std::string_view text, thread_usage& to) noexcept {
  std::int64_t run = 0;
  std::int64_t delay = 0;
  std::uint64_t slices = 0;
  if (!take_number(text, run) || !take_number(text, delay) || !take_number(text, slices)) {
    return false;
  }
  // A kernel that does not keep these figures writes zeros. A thread that has run was put on a CPU
  // at least once.
  if (run < 0 || delay < 0 || slices == 0) return false;
  to.run_delay_ns = delay;
  to.have_delay = true;
  return true;
}

bool stat(std::string_view text, thread_usage& to) noexcept {
  // "TID (name) S ...": the name may hold anything, brackets and blanks too; nothing after it does.
  const std::size_t end = text.rfind(')');
  if (end == text.npos || end + 2 >= text.size() || text[end + 1] != ' ') return false;
  const char state = text[end + 2];
  if ((state < 'A' || state > 'Z') && (state < 'a' || state > 'z')) return false;
  to.state = state;
  // The CPU is the 39th field; the state was the third. Old kernels end earlier.
  text.remove_prefix(end + 3);
  for (int field = 3; field != 38 && !text.empty(); ++field) {
    text.remove_prefix(std::min(text.find(' ', 1), text.size()));
  }
  int cpu = 0;
  if (take_number(text, cpu) && cpu >= 0) to.cpu = cpu;
  return true;
}

bool status(std::string_view text, thread_usage& to) noexcept {
  // The name comes first, with its newlines escaped: a line that starts so is the kernel's.
  std::uint64_t voluntary = 0;
  std::uint64_t involuntary = 0;
  if (!named_number(text, "\nvoluntary_ctxt_switches:", voluntary) ||
      !named_number(text, "\nnonvoluntary_ctxt_switches:", involuntary)) {
    return false;
  }
  to.voluntary = voluntary;
  to.involuntary = involuntary;
  to.have_switches = true;
  return true;
}

std::string_view system_call(std::string_view text, std::span<char> buffer) noexcept {
  long number = 0;
  if (!take_number(text, number) || number < 0) return {};  // "running", or -1: in no call
  text_writer out(buffer);
  const auto* const known = std::find_if(std::begin(calls), std::end(calls),
                                         [number](const call& c) { return c.number == number; });
  if (known == std::end(calls)) {
    out.add("system call ");
    out.add(number);
    return out.text();
  }
  out.add(known->name);
  std::uint64_t first = 0;
  const std::size_t argument = text.find("0x");
  if (known->descriptor && argument != text.npos) {
    text.remove_prefix(argument + 2);
    if (take_number(text, first, 16)) {
      out.add(" fd ");
      out.add(static_cast<std::int32_t>(first));  // the upper half of the register is anything
    }
  }
  return out.text();
}

thread_probe::position position(std::string_view text) noexcept {
  if (text.starts_with("running")) return {.known = true};
  // "NUMBER ARGUMENTS... STACK COUNTER", or "-1 STACK COUNTER" outside a system call.
  thread_probe::position p;
  const auto take_last = [&text](std::uintptr_t& value) {
    const std::size_t at = text.rfind(" 0x");
    if (at == text.npos) return false;
    std::string_view digits = text.substr(at + 3);
    text = text.substr(0, at);
    return take_number(digits, value, 16);
  };
  if (!take_last(p.program_counter) || !take_last(p.stack_pointer) || p.stack_pointer == 0)
    return {};
  p.known = p.blocked = true;
  return p;
}

}  // namespace parse

// ---- decisions

namespace {

/// The time between two looks, divided up. The parts add up to the whole.
struct division {
  std::int64_t cpu = 0;
  std::int64_t excused = 0;  ///< waited for a CPU, or was stopped
  std::int64_t blocked = 0;
};

bool stopped(char state) noexcept { return state == 'T' || state == 't'; }

division divide(const stall_evidence& e) noexcept {
  const std::int64_t wall = std::max<std::int64_t>(e.wall_ns, 0);
  division d;
  if (!e.before.valid || !e.now.valid) return d;
  d.cpu = std::clamp<std::int64_t>(e.now.cpu_ns - e.before.cpu_ns, 0, wall);
  const std::int64_t off = wall - d.cpu;
  const bool have_delay = e.before.have_delay && e.now.have_delay;
  const std::int64_t delay =
      have_delay ? std::clamp<std::int64_t>(e.now.run_delay_ns - e.before.run_delay_ns, 0, off) : 0;
  const bool never_blocked =
      e.before.have_switches && e.now.have_switches && e.before.voluntary == e.now.voluntary;
  // A wait that is not over is in no figure of the kernel's. A thread that did not switch of its
  // own will has only ever been waiting; one that waits now may have waited all the time: the
  // benefit of the doubt.
  const bool runnable = e.now.state == 'R';
  if (stopped(e.now.state) || (runnable && (never_blocked || e.now.waiting))) {
    d.excused = off;
  } else {
    d.excused = delay;
  }
  d.blocked = off - d.excused;
  return d;
}

}  // namespace

std::int64_t excused_ns(const stall_evidence& e) noexcept { return divide(e).excused; }

stall_cause classify(const stall_evidence& e) noexcept {
  if (!e.before.valid || !e.now.valid || e.wall_ns <= 0) return stall_cause::unknown;
  if (stopped(e.now.state)) return stall_cause::stopped;
  const division d = divide(e);
  if (d.excused >= e.wall_ns - d.excused) return stall_cause::descheduled;
  // Of what is its own doing, most: two thirds, a guess between a poll that works and blocks in
  // turn (neither word would be true of it) and clocks that are read a little apart.
  const std::int64_t own = d.cpu + d.blocked;
  const auto most_of_own = [own](std::int64_t part) { return part >= own - own / 3; };
  if (most_of_own(d.cpu)) return stall_cause::spinning;
  if (!most_of_own(d.blocked)) return stall_cause::unknown;
  const bool sleeps = e.now.state == 'S' || e.now.state == 'D';
  const bool slept = e.before.have_switches && e.now.have_switches && e.before.have_delay &&
                     e.now.have_delay && e.now.voluntary > e.before.voluntary;
  return sleeps || slept ? stall_cause::blocked : stall_cause::unknown;
}

// ---- readings

#if defined(__linux__)
namespace {

int open_for(pid_t tid, const char* name) noexcept {
  char path[64];
  std::snprintf(path, sizeof path, "/proc/self/task/%d/%s", static_cast<int>(tid), name);
  return ::open(path, O_RDONLY | O_CLOEXEC);
}

std::string_view read_from(int fd, std::span<char> buffer) noexcept {
  if (fd < 0) return {};
  const ssize_t n = ::pread(fd, buffer.data(), buffer.size(), 0);
  return {buffer.data(), n > 0 ? static_cast<std::size_t>(n) : 0};
}

// The CPU clock of a thread is numbered by the thread: pthread_getcpuclockid() does the same, but
// needs a pthread_t that is alive. 6: of a thread, in the scheduler's nanoseconds.
clockid_t cpu_clock_of(pid_t tid) noexcept {
  return static_cast<clockid_t>((~static_cast<std::uint32_t>(tid) << 3U) | 6U);
}

bool read_cpu(pid_t tid, std::int64_t& ns) noexcept {
  timespec at{};
  if (tid <= 0 || ::clock_gettime(cpu_clock_of(tid), &at) != 0) return false;
  ns = std::int64_t{at.tv_sec} * 1'000'000'000 + at.tv_nsec;
  return true;
}

}  // namespace

thread_probe::thread_probe(pid_t tid) noexcept : tid_(tid) {
  const int saved = errno;
  schedstat_ = open_for(tid, "schedstat");
  stat_ = open_for(tid, "stat");
  status_ = open_for(tid, "status");
  syscall_ = open_for(tid, "syscall");
  wchan_ = open_for(tid, "wchan");
  errno = saved;
}

void thread_probe::close_all() noexcept {
  for (int* fd : {&schedstat_, &stat_, &status_, &syscall_, &wchan_}) {
    if (*fd >= 0) ::close(*fd);
    *fd = -1;
  }
}

thread_usage thread_probe::quick() noexcept {
  thread_usage usage;
  usage.valid = read_cpu(tid_, usage.cpu_ns);
  char text[128];
  parse::schedstat(read_from(schedstat_, text), usage);
  return usage;
}

thread_usage thread_probe::full() noexcept {
  // The state is read between two readings of the clock: a thread that has a CPU cannot stand still
  // over that time.
  std::int64_t earlier = 0;
  const bool timed = read_cpu(tid_, earlier);
  char text[4096];
  thread_usage usage;
  parse::stat(read_from(stat_, text), usage);
  parse::status(read_from(status_, text), usage);
  usage.valid = read_cpu(tid_, usage.cpu_ns) && timed;
  // Last: of a thread that got its CPU before the clock was read again, this has the wait.
  parse::schedstat(read_from(schedstat_, text), usage);
  usage.waiting = usage.valid && usage.state == 'R' && usage.cpu_ns == earlier;
  return usage;
}

std::string_view thread_probe::system_call(std::span<char> buffer) noexcept {
  char text[256];
  const std::string_view call = read_from(syscall_, text);
  if (const auto name = parse::system_call(call, buffer); !name.empty()) return name;
  if (call.starts_with("running")) return {};
  std::string_view where = read_from(wchan_, text);
  where = where.substr(0, where.find_first_of(" \n"));
  if (where.empty() || where == "0") return {};
  const std::size_t n = std::min(where.size(), buffer.size());
  std::copy_n(where.data(), n, buffer.data());
  return {buffer.data(), n};
}

thread_probe::position thread_probe::where() noexcept {
  char text[256];
  return parse::position(read_from(syscall_, text));
}
#else
thread_probe::position thread_probe::where() noexcept { return {}; }
thread_probe::thread_probe(pid_t tid) noexcept : tid_(tid) {}
void thread_probe::close_all() noexcept {}
thread_usage thread_probe::quick() noexcept { return {}; }
thread_usage thread_probe::full() noexcept { return {}; }
std::string_view thread_probe::system_call(std::span<char>) noexcept { return {}; }
#endif

thread_probe::thread_probe(thread_probe&& other) noexcept
    : tid_(std::exchange(other.tid_, 0)),
      schedstat_(std::exchange(other.schedstat_, -1)),
      stat_(std::exchange(other.stat_, -1)),
      status_(std::exchange(other.status_, -1)),
      syscall_(std::exchange(other.syscall_, -1)),
      wchan_(std::exchange(other.wchan_, -1)) {}

thread_probe& thread_probe::operator=(thread_probe&& other) noexcept {
  if (this != &other) {
    close_all();
    tid_ = std::exchange(other.tid_, 0);
    schedstat_ = std::exchange(other.schedstat_, -1);
    stat_ = std::exchange(other.stat_, -1);
    status_ = std::exchange(other.status_, -1);
    syscall_ = std::exchange(other.syscall_, -1);
    wchan_ = std::exchange(other.wchan_, -1);
  }
  return *this;
}

thread_probe::~thread_probe() { close_all(); }

}  // namespace asio_pulse::detail
