// SPDX-License-Identifier: BSL-1.0

// A team of OpenMP belongs to the thread that opened it.

#include "automatic.hpp"

#if defined(_OPENMP)
#include <omp.h>

#include <atomic>

namespace {

using namespace automatic;

TEST(automatic_checkpoint, waits_in_an_openmp_region) {
  std::atomic<int> wrong{0};
  const asio_pulse::statistics s = suspended_only_around([&](auto inside) {
#pragma omp parallel num_threads(2)
    {
      if (omp_get_thread_num() == 0) {
        inside();
      } else {
        checked_loop();  // on a thread of the team, which runs no handlers
      }
      if (omp_get_level() != 1) ++wrong;
    }
    if (omp_get_level() != 0) ++wrong;
  });
  EXPECT_EQ(wrong, 0);
  EXPECT_GE(s.automatic_refused_parallel, 40U);
}

}  // namespace
#endif
