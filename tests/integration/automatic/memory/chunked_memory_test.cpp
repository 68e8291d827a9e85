// SPDX-License-Identifier: BSL-1.0

// asio_pulse::chunked_memory: the functions do what the C library's do, with checks in between. And a
// program without asio_pulse::lock_count, in which nothing is suspended.

#include "../automatic.hpp"

#include <support/sanitizers.hpp>

#include <malloc.h>
#include <regex.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

using namespace automatic;

// Called through these, so that the compiler neither knows nor replaces them.
void* (*volatile copy)(void*, const void*, std::size_t) = &std::memcpy;
void* (*volatile move)(void*, const void*, std::size_t) = &std::memmove;
void* (*volatile fill)(void*, int, std::size_t) = &std::memset;
int (*volatile compare)(const void*, const void*, std::size_t) = &std::memcmp;
const void* (*volatile find)(const void*, int, std::size_t) = &std::memchr;

constexpr std::size_t kib = 1024;
constexpr std::size_t sizes[] = {
    0, 1, 63, 32 * kib, 128 * kib - 1, 128 * kib, 129 * kib, 160 * kib + 7, 1024 * kib + 1};

std::vector<unsigned char> pattern(std::size_t n) {
  std::vector<unsigned char> v(n);
  unsigned x = 1;
  for (unsigned char& c : v) c = static_cast<unsigned char>((x = x * 1664525 + 1013904223) >> 24);
  return v;
}
bool same(const std::vector<unsigned char>& a, const std::vector<unsigned char>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](auto x, auto y) { return x == y; });
}

TEST(chunked_memory, copies_and_fills_as_the_c_library_does) {
  for (const std::size_t n : sizes) {
    const auto from = pattern(n);
    std::vector<unsigned char> to(n + 1, 7);
    EXPECT_EQ(copy(to.data(), from.data(), n), to.data());
    EXPECT_TRUE(std::equal(from.begin(), from.end(), to.begin())) << n;
    EXPECT_EQ(to[n], 7);
    EXPECT_EQ(fill(to.data(), 0x1ff, n), to.data());
    EXPECT_EQ(std::count(to.begin(), to.end() - 1, 0xff), static_cast<std::ptrdiff_t>(n));
    EXPECT_EQ(to[n], 7);
  }
}

TEST(chunked_memory, moves_what_overlaps_in_both_directions) {
  for (const std::size_t n : sizes) {
    for (const std::size_t by : {std::size_t{0}, std::size_t{1}, 33 * kib, n / 2, n}) {
      const auto whole = pattern(n + by);
      auto up = whole, down = whole;
      EXPECT_EQ(move(up.data() + by, up.data(), n), up.data() + by);
      EXPECT_TRUE(std::equal(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n),
                             up.begin() + static_cast<std::ptrdiff_t>(by)))
          << n << " up by " << by;
      EXPECT_EQ(move(down.data(), down.data() + by, n), down.data());
      EXPECT_TRUE(
          std::equal(whole.begin() + static_cast<std::ptrdiff_t>(by), whole.end(), down.begin()))
          << n << " down by " << by;
    }
  }
}

TEST(chunked_memory, compares_and_finds_as_the_c_library_does) {
  for (const std::size_t n : sizes) {
    const std::vector<unsigned char> zeros(n + 1);
    EXPECT_EQ(find(zeros.data(), 5, n), nullptr);
    EXPECT_EQ(compare(zeros.data(), std::vector<unsigned char>(n + 1).data(), n), 0);
    for (const std::size_t at : {std::size_t{0}, n / 3, n / 2, n - 1}) {
      if (at >= n) continue;
      auto one = zeros;
      one[at] = 5;
      EXPECT_EQ(find(one.data(), 5 + 256, n), one.data() + at);
      EXPECT_EQ(find(one.data(), 5, at), nullptr);
      EXPECT_GT(compare(one.data(), zeros.data(), n), 0);
      EXPECT_LT(compare(zeros.data(), one.data(), n), 0);
      EXPECT_EQ(compare(zeros.data(), one.data(), at), 0);
    }
  }
}

TEST(chunked_memory, has_checks_and_without_counted_locks_none_suspends) {
  asio_pulse::io_context io{eager()};
  const auto from = pattern(64 * 1024 * kib);
  std::vector<unsigned char> to(from.size());
  int others = 0;
  asio::post(io, asio_pulse::preemptible([&] {
               asio::post(io, [&] { ++others; });
               burn(2us);
               copy(to.data(), from.data(), from.size());
               EXPECT_EQ(others, 0);
             }));
  io.run();
  EXPECT_TRUE(same(from, to));
  const asio_pulse::statistics s = io.stats();
  EXPECT_GE(s.automatic_checks, 1U);
  EXPECT_EQ(s.automatic_suspensions, 0U);
  // A check that comes before the time is up is not refused.
  EXPECT_GE(s.automatic_refused_uncounted, 1U);
  EXPECT_LE(s.automatic_refused_uncounted, s.automatic_checks);
}

