// SPDX-License-Identifier: BSL-1.0

#include "frame_text.hpp"
#include "system_module.hpp"

#include <asio_pulse/stack_trace.hpp>

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <iterator>

namespace asio_pulse {
namespace {

// ---- a demangled name

constexpr bool word_char(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '$';
}

/// The index after the bracket that closes the one at `at`, or the end.
std::size_t behind_bracket(std::string_view name, std::size_t at) noexcept {
  std::size_t depth = 0;
  for (; at < name.size(); ++at) {
    switch (name[at]) {
      case '(':
      case '<':
      case '{':
      case '[':
        ++depth;
        break;
      case '>':
        if (name[at - 1] == '-') break;  // an arrow, in an expression
        [[fallthrough]];
      case ')':
      case '}':
      case ']':
        if (--depth == 0) return at + 1;
        break;
      default:
        break;
    }
  }
  return name.size();
}

/// The index after the symbols that follow the word "operator".
std::size_t behind_operator(std::string_view name, std::size_t at) noexcept {
  for (const std::string_view pair : {"()", "[]"}) {
    if (name.substr(at).starts_with(pair)) return at + pair.size();
  }
  while (at < name.size() && std::string_view{"<>=!+-*/%^&|~,"}.find(name[at]) != name.npos) ++at;
  return at;
}

/// A function's qualified name, without its return type and its parameters. Template arguments
/// and signatures of lambdas are skipped.
std::string_view own_name(std::string_view name) noexcept {
  if (const auto clone = name.find(" [clone"); clone != name.npos) name = name.substr(0, clone);
  constexpr std::string_view anonymous = "(anonymous namespace)";
  constexpr std::string_view operator_word = "operator";
  std::size_t start = 0;
  bool named_operator = false;
  for (std::size_t at = 0; at < name.size();) {
    const std::string_view rest = name.substr(at);
    if (rest.starts_with(anonymous)) {
      at += anonymous.size();
    } else if (rest.starts_with(operator_word) && (at == 0 || !word_char(name[at - 1])) &&
               (rest.size() == operator_word.size() || !word_char(rest[operator_word.size()]))) {
      named_operator = true;  // its name may continue after a space: operator new, operator bool
      at = behind_operator(name, at + operator_word.size());
    } else if (rest[0] == '(') {
      const std::string_view before = name.substr(0, at);
      const bool part_of_type =
          before.ends_with("decltype") || before.ends_with("decltype ") || before.empty();
      if (!part_of_type) return name.substr(start, at - start);  // the parameters
      at = behind_bracket(name, at);
    } else if (rest[0] == '<' || rest[0] == '{' || rest[0] == '[') {
      at = behind_bracket(name, at);
    } else {
      if (rest[0] == ' ' && !named_operator) start = at + 1;
      ++at;
    }
  }
  return name.substr(start);
}

// ---- whose code it is

enum class code_owner : std::uint8_t { user, boost, internal };

/// Headers of the C++ library: .../c++/12/..., or libc++'s .../c++/v1/...
bool standard_header(std::string_view file) noexcept {
  constexpr std::string_view folder = "/c++/";
  for (auto at = file.find(folder); at != file.npos; at = file.find(folder, at + 1)) {
    const std::string_view rest = file.substr(at + folder.size());
    if (rest.starts_with("v1/")) return true;
    const std::size_t digits = rest.find_first_not_of("0123456789.");
    if (digits != 0 && digits != rest.npos && rest[digits] == '/') return true;
  }
  return false;
}

bool internal_file(std::string_view file) noexcept {
  static constexpr std::array parts{
      std::string_view{"/boost/asio/"}, std::string_view{"/boost/context/"},
      std::string_view{"/libstdc++-v3/"}, std::string_view{"/include/asio_pulse/"}};
  return standard_header(file) ||
         std::any_of(parts.begin(), parts.end(),
                     [file](std::string_view p) { return file.find(p) != file.npos; });
}

bool internal_name(std::string_view own) noexcept {
  static constexpr std::array prefixes{
      std::string_view{"std::"}, std::string_view{"__gnu_cxx::"}, std::string_view{"__cxxabiv1::"},
      std::string_view{"boost::asio::"}, std::string_view{"boost::context::"},
      std::string_view{"asio_pulse::"},
      // Not demangled:
      std::string_view{"_ZSt"}, std::string_view{"_ZNSt"}, std::string_view{"_ZNKSt"},
      std::string_view{"_ZN9__gnu_cxx"}, std::string_view{"_ZN5boost4asio"},
      std::string_view{"_ZNK5boost4asio"}, std::string_view{"_ZN5boost7context"},
      std::string_view{"_ZN10asio_pulse"}, std::string_view{"_ZNK10asio_pulse"}};
  // In the place of the C library's: asio_pulse::lock_count, asio_pulse::chunked_memory.
  static constexpr std::array in_place{
      std::string_view{"free"},      std::string_view{"memcpy"},
      std::string_view{"memmove"},   std::string_view{"memset"},
      std::string_view{"memchr"},    std::string_view{"memcmp"},
      std::string_view{"flockfile"}, std::string_view{"funlockfile"},
      std::string_view{"call_once"}, std::string_view{"dl_iterate_phdr"},
      std::string_view{"exit"}};
  // Functions in C: what a check calls.
  if (own.starts_with("asio_pulse_") && own.find(':') == own.npos) return true;
  if (own.starts_with("pthread_") || own.starts_with("mtx_") ||
      std::find(in_place.begin(), in_place.end(), own) != in_place.end())
    return true;
  return own == "_start" || own == "operator new" || own == "operator delete" ||
         own == "operator new[]" || own == "operator delete[]" ||
         std::any_of(prefixes.begin(), prefixes.end(),
                     [own](std::string_view p) { return own.starts_with(p); });
}

code_owner owner_of(const stack_frame& frame) noexcept {
  if (detail::module_is_system(frame.module) || internal_file(frame.file))
    return code_owner::internal;
  if (frame.function.empty()) {
    return frame.module.empty() ? code_owner::internal : code_owner::user;
  }
  const std::string_view own = own_name(frame.function);
  if (internal_name(own)) return code_owner::internal;
  // A name that is reserved for the implementation. Without a file it is in a library that was
  // linked statically.
  if (frame.file.empty() && own.starts_with("__")) return code_owner::internal;
  return own.starts_with("boost::") ? code_owner::boost : code_owner::user;
}

}  // namespace

bool detail::module_is_system(std::string_view base_name) noexcept {
  const std::string_view module = base_name;
  static constexpr std::array prefixes{
      std::string_view{"libc.so"},       std::string_view{"libc-"},
      std::string_view{"libc.musl"},     std::string_view{"libm.so"},
      std::string_view{"libpthread"},    std::string_view{"librt.so"},
      std::string_view{"libresolv"},     std::string_view{"libnss_"},
      std::string_view{"libanl.so"},     std::string_view{"libdl.so"},
      std::string_view{"libstdc++"},     std::string_view{"libc++"},
      std::string_view{"libgcc_s"},      std::string_view{"libunwind"},
      std::string_view{"ld-linux"},      std::string_view{"ld-musl"},
      std::string_view{"linux-vdso"},    std::string_view{"[vdso"},
      std::string_view{"libasan"},       std::string_view{"libtsan"},
      std::string_view{"libubsan"},      std::string_view{"liblsan"},
      std::string_view{"libmsan"},       std::string_view{"libclang_rt"},
      std::string_view{"libasio_pulse"}, std::string_view{"libboost_context"}};
  return std::any_of(prefixes.begin(), prefixes.end(),
                     [module](std::string_view p) { return module.starts_with(p); });
}

std::size_t blamed_frame(std::span<const stack_frame> frames) noexcept {
  std::size_t other = no_frame;
  std::size_t nameless = no_frame;
  for (std::size_t i = 0; i != frames.size(); ++i) {
    const code_owner owner = owner_of(frames[i]);
    if (owner == code_owner::user && frames[i].function.empty()) {
      // A frame without symbols, or a stub that jumps to another library. A caller may have a name.
      if (nameless == no_frame) nameless = i;
    } else if (owner == code_owner::user) {
      // The function that called run() is no better to blame than the library.
      const bool entry = frames[i].function == "main" || frames[i].function.starts_with("main(");
      return entry && other != no_frame ? other : i;
    } else if (owner == code_owner::boost && other == no_frame) {
      other = i;
    }
  }
  return other != no_frame ? other : nameless;
}

std::string format(std::span<const stack_frame> frames) {
  std::string text;
  for (std::size_t i = 0; i != frames.size(); ++i) {
    text += fmt::format("  #{} {}\n", i, detail::text_of(frames[i]));
  }
  return text;
}

std::string_view to_string(stall_cause cause) noexcept {
  switch (cause) {
    case stall_cause::unknown:
      return "unknown";
    case stall_cause::spinning:
      return "spinning";
    case stall_cause::blocked:
      return "blocked";
    case stall_cause::descheduled:
      return "descheduled";
    case stall_cause::stopped:
      return "stopped";
  }
  return "unknown";
}

std::string_view to_string(no_stack why) noexcept {
  switch (why) {
    case no_stack::none:
      return "";
    case no_stack::switched_off:
      return "options::stall_signal is negative";
    case no_stack::moved_on:
      return "the thread continued while its stack was being taken";
    case no_stack::signal_blocked:
      return "the thread blocks the signal";
    case no_stack::handler_replaced:
      return "the program has installed its own handler for the signal";
    case no_stack::no_answer:
      return "the thread did not answer in time";
    case no_stack::not_permitted:
      return "the kernel does not show where the thread is, because the process has changed its "
             "user";
    case no_stack::small_stack:
      return "the thread's stack may be too small for a signal handler";
    case no_stack::no_descriptor:
      return "no file descriptor was free to look at the thread";
    case no_stack::no_memory:
      return "out of memory";
    case no_stack::unreadable:
      return "the stack was read, but could not be unwound";
    case no_stack::unsupported:
      return "stacks cannot be taken on this system";
    case no_stack::filtered:
      return "a seccomp filter may forbid the system calls that are needed";
  }
  return "unknown";
}

stack_detail stack_support() noexcept {
#if !defined(__linux__) || !(defined(__x86_64__) || defined(__aarch64__))
  return stack_detail::none;
#elif defined(ASIO_PULSE_HAVE_LIBDW)
  return stack_detail::full;
#else
  return stack_detail::addresses;
#endif
}

}  // namespace asio_pulse
