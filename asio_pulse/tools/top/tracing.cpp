// SPDX-License-Identifier: BSL-1.0

#include "tracing.hpp"

#include <asio_pulse/recording.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <utility>

namespace asio_pulse::top {
namespace {

namespace fs = std::filesystem;

// Written beside it first and renamed, as write_recording() does: a full disk leaves no half.
std::string write_json(const recording& what, const std::string& path) {
  const std::string beside = path + ".tmp";
  errno = 0;
  {
    std::ofstream file(beside, std::ios::binary | std::ios::trunc);
    write_trace(what, file);
    file.close();
    if (!file) {
      const int why = errno;
      std::error_code ignored;
      fs::remove(beside, ignored);
      return fmt::format(
          "{} cannot be written: {}", path,
          why == 0 ? "an error of the stream" : std::generic_category().message(why));
    }
  }
  std::error_code ec;
  fs::rename(beside, path, ec);
  if (!ec) return {};
  std::error_code ignored;
  fs::remove(beside, ignored);
  return fmt::format("{} cannot be written: {}", path, ec.message());
}

std::string safe_name(std::string_view program) {
  std::string name{program.substr(0, 64)};
  for (char& c : name) {
    const bool safe = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      c == '-' || c == '_' || c == '.';
    if (!safe) c = '_';
  }
  // Not hidden, not an option, not empty.
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

trace_result write_trace_of(machine& m, std::uint64_t pid, std::chrono::milliseconds how_long,
                            const trace_files& files) {
  const auto peer = m.open();
  std::error_code ec;
  peer->connect(pid, ec);
  recording what;
  if (!ec) what = peer->trace(how_long, ec);
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
  if (std::string trouble = write_json(what, files.json); !trouble.empty()) {
    return {false, std::move(trouble)};
  }
  std::size_t events = 0;
  for (const recorded_worker& worker : what.workers) events += worker.events.size();
  return {true, fmt::format("{} events in {} and {}", events, files.recording, files.json)};
}

struct tracer::shared {
  trace_result result{};
  std::atomic<bool> done{false};  // release after the result is written, acquire before it is read
};

void tracer::start(machine& m, std::uint64_t pid, std::chrono::milliseconds how_long,
                   trace_files files) {
  shared_ = std::make_shared<shared>();
  thread_ = std::jthread([&m, pid, how_long, files = std::move(files), to = shared_] {
    try {
      to->result = write_trace_of(m, pid, how_long, files);
    } catch (const std::exception& e) {  // out of memory, a folder that cannot be read
      to->result = {false, e.what()};
    }
    to->done.store(true, std::memory_order_release);
  });
}

std::optional<trace_result> tracer::take() {
  if (!running() || !shared_->done.load(std::memory_order_acquire)) return std::nullopt;
  thread_.join();
  return std::move(shared_->result);
}

}  // namespace asio_pulse::top
