// SPDX-License-Identifier: BSL-1.0

#include "thread_usage.hpp"

#include <algorithm>
#include <array>
#include <charconv>

#if defined(__linux__)
#include "thread_number.hpp"

#include <time.h>
#endif

#include "process/system_calls.hpp"

namespace asio_pulse::detail {
namespace parse {
namespace {

/// Takes a number, with blanks before it, from the front of the text.
template <class Number>
bool take_number(std::string_view& text, Number& value, int base = 10) noexcept {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc{}) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return true;
}

bool named_number(std::string_view text, std::string_view name, std::uint64_t& value,
                  int base = 10) noexcept {
  const std::size_t at = text.find(name);
  if (at == text.npos) return false;
  text.remove_prefix(at + name.size());
  return take_number(text, value, base);
}

/// Appends to a buffer as much as fits.
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
  // A kernel that does not keep these figures writes zeros. A thread that has run was on a CPU at
  // least once.
  if (run < 0 || delay < 0 || slices == 0) return false;
  to.run_delay_ns = delay;
  to.have_delay = true;
  return true;
}

bool stat(std::string_view text, thread_usage& to) noexcept {
  // "TID (name) S ...": the name may contain anything, including parentheses and blanks, but there
  // is no parenthesis after it.
  const std::size_t end = text.rfind(')');
  if (end == text.npos || end + 2 >= text.size() || text[end + 1] != ' ') return false;
  const char state = text[end + 2];
  if ((state < 'A' || state > 'Z') && (state < 'a' || state > 'z')) return false;
  to.state = state;
  // The CPU is the 39th field, and the state was the third. Old kernels have fewer fields.
  text.remove_prefix(end + 3);
  for (int field = 3; field != 38 && !text.empty(); ++field) {
    text.remove_prefix(std::min(text.find(' ', 1), text.size()));
  }
  int cpu = 0;
  if (take_number(text, cpu) && cpu >= 0) to.cpu = cpu;
  return true;
}

bool status(std::string_view text, thread_usage& to) noexcept {
  // Newlines in the name, which comes first, are escaped, so a line that starts like this is
  // genuine.
  std::uint64_t voluntary = 0;
  std::uint64_t involuntary = 0;
  if (!named_number(text, "\nvoluntary_ctxt_switches:", voluntary) ||
      !named_number(text, "\nnonvoluntary_ctxt_switches:", involuntary)) {
    return false;
  }
  to.voluntary = voluntary;
  to.involuntary = involuntary;
  to.have_switches = true;
  std::uint64_t blocked = 0;
  if (named_number(text, "\nSigBlk:", blocked, 16)) to.blocked_signals = blocked;
  std::uint64_t mode = 0;
  std::uint64_t count = 1;
  const bool filtered = named_number(text, "\nSeccomp:", mode) && mode != 0;
  (void)named_number(text, "\nSeccomp_filters:", count);
  to.filters = filtered ? static_cast<int>(count) : 0;
  return true;
}

std::string_view system_call(std::string_view text, std::span<char> buffer) noexcept {
  long number = 0;
  if (!take_number(text, number) || number < 0) return {};  // "running" or -1: not in a call
  text_writer out(buffer);
  const std::string_view name = system_call_name(number);
  if (name.empty()) {
    out.add("system call ");
    out.add(number);
    return out.text();
  }
  out.add(name);
  std::uint64_t first = 0;
  const std::size_t argument = text.find("0x");
  if (takes_descriptor(name) && argument != text.npos) {
    text.remove_prefix(argument + 2);
    if (take_number(text, first, 16)) {
      out.add(" fd ");
      out.add(static_cast<std::int32_t>(first));  // the upper half of the register is undefined
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

// ---- readings

#if defined(__linux__)
namespace {

using file = thread_files::file;

bool read_cpu(pid_t tid, std::int64_t& ns) noexcept {
  timespec at{};
  if (tid <= 0 || ::clock_gettime(thread_cpu_clock(tid), &at) != 0) return false;
  ns = std::int64_t{at.tv_sec} * 1'000'000'000 + at.tv_nsec;
  return true;
}

}  // namespace

thread_usage thread_probe::quick() noexcept {
  thread_usage usage;
  usage.valid = read_cpu(tid_, usage.cpu_ns);
  char text[128];
  if (files_ != nullptr) parse::schedstat(files_->read_if_room(tid_, file::schedstat, text), usage);
  return usage;
}

thread_usage thread_probe::full() noexcept {
  if (files_ == nullptr) return {};
  // The state is read between two readings of the clock, which advances if the thread has a CPU.
  std::int64_t earlier = 0;
  const bool timed = read_cpu(tid_, earlier);
  char text[4096];
  thread_usage usage;
  parse::stat(files_->read(tid_, file::stat, text), usage);
  parse::status(files_->read(tid_, file::status, text), usage);
  usage.valid = read_cpu(tid_, usage.cpu_ns) && timed;
  // Last, so that it contains the wait of a thread that got its CPU before the second reading.
  parse::schedstat(files_->read(tid_, file::schedstat, text), usage);
  usage.waiting = usage.valid && usage.state == 'R' && usage.cpu_ns == earlier;
  usage.fault = files_->take_fault();
  return usage;
}

thread_usage thread_probe::state() noexcept {
  thread_usage usage;
  usage.valid = read_cpu(tid_, usage.cpu_ns);
  char text[512];
  if (files_ != nullptr) parse::stat(files_->read(tid_, file::stat, text), usage);
  return usage;
}

thread_usage thread_probe::switches() noexcept {
  thread_usage usage;
  usage.valid = read_cpu(tid_, usage.cpu_ns);
  char text[4096];
  if (files_ != nullptr) parse::status(files_->read(tid_, file::status, text), usage);
  return usage;
}

std::optional<int> read_own_seccomp_filters() noexcept {
  thread_files files(1);
  const thread_usage usage = thread_probe(this_thread_number(), files).switches();
  return usage.have_switches ? std::optional(usage.filters) : std::nullopt;
}

std::string_view thread_probe::system_call(std::span<char> buffer) noexcept {
  if (files_ == nullptr) return {};
  char text[256];
  const std::string_view call = files_->read(tid_, file::syscall, text);
  if (const auto name = parse::system_call(call, buffer); !name.empty()) return name;
  if (call.starts_with("running")) return {};
  std::string_view where = files_->read_once(tid_, file::wchan, text);
  where = where.substr(0, where.find_first_of(" \n"));
  if (where.empty() || where == "0") return {};
  const std::size_t n = std::min(where.size(), buffer.size());
  std::copy_n(where.data(), n, buffer.data());
  return {buffer.data(), n};
}

thread_probe::position thread_probe::where() noexcept {
  if (files_ == nullptr) return {};
  char text[256];
  (void)files_->take_fault();
  position p = parse::position(files_->read(tid_, file::syscall, text));
  p.fault = files_->take_fault();
  return p;
}
#else
thread_probe::position thread_probe::where() noexcept { return {}; }
thread_usage thread_probe::quick() noexcept { return {}; }
std::optional<int> read_own_seccomp_filters() noexcept { return 0; }
thread_usage thread_probe::full() noexcept { return {}; }
thread_usage thread_probe::state() noexcept { return {}; }
thread_usage thread_probe::switches() noexcept { return {}; }
std::string_view thread_probe::system_call(std::span<char>) noexcept { return {}; }
#endif

}  // namespace asio_pulse::detail
