// SPDX-License-Identifier: BSL-1.0
//
// asio_pulse::chunked_memory: what free() of glibc does for long, in pieces with a check between two,
// or not at all.
//
// - Large blocks have a mapping of their own. To unmap 36 MB takes 2 ms and more. Here the pages are given back in
//   pieces first; what is left to unmap is empty.
// - Small blocks that are free are kept in lists (fastbins), and a free() that makes a large hole puts all of
//   them together (malloc_consolidate): 25 ms after a million. There is nothing to cut, so these lists are
//   switched off for the process; each thread's cache stays.
//
// Other allocators, and a sanitizer's, are called as they are. The definition is weak, so that an allocator
// that is linked statically takes its place.
#include "chunked.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

extern "C" {
int asio_pulse_chunked_free_is_linked = 1;  // chunked_memory.cpp refers to it
// Of clang's sanitizers, which are linked statically.
// NOLINTNEXTLINE(bugprone-reserved-identifier,readability-identifier-naming)
__attribute__((weak)) void __interceptor_free(void*);
}

namespace asio_pulse::detail::chunked {
namespace {

using free_type = void(void*);

// 32 pages take 5 to 15 us; blocks below `large` less than about 50 us in all.
constexpr std::size_t piece = std::size_t{128} << 10;
constexpr std::size_t large = std::size_t{512} << 10;
// A guess on the safe side, as in chunked_memory.cpp.
constexpr int piece_units = 16384;

free_type* real_free = nullptr;
bool from_glibc = false;
bool looking_up = false;
std::uintptr_t page = 4096;

struct range {
  std::uintptr_t from, to;
  bool has(const void* p) const noexcept {
    return reinterpret_cast<std::uintptr_t>(p) - from < to - from;
  }
};
// The C library and its loader. What they free, they may free under a lock that nobody counts.
range libc{}, loader{};

int find_modules(dl_phdr_info* info, std::size_t, void*) {
  for (range* const r : {&libc, &loader}) {
    if (info->dlpi_addr != r->from || r->to != 0) continue;
    for (int i = 0; i < info->dlpi_phnum; ++i) {
      const std::uintptr_t end =
          info->dlpi_addr + info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz;
      if (info->dlpi_phdr[i].p_type == PT_LOAD && end > r->to) r->to = end;
    }
  }
  return 0;
}

std::uintptr_t base_of(const void* p) {
  Dl_info info{};
  return p != nullptr && dladdr(p, &info) != 0 ? reinterpret_cast<std::uintptr_t>(info.dli_fbase)
                                               : 0;
}

[[gnu::cold, gnu::noinline]] void look_up() {
  looking_up = true;
  real_free = __interceptor_free != nullptr
                  ? &__interceptor_free
                  : reinterpret_cast<free_type*>(dlsym(RTLD_NEXT, "free"));
  looking_up = false;
}

#if defined(__GLIBC__)
[[gnu::constructor(101)]] void start() {
  if (real_free == nullptr) look_up();
  void* const own = dlsym(RTLD_DEFAULT, "__libc_free");
  if (own == nullptr || reinterpret_cast<void*>(real_free) != own) {
    Dl_info info{};  // the symbols may be two names with different addresses of one function
    if (own == nullptr || dladdr(reinterpret_cast<void*>(real_free), &info) == 0 ||
        reinterpret_cast<std::uintptr_t>(info.dli_fbase) != base_of(own)) {
      return;
    }
  }
  // An allocator in place of malloc() alone is another one, too.
  if (base_of(dlsym(RTLD_DEFAULT, "malloc")) != base_of(own)) return;
  page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  libc.from = base_of(own);
  loader.from = base_of(dlsym(RTLD_DEFAULT, "_dl_find_object"));
  if (loader.from == 0) loader.from = base_of(dlsym(RTLD_DEFAULT, "__tls_get_addr"));
  dl_iterate_phdr(find_modules, nullptr);
  const char* const tunables = std::getenv("GLIBC_TUNABLES");
  if (tunables == nullptr || std::strstr(tunables, "glibc.malloc.mxfast") == nullptr)
    mallopt(M_MXFAST, 0);
  from_glibc = libc.to != 0;
}

// glibc's word before a block: its size, and three flags.
std::size_t header(const void* p) noexcept { return static_cast<const std::size_t*>(p)[-1]; }
constexpr std::size_t is_mapped = 2, flags = 7;

[[gnu::cold, gnu::noinline]] void give_back(void* p, std::size_t size) noexcept {
  const int error = errno;
  const auto begin = reinterpret_cast<std::uintptr_t>(p);
  std::uintptr_t at = (begin + page - 1) & ~(page - 1);
  const std::uintptr_t end = (begin + size - 2 * sizeof(std::size_t)) & ~(page - 1);
  for (; at < end && end - at > piece; at += piece) {
    // Refused for locked memory: then the block is freed at once.
    if (madvise(reinterpret_cast<void*>(at), piece, MADV_DONTNEED) != 0) break;
    check(piece_units);
  }
  errno = error;
}
#endif

}  // namespace
}  // namespace asio_pulse::detail::chunked

namespace chunked = asio_pulse::detail::chunked;

extern "C" __attribute__((weak)) void free(void* p) noexcept {
  if (__builtin_expect(chunked::real_free == nullptr, 0)) {
    if (chunked::looking_up) return;  // the loader's, a few bytes
    chunked::look_up();
  }
#if defined(__GLIBC__)
  if (__builtin_expect(
          chunked::from_glibc && p != nullptr && (chunked::header(p) & chunked::is_mapped) != 0,
          0)) {
    const std::size_t size = chunked::header(p) & ~chunked::flags;
    const void* const caller = __builtin_return_address(0);
    if (size >= chunked::large && asio_pulse_no_chunks <= 0 && !chunked::libc.has(caller) &&
        !chunked::loader.has(caller))
      chunked::give_back(p, size);
  }
#endif
  chunked::real_free(p);
}
