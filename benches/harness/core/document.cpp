// SPDX-License-Identifier: BSL-1.0
#include "document.hpp"

#include <boost/json.hpp>

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>

namespace pulse_bench {

namespace {

namespace json = boost::json;

constexpr std::size_t most_bytes = std::size_t{256} << 20;

/// Reads one file, and throws an error with the place if something is wrong.
class reader {
 public:
  explicit reader(const std::string& file) : file_{file} {}

  [[noreturn]] void refuse(const std::string& where, std::string_view rule) const {
    throw bad_document(fmt::format("{}: {} {}", file_, for_terminal(where), rule));
  }

  const json::value& at(const json::object& in, std::string_view key,
                        const std::string& where) const {
    const json::value* const found = in.if_contains(key);
    if (found == nullptr) refuse(where + std::string(key), "is missing");
    return *found;
  }

  std::string text(const json::object& in, std::string_view key, const std::string& where) const {
    const json::value& value = at(in, key, where);
    if (!value.is_string()) refuse(where + std::string(key), "must be a string");
    return std::string(value.as_string().c_str(), value.as_string().size());
  }

  void flag(const json::object& in, std::string_view key, const std::string& where) const {
    if (!at(in, key, where).is_bool()) refuse(where + std::string(key), "must be true or false");
  }

  double number(const json::object& in, std::string_view key, const std::string& where) const {
    const json::value& value = at(in, key, where);
    if (!value.is_number()) refuse(where + std::string(key), "must be a number");
    return value.to_number<double>();
  }

  const json::array& list(const json::object& in, std::string_view key,
                          const std::string& where) const {
    const json::value& value = at(in, key, where);
    if (!value.is_array()) refuse(where + std::string(key), "must be a list");
    return value.as_array();
  }

  const json::object& object(const json::value& value, const std::string& where) const {
    if (!value.is_object()) refuse(where, "must be an object");
    return value.as_object();
  }

 private:
  std::string file_;
};

void check_interval(const reader& read, const json::object& in, const std::string& where) {
  for (const auto* key : {"median", "low", "high"}) read.number(in, key, where);
}

void check_metric(const reader& read, const json::object& m, const std::string& where) {
  for (const auto* key : {"label", "unit"}) read.text(m, key, where);
  const std::string better = read.text(m, "better", where);
  if (better != "lower" && better != "higher" && better != "none") {
    read.refuse(where + "better", "must be \"lower\", \"higher\" or \"none\"");
  }
  read.flag(m, "headline", where);
  for (const auto& [arm, value] : read.object(read.at(m, "arms", where), where + "arms")) {
    const std::string place = where + "arms." + std::string(arm) + ".";
    const json::object& entry = read.object(value, place);
    check_interval(read, entry, place);
    const json::array& samples = read.list(entry, "samples", place);
    if (samples.empty()) read.refuse(place + "samples", "must not be empty");
    for (const json::value& sample : samples) {
      if (!sample.is_number()) read.refuse(place + "samples", "must hold numbers only");
    }
  }
  const json::value& ratios = read.at(m, "ratio_to_stock", where);
  for (const auto& [arm, value] : read.object(ratios, where + "ratio_to_stock")) {
    const std::string place = where + "ratio_to_stock." + std::string(arm) + ".";
    check_interval(read, read.object(value, place), place);
  }
}

void check_variant(const reader& read, const json::object& v, const std::string& where) {
  read.text(v, "title", where);
  read.flag(v, "verified", where);
  read.text(v, "verification", where);
  std::size_t n = 0;
  for (const json::value& arm : read.list(v, "arms", where)) {
    const std::string place = fmt::format("{}arms[{}].", where, n++);
    const json::object& entry = read.object(arm, place);
    read.text(entry, "name", place);
    read.text(entry, "label", place);
  }
  n = 0;
  for (const json::value& metric : read.list(v, "metrics", where)) {
    const std::string place = fmt::format("{}metrics[{}].", where, n++);
    const json::object& entry = read.object(metric, place);
    read.text(entry, "name", place);
    check_metric(read, entry, place);
  }
}

}  // namespace

std::string for_terminal(std::string_view text) {
  std::string result;
  for (std::size_t n = 0; n < text.size(); ++n) {
    const auto c = static_cast<unsigned char>(text[n]);
    // C1 control characters are C2 80 to C2 9F in UTF-8.
    const bool c1 =
        c == 0xC2 && n + 1 < text.size() && static_cast<unsigned char>(text[n + 1]) < 0xA0;
    result += c < 32 || c == 127 || c1 ? '?' : text[n];
    if (c1) ++n;
  }
  return result;
}

std::string shown_text(const json::value& in, std::string_view key) {
  return for_terminal(in.at(key).as_string());
}

json::object parse_document(std::string_view text, const std::string& name) {
  const reader read{name};
  if (text.empty()) read.refuse("it", "is empty");
  boost::system::error_code error;
  json::stream_parser parser;
  parser.write(text, error);
  if (!error) parser.finish(error);
  if (error == json::error::incomplete) read.refuse("the JSON", "ends too early: it is truncated");
  if (error) read.refuse("it", fmt::format("is not JSON ({})", error.message()));
  json::value all = parser.release();
  json::object& document = all.is_object() ? all.as_object() : all.emplace_object();
  const json::value* const schema = document.if_contains("schema");
  if (schema == nullptr || !schema->is_string()) {
    read.refuse("it", "is not a result of pulse_bench: it has no \"schema\"");
  }
  if (schema->as_string() != "asio-pulse-bench/1") {
    read.refuse("schema", fmt::format("must be \"asio-pulse-bench/1\" (got \"{}\")",
                                      for_terminal(schema->as_string().subview(0, 60))));
  }
  read.text(document, "created", "");
  read.number(document, "duration_s", "");
  const json::object& machine = read.object(read.at(document, "machine", ""), "machine");
  for (const auto* key : {"cpu", "kernel", "compiler", "boost", "commit"}) {
    read.text(machine, key, "machine.");
  }
  read.number(machine, "cpus", "machine.");
  read.flag(machine, "noisy", "machine.");
  read.list(machine, "noise", "machine.");
  std::size_t s = 0;
  for (const json::value& scenario : read.list(document, "scenarios", "")) {
    const std::string place = fmt::format("scenarios[{}].", s++);
    const json::object& entry = read.object(scenario, place);
    for (const auto* key : {"name", "title", "question"}) read.text(entry, key, place);
    read.list(entry, "notes", place);
    std::size_t t = 0;
    for (const json::value& target : read.list(entry, "targets", place)) {
      const std::string where = fmt::format("{}targets[{}].", place, t++);
      read.text(read.object(target, where), "text", where);
    }
    std::size_t v = 0;
    for (const json::value& variant : read.list(entry, "variants", place)) {
      const std::string where = fmt::format("{}variants[{}].", place, v++);
      const json::object& one = read.object(variant, where);
      read.text(one, "name", where);
      check_variant(read, one, where);
    }
  }
  return std::move(document);
}

json::object load_document(const std::filesystem::path& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    throw bad_document(fmt::format("{}: it is a folder", for_terminal(path.string())));
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    throw bad_document(
        fmt::format("{}: cannot be read: {}", for_terminal(path.string()), std::strerror(errno)));
  }
  std::string text;
  for (std::string part(65536, '\0'); file;) {
    file.read(part.data(), static_cast<std::streamsize>(part.size()));
    text.append(part, 0, static_cast<std::size_t>(file.gcount()));
    if (text.size() > most_bytes) {
      throw bad_document(fmt::format("{}: it is larger than {} MiB", for_terminal(path.string()),
                                     most_bytes >> 20));
    }
  }
  return parse_document(text, for_terminal(path.string()));
}

