// SPDX-License-Identifier: BSL-1.0
#include "text.hpp"
// Included first, to check that the header is self-contained.

#include "made.hpp"
#include "screen/styled.hpp"
#include "text/short_numbers.hpp"

#include <gtest/gtest.h>

namespace {

using namespace std::chrono_literals;
using namespace asio_pulse::top;  // NOLINT(google-build-using-namespace): what is tested
using asio_pulse::detail::short_duration;

TEST(top_text, durations_have_three_digits) {
  EXPECT_EQ(short_duration(0ns), "0ns");
  EXPECT_EQ(short_duration(812ns), "812ns");
  EXPECT_EQ(short_duration(999ns), "999ns");
  EXPECT_EQ(short_duration(1'234ns), "1.23us");
  EXPECT_EQ(short_duration(9'996ns), "10.0us");
  EXPECT_EQ(short_duration(999'499ns), "999us");
  EXPECT_EQ(short_duration(999'500ns), "1.00ms");
  EXPECT_EQ(short_duration(61'204us), "61.2ms");
  EXPECT_EQ(short_duration(5s), "5.00s");
  EXPECT_EQ(short_duration(125s), "2m05s");
  EXPECT_EQ(short_duration(3h + 12min), "3h12m");
  EXPECT_EQ(short_duration(125h), "5d05h");
  EXPECT_EQ(short_duration(-5ms), "0ns");
}

TEST(top_text, numbers_and_shares) {
  EXPECT_EQ(short_number(0), "0");
  EXPECT_EQ(short_number(-3), "0");
  EXPECT_EQ(short_number(3.25), "3.2");
  EXPECT_EQ(short_number(812), "812");
  EXPECT_EQ(short_number(12'345), "12.3k");
  EXPECT_EQ(short_number(999'600), "1.00M");
  EXPECT_EQ(percent(0.5234), "52.3%");
  EXPECT_EQ(percent(1.984), "198%");
  EXPECT_EQ(percent(0.0 / 1.0), "0.0%");
}

TEST(top_text, printable_lets_nothing_through_that_controls_a_terminal) {
  ASSERT_TRUE(made::use_utf8());
  EXPECT_EQ(printable("caf\u00e9", charset::utf8), "caf\u00e9");
  EXPECT_EQ(printable("caf\u00e9", charset::ascii), "caf\\u{e9}");
  EXPECT_EQ(printable("\x1b[2J", charset::utf8), "\\x1b[2J");
  EXPECT_EQ(printable("a\nb\tc", charset::utf8), "a\\nb\\tc");
  EXPECT_EQ(printable("\u202egpj", charset::utf8), "\\u{202e}gpj");
  EXPECT_EQ(printable("\xff\xc3\x28", charset::utf8), "\\xff\\xc3(");
  EXPECT_EQ(printable("\xc2\x9b", charset::utf8), "\\u{9b}");  // a C1 control
  EXPECT_LT(printable(std::string(1'000'000, 'x'), charset::utf8).size(), 5000U);
}

TEST(top_text, escaped_text_is_not_escaped_twice) {
  EXPECT_EQ(printable_again(R"("a" ran \x1b)", charset::ascii), R"("a" ran \x1b)");
  EXPECT_EQ(printable_again("\"a\" \x1b", charset::ascii), R"("a" \x1b)");
  EXPECT_EQ(printable_again("", charset::ascii), "");
}

TEST(top_text, width_is_what_the_terminal_takes) {
  ASSERT_TRUE(made::use_utf8());
  EXPECT_EQ(width_of("abc"), 3U);
  EXPECT_EQ(width_of("\u4e16\u754c"), 4U);  // two wide ones
  EXPECT_EQ(width_of("e\u0301"), 1U);       // combined
}

TEST(top_text, cut_keeps_to_the_width_with_an_ellipsis) {
  ASSERT_TRUE(made::use_utf8());
  EXPECT_EQ(cut("abcdef", 6, charset::utf8), "abcdef");
  EXPECT_EQ(cut("abcdef", 5, charset::utf8), "abcd\u2026");
  EXPECT_EQ(cut("abcdef", 5, charset::ascii), "ab...");
  EXPECT_EQ(cut("abcdef", 2, charset::ascii), "a~");
  EXPECT_EQ(cut("abcdef", 0, charset::ascii), "");
  EXPECT_EQ(cut("\u4e16\u754c", 3, charset::utf8), "\u4e16\u2026");
  EXPECT_EQ(cut("\u4e16\u754c", 2, charset::utf8), "\u2026");  // half of one does not fit
  EXPECT_EQ(cut_start("src/session.cpp:7", 8, charset::utf8), "\u2026n.cpp:7");
  EXPECT_EQ(left("ab", 4, charset::utf8), "ab  ");
  EXPECT_EQ(right("ab", 4, charset::utf8), "  ab");
}

TEST(top_text, a_line_of_pieces_is_cut_as_a_whole) {
  line l;
  l.add("abc").add("def").add("ghi");
  EXPECT_EQ(text_of(cut(l, 9, charset::ascii)), "abcdefghi");
  EXPECT_EQ(text_of(cut(l, 8, charset::ascii)), "abcde...");
  for (std::size_t width = 0; width != 12; ++width) {
    EXPECT_LE(width_of(cut(l, width, charset::ascii)), width) << width;
  }
}

TEST(top_text, wrap_breaks_at_blanks_and_loses_nothing) {
  EXPECT_EQ(wrap("the quick brown fox", 10), (std::vector<std::string>{"the quick", "brown fox"}));
  EXPECT_EQ(wrap("abcdefghij klm", 4), (std::vector<std::string>{"abcd", "efgh", "ij", "klm"}));
  EXPECT_TRUE(wrap("", 10).empty());
}

TEST(top_text, bars_fill_their_share) {
  ASSERT_TRUE(made::use_utf8());
  EXPECT_EQ(bar(0.5, 4, charset::ascii), "||  ");
  EXPECT_EQ(bar(7.0, 4, charset::ascii), "||||");
  EXPECT_EQ(bar(-1.0, 4, charset::ascii), "    ");
  EXPECT_EQ(bar(0.5, 4, charset::utf8), "\u2588\u2588  ");
  EXPECT_EQ(bar(0.03125, 4, charset::utf8), "\u258f   ");
  EXPECT_EQ(width_of(bar(0.97, 10, charset::utf8)), 10U);
}

TEST(top_text, sparkline_shows_the_last_ones) {
  const std::vector<std::chrono::nanoseconds> values{1ms, 0ms, 4ms, 8ms};
  EXPECT_EQ(sparkline(values, 8ms, 3, charset::ascii), "_=#");
  EXPECT_EQ(sparkline(values, 8ms, 6, charset::ascii), "  ._=#");
  EXPECT_EQ(sparkline({}, 0ms, 2, charset::ascii), "  ");
}

}  // namespace
