// SPDX-License-Identifier: BSL-1.0
#include "line_output.hpp"

#include "service/block_store.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include <string>

namespace bpf_test {
namespace {

using asio_pulse::scx::line_output;
using asio_pulse::scx::unique_fd;

struct pipe_ends {
  unique_fd reading;
  unique_fd writing;
};

pipe_ends make_pipe() {
  int ends[2] = {-1, -1};
  EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  return {unique_fd(ends[0]), unique_fd(ends[1])};
}

/// Reads what is there.
std::string all_of(const unique_fd& from) {
  ::fcntl(from.get(), F_SETFL, O_NONBLOCK);
  std::string text;
  char bytes[4096];
  for (ssize_t n; (n = ::read(from.get(), bytes, sizeof bytes)) > 0;) {
    text.append(bytes, static_cast<std::size_t>(n));
  }
  return text;
}

TEST(line_output, prints_lines) {
  const pipe_ends p = make_pipe();
  line_output out(p.writing.get());
  out.say("one");
  out.say("two");
  EXPECT_EQ(all_of(p.reading), "one\ntwo\n");
}

// The test would hang.
TEST(line_output, does_not_wait_for_who_does_not_read_and_tells_what_was_dropped) {
  const pipe_ends p = make_pipe();
  line_output out(p.writing.get());
  const std::string line(1000, 'x');
  constexpr int many = 1000;  // more than a pipe takes
  for (int i = 0; i != many; ++i) out.say(line);
  const std::string text = all_of(p.reading);
  const auto lines = text.size() / (line.size() + 1);
  EXPECT_EQ(text.size() % (line.size() + 1), 0U);
  EXPECT_GT(lines, 0U);
  EXPECT_LT(lines, static_cast<std::size_t>(many));
  out.say("again");
  EXPECT_EQ(all_of(p.reading), "scx_pulse: " + std::to_string(many - lines) +
                                   " line(s) were dropped, because nobody read them\nagain\n");
  out.use_json(true);
  for (int i = 0; i != many; ++i) out.say(line);
  const auto in_json = all_of(p.reading).size() / (line.size() + 1);
  out.say("{}");
  EXPECT_EQ(all_of(p.reading),
            "{\"event\":\"dropped\",\"lines\":" + std::to_string(many - in_json) + "}\n{}\n");
}

}  // namespace
}  // namespace bpf_test
