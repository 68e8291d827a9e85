// SPDX-License-Identifier: BSL-1.0
//
// asio_pulse::chunked_memory: large memcpy(), memmove(), memset(), memchr() and memcmp() in pieces,
// with a check between two. The C library has no checks: 100 MB take it 10 to 50 ms.
//
// They take the place of the C library's functions in the program. Small calls cost an indirect call
// more; the compiler replaces those of constant size anyway.
#include "chunked.h"

#include <dlfcn.h>

#include <cstddef>
#include <cstdint>

namespace asio_pulse::detail::chunked {
namespace {

// A piece takes 1 to 8 us, from the cache or from memory. Below `large` nothing is cut.
constexpr std::size_t piece = std::size_t{32} << 10;
constexpr std::size_t large = std::size_t{128} << 10;
// The work of a piece in the units of asio_pulse_fuel. A guess that is on the safe side: the slow
// path measures.
constexpr int piece_units = 8192;

using copy_type = void*(void*, const void*, std::size_t);
using set_type = void*(void*, int, std::size_t);
using find_type = void*(const void*, int, std::size_t);
using compare_type = int(const void*, const void*, std::size_t);

// The C library's functions. Null until they have been looked up, which is before main(), but not
// before the first call: libraries that are loaded before are initialised first.
copy_type* real_memcpy = nullptr;
copy_type* real_memmove = nullptr;
set_type* real_memset = nullptr;
find_type* real_memchr = nullptr;
compare_type* real_memcmp = nullptr;

[[gnu::constructor(101)]] void look_up() {
  real_memmove = reinterpret_cast<copy_type*>(dlsym(RTLD_NEXT, "memmove"));
  real_memset = reinterpret_cast<set_type*>(dlsym(RTLD_NEXT, "memset"));
  real_memchr = reinterpret_cast<find_type*>(dlsym(RTLD_NEXT, "memchr"));
  real_memcmp = reinterpret_cast<compare_type*>(dlsym(RTLD_NEXT, "memcmp"));
  real_memcpy = reinterpret_cast<copy_type*>(dlsym(RTLD_NEXT, "memcpy"));
}

inline void check_piece() noexcept { check(piece_units); }

// Whether a call of this size is cut.
[[gnu::always_inline]] inline bool cut(std::size_t n) noexcept {
  return __builtin_expect(n >= large, 0) && asio_pulse_no_chunks <= 0;
}

inline std::uintptr_t at(const void* p) noexcept { return reinterpret_cast<std::uintptr_t>(p); }

[[gnu::cold, gnu::noinline]] void* forwards(void* to, const void* from, std::size_t n) {
  auto* t = static_cast<char*>(to);
  const auto* f = static_cast<const char*>(from);
  for (; n > piece; n -= piece, t += piece, f += piece) {
    real_memmove(t, f, piece);
    check_piece();
  }
  real_memmove(t, f, n);
  return to;
}

[[gnu::cold, gnu::noinline]] void* backwards(void* to, const void* from, std::size_t n) {
  auto* const t = static_cast<char*>(to);
  const auto* const f = static_cast<const char*>(from);
  for (; n > piece; n -= piece) {
    real_memmove(t + n - piece, f + n - piece, piece);
    check_piece();
  }
  real_memmove(t, f, n);
  return to;
}

void* move(void* to, const void* from, std::size_t n) {
  // From the front unless `to` begins inside of what is copied.
  return at(to) - at(from) >= n ? forwards(to, from, n) : backwards(to, from, n);
}

// Before the look-up.
void* early_move(void* to, const void* from, std::size_t n) {
  auto* volatile t = static_cast<char*>(to);
  const auto* volatile f = static_cast<const char*>(from);
  if (at(to) - at(from) >= n) {
    for (std::size_t i = 0; i < n; ++i) t[i] = f[i];
  } else {
    while (n-- > 0) t[n] = f[n];
  }
  return to;
}

}  // namespace
}  // namespace asio_pulse::detail::chunked

namespace chunked = asio_pulse::detail::chunked;

extern "C" {

extern int asio_pulse_chunked_free_is_linked;
// The target makes the linker look for it.
int* asio_pulse_chunked_memory_is_linked = &asio_pulse_chunked_free_is_linked;

void* memcpy(void* __restrict to, const void* __restrict from, std::size_t n) noexcept {
  if (__builtin_expect(chunked::real_memcpy == nullptr, 0)) return chunked::early_move(to, from, n);
  return chunked::cut(n) ? chunked::move(to, from, n) : chunked::real_memcpy(to, from, n);
}

void* memmove(void* to, const void* from, std::size_t n) noexcept {
  if (__builtin_expect(chunked::real_memmove == nullptr, 0))
    return chunked::early_move(to, from, n);
  return chunked::cut(n) ? chunked::move(to, from, n) : chunked::real_memmove(to, from, n);
}

void* memset(void* to, int c, std::size_t n) noexcept {
  auto* t = static_cast<char*>(to);
  if (__builtin_expect(chunked::real_memset == nullptr, 0)) {
    auto* volatile early = t;
    for (std::size_t i = 0; i < n; ++i) early[i] = static_cast<char>(c);
    return to;
  }
  if (chunked::cut(n)) {
    for (; n > chunked::piece; n -= chunked::piece, t += chunked::piece) {
      chunked::real_memset(t, c, chunked::piece);
      chunked::check_piece();
    }
  }
  chunked::real_memset(t, c, n);
  return to;
}

void* memchr(const void* in, int c, std::size_t n) noexcept {
  const auto* p = static_cast<const char*>(in);
  if (__builtin_expect(chunked::real_memchr == nullptr, 0)) {
    for (; n > 0; --n, ++p) {
      if (*p == static_cast<char>(c)) return const_cast<char*>(p);
    }
    return nullptr;
  }
  if (chunked::cut(n)) {
    for (; n > chunked::piece; n -= chunked::piece, p += chunked::piece) {
      if (void* const found = chunked::real_memchr(p, c, chunked::piece)) return found;
      chunked::check_piece();
    }
  }
  return chunked::real_memchr(p, c, n);
}

int memcmp(const void* one, const void* two, std::size_t n) noexcept {
  const auto* a = static_cast<const unsigned char*>(one);
  const auto* b = static_cast<const unsigned char*>(two);
  if (__builtin_expect(chunked::real_memcmp == nullptr, 0)) {
    for (; n > 0; --n, ++a, ++b) {
      if (*a != *b) return *a < *b ? -1 : 1;
    }
    return 0;
  }
  if (chunked::cut(n)) {
    for (; n > chunked::piece; n -= chunked::piece, a += chunked::piece, b += chunked::piece) {
      if (const int order = chunked::real_memcmp(a, b, chunked::piece)) return order;
      chunked::check_piece();
    }
  }
  return chunked::real_memcmp(a, b, n);
}

}  // extern "C"
