// SPDX-License-Identifier: BSL-1.0
//
// Plugins that were linked with their own copy of the library, in a program that has another one.

#include <support/sanitizers.hpp>
#include <support/stuck.hpp>
//
#include "plugin/plugin.hpp"
#include "told.hpp"

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <thread>

namespace {

using namespace pulse_test;
namespace asio = boost::asio;

/// A copy of the plugin's file, so that the loader does not treat it as a loaded one.
class plugin {
 public:
  explicit plugin(int number) {
    char folder[] = "/tmp/pulse_plugin.XXXXXX";
    require(::mkdtemp(folder) != nullptr, "a temporary folder is made");
    const std::filesystem::path file =
        std::filesystem::path(folder) / ("plugin_" + std::to_string(number) + ".so");
    std::filesystem::copy_file(PULSE_TEST_PLUGIN, file);
    module_ = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    const char* const error = module_ != nullptr ? "" : ::dlerror();
    std::filesystem::remove_all(folder);
    require(module_ != nullptr, error);
    functions_ = static_cast<const plugin_functions*>(::dlsym(module_, "plugin_functions"));
    require(functions_ != nullptr, "the plugin has its functions");
  }
  const plugin_functions& operator*() const { return *functions_; }
  const plugin_functions* operator->() const { return functions_; }
  void unload() { require(::dlclose(module_) == 0, "dlclose() works"); }

 private:
  void* module_ = nullptr;
  const plugin_functions* functions_ = nullptr;
};

std::atomic<int> signals_of_the_program{0};

int many_plugins() {
  ::signal(SIGURG, [](int) { ++signals_of_the_program; });
  told reports;
  asio_pulse::io_context io{reports.options()};
  see_own_stall(io, reports);
  std::vector<plugin> plugins;
  for (int n = 0; n != 6; ++n) {
    plugins.emplace_back(n);
    require(plugins.back()->serve(), "the plugin's stall is seen");
    see_own_stall(io, reports);
  }
  for (const plugin& p : plugins) require(p->serve(), "the plugin's stall is seen once more");
  // A context that is made later finds the signal handler of another copy.
  asio_pulse::io_context later{reports.options()};
  see_own_stall(later, reports);
  const int before = signals_of_the_program;
  require(before == 0, "the program's handler got no signal of the library");
  ::raise(SIGURG);
  require(signals_of_the_program == 1, "the program's handler got its own signal, once");
  return 0;
}
const program with_many_plugins{"many_plugins", &many_plugins};

TEST(plugins, many_copies_find_room_and_get_their_stacks) {
  if (sanitized) GTEST_SKIP() << "sanitizers take several copies for a mistake";
  EXPECT_TRUE(succeeded(with_many_plugins.run()));
}

int foreign_context() {
  told reports;
  asio_pulse::io_context io{reports.options()};
  const plugin p{0};
  const std::string said = p->make_task(io);
  std::printf("%s\n", said.c_str());
  require(said.find("another copy") != said.npos, "the message says what is wrong");
  static bool ran = false;
  p->post(io, [] { ran = true; });
  io.run();
  require(ran, "handlers of the plugin run nevertheless");
  const asio_pulse::task own{io, {.name = "own"}};
  return 0;
}
const program with_foreign_context{"foreign_context", &foreign_context};

TEST(plugins, a_task_in_the_context_of_another_copy_is_refused_with_the_reason) {
  if (sanitized) GTEST_SKIP() << "sanitizers take several copies for a mistake";
  EXPECT_TRUE(succeeded(with_foreign_context.run()));
}

int unloaded_plugin() {
  told reports;
  asio_pulse::io_context io{reports.options()};
  plugin p{0};
  require(p->serve(), "its stall is seen");
  p.unload();
  // The plugin's watchdog and its signal handler still work.
  ::raise(SIGURG);
  see_own_stall(io, reports);
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  int status = -1;
  require(::waitpid(child, &status, 0) == child && status == 0, "a fork works");
  std::this_thread::sleep_for(100ms);
  return 0;
}
const program with_unloaded_plugin{"unloaded_plugin", &unloaded_plugin};

TEST(plugins, dlclose_does_not_unmap_what_runs) {
  if (sanitized) GTEST_SKIP() << "sanitizers take several copies for a mistake";
  EXPECT_TRUE(succeeded(with_unloaded_plugin.run()));
}

}  // namespace
