// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

/// \file
/// Injects one failure into the requests of a program to the system. faults.cpp replaces malloc()
/// and functions of the C library. It counts their calls from arm() on, in all threads.

namespace pulse_test::faults {

enum class kind : std::uint8_t { allocation, descriptor, thread, mapping, call };
inline constexpr std::size_t kinds = 5;
inline constexpr std::array<kind, kinds> all_kinds{kind::allocation, kind::descriptor, kind::thread,
                                                   kind::mapping, kind::call};
const char* to_string(kind) noexcept;

void disarm() noexcept;

/// The number of requests of this kind since arm().
std::uint64_t count(kind) noexcept;

/// The request that failed.
struct failure {
  const char* what = nullptr;  ///< the function, or null if none has failed
  std::array<void*, 32> stack{};
  std::size_t depth = 0;
};

/// Begins to count requests. The n-th of this kind fails, or none if `n` is 0. The failed request
/// is written to `to`.
void arm(kind which, std::uint64_t n, failure& to) noexcept;

/// The number of allocations that have not been freed. Always 0 under a sanitizer, which has its
/// own malloc().
long live() noexcept;

/// While this exists, requests of the calling thread are not counted and do not fail. For the
/// test's own requests.
class spared {
 public:
  spared() noexcept;
  ~spared();
  spared(const spared&) = delete;
  spared& operator=(const spared&) = delete;
};

}  // namespace pulse_test::faults
