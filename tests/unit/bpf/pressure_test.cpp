// SPDX-License-Identifier: BSL-1.0
#include "pressure.hpp"
// Included first, to check that the header is self-contained.

#include "support.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <random>

namespace {

using asio_pulse::scx::parse_pressure;
using asio_pulse::scx::pressure;
using asio_pulse::scx::read_pressure;

std::optional<int> parsed(std::string_view text) {
  const auto value = parse_pressure(text);
  return value ? std::optional<int>(*value) : std::nullopt;
}

TEST(pressure, reads_some_and_not_full) {
  EXPECT_EQ(parsed("some avg10=12.34 avg60=5.00 avg300=1.00 total=123\n"
                   "full avg10=99.00 avg60=0.00 avg300=0.00 total=0\n"),
            12);
  EXPECT_EQ(parsed("full avg10=99.00 avg60=0.00 avg300=0.00 total=0\n"
                   "some avg10=7.00 avg60=5.00 avg300=1.00 total=123\n"),
            7);
  EXPECT_EQ(parsed("some avg10=0.00 avg60=0.00 avg300=0.00 total=0"), 0);
  EXPECT_EQ(parsed("some avg60=1.00 avg10=2.00"), 2);  // in any order
}

TEST(pressure, rounds_and_clamps) {
  EXPECT_EQ(parsed("some avg10=12.49 "), 12);
  EXPECT_EQ(parsed("some avg10=12.50 "), 13);
  EXPECT_EQ(parsed("some avg10=99.99 "), 100);
  EXPECT_EQ(parsed("some avg10=100.00 "), 100);
  EXPECT_EQ(parsed("some avg10=100.60 "), 100);
  EXPECT_EQ(parsed("some avg10=355.00 "), 100);
  EXPECT_EQ(parsed("some avg10=99999999999999999999999999.9 "), 100);
}

TEST(pressure, is_unknown_where_the_text_is_something_else) {
  for (const std::string_view text : {"",
                                      "\n",
                                      "some",
                                      "some ",
                                      "some avg10",
                                      "some avg10=",
                                      "some avg10= ",
                                      "some avg10=x",
                                      "some avg10=-1.00 ",
                                      "some avg10=+1.00 ",
                                      "some avg10=1,5 ",
                                      "some avg10=1. ",
                                      "some avg10=.5 ",
                                      "some avg10=nan ",
                                      "some avg10=1e9 ",
                                      "some avg10=0x10 ",
                                      "someavg10=1.00",
                                      " some avg10=1.00",
                                      "full avg10=1.00",
                                      "SOME avg10=1.00"}) {
    EXPECT_EQ(parsed(text), std::nullopt) << text;
  }
  EXPECT_EQ(parsed(std::string_view("some avg10=1\0.00 ", 17)), std::nullopt);
}

TEST(pressure, stands_any_bytes) {
  std::mt19937 random(7);
  for (int i = 0; i < 20'000; ++i) {
    std::string text = "some avg10=12.34 avg60=0\nfull avg10=1.00\n";
    for (int k = 0; k < 4; ++k) {
      const std::size_t at = random() % (text.size() + 1);
      if (random() % 2 == 0) {
        text.insert(at, 1, static_cast<char>(random() % 256));
      } else if (at < text.size()) {
        text.erase(at, 1 + random() % 5);
      }
    }
    EXPECT_LE(parse_pressure(text).value_or(0), 100) << text;
  }
}

TEST(pressure, says_when_a_file_is_missing) {
  const bpf_test::temporary_folder folder;
  EXPECT_EQ(read_pressure(folder / "nothing"), pressure{});
  std::ofstream(folder / "cpu") << "some avg10=41.00 avg60=0.00 avg300=0.00 total=0\n";
  std::ofstream(folder / "io") << "some avg10=42.00 avg60=0.00 avg300=0.00 total=0\n";
  EXPECT_EQ(read_pressure(folder / ""), (pressure{.cpu = 41, .io = 42}));
  std::ofstream(folder / "memory") << "some avg10=43.00 avg60=0.00 avg300=0.00 total=0\n";
  EXPECT_EQ(read_pressure(folder / ""),
            (pressure{.cpu = 41, .io = 42, .memory = 43, .known = true}));
}

TEST(pressure, of_this_machine_is_in_range) {
  const pressure now = read_pressure();
  EXPECT_LE(now.cpu, 100);
  EXPECT_LE(now.io, 100);
  EXPECT_LE(now.memory, 100);
}

}  // namespace
