// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <boost/asio/detail/config.hpp>

#if defined(BOOST_ASIO_HAS_IO_URING)
#include <gtest/gtest.h>
#include <liburing.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

/// \file
/// Included by a test program that is built for io_uring: if this machine has none, it ends before
/// the first test, with the exit status for "skipped".

namespace pulse_test {

class needs_io_uring : public testing::Environment {
 public:
  void SetUp() override {
    ::io_uring ring{};
    const int result = ::io_uring_queue_init(8, &ring, 0);
    if (result < 0) {
      std::printf("skipped: no io_uring on this machine: %s\n", std::strerror(-result));
      std::fflush(stdout);
      std::_Exit(77);
    }
    ::io_uring_queue_exit(&ring);
  }
};
inline testing::Environment* const io_uring_or_skip =
    testing::AddGlobalTestEnvironment(new needs_io_uring);

}  // namespace pulse_test
#endif
