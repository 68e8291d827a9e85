// SPDX-License-Identifier: BSL-1.0
#include "vm_support.hpp"

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <system_error>
#include <thread>

namespace vm {
namespace {

constexpr int sched_ext_policy = 7;  // <linux/sched.h>, too new for the C library's headers

[[noreturn]] void fail(const std::string& what) {
  throw std::system_error(errno, std::system_category(), what);
}

void set_policy(pid_t tid, int policy) {
  const sched_param parameters{};
  // Not sched_setscheduler(), because a C library may accept only the policies that it knows.
  if (syscall(SYS_sched_setscheduler, tid, policy, &parameters) != 0) fail("sched_setscheduler");
}

std::string task_file(pid_t tid, const std::string& name) {
  return read("/proc/self/task/" + std::to_string(tid) + "/" + name);
}

}  // namespace

std::string read(const std::string& path) {
  std::ifstream file{path};
  std::ostringstream text;
  text << file.rdbuf();
  std::string result = text.str();
  while (!result.empty() && result.back() == '\n') result.pop_back();
  return result;
}

void write(const std::string& path, const std::string& text) {
  const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) fail(path);
  const ssize_t written = ::write(fd, text.data(), text.size());
  const int error = errno;
  close(fd);
  errno = error;
  if (written != static_cast<ssize_t>(text.size())) fail(path);
}

std::string sched_ext_state() { return read("/sys/kernel/sched_ext/state"); }

void expect_kernel_message(const std::string& pattern) {
  write("/dev/kmsg", "<6>asio_pulse: expect " + pattern);
}

void expect_cpu_1_to_come_and_go() {
  expect_kernel_message("^smpboot: (CPU 1 is now offline|Booting Node 0 Processor 1 APIC 0x1)$");
  expect_kernel_message(
      "^sched_ext: BPF scheduler \"[a-z_]+\" disabled \\(unregistered from the main kernel\\)$");
  expect_kernel_message("^sched_ext: [a-z_]+: cpu 1 going (offline|online), exiting scheduler$");
}

bool eventually(const std::function<bool()>& condition, std::chrono::milliseconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!condition()) {
    if (std::chrono::steady_clock::now() >= end) return condition();
    std::this_thread::sleep_for(std::chrono::milliseconds{2});
  }
  return true;
}

void enter_sched_ext(pid_t tid) { set_policy(tid, sched_ext_policy); }
void leave_sched_ext(pid_t tid) { set_policy(tid, SCHED_OTHER); }

bool scheduled_by_bpf(pid_t tid) {
  // "ext.enabled    :    1"
  std::istringstream lines{task_file(tid, "sched")};
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("ext.enabled", 0) == 0) return line.back() == '1';
  }
  return false;
}

pid_t this_thread() { return ::gettid(); }

unsigned long long start_ticks(pid_t tid) {
  const std::string stat = task_file(tid, "stat");
  // The name in field 2 may hold anything: fields are counted from its closing bracket.
  std::istringstream fields{stat.substr(stat.rfind(')') + 1)};
  std::string field;
  for (int i = 3; i <= 22; ++i) fields >> field;
  return std::stoull(field);
}

void set_cpu_online(unsigned cpu, bool online) {
  write("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/online", online ? "1" : "0");
}

void child::start(const std::function<void()>& in_child) {
  output_ = memfd_create("output", MFD_CLOEXEC);
  if (output_ < 0) fail("memfd_create");
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ < 0) fail("fork");
  if (pid_ > 0) return;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);
  // One file position for both, and O_APPEND is not needed: they share the description.
  dup2(output_, STDOUT_FILENO);
  dup2(output_, STDERR_FILENO);
  in_child();
  _exit(127);
}

child::child(const std::vector<std::string>& command) {
  start([&command] {
    std::vector<char*> arguments;
    for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    execvp(arguments[0], arguments.data());
    const std::string message = command[0] + ": cannot be executed\n";
    [[maybe_unused]] const auto n = ::write(STDERR_FILENO, message.data(), message.size());
  });
}

child::child(const std::function<int()>& body) {
  start([&body] {
    int status = 126;
    try {
      status = body();
    } catch (const std::exception& e) {
      const std::string message = std::string{e.what()} + "\n";
      [[maybe_unused]] const auto n = ::write(STDERR_FILENO, message.data(), message.size());
    }
    _exit(status);
  });
}

child::~child() {
  if (running()) {
    ::kill(pid_, SIGKILL);
    wait();
  }
  close(output_);
}

bool child::running() {
  if (status_ >= 0) return false;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) != pid_) return true;
  status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return false;
}

void child::signal(int number) const {
  if (status_ < 0) ::kill(pid_, number);
}

int child::wait(std::chrono::milliseconds limit) {
  return eventually([this] { return !running(); }, limit) ? status_ : -1;
}

std::string child::output() const {
  std::string text;
  char buffer[4096];
  off_t at = 0;
  for (ssize_t n = 0; (n = pread(output_, buffer, sizeof buffer, at)) > 0; at += n) {
    text.append(buffer, static_cast<std::size_t>(n));
  }
  return text;
}

bool has_program(const std::string& name) {
  const char* const path = std::getenv("PATH");
  std::istringstream folders{path != nullptr ? path : ""};
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (access((folder + "/" + name).c_str(), X_OK) == 0) return true;
  }
  return false;
}

}  // namespace vm
