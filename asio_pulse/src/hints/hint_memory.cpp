// SPDX-License-Identifier: BSL-1.0
#include "hint_memory.hpp"

#if defined(__linux__)

#include "files/descriptor.hpp"

#include <asio_pulse/bpf/control_block.h>
#include <asio_pulse/report.hpp>

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <limits>
#include <optional>

namespace asio_pulse::detail {
namespace {

// enum bpf_map_type of the kernel, which does not change. Old systems have no <linux/bpf.h>.
constexpr std::uint64_t bpf_map_type_array = 2;
constexpr std::string_view bpf_map_name = "anon_inode:bpf-map";

constexpr std::string_view memory_rule =
    "must be a memory file with the seal F_SEAL_SHRINK, or a BPF array";

std::string too_few(std::uint64_t there, std::uint32_t slots) {
  return fmt::format("the memory holds {} control blocks, and the source announces {}", there,
                     slots);
}

// The kernel's name for an open descriptor: the path of a file, or the kind of another object.
// Never empty.
std::string name_of(int fd) {
  std::array<char, 256> name;
  const ssize_t n =
      ::readlink(fmt::format("/proc/self/fd/{}", fd).c_str(), name.data(), name.size());
  if (n <= 0) return "something that cannot be examined without /proc";
  return escape({name.data(), static_cast<std::size_t>(n)}, name.size());
}

std::string read_map_info(int fd) {
  const descriptor file(
      ::open(fmt::format("/proc/self/fdinfo/{}", fd).c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return {};
  std::array<char, 1024> text;
  const ssize_t n = ::read(file.get(), text.data(), text.size());
  return {text.data(), n > 0 ? static_cast<std::size_t>(n) : 0};
}

std::optional<std::uint64_t> field(std::string_view text, std::string_view name) noexcept {
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (!line.starts_with(name) || !line.substr(name.size()).starts_with(":\t")) continue;
    const std::string_view digits = line.substr(name.size() + 2);
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error == std::errc{} && end == digits.data() + digits.size()) return value;
    return std::nullopt;
  }
  return std::nullopt;
}

std::string why_not_memory_file(int fd, int seals, std::uint32_t slots) {
  // The seals are checked first: with them the size can only grow.
  if ((seals & F_SEAL_SHRINK) == 0) {
    return fmt::format("its size can still be reduced: it {}", memory_rule);
  }
  // A file of huge pages can be sealed as well, but may lose pages that cannot be restored.
  struct statfs system {};
  if (::fstatfs(fd, &system) != 0 || system.f_type != TMPFS_MAGIC) {
    return fmt::format("it is made of huge pages: it {}, of ordinary pages", memory_rule);
  }
  struct stat file {};
  if (::fstat(fd, &file) != 0) return std::strerror(errno);
  const auto there = static_cast<std::uint64_t>(file.st_size) / sizeof(asio_pulse_scb);
  return there < slots ? too_few(there, slots) : std::string();
}

}  // namespace

std::string why_not_control_blocks(int fd, std::uint32_t slots) {
  // Only memory files have seals, and the kernel answers without asking a file system.
  const int seals = ::fcntl(fd, F_GET_SEALS);
  if (seals >= 0) return why_not_memory_file(fd, seals, slots);
  const std::string name = name_of(fd);
  if (name != bpf_map_name) return fmt::format("it is {}, and {}", name, memory_rule);
  return why_not_control_blocks(read_map_info(fd), slots);
}

std::string why_not_control_blocks(std::string_view map_info, std::uint32_t slots) {
  const auto type = field(map_info, "map_type");
  const auto size = field(map_info, "value_size");
  const auto count = field(map_info, "max_entries");
  if (!type || !size || !count) return "it is a BPF map that /proc does not describe";
  if (*type != bpf_map_type_array || *size != sizeof(asio_pulse_scb)) {
    return fmt::format(
        "it is a BPF map of type {} with elements of {} bytes, and it must be an array (type {}) "
        "with elements of {} bytes",
        *type, *size, bpf_map_type_array, sizeof(asio_pulse_scb));
  }
  return *count < slots ? too_few(*count, slots) : std::string();
}

}  // namespace asio_pulse::detail

#endif
