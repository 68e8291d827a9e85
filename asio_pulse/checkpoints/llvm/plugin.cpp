#include "plugin.hpp"

#include <dlfcn.h>
#include <llvm/Config/llvm-config.h>
#include <llvm/Support/CommandLine.h>
#include <llvm/Support/ErrorHandling.h>

#include <cstdio>
#include <cstdlib>

namespace asio_pulse::checkpoints {
namespace {

// Registered by refuse_other_versions(), and not as static objects: those would call into an LLVM of another version before it
// is known that it is one.
llvm::cl::opt<std::string>* list_option = nullptr;
llvm::cl::opt<std::string>* remarks_option = nullptr;

/// The first thing that runs when a compiler loads the plugin. LLVM itself compares only the version of the plugins' interface,
/// which has been 1 for years, and then fails at an arbitrary place.
__attribute__((constructor(101))) void refuse_other_versions() {
  unsigned major = 0, minor = 0, patch = 0;
  const auto version = reinterpret_cast<void (*)(unsigned*, unsigned*, unsigned*)>(
      dlsym(RTLD_DEFAULT, "LLVMGetVersion"));
  if (version != nullptr) version(&major, &minor, &patch);
  if (major == LLVM_VERSION_MAJOR) {
    list_option = new llvm::cl::opt<std::string>(
        "asio-pulse-checkpoint-list", llvm::cl::Hidden, llvm::cl::value_desc("file"),
        llvm::cl::desc("asio-pulse: functions and files to take or leave"));
    remarks_option = new llvm::cl::opt<std::string>(
        "asio-pulse-checkpoint-remarks", llvm::cl::Hidden, llvm::cl::value_desc("file"),
        llvm::cl::desc("asio-pulse: where to report what got checks; - is stderr"));
    return;
  }
  std::fprintf(stderr,
               "error: asio-pulse: this checkpoint plugin was built for clang %d, and the compiler "
               "that loads it is %s%s; build "
               "it with the compiler that uses it (CMake: asio_pulse_add_checkpoints)\n",
               LLVM_VERSION_MAJOR, major == 0 ? "an older one" : "clang ",
               major == 0 ? "" : std::to_string(major).c_str());
  std::_Exit(1);
}

}  // namespace

settings::settings() {
  if (remarks_option != nullptr) remarks_to_ = *remarks_option;
  if (list_option != nullptr && !list_option->empty()) wrong_ = list_.read(*list_option);
}

const settings& settings::get() {
  static const settings the_settings;
  return the_settings;
}

void settings::check() const {
  if (wrong_.empty()) return;
  std::fprintf(stderr, "error: asio-pulse: %s\n", wrong_.c_str());
  std::_Exit(1);
}

}  // namespace asio_pulse::checkpoints
