// SPDX-License-Identifier: BSL-1.0
#include "process/cpu_quota.hpp"

#include <asio_pulse/detail/shards/shard_threads.hpp>

#include <gtest/gtest.h>

#include <algorithm>

namespace {

using namespace asio_pulse::detail;

TEST(cpu_quota, is_rounded_up_to_whole_cpus) {
  EXPECT_EQ(cpus_of_quota("200000 100000\n"), 2U);
  EXPECT_EQ(cpus_of_quota("150000 100000\n"), 2U);
  EXPECT_EQ(cpus_of_quota("1000 100000"), 1U);
}

TEST(cpu_quota, other_texts_are_no_quota) {
  for (const char* const text : {"", "max 100000\n", "200000", "200000 ", "200000 0\n", "0 100000",
                                 "-1 100000", "200000\t100000", "99999999999999999999 1"}) {
    EXPECT_EQ(cpus_of_quota(text), no_quota) << text;
  }
}

TEST(cpu_quota, the_group_is_that_of_the_unified_hierarchy) {
  EXPECT_EQ(unified_group("0::/a/b\n"), "/a/b");
  EXPECT_EQ(unified_group("12:cpu,cpuacct:/old\n1:name=systemd:/x\n0::/new\n"), "/new");
  EXPECT_EQ(unified_group("12:cpu,cpuacct:/old\n"), "");
  EXPECT_EQ(unified_group("0::/"), "/");
  EXPECT_EQ(unified_group(""), "");
}

TEST(shard_threads, cpus_of_this_machine) {
  const std::vector<int> allowed = allowed_cpus();
  EXPECT_TRUE(std::is_sorted(allowed.begin(), allowed.end()));
  EXPECT_GE(usable_cpus(), 1U);
  if (allowed.empty()) GTEST_SKIP() << "this machine does not tell the affinity";
  EXPECT_LE(usable_cpus(), allowed.size());
  EXPECT_EQ(invalid_cpus(allowed), "");
}

TEST(shard_threads, a_cpu_that_does_not_exist_is_named) {
  if (allowed_cpus().empty()) GTEST_SKIP() << "this machine does not tell the affinity";
  EXPECT_NE(invalid_cpus({allowed_cpus().front(), 7777}).find("CPU 7777 does not exist"),
            std::string::npos);
  EXPECT_NE(invalid_cpus({-1}).find("CPU -1 "), std::string::npos);
  EXPECT_FALSE(pin_this_thread(-1));
  EXPECT_FALSE(pin_this_thread(1 << 20));
}

}  // namespace
