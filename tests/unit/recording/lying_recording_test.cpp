// SPDX-License-Identifier: BSL-1.0
//
// Hostile recordings, from a file or a process: each is either refused, or can be shown and
// replayed. CI runs this with AddressSanitizer and UndefinedBehaviorSanitizer. The seeds are fixed.

#include <asio_pulse/recording.hpp>
#include <asio_pulse/replay.hpp>
#include <asio_pulse/trace.hpp>
#include <support/mutator.hpp>

#include <gtest/gtest.h>

#include <sstream>
#include <stdexcept>
#include <string>

#if defined(ASIO_PULSE_TEST_JSON)
#include <boost/json.hpp>
#endif

#include "sample.hpp"

namespace asio_pulse {
namespace {

using pulse_test::chance;

void use(const recording& r) {
  std::ostringstream trace;
  write_trace(r, trace);
#if defined(ASIO_PULSE_TEST_JSON)
  boost::system::error_code wrong;
  (void)boost::json::parse(trace.str(), wrong);
  EXPECT_FALSE(wrong) << wrong.message();
#endif
  // Out again, it is the same.
  std::error_code ec;
  EXPECT_TRUE(decode_recording(encode(r), ec) == r);
  try {
    (void)replay(r, r.settings);
    for (const proposal& p : tune(r)) EXPECT_FALSE(to_cpp(p).empty());
  } catch (const std::invalid_argument&) {  // settings that no options may have
  }
}

TEST(lying_recording, whatever_it_holds_is_refused_or_used) {
  int used = 0;
  int refused = 0;
  for (const std::uint64_t seed : {1U, 2U, 3U, 4U}) {
    SCOPED_TRACE(seed);
    chance by(seed);
    for (int round = 0; round < 200; ++round) {
      std::string bytes = encode(test::everything());
      pulse_test::mutate(bytes, by, 12);  // behind the magic number and the version
      std::error_code ec;
      std::string why;
      const recording r = decode_recording(bytes, ec, &why);
      if (ec) {
        ++refused;
        EXPECT_FALSE(why.empty());
        continue;
      }
      ++used;
      use(r);
    }
  }
  EXPECT_GT(used, 60);
  EXPECT_GT(refused, 60);
}

TEST(lying_recording, what_no_program_has_is_cut_when_it_is_written) {
  recording r;
  r.length = std::chrono::nanoseconds::max();
  r.settings.stall_threshold = std::chrono::nanoseconds::min();
  r.begin = std::chrono::system_clock::time_point::min();
  std::error_code ec;
  const recording read = decode_recording(encode(r), ec);
  EXPECT_FALSE(ec);
  EXPECT_EQ(read.length.count(), std::int64_t{1} << 60);
  EXPECT_EQ(read.settings.stall_threshold.count(), 0);
  use(read);
}

}  // namespace
}  // namespace asio_pulse
