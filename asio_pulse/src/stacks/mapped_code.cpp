// SPDX-License-Identifier: BSL-1.0

#include "mapped_code.hpp"

#if defined(__linux__)
#include <cinttypes>
#include <cstdio>
#include <memory>
#include <string_view>
#include <utility>
#endif

namespace asio_pulse::detail {

#if defined(__linux__)
namespace {

struct close_file {
  void operator()(std::FILE* file) const noexcept { std::fclose(file); }
};

struct mapping {
  std::uintptr_t begin = 0;
  std::uintptr_t end = 0;
  std::uintptr_t offset = 0;
  bool executable = false;
  std::string_view path;
};

bool parse(const char* line, mapping& to) noexcept {
  char rights[5] = "";
  int path_at = 0;
  if (std::sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s %" SCNxPTR " %*s %*s %n", &to.begin, &to.end,
                  rights, &to.offset, &path_at) != 4 ||
      path_at == 0) {
    return false;
  }
  to.executable = rights[2] == 'x';
  to.path = line + path_at;
  if (to.path.ends_with('\n')) to.path.remove_suffix(1);
  return to.path.starts_with('/') || to.path == "[vdso]";
}

}  // namespace

std::vector<mapped_code> read_mapped_code() {
  std::vector<mapped_code> found;
  const std::unique_ptr<std::FILE, close_file> maps(std::fopen("/proc/self/maps", "re"));
  if (!maps) return found;
  mapped_code current;
  bool executable = false;
  const auto finish = [&] {
    if (executable) found.push_back(std::move(current));
    current = {};
    executable = false;
  };
  char line[4352];  // fits the longest path and the fields before it
  while (std::fgets(line, sizeof line, maps.get()) != nullptr) {
    mapping m;
    if (!parse(line, m)) continue;  // not of a file; it may be between two parts of one
    if (m.path != current.path || m.offset == 0) {
      finish();
      current = {.begin = m.begin, .end = m.end, .path = std::string(m.path)};
    }
    current.end = m.end;
    executable = executable || m.executable;
  }
  finish();
  return found;
}

#else

std::vector<mapped_code> read_mapped_code() { return {}; }

#endif

}  // namespace asio_pulse::detail
