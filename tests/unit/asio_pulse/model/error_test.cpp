// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/error.hpp>
// Included first, to check that the header is self-contained.

#include <gtest/gtest.h>

#include <string>

namespace {

using asio_pulse::error;

TEST(error, converts_to_an_error_code_of_our_category) {
  const boost::system::error_code ec = error::invalid_option;
  EXPECT_TRUE(ec.failed());
  EXPECT_EQ(ec, error::invalid_option);
  EXPECT_EQ(&ec.category(), &asio_pulse::error_category());
  EXPECT_STREQ(ec.category().name(), "asio_pulse");
}

TEST(error, is_not_the_errno_of_the_same_number) {
  const boost::system::error_code ours = error::invalid_option;
  const boost::system::error_code theirs{ours.value(), boost::system::system_category()};
  EXPECT_NE(ours, theirs);
}

TEST(error, has_a_message) {
  EXPECT_EQ(make_error_code(error::invalid_option).message(), "an option is out of range");
  EXPECT_EQ(make_error_code(error::mailbox_full).message(),
            "too many messages from this shard wait to run on the other one");
  for (const error e :
       {error::fixed_option, error::no_such_shard, error::shard_drained, error::shards_stopped,
        error::already_moving, error::session_ended, error::move_forbidden, error::not_movable}) {
    EXPECT_FALSE(make_error_code(e).message().starts_with("unknown")) << static_cast<int>(e);
  }
}

TEST(error, other_values_have_a_message_too) {
  EXPECT_EQ(asio_pulse::error_category().message(0), "success");
  EXPECT_NE(asio_pulse::error_category().message(-7).find("-7"), std::string::npos);
  EXPECT_NE(asio_pulse::error_category().message(9999).find("unknown"), std::string::npos);
}

}  // namespace
