// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <support/sanitizers.hpp>
#include <support/scenario.hpp>
//
#include <asio_pulse/preemptible.hpp>

/// \file
/// Common parts of the tests of synchronous code that yields.

namespace pulse_test {

/// A checkpoint yields as soon as it looks at the clock.
inline asio_pulse::options eager() {
  auto o = steady();
  o.quantum = 1us;
  o.min_slice = 1us;
  return o;
}

/// Deep in synchronous code: calls itself `depth` times, then yields until another handler has run.
/// No handle of the fiber is passed down.
[[gnu::noinline]] inline void yield_deep_down(int depth, const int& others) {
  if (depth > 0) {
    yield_deep_down(depth - 1, others);
    asm volatile("");
    return;
  }
  const int before = others;
  do {
    burn(2us);
    asio_pulse::this_fiber::checkpoint();
  } while (others == before);
}

/// One suspension at least: fuel lasts for 32 checkpoints at most, and the clock says yes.
inline void yield_once() {
  burn(5us);
  for (int i = 0; i < 64; ++i) asio_pulse::this_fiber::checkpoint();
}

}  // namespace pulse_test
