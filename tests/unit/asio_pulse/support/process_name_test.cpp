// SPDX-License-Identifier: BSL-1.0
#include "process/process_name.hpp"

#include <gtest/gtest.h>

#if defined(__linux__)

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <system_error>

namespace asio_pulse::detail {
namespace {

namespace fs = std::filesystem;

// The copy of this program that the test below starts.
TEST(process_name, DISABLED_of_a_removed_program) {
  const fs::path self = fs::read_symlink("/proc/self/exe");
  if (self.filename() != "server") GTEST_SKIP() << "the test below starts it";
  fs::remove(self);
  EXPECT_EQ(this_program(), "server");
}

// A server goes on after its file was replaced by a new version, and keeps its name.
TEST(process_name, stays_when_the_file_is_removed) {
  std::string folder = (fs::temp_directory_path() / "process_name_XXXXXX").string();
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  const std::string copy = folder + "/server";
  fs::copy_file("/proc/self/exe", copy);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::unsetenv("GTEST_OUTPUT");
    ::execl(copy.c_str(), copy.c_str(), "--gtest_filter=process_name.DISABLED_of_a_removed_program",
            "--gtest_also_run_disabled_tests", "--gtest_brief=1", nullptr);
    ::_exit(126);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  std::error_code ignored;
  fs::remove_all(folder, ignored);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 126) GTEST_SKIP() << "a copy cannot be started";
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

}  // namespace
}  // namespace asio_pulse::detail

#endif
