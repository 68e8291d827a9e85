// SPDX-License-Identifier: BSL-1.0

#include <asio_pulse/timing/slice_extension.hpp>
//
#include <gtest/gtest.h>

#include <thread>

namespace {

using asio_pulse::timing::enable_slice_extension;
using asio_pulse::timing::slice_control;

TEST(slice_extension, a_section_that_is_not_interrupted_owes_nothing) {
  slice_control control;
  control.enter();
  EXPECT_EQ(control.request, 1);
  EXPECT_FALSE(control.leave());
  EXPECT_EQ(control.request, 0);
}

TEST(slice_extension, a_grant_is_to_be_given_back) {
  slice_control control;
  control.enter();
  // As the kernel does when it lets the thread go on.
  control.request = 0;
  control.granted = 1;
  EXPECT_TRUE(control.leave());
}

TEST(slice_extension, a_grant_that_the_kernel_took_back_owes_nothing) {
  slice_control control;
  control.enter();
  control.request = 0;
  control.granted = 0;
  EXPECT_FALSE(control.leave());
}

TEST(slice_extension, is_asked_for_and_works_or_is_not_there) {
  slice_control* const control = enable_slice_extension();
  if (control == nullptr) GTEST_SKIP() << "this kernel has no rseq slice extension";
  for (int n = 0; n < 1000; ++n) {
    control->enter();
    if (control->leave()) asio_pulse::timing::yield_slice();
    EXPECT_EQ(control->request, 0);
  }
  std::thread([control] {
    slice_control* const other = enable_slice_extension();
    EXPECT_NE(other, nullptr);
    EXPECT_NE(other, control);
  }).join();
}

}  // namespace
