// SPDX-License-Identifier: BSL-1.0

#include "shared_code.hpp"

MIXED_EXPORT unsigned described_shared(unsigned value) { return shared_code(value) + 1; }

MIXED_EXPORT unsigned described(unsigned value) {
  for (unsigned i = 0; i != value; ++i) asm volatile("" : "+r"(value));
  return value + 1;
}
