// SPDX-License-Identifier: BSL-1.0
//
// Under a seccomp filter the library makes no system call that a server on plain Asio does not
// make, from the start to the report of a stall.

#include <support/sanitizers.hpp>
#include <support/stuck.hpp>
//
#include "filter.hpp"
#include "told.hpp"

#include <asio_pulse/preemptible.hpp>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <span>
#include <thread>
#include <vector>

namespace {

using namespace pulse_test;
using asio_pulse::no_stack;
using asio_pulse::stall_cause;
namespace asio = boost::asio;
using asio::ip::tcp;

// ---- filters

/// The system calls in systemd's groups @resources, @privileged, @debug, @clock, @module, @mount,
/// @raw-io, @reboot and @swap, and some others that the library uses without a filter.
constexpr long grouped[] = {
    // @resources
    SYS_ioprio_set, SYS_mbind, SYS_migrate_pages, SYS_move_pages, SYS_sched_setaffinity,
    SYS_sched_setattr, SYS_sched_setparam, SYS_sched_setscheduler, SYS_set_mempolicy,
    SYS_setpriority, SYS_setrlimit,
    // @privileged
    SYS_acct, SYS_bpf, SYS_capset, SYS_chroot, SYS_fanotify_init, SYS_open_by_handle_at,
    SYS_pivot_root, SYS_quotactl, SYS_setdomainname, SYS_setfsuid, SYS_setgroups, SYS_sethostname,
    SYS_setresuid, SYS_setuid, SYS_vhangup, SYS_chown, SYS_fchown,
    // @debug
    SYS_lookup_dcookie, SYS_perf_event_open, SYS_ptrace,
    // @clock, @module, @mount, @raw-io, @reboot, @swap
    SYS_adjtimex, SYS_clock_adjtime, SYS_clock_settime, SYS_settimeofday, SYS_delete_module,
    SYS_init_module, SYS_finit_module, SYS_mount, SYS_umount2, SYS_iopl, SYS_ioperm, SYS_kexec_load,
    SYS_reboot, SYS_swapon, SYS_swapoff,
    // some of @ipc, @process and @signal, which a server does not need
    SYS_process_vm_readv, SYS_process_vm_writev, SYS_memfd_create, SYS_kcmp, SYS_unshare, SYS_setns,
    SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo, SYS_sigaltstack, SYS_timer_create, SYS_close_range,
    SYS_getpriority, SYS_sched_getattr, SYS_capget, SYS_personality, SYS_userfaultfd};

/// The program that runs under the filters: a server with one connection.
template <class Context>
int serve(Context& io, const std::function<void()>& stuck) {
  tcp::acceptor acceptor(io, tcp::endpoint(asio::ip::address_v4::loopback(), 0));
  const auto at = acceptor.local_endpoint();
  tcp::socket session(io);
  std::array<char, 16> text{};
  acceptor.async_accept(session, [&](boost::system::error_code ec) {
    require(!ec, "the connection is accepted");
    session.async_read_some(asio::buffer(text),
                            [&](boost::system::error_code failed, std::size_t n) {
                              require(!failed && n != 0, "the request comes");
                              stuck();
                              asio::async_write(session, asio::buffer(text, n), [&](auto...) {
                                session.close();
                                acceptor.close();
                              });
                            });
  });
  asio::steady_timer timer(io, 1ms);
  timer.async_wait([](boost::system::error_code) {});
  std::thread second([&io] { io.run(); });
  boost::asio::io_context other;
  tcp::socket client(other);
  client.connect(at);
  asio::write(client, asio::buffer("ping", 4));
  std::thread first([&io] { io.run(); });
  std::array<char, 16> answer{};
  boost::system::error_code ec;
  std::size_t got = 0;
  while (!ec) got += client.read_some(asio::buffer(answer), ec);
  require(got == 4, "the answer comes");
  first.join();
  second.join();
  return 0;
}

int plain_server() {
  boost::asio::io_context io;
  return serve(io, [] {});
}
const program with_plain_server{"seccomp_plain_server", &plain_server};

/// A server whose handler is stuck in a computation until it is reported, with its stack if that is wanted: on
/// a busy machine the thread may not have answered in time for the first report.
int server_that_stalls(asio_pulse::options o, told& reports, bool with_stack = false) {
  asio_pulse::io_context io{std::move(o)};
  const int code = serve(io, [&] {
    compute_until([&] {
      return reports.any([with_stack](const told::stall& s) {
        return s.cause == stall_cause::spinning && (s.frames != 0 || !with_stack);
      });
    });
  });
  for (const told::stall& s : reports.all())
    std::printf("%zu frames %s\n", s.frames, s.line.c_str());
  return code;
}

/// The stall is found despite the filter, and is reported with its stack.
outcome run_filtered(const program& p, std::span<const long> calls, std::uint32_t listed,
                     std::uint32_t others) {
  return p.run([=] { filter_calls(calls, listed, others); });
}

int stalls_with_stacks() {
  told reports;
  const int code = server_that_stalls(reports.options(), reports, true);
  require(reports.any([](const told::stall& s) {
    return s.cause == stall_cause::spinning && s.frames != 0;
  }),
          "the stall has a stack");
  return code;
}
const program with_stacks{"seccomp_stalls_with_stacks", &stalls_with_stacks};

TEST(seccomp, what_kills_for_whole_groups_of_calls_kills_nobody) {
  if (sanitized) GTEST_SKIP() << "a sanitizer makes calls of its own";
  const outcome o = run_filtered(with_stacks, grouped, SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_ALLOW);
  EXPECT_TRUE(succeeded(o));
  std::printf("%s", o.out.c_str());
}

TEST(seccomp, what_refuses_whole_groups_of_calls_changes_nothing) {
  if (sanitized) GTEST_SKIP() << "a sanitizer makes calls of its own";
  EXPECT_TRUE(
      succeeded(run_filtered(with_stacks, grouped, SECCOMP_RET_ERRNO | EPERM, SECCOMP_RET_ALLOW)));
}

/// The system calls of a server on plain Asio from its start to its end, according to strace
/// (x86-64, glibc 2.36).
constexpr long plain[] = {SYS_accept,
                          SYS_access,
                          SYS_arch_prctl,
                          SYS_bind,
                          SYS_brk,
                          SYS_clock_nanosleep,
                          SYS_clone3,
                          SYS_close,
                          SYS_connect,
                          SYS_epoll_create1,
                          SYS_epoll_ctl,
                          SYS_epoll_wait,
                          SYS_eventfd2,
                          SYS_execve,
                          SYS_exit,
                          SYS_exit_group,
                          SYS_futex,
                          SYS_getcwd,
                          SYS_getrandom,
                          SYS_getsockname,
                          SYS_ioctl,
                          SYS_listen,
                          SYS_madvise,
                          SYS_mmap,
                          SYS_mprotect,
                          SYS_munmap,
                          SYS_newfstatat,
                          SYS_openat,
                          SYS_poll,
                          SYS_pread64,
                          SYS_prlimit64,
                          SYS_read,
                          SYS_recvfrom,
                          SYS_recvmsg,
                          SYS_rseq,
                          SYS_rt_sigaction,
                          SYS_rt_sigprocmask,
                          SYS_sendmsg,
                          SYS_sendto,
                          SYS_set_robust_list,
                          SYS_set_tid_address,
                          SYS_setsockopt,
                          SYS_getsockopt,
                          SYS_shutdown,
                          SYS_socket,
                          SYS_timerfd_create,
                          SYS_timerfd_settime,
                          SYS_write};

/// The additional calls of the library, which only read ids, clocks and, in libdw, files.
constexpr long harmless[] = {SYS_clock_gettime, SYS_getpid, SYS_gettid,  SYS_geteuid,
                             SYS_readlink,      SYS_lseek,  SYS_sysinfo, SYS_sched_getaffinity};

outcome run_with_these_alone(const program& p, std::span<const long> more) {
  std::vector<long> calls(std::begin(plain), std::end(plain));
  calls.insert(calls.end(), more.begin(), more.end());
  return run_filtered(p, calls, SECCOMP_RET_ALLOW, SECCOMP_RET_KILL_PROCESS);
}

TEST(seccomp, a_plain_server_makes_these_calls_alone) {
  if (sanitized) GTEST_SKIP() << "a sanitizer makes calls of its own";
  EXPECT_TRUE(succeeded(run_with_these_alone(with_plain_server, {})));
}

/// The filter forbids the signal, which the child process finds out.
int stalls_without_stacks() {
  told reports;
  const int code = server_that_stalls(reports.options(), reports);
  require(reports.any([](const told::stall& s) { return s.why == no_stack::filtered; }),
          "the report says why there is no stack");
  return code;
}
const program without_stacks{"seccomp_stalls_without_stacks", &stalls_without_stacks};

TEST(seccomp, what_a_plain_server_calls_is_enough) {
  if (sanitized) GTEST_SKIP() << "a sanitizer makes calls of its own";
  EXPECT_TRUE(succeeded(run_with_these_alone(without_stacks, harmless)));
}

/// The program does not notice the child process that tries the signal.
int child_is_not_seen() {
  static std::atomic<int> ended{0};
  ::signal(SIGCHLD, [](int) { ++ended; });
  told reports;
  const int code = server_that_stalls(reports.options(), reports);
  require(ended == 0, "there was no SIGCHLD");
  require(::waitpid(-1, nullptr, WNOHANG) == -1 && errno == ECHILD, "there is no child");
  require(::waitpid(-1, nullptr, WNOHANG | __WALL) == -1 && errno == ECHILD, "nor a hidden one");
  return code;
}
const program with_unseen_child{"seccomp_child_is_not_seen", &child_is_not_seen};

TEST(seccomp, nobody_sees_the_child_that_tries) {
  if (sanitized) GTEST_SKIP() << "a sanitizer makes calls of its own";
  for (const std::uint32_t answer : {SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_ERRNO | EPERM}) {
    EXPECT_TRUE(succeeded(
        run_filtered(with_unseen_child, std::array{long{SYS_tgkill}}, answer, SECCOMP_RET_ALLOW)));
  }
}

/// A filter for all threads that is installed after the watchdog was started.
int filter_comes_later() {
  told reports;
  asio_pulse::io_context io{reports.options()};
  see_own_stall(io, reports);
  filter_calls(grouped, SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_ALLOW, SECCOMP_FILTER_FLAG_TSYNC);
  see_own_stall(io, reports);
  see_own_stall(io, reports);
  return 0;
}
const program with_later_filter{"seccomp_filter_comes_later", &filter_comes_later};

/// So many fibers are suspended at the same time that some of their stacks lose their memory.
int many_fibers() {
  auto o = steady();
  o.watchdog = false;
  o.quantum = 60us;
  o.min_slice = 20us;
  asio_pulse::io_context io{o};
  int ended = 0;
  for (int n = 0; n != 100; ++n) {
    asio::post(io, asio_pulse::preemptible([&] {
                 burn(100us);
                 asio_pulse::this_fiber::checkpoint();
                 ++ended;
               }));
  }
  io.run();
  require(ended == 100, "all handlers have ended");
  const auto usage = asio_pulse::fiber_stack_usage();
  require(usage.size() == 1 && usage[0].made == 100, "all fibers were suspended");
  require(usage[0].idle < 100, "stacks have lost their memory");
  return 0;
}
const program with_many_fibers{"seccomp_many_fibers", &many_fibers};

TEST(seccomp, fibers_make_no_other_calls) {
  if (sanitized) GTEST_SKIP() << "a sanitizer makes calls of its own";
  const outcome o = run_with_these_alone(with_many_fibers, harmless);
  EXPECT_TRUE(succeeded(o));
}

TEST(seccomp, a_filter_that_comes_later_is_noticed) {
  if (sanitized) GTEST_SKIP() << "a sanitizer makes calls of its own";
  EXPECT_TRUE(succeeded(with_later_filter.run()));
}

}  // namespace
