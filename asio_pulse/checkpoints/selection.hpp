#ifndef ASIO_PULSE_CHECKPOINTS_SELECTION_HPP
#define ASIO_PULSE_CHECKPOINTS_SELECTION_HPP

// Which functions get checks, and the report of what they got. Shared by the plugins; knows no compiler. C++17.

#include <cxxabi.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace asio_pulse::checkpoints {

/// "f(int)" for "_Z1fi"; other names are returned as they are.
inline std::string readable(const std::string& symbol) {
  int status = 0;
  char* const name = abi::__cxa_demangle(symbol.c_str(), nullptr, nullptr, &status);
  std::string result = name != nullptr ? name : symbol;
  std::free(name);
  return result;
}

/// A list of files and functions to take or to leave. It has one rule on each line; the last one that matches decides:
///
///     # a comment
///     leave file */third_party/*
///     take function *parse*
///
/// Patterns are those of a shell (fnmatch(3); `*` also matches `/`). A function's pattern is compared with its symbol and its
/// readable name, also without the suffix that a compiler appends to the symbol of a copy or a part (".constprop.0"). Functions
/// and files that no rule matches are taken, unless the first rule of their kind is a `take`.
class selection {
 public:
  struct rule {
    bool take = false, function = false;
    std::string pattern;
    unsigned line = 0;
  };
  /// Reads a list. Returns a sentence that says what is wrong, or an empty string.
  std::string read(const std::string& path) {
    path_ = path;
    std::ifstream file(path);
    if (!file) return "the list of functions '" + path + "' cannot be read";
    std::string line;
    for (unsigned number = 1; std::getline(file, line); ++number) {
      std::istringstream words(line);
      std::string verb, kind, pattern;
      if (!(words >> verb) || verb[0] == '#') continue;
      words >> kind >> std::ws;
      std::getline(words, pattern);
      while (!pattern.empty() &&
             (pattern.back() == ' ' || pattern.back() == '\t' || pattern.back() == '\r'))
        pattern.pop_back();
      const std::string at = path + ":" + std::to_string(number) + ": ";
      if ((verb != "take" && verb != "leave") || (kind != "file" && kind != "function") ||
          pattern.empty())
        return at + "'" + line +
               "' is not a rule; a rule is 'take' or 'leave', then 'file' or 'function', then a "
               "pattern";
      for (const rule& r : rules_)
        if (r.pattern == pattern && r.function == (kind == "function"))
          return at + "there is a rule for " + kind + " '" + pattern + "' already, in line " +
                 std::to_string(r.line) + "; a pattern may be " + "taken or left out once";
      rules_.push_back({verb == "take", kind == "function", pattern, number});
    }
    return file.bad() ? "the list of functions '" + path + "' cannot be read" : "";
  }
  /// Why a function is left out, or an empty string.
  std::string left_out(const std::string& file, const std::string& symbol) const {
    const std::vector<std::string> names = names_of(symbol);
    std::string why = decide(false, {file}, "file");
    if (why.empty())
      why = decide(true, names, "function");
    else if (const rule* const r = last(true, names); r != nullptr && r->take)
      why.clear();
    return why;
  }
  /// Whether a `leave` decides, and not the lack of a `take`. Such a function must not be inlined either: its caller's checks would
  /// be in it.
  bool left_by_rule(const std::string& file, const std::string& symbol) const {
    const rule* r = last(true, names_of(symbol));
    if (r == nullptr) r = last(false, {file});
    return r != nullptr && !r->take;
  }
  /// The line of the rule that leaves this function out by its name; 0 if there is none.
  unsigned line_that_leaves(const std::string& symbol) const {
    const rule* const r = last(true, names_of(symbol));
    return r != nullptr && !r->take ? r->line : 0;
  }
  const std::string& path() const { return path_; }
  bool empty() const { return rules_.empty(); }

