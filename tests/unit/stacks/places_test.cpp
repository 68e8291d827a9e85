// SPDX-License-Identifier: BSL-1.0
//
// A file and a line are reported only for code that has debug information.

#include "symbolizer.hpp"

#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <iterator>
#include <string>

namespace {

using asio_pulse::format;
using asio_pulse::stack_detail;
using asio_pulse::stack_frame;
using asio_pulse::stack_support;
using asio_pulse::stack_trace;
using asio_pulse::detail::captured_stack;
using asio_pulse::detail::symbolizer;
using testing::EndsWith;
using testing::StartsWith;

class places : public testing::Test {
 protected:
  void SetUp() override {
    if (stack_support() != stack_detail::full) GTEST_SKIP() << "built without libdw";
    load(ASIO_PULSE_MIXED);
  }
  void load(const char* file) {
    if (module_ != nullptr) ::dlclose(module_);
    module_ = ::dlopen(file, RTLD_NOW);
    ASSERT_NE(module_, nullptr) << ::dlerror();
  }
  void TearDown() override {
    if (module_ != nullptr) ::dlclose(module_);
  }

  [[nodiscard]] std::uintptr_t address_of(const char* function) const {
    return reinterpret_cast<std::uintptr_t>(::dlsym(module_, function));
  }

  /// The function at the address, as a report names it.
  stack_frame at(std::uintptr_t address) {
    captured_stack stack;
    stack.registers[captured_stack::program_counter] = address;
    const stack_trace trace = symbolizer_.trace(stack, 1);
    EXPECT_EQ(trace.size(), 1U);
    return trace.empty() ? stack_frame{} : trace[0];
  }

  void* module_ = nullptr;
  symbolizer symbolizer_;
};

TEST_F(places, are_told_of_code_that_has_debug_information) {
  for (const std::string name : {"described", "described_shared"}) {
    const std::uintptr_t begin = address_of(name.c_str());
    ASSERT_NE(begin, 0U) << name;
    const stack_frame f = at(begin + 2);
    EXPECT_EQ(f.function, name);
    EXPECT_THAT(f.file, EndsWith("mixed/described.cpp"));
    EXPECT_GT(f.line, 0U);
  }
}

TEST_F(places, of_code_without_a_line_are_those_of_the_nearest_line) {
  const std::uintptr_t begin = address_of("without_line");
  ASSERT_NE(begin, 0U);
  for (std::uintptr_t address = begin; address != begin + 3; ++address) {
    const stack_frame f = at(address);
    EXPECT_EQ(f.function, "without_line");
    EXPECT_THAT(f.file, EndsWith("mixed/described.cpp"));
    EXPECT_GE(f.line, 13U) << address - begin;
    EXPECT_LE(f.line, 15U) << address - begin;
  }
}

std::size_t open_files() {
  const std::filesystem::directory_iterator files("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(files), end(files)));
}

TEST_F(places, are_read_from_a_file_of_their_own_that_does_not_stay_open) {
  load(ASIO_PULSE_APART);
  const std::uintptr_t begin = address_of("described");
  ASSERT_NE(begin, 0U);
  const std::size_t before = open_files();
  for (int again = 0; again != 3; ++again) {
    const stack_frame f = at(begin + 2 + static_cast<std::uintptr_t>(again));
    EXPECT_EQ(f.function, "described");
    EXPECT_THAT(f.file, EndsWith("mixed/described.cpp"));
    EXPECT_EQ(open_files(), before);
  }
}

TEST_F(places, are_not_told_of_code_that_has_none) {
  const std::uintptr_t begin = address_of("plain");
  ASSERT_NE(begin, 0U);
  for (std::uintptr_t offset = 0; offset != 8; ++offset) {
    const stack_frame f = at(begin + offset);
    EXPECT_EQ(f.function, "plain");
    EXPECT_EQ(f.file, "") << "byte " << offset;
    EXPECT_EQ(f.line, 0U);
  }
}

TEST_F(places, are_not_told_of_another_files_copy_of_a_function) {
  // Two files define the function, and the linker kept the one without debug information.
  const auto shared = reinterpret_cast<void* (*)()>(address_of("plain_shared"));
  ASSERT_NE(shared, nullptr);
  const auto begin = reinterpret_cast<std::uintptr_t>(shared());
  for (std::uintptr_t offset = 0; offset != 100; offset += 10) {
    const stack_frame f = at(begin + offset);
    EXPECT_THAT(f.function, StartsWith("shared_code("));
    EXPECT_EQ(f.file, "") << "byte " << offset;
    EXPECT_EQ(f.line, 0U);
  }
}

}  // namespace