TEST(chunked_memory, has_no_checks_where_that_is_switched_off) {
  asio_pulse::io_context io{eager()};
  const auto from = pattern(64 * 1024 * kib);
  std::vector<unsigned char> to(from.size());
  asio::post(io, asio_pulse::preemptible([&] {
               ++asio_pulse_no_chunks;
               copy(to.data(), from.data(), from.size());
               move(to.data(), from.data(), from.size());
               fill(to.data(), 0, to.size());
               EXPECT_EQ(find(to.data(), 1, to.size()), nullptr);
               EXPECT_NE(compare(to.data(), from.data(), to.size()), 0);
               --asio_pulse_no_chunks;
             }));
  io.run();
  EXPECT_EQ(io.stats().automatic_checks, 0U);
}

// ---- free()

void (*volatile give)(void*) = &std::free;
void* (*volatile take)(std::size_t) = &std::malloc;

/// How many checks \p f takes in a handler that may be suspended, if each check is asked.
template <class Function>
std::uint64_t checks_in(Function f) {
  asio_pulse::io_context io{eager()};
  asio::post(io, asio_pulse::preemptible([&] {
               asio_pulse_fuel = ASIO_PULSE_FUEL_ASK;
               f();
             }));
  io.run();
  return io.stats().automatic_checks;
}

/// A block with a mapping of its own, whatever was freed before.
void* mapped_block(std::size_t n) {
  malloc_trim(0);
  mallopt(M_MMAP_THRESHOLD, 128 * kib);
  void* const p = take(n);
  std::memset(p, 1, n);
  return p;
}

class chunked_free : public testing::Test {
  void SetUp() override {
    if (address_sanitizer) GTEST_SKIP() << "the allocator is the sanitizer's";
  }
};

TEST_F(chunked_free, gives_a_large_block_back_with_checks) {
  void* const p = mapped_block(8 * 1024 * kib);
  EXPECT_GE(checks_in([&] { give(p); }), 1U);
}

TEST_F(chunked_free, has_no_checks_for_small_blocks_and_where_that_is_switched_off) {
  void* const p = mapped_block(8 * 1024 * kib);
  void* const small = mapped_block(256 * kib);
  EXPECT_EQ(checks_in([&] {
              give(nullptr);
              give(small);
              for (int i = 0; i != 1000; ++i) give(take(100));
              ++asio_pulse_no_chunks;
              give(p);
              --asio_pulse_no_chunks;
            }),
            0U);
}

TEST_F(chunked_free, leaves_errno_and_frees_what_cannot_be_given_back_before) {
  for (const std::size_t alignment : {std::size_t{16}, 64 * kib}) {
    for (const bool locked : {false, true}) {
      malloc_trim(0);
      mallopt(M_MMAP_THRESHOLD, 128 * kib);
      const std::size_t before = mallinfo2().hblks;
      void* const p = std::aligned_alloc(alignment, 1024 * kib);
      ASSERT_NE(p, nullptr);
      std::memset(p, 1, 1024 * kib);
      // Its last page is locked: the pages before it can be given back.
      if (locked) (void)mlock(static_cast<char*>(p) + 512 * kib, 1);
      ASSERT_EQ(mallinfo2().hblks, before + 1);
      errno = 77;
      give(p);
      EXPECT_EQ(errno, 77);
      EXPECT_EQ(mallinfo2().hblks, before) << alignment << locked;
    }
  }
}

TEST_F(chunked_free, a_realloc_keeps_what_is_there) {
  auto* p = static_cast<unsigned char*>(mapped_block(1024 * kib));
  p = static_cast<unsigned char*>(std::realloc(p, 4096 * kib));
  EXPECT_EQ(std::count(p, p + 1024 * kib, 1), static_cast<std::ptrdiff_t>(1024 * kib));
  give(p);
}

// regexec() holds a lock of the pattern while it frees what it needed, and nobody counts that lock.
TEST_F(chunked_free, has_no_checks_when_the_c_library_frees) {
  regex_t pattern;
  ASSERT_EQ(regcomp(&pattern, "(a*)", REG_EXTENDED), 0);
  const std::string text(256 * kib, 'a');
  regmatch_t matches[2];
  malloc_trim(0);
  mallopt(M_MMAP_THRESHOLD, 128 * kib);
  EXPECT_EQ(checks_in([&] { EXPECT_EQ(regexec(&pattern, text.c_str(), 2, matches, 0), 0); }), 0U);
  EXPECT_EQ(matches[1].rm_eo, static_cast<regoff_t>(text.size()));
  regfree(&pattern);
}

// What malloc_consolidate() would put together in one long step.
TEST_F(chunked_free, leaves_no_lists_of_small_blocks_to_be_consolidated) {
  std::vector<void*> blocks(10'000);
  for (void*& p : blocks) p = take(24);
  for (void* const p : blocks) give(p);
  EXPECT_EQ(mallinfo2().smblks, 0U);
}

}  // namespace