 private:
  /// The names that a function's pattern is compared with.
  static std::vector<std::string> names_of(const std::string& symbol) {
    std::vector<std::string> names{symbol, readable(symbol)};
    if (const std::size_t dot = symbol.find('.'); dot != std::string::npos && dot != 0) {
      names.push_back(symbol.substr(0, dot));
      names.push_back(readable(names.back()));
    }
    return names;
  }
  const rule* last(bool function, const std::vector<std::string>& names) const {
    const rule* found = nullptr;
    for (const rule& r : rules_)
      for (const std::string& name : names)
        if (r.function == function && fnmatch(r.pattern.c_str(), name.c_str(), 0) == 0) found = &r;
    return found;
  }
  std::string decide(bool function, const std::vector<std::string>& names, const char* kind) const {
    if (const rule* const r = last(function, names))
      return r->take ? ""
                     : path_ + ":" + std::to_string(r->line) + ": leave " + kind + " " + r->pattern;
    for (const rule& r : rules_)
      if (r.function == function)
        return r.take ? path_ + " takes no " + kind + " of this name" : "";
    return "";
  }

  std::string path_;
  std::vector<rule> rules_;
};

/// Why checks are never written into a function of this name; a null pointer if they are.
inline const char* never(std::string_view symbol) {
  const auto starts = [&](std::string_view with) { return symbol.substr(0, with.size()) == with; };
  if (starts("asio_pulse_")) return "it belongs to asio-pulse";
  // The scope that the function is in, and not a type among its parameters: _ZN, _ZNK, _ZZN (a lambda).
  std::string_view scope = symbol;
  if (starts("_Z")) {
    scope.remove_prefix(std::min(scope.find_first_not_of('Z', 2), scope.size()));
    if (scope.substr(0, 1) == "N")
      scope.remove_prefix(std::min(scope.find_first_not_of("KVRO", 1), scope.size()));
  }
  if (scope.substr(0, 12) == "10asio_pulse") return "it belongs to asio-pulse";
  if (scope.substr(0, 11) == "5boost4asio") return "it belongs to Boost.Asio";
  if (starts("_GLOBAL__") || starts("__cxx_global") ||
      starts("_Z41__static_initialization_and_destruction_0") || starts("__tls_init") ||
      starts("_ZTW") || starts("_ZTH"))
    return "it initialises static objects";
  if (starts("__asan") || starts("__tsan") || starts("__ubsan") || starts("__sanitizer") ||
      starts("asan.") || starts("tsan."))
    return "it belongs to a sanitizer";
  return nullptr;
}

/// Whether a function may get checks, as far as its name and its file say.
inline bool may_be_checked(const selection& list, const std::string& file,
                           const std::string& symbol) {
  return never(symbol) == nullptr && list.left_out(file, symbol).empty();
}

/// The report. Each translation unit adds its lines with one write(), so that compilers that run at a time may share a file.
class remarks {
 public:
  /// `path`: where to, "-" for stderr; empty: nowhere.
  explicit remarks(std::string path) : path_(std::move(path)) {}
  bool wanted() const { return !path_.empty(); }
  void add(const std::string& file, unsigned line, const std::string& function,
           const std::string& text) {
    if (!wanted()) return;
    text_ += file + ":" + std::to_string(line) + ": " + readable(function) + ": " + text + "\n";
  }
  /// Returns false if the file cannot be written.
  bool flush() {
    if (!wanted() || text_.empty()) return true;
    const int to =
        path_ == "-" ? 2 : open(path_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    bool good = to >= 0;
    for (std::size_t done = 0; good && done < text_.size();) {
      const ssize_t n = write(to, text_.data() + done, text_.size() - done);
      good = n > 0;
      if (good) done += static_cast<std::size_t>(n);
    }
    if (to > 2) close(to);
    text_.clear();
    return good;
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_, text_;
};

/// A symbol that only the stub defines. If a program lacks the stub, the linker prints its name, which is a sentence.
inline constexpr char missing_stub[] =
    "ERROR_link_asio_pulse_checkpoint_stub_to_code_that_was_compiled_with_checkpoints";

}  // namespace asio_pulse::checkpoints

#endif
