// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <string>
#include <vector>

/// \file
/// For tests that run as root in the virtual machine of tests/kernel/run. Nothing here may be
/// called outside of it, because CPUs are removed and schedulers ended.

namespace vm {

/// \name The kernel's files
/// @{
/// A small file's text without the line end; empty where it cannot be read.
std::string read(const std::string& path);
/// \par Errors  std::system_error.
void write(const std::string& path, const std::string& text);

/// /sys/kernel/sched_ext/state: "disabled", "enabling", "enabled", "disabling".
std::string sched_ext_state();
/// @}

/// The kernel log may hold lines that match this awk pattern until the case has ended.
void expect_kernel_message(const std::string& pattern);
/// The kernel's messages when that CPU goes offline and online again, which ends the scheduler.
void expect_cpu_1_to_come_and_go();

/// Checks the condition every 2 ms until it is true or the time is over, and returns whether it
/// became true.
bool eventually(const std::function<bool()>& condition,
                std::chrono::milliseconds limit = std::chrono::seconds{10});

/// Policy SCHED_EXT, and back to the ordinary one, for one thread (0: the caller).
/// \par Errors  std::system_error.
void enter_sched_ext(pid_t tid = 0);
void leave_sched_ext(pid_t tid = 0);
/// Whether a BPF scheduler schedules the thread of this process now (/proc/self/task/TID/sched).
bool scheduled_by_bpf(pid_t tid);
pid_t this_thread();
/// Field 22 of /proc/self/task/TID/stat.
unsigned long long start_ticks(pid_t tid);

/// Takes the CPU off, or puts it back.
void set_cpu_online(unsigned cpu, bool online);

/// A child process, which is killed with its owner. Its standard output and error can be read.
///
/// \par Thread safety  For one thread only.
class child {
 public:
  /// A program of PATH.
  explicit child(const std::vector<std::string>& command);
  /// A copy of this process, which ends with what the function returns.
  explicit child(const std::function<int()>& body);
  child(const child&) = delete;
  child& operator=(const child&) = delete;
  ~child();

  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  [[nodiscard]] bool running();
  void signal(int number) const;
  /// Waits for its end: the exit status, or 128 and the signal. -1: it has not ended in time.
  int wait(std::chrono::milliseconds limit = std::chrono::seconds{30});
  /// What it has written so far.
  [[nodiscard]] std::string output() const;

 private:
  void start(const std::function<void()>& in_child);
  pid_t pid_ = -1;
  int status_ = -1;
  int output_ = -1;
};

/// Whether PATH has a program with this name.
bool has_program(const std::string& name);

}  // namespace vm
