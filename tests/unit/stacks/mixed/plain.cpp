// SPDX-License-Identifier: BSL-1.0

#include "shared_code.hpp"

MIXED_EXPORT void* plain_shared() { return reinterpret_cast<void*>(&shared_code); }

MIXED_EXPORT unsigned plain(unsigned value) {
  for (unsigned i = 0; i != value; ++i) asm volatile("" : "+r"(value));
  return value + 1;
}
