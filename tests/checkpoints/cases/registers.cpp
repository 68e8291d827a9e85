// Values that are live in vector and x87 registers, in flags' place, and errno. Compiled for AVX2 where the CPU has it.
#include "hooked.h"

#include <immintrin.h>

#include <cstdint>
#include <vector>

namespace {
__attribute__((target("avx2"))) HOOKED_NOINLINE std::uint64_t wide(const std::uint32_t* p,
                                                                   const char* until) {
  HOOKED_IMPURE;
  __m256i a = _mm256_set1_epi32(3), b = _mm256_set1_epi32(5),
          c = _mm256_set1_epi64x(0x123456789abcdef), d = a;
  for (; *until != 0; ++until, p += 8) {
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    a = _mm256_add_epi32(_mm256_mullo_epi32(a, b), v);
    c = _mm256_xor_si256(_mm256_slli_epi64(c, 1), a);
    d = _mm256_sub_epi64(d, c);
  }
  alignas(32) std::uint64_t out[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(out),
                     _mm256_add_epi64(_mm256_add_epi64(a, b), _mm256_add_epi64(c, d)));
  return out[0] ^ out[1] * 3 ^ out[2] * 5 ^ out[3] * 7;
}
HOOKED_NOINLINE long double x87(const char* until) {
  HOOKED_IMPURE;
  long double a = 1.0L, b = 0.5L, c = 3.25L;
  for (; *until != 0; ++until) {
    a = a * 1.0000001L + b;
    b = b * 0.9999L + c;
    c = c - 0.0001L * a;
  }
  return a + b + c;
}
HOOKED_NOINLINE double doubles(const double* p, const char* until) {
  HOOKED_IMPURE;
  double a = 0, b = 1, c = 2, d = 3, e = 4, f = 5, g = 6, h = 7;
  for (; *until != 0; ++until, ++p) {
    a += *p * b, b -= *p + c, c += d * 0.5, d -= e * 0.25, e += f - *p, f -= g * 0.125,
        g += h * 0.1, h -= a * 1e-9;
  }
  return a + b + c + d + e + f + g + h;
}
HOOKED_NOINLINE std::uint64_t general(const char* until) {
  HOOKED_IMPURE;
  std::uint64_t a = 1, b = 2, c = 3, d = 4, e = 5, f = 6, g = 7, h = 8, i = 9, j = 10, k = 11,
                l = 12;
  for (; *until != 0; ++until) {
    a += b * 3, b ^= c + a, c -= d ^ 7, d += e * a, e ^= f << 1, f += g, g -= h * 5, h ^= i,
        i += j * 9, j -= k, k ^= l + 1, l += a;
  }
  return a ^ b ^ c ^ d ^ e ^ f ^ g ^ h ^ i ^ j ^ k ^ l;
}
HOOKED_NOINLINE int keeps_errno(const char* until) {
  HOOKED_IMPURE;
  errno = 5;
  for (; *until != 0; ++until) __asm__ volatile("");
  return errno;
}
}  // namespace

int main() {
  hooked_start();
  const std::vector<char> until(20001, 'x');
  std::vector<char> text = until;
  text.back() = 0;
  std::vector<std::uint32_t> words(8 * 20001);
  std::vector<double> numbers(20001);
  for (std::size_t i = 0; i < words.size(); ++i)
    words[i] = static_cast<std::uint32_t>(i * 2654435761u);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<double>(i % 97) * 0.01;
  hooked_expect("filling", 2);
  if (__builtin_cpu_supports("avx2")) {
    printf("wide %llu\n", static_cast<unsigned long long>(wide(words.data(), text.data())));
    hooked_expect("wide", 20);
  }
  printf("x87 %.15Lg\n", x87(text.data()));
  hooked_expect("x87", 20);
  printf("doubles %.12g\n", doubles(numbers.data(), text.data()));
  hooked_expect("doubles", 20);
  printf("general %llu\n", static_cast<unsigned long long>(general(text.data())));
  hooked_expect("general", 20);
  printf("errno %d\n", keeps_errno(text.data()));
  hooked_expect("errno", 10);
}
