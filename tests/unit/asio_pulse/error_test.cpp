// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/error.hpp>
// The header comes first: it has to stand alone.

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace {

using asio_pulse::error;

TEST(error, converts_to_an_error_code_of_our_category) {
  const boost::system::error_code ec = error::invalid_option;
  EXPECT_TRUE(ec.failed());
  EXPECT_EQ(ec, error::invalid_option);
  EXPECT_NE(ec, error::shut_down);
  EXPECT_EQ(&ec.category(), &asio_pulse::error_category());
  EXPECT_STREQ(ec.category().name(), "asio_pulse");
}

TEST(error, is_not_the_errno_of_the_same_number) {
  const boost::system::error_code ours = error::invalid_option;
  const boost::system::error_code theirs{ours.value(), boost::system::system_category()};
  EXPECT_NE(ours, theirs);
}

TEST(error, every_enumerator_has_a_message_of_its_own) {
  std::set<std::string> messages;
  for (int i = 1; i <= static_cast<int>(error::shut_down); ++i) {
    const std::string text = asio_pulse::error_category().message(i);
    EXPECT_EQ(text.find("unknown"), std::string::npos) << i;
    EXPECT_TRUE(messages.insert(text).second) << text;
  }
}

TEST(error, other_values_have_a_message_too) {
  EXPECT_EQ(asio_pulse::error_category().message(0), "success");
  EXPECT_NE(asio_pulse::error_category().message(-7).find("-7"), std::string::npos);
  EXPECT_NE(asio_pulse::error_category().message(9999).find("unknown"), std::string::npos);
}

}  // namespace
