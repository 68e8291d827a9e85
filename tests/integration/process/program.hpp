// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <string_view>

/// \file
/// A process for a test: this executable, started again to run a function instead of the tests.

namespace pulse_test {

/// The result of a process.
struct outcome {
  int exit_code = -1;  ///< -1 if it did not exit by itself
  int signal = 0;      ///< the signal that ended it; 0 if none did
  bool late = false;   ///< it was killed because it took too long
  std::string out;
  std::string err;
};

/// Whether the program has exited with 0. The message of a failure has the program's output.
testing::AssertionResult succeeded(const outcome&);

/// A function that can be run as a program: its return value is the exit code. One for each name,
/// with static storage.
class program {
 public:
  using body = int (*)();
  program(const char* name, body main) noexcept;
  program(const program&) = delete;
  program& operator=(const program&) = delete;

  /// Runs it and waits for its end, for two minutes at most. `before` is called in the child before
  /// it becomes the program: limits, filters, credentials. The child is a copy of a process with
  /// one thread.
  [[nodiscard]] outcome run(const std::function<void()>& before = {}) const;

  /// For main(): the exit code of the program that the arguments name; negative if they name none.
  static int main(int argc, char** argv);

 private:
  const char* name_;
  body main_;
  const program* next_;
};

/// For use in a program: if the condition is false, prints a line and ends the program.
void require(bool holds, std::string_view what);

}  // namespace pulse_test
