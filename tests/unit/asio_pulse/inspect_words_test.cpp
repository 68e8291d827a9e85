// SPDX-License-Identifier: BSL-1.0
#include "inspect_wire.hpp"
// Included first, to check that the header is self-contained.

#include <gtest/gtest.h>

#include <string>

namespace {

using asio_pulse::detail::decode_word;
using asio_pulse::detail::encode_word;

TEST(inspect_words, any_bytes_are_one_word_and_come_back) {
  std::string all;
  for (int c = 0; c != 256; ++c) all += static_cast<char>(c);
  for (const std::string& text :
       {std::string(), std::string("tenant/user"), std::string("%"), std::string("a b"), all}) {
    const std::string word = encode_word(text);
    EXPECT_FALSE(word.empty());
    for (const char c : word) EXPECT_TRUE(c > ' ' && c < 0x7f) << word;
    std::string back = "before";
    EXPECT_TRUE(decode_word(word, back)) << word;
    EXPECT_EQ(back, text);
  }
  EXPECT_EQ(encode_word("tenant/user"), "tenant/user");
  EXPECT_EQ(encode_word("a b%"), "a%20b%25");
}

TEST(inspect_words, what_encode_does_not_make_is_refused) {
  std::string text;
  for (const char* const word : {"", "a b", "a%", "%4", "%zz", "%+1", "% 1", "%41", "%FF", "%-1",
                                 "\x01", "\xff", "a\n", "%%"}) {
    EXPECT_FALSE(decode_word(word, text)) << word;
  }
}

}  // namespace
