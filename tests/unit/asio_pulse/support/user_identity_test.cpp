// SPDX-License-Identifier: BSL-1.0
#include "process/user_identity.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

namespace asio_pulse::detail {
namespace {

TEST(user_identity, a_map_that_leaves_users_out_is_known) {
  EXPECT_TRUE(maps_every_user("         0          0 4294967295\n"));
  EXPECT_FALSE(maps_every_user("         0       1000          1\n"));
  EXPECT_FALSE(maps_every_user("0 100000 65536\n65536 200000 65536\n"));
  EXPECT_FALSE(maps_every_user("1 0 4294967295\n"));
  EXPECT_FALSE(maps_every_user(""));
  EXPECT_FALSE(maps_every_user("0 0"));
  EXPECT_FALSE(maps_every_user("0 0 many"));
}

TEST(user_identity, the_effective_user_is_the_second_number) {
  EXPECT_EQ(effective_user_in("Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\n"), uid_t{2});
  EXPECT_EQ(effective_user_in("Name:\tUid:\nGid:\t5\t6\n"), std::nullopt);
  EXPECT_EQ(effective_user_in("Name:\tx\nUid:\t1\n"), std::nullopt);
  EXPECT_EQ(effective_user_in(""), std::nullopt);
}

TEST(user_identity, of_this_process) {
  EXPECT_EQ(effective_user_of(static_cast<std::uint64_t>(::getpid())), ::geteuid());
  EXPECT_EQ(effective_user_of(~0ULL), std::nullopt);
  EXPECT_FALSE(is_own_user(::geteuid() + 1));
}

}  // namespace
}  // namespace asio_pulse::detail
