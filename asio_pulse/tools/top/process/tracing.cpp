// SPDX-License-Identifier: BSL-1.0

#include "tracing.hpp"

#include "files/replacing_file.hpp"

#include <asio_pulse/recording.hpp>
#include <asio_pulse/report.hpp>
#include <asio_pulse/trace.hpp>

#include <fmt/core.h>
#include <unistd.h>

#include <cerrno>
#include <exception>
#include <filesystem>
#include <ostream>
#include <utility>

namespace asio_pulse::top {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t path_bytes = 512;

std::string safe_name(std::string_view program) {
  std::string name{program.substr(0, 64)};
  for (char& c : name) {
    const bool safe = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      c == '-' || c == '_' || c == '.';
    if (!safe) c = '_';
  }
  // So that the name is not hidden, not empty, and does not look like an option.
  if (name.empty() || name[0] == '.' || name[0] == '-') name.insert(0, "_");
  return name;
}

}  // namespace

trace_files files_of(std::string_view path) {
  std::string_view stem = path;
  for (const std::string_view extension : {".pulse", ".json"}) {
    if (stem.size() > extension.size() && stem.ends_with(extension)) {
      stem.remove_suffix(extension.size());
      break;
    }
  }
  return {fmt::format("{}.pulse", stem), fmt::format("{}.json", stem)};
}

trace_files free_files(std::string_view program, std::uint64_t pid) {
  const std::string stem = fmt::format("{}.{}", safe_name(program), pid);
  for (int number = 1;; ++number) {
    trace_files files = files_of(fmt::format("{}.{}.pulse", stem, number));
    std::error_code ignored;
    if (!fs::exists(files.recording, ignored) && !fs::exists(files.json, ignored)) return files;
  }
}

trace_result write_trace_of(machine& m, std::uint64_t pid, std::uint64_t context,
                            std::chrono::milliseconds how_long, const trace_files& files) {
  std::error_code ec;
  // Checked first, so that no recording is made that could not be written.
  const fs::path folder = fs::path(files.recording).parent_path();
  if (::access(folder.empty() ? "." : folder.c_str(), W_OK) != 0) {
    ec.assign(errno, std::generic_category());
    return {false, fmt::format("{} cannot be written: its folder: {}",
                               escape(files.recording, path_bytes), ec.message())};
  }
  const auto peer = m.open();
  peer->connect(pid, ec);
  recording what;
  if (!ec) what = peer->trace(how_long, context, ec);
  if (ec) {
    if (!m.alive(pid)) return {false, fmt::format("process {} has ended", pid)};
    std::string detail = peer->detail();
    if (detail.empty()) detail = fmt::format("process {}: {}", pid, ec.message());
    return {false, std::move(detail)};
  }
  std::string why;
  write_recording(what, files.recording, ec, &why);
  if (ec) {
    return {false, why.empty()
                       ? fmt::format("{} cannot be written: {}", files.recording, ec.message())
                       : why};
  }
  why = detail::replace_file(
      files.json, "trace", [&](std::ostream& to) { write_trace(what, to); }, ec);
  if (ec) {
    return {false, fmt::format("{}; the recording is in {}, for pulse_recording trace", why,
                               escape(files.recording, path_bytes))};
  }
  std::size_t events = 0;
  for (const recorded_worker& worker : what.workers) events += worker.events.size();
  return {true, fmt::format("{} events in {} and {}", events, files.recording, files.json)};
}

void start_trace(background<trace_result>& on, machine& m, std::uint64_t pid, std::uint64_t context,
                 std::chrono::milliseconds how_long, trace_files files) {
  on.start([&m, pid, context, how_long, files = std::move(files)]() -> trace_result {
    try {
      return write_trace_of(m, pid, context, how_long, files);
    } catch (const std::exception& e) {  // out of memory, a folder that cannot be read
      return {false, e.what()};
    }
  });
}

}  // namespace asio_pulse::top
