// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <thread>
#include <vector>

namespace pulse_test {

/// Runs processes that use up all CPUs while the object lives.
class competing_load {
 public:
  competing_load() {
    const auto number = 2 * std::max(1U, std::thread::hardware_concurrency());
    for (unsigned n = 0; n < number; ++n) {
      const pid_t child = ::fork();
      if (child == 0) {
        for (;;) asm volatile("");
      }
      if (child > 0) children_.push_back(child);
    }
  }
  ~competing_load() {
    for (const pid_t child : children_) ::kill(child, SIGKILL);
    for (const pid_t child : children_) ::waitpid(child, nullptr, 0);
  }
  competing_load(const competing_load&) = delete;
  competing_load& operator=(const competing_load&) = delete;

 private:
  std::vector<pid_t> children_;
};

}  // namespace pulse_test
