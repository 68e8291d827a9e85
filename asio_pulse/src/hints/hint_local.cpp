// SPDX-License-Identifier: BSL-1.0
#include "hint_local.hpp"

#if defined(__linux__)

#include "hint_link.hpp"
#include "text/pressure_text.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <utility>

namespace asio_pulse::detail {
namespace {

constexpr const char* cpu_pressure = "/proc/pressure/cpu";
// 0.1 s of waiting within any 2 s, the shortest window that the kernel permits to an ordinary user.
constexpr std::string_view trigger_at = "some 100000 2000000";
// The share of waiting in a shorter interval says little. A guess.
constexpr std::uint64_t shortest_sample_ns = 50'000'000;

}  // namespace

bool local_hints::look(const thread_usage& now, asio_pulse_scb& block,
                       std::uint32_t pressure) noexcept {
  if (!now.valid || !now.have_switches) return false;
  const bool first = mark_ns_ < 0;
  const bool slept = now.voluntary != std::exchange(voluntary_, now.voluntary);
  const bool displaced = now.involuntary != std::exchange(involuntary_, now.involuntary);
  const std::uint64_t acknowledged = read_word(block.last_ack_seq, std::memory_order_acquire);
  const bool answered = acknowledged != std::exchange(acknowledged_, acknowledged);
  write_word(block.pressure, static_cast<std::uint8_t>(
                                 std::min<std::uint32_t>(pressure, ASIO_PULSE_PRESSURE_MOST)));
  if (first || slept || answered) mark_ns_ = now.cpu_ns;
  const std::int64_t used = now.cpu_ns - mark_ns_;
  write_word(block.budget_ns, slice_ - used);
  const std::uint64_t sequence = read_word(block.preempt_seq);
  if (!displaced || first || used <= slice_ || acknowledged != sequence) return false;
  write_word(block.preempt_seq, sequence + 1);
  return true;
}

std::string pressure_source::open() {
  close();
  fd_ = ::open(cpu_pressure, O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd_ >= 0) {
    triggers_ = ::write(fd_, trigger_at.data(), trigger_at.size() + 1) > 0;
  }
  if (!triggers_) {
    close();
    fd_ = ::open(cpu_pressure, O_RDONLY | O_CLOEXEC);
  }
  if (fd_ < 0) {
    return std::string(cpu_pressure) + ": " + std::strerror(errno) +
           " (the kernel has no PSI, or needs psi=1 on its command line)";
  }
  return {};
}

void pressure_source::close() noexcept {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  last_ = 0;  // without the file there is no pressure
  triggers_ = false;
}

std::uint32_t pressure_source::sample(std::uint64_t now_ns) noexcept {
  if (fd_ < 0 || now_ns - at_ns_ < shortest_sample_ns) return last_;
  std::array<char, 256> text{};
  const ssize_t n = ::pread(fd_, text.data(), text.size(), 0);
  std::uint64_t total = 0;
  if (n <= 0 || !parse_pressure_total({text.data(), static_cast<std::size_t>(n)}, total)) {
    return last_;
  }
  const std::uint64_t waited_ns = (total - std::exchange(total_us_, total)) * 1000;
  const std::uint64_t since = now_ns - std::exchange(at_ns_, now_ns);
  if (since != now_ns) {  // otherwise it was the first sample
    last_ = static_cast<std::uint32_t>(std::min<std::uint64_t>(waited_ns * 100 / since, 100));
  }
  return last_;
}

bool parse_pressure_total(std::string_view text, std::uint64_t& total_us) noexcept {
  const std::string_view field = pressure_field(text, "total=");
  const char* const end = field.data() + field.size();
  const auto [stop, error] = std::from_chars(field.data(), end, total_us);
  return error == std::errc() && stop == end;
}

}  // namespace asio_pulse::detail

#endif