void check_place(const std::filesystem::path& path) {
  const std::string shown = for_terminal(path.string());
  std::error_code error;
  const auto there = std::filesystem::status(path, error);
  const auto refuse = [&shown](std::string_view why) {
    throw std::runtime_error(fmt::format("{} cannot be written: {}", shown, why));
  };
  if (std::filesystem::is_directory(there)) refuse("it is a folder");
  if (std::filesystem::exists(there) && !std::filesystem::is_regular_file(there)) {
    refuse("it is not a regular file");
  }
  std::filesystem::path folder = path.parent_path();
  if (folder.empty()) folder = ".";
  if (!std::filesystem::is_directory(folder, error)) refuse("there is no such folder");
  if (::access(folder.c_str(), W_OK) != 0) refuse("its folder is read-only");
}

void write_file(const std::filesystem::path& asked, std::string_view text) {
  check_place(asked);
  // A link is kept, and its target is replaced.
  const auto path = std::filesystem::exists(asked) ? std::filesystem::canonical(asked) : asked;
  const std::string shown = for_terminal(asked.string());
  const auto fail = [&shown](int error) {
    throw std::runtime_error(fmt::format("{} cannot be written: {}", shown, std::strerror(error)));
  };
  std::string draft = path.string() + ".XXXXXX";
  const int file = ::mkostemp(draft.data(), O_CLOEXEC);
  if (file < 0) fail(errno);
  const auto give_up = [&](int error) {
    ::close(file);
    ::unlink(draft.c_str());
    fail(error);
  };
  const mode_t mask = ::umask(0);
  ::umask(mask);
  if (::fchmod(file, static_cast<mode_t>(0666U & ~mask)) != 0) give_up(errno);
  while (!text.empty()) {
    const ssize_t n = ::write(file, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) give_up(n < 0 ? errno : ENOSPC);
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  if (::fsync(file) != 0) give_up(errno);
  if (::rename(draft.c_str(), path.c_str()) != 0) give_up(errno);
  ::close(file);
}

}  // namespace pulse_bench
