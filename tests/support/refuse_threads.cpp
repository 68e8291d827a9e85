// SPDX-License-Identifier: BSL-1.0

// Linked into test programs that are declared SINGLE_THREADED, which the build with ThreadSanitizer
// leaves out. If one of them starts a thread nevertheless, it fails, so that the declaration stays
// true.

#include <pthread.h>

#include <cstdio>
#include <cstdlib>

extern "C" int pthread_create(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*) {
  std::fputs(
      "This test program is declared SINGLE_THREADED (tests/CMakeLists.txt) and starts a thread.\n",
      stderr);
  std::abort();
}
