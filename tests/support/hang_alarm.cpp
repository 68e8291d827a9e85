// SPDX-License-Identifier: BSL-1.0
//
// A test that hangs ends its process, with its name as the last thing printed. For shards, of which CTest knows no
// single test. Linked into a test executable, it needs nothing else.

#include <gtest/gtest.h>
#include <unistd.h>

namespace {

// SIGALRM's default action ends the process, and forked children have no alarm of their parent's.
class hang_alarm : public testing::EmptyTestEventListener {
  void OnTestStart(const testing::TestInfo&) override { ::alarm(240); }
  void OnTestEnd(const testing::TestInfo&) override { ::alarm(0); }
};

// GoogleTest owns it.
const bool installed = [] {
  testing::UnitTest::GetInstance()->listeners().Append(new hang_alarm);
  return true;
}();

}  // namespace
