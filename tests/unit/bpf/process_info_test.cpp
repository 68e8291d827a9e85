// SPDX-License-Identifier: BSL-1.0
#include "process_info.hpp"
// Included first, to check that the header is self-contained.

#include "support.hpp"

#include <gmock/gmock.h>
#include <unistd.h>

namespace {

using namespace asio_pulse::scx;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Fields 3 to 52, of which 22 is the start.
const std::string after_name =
    " S 1 2 3 0 -1 4194304 100 0 0 0 1 2 0 0 20 0 1 0 987654 1000 200 18446744073709551615";

TEST(process_info, start_is_the_field_after_whatever_name) {
  EXPECT_EQ(parse_start_ticks("17 (name)" + after_name), 987654U);
  EXPECT_EQ(parse_start_ticks("17 (a b) c)" + after_name), 987654U);
  EXPECT_EQ(parse_start_ticks("17 (x) R 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 5)" + after_name),
            987654U);
  EXPECT_EQ(parse_start_ticks("17 (new\nline)" + after_name + "\n"), 987654U);
}

TEST(process_info, start_is_unknown_where_the_text_is_something_else) {
  for (const std::string_view text :
       {"", ")", "17 (name)", "17 (name) S", "17 name S 1 2", "1 (n) S 1 2 3 4 5 6 7 8 9 10 11 12",
        "1 (n) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 x",
        "1 (n) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 -5",
        "1 (n) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 99999999999999999999999"}) {
    EXPECT_EQ(parse_start_ticks(text), std::nullopt) << text;
  }
}

TEST(process_info, namespace_numbers) {
  EXPECT_THAT(parse_namespace_pids("Name:\tx\nNSpid:\t123\nNSsid:\t1\n"), ElementsAre(123));
  EXPECT_THAT(parse_namespace_pids("Name:\tx\nNSpid:\t123\t45\t6\n"), ElementsAre(123, 45, 6));
  EXPECT_THAT(parse_namespace_pids("Name:\tNSpid:\t9\n"), IsEmpty());
  EXPECT_THAT(parse_namespace_pids("Name:\tx\nNSpid:\t12x\n"), IsEmpty());
  EXPECT_THAT(parse_namespace_pids("Name:\tx\nNSpid:\n"), IsEmpty());
  EXPECT_THAT(parse_namespace_pids(""), IsEmpty());
}

TEST(process_info, finds_the_threads_of_its_process_only) {
  const process_info self(::getpid());
  ASSERT_TRUE(self);
  const bpf_test::parked_thread helper;
  const auto found = self.find_thread(helper.tid());
  ASSERT_TRUE(found);
  EXPECT_EQ(found->tid, helper.tid());
  EXPECT_TRUE(self.has_thread(*found));
  EXPECT_EQ(self.find_thread(::getppid()), std::nullopt);
  EXPECT_EQ(self.find_thread(0), std::nullopt);
  EXPECT_EQ(self.find_thread(-1), std::nullopt);
  const process_info parent(::getppid());
  EXPECT_EQ(parent.find_thread(helper.tid()), std::nullopt);
}

TEST(process_info, another_start_is_another_thread) {
  const process_info self(::getpid());
  auto found = self.find_thread(::gettid());
  ASSERT_TRUE(found);
  ++found->start_ticks;
  EXPECT_FALSE(self.has_thread(*found));
}

TEST(process_info, a_thread_that_has_ended_is_gone) {
  const process_info self(::getpid());
  bpf_test::parked_thread helper;
  const auto found = self.find_thread(helper.tid());
  ASSERT_TRUE(found);
  helper.end();
  EXPECT_FALSE(self.has_thread(*found));
  EXPECT_EQ(self.find_thread(helper.tid()), std::nullopt);
}

TEST(process_info, of_nobody_is_false) {
  EXPECT_FALSE(process_info(0));
  EXPECT_FALSE(process_info(-1));
  EXPECT_FALSE(process_info(0x7fffffff));
  EXPECT_EQ(process_info(0x7fffffff).find_thread(::gettid()), std::nullopt);
}

}  // namespace
