// SPDX-License-Identifier: BSL-1.0

#include "shared_code.hpp"

MIXED_EXPORT unsigned described_shared(unsigned value) { return shared_code(value) + 1; }

MIXED_EXPORT unsigned described(unsigned value) {
  for (unsigned i = 0; i != value; ++i) asm volatile("" : "+r"(value));
  return value + 1;
}

// Its first three bytes have line 0, as clang gives it to code that it has made of several lines.
MIXED_EXPORT unsigned without_line(unsigned value) {
  asm volatile(".loc 1 0\n\tnop\n\tnop\n\tnop");
  return value + 2;
}
