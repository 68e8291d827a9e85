// SPDX-License-Identifier: BSL-1.0
#include "rseq_area.hpp"

#include <cstddef>

#if defined(__linux__) && defined(__x86_64__) && defined(__has_include)
#if __has_include(<sys/rseq.h>)
#define ASIO_PULSE_TIMING_HAS_RSEQ 1
#endif
#endif

#if defined(ASIO_PULSE_TIMING_HAS_RSEQ)
#include <pthread.h>
#include <sys/mman.h>
#include <sys/rseq.h>
#include <unistd.h>
#endif

namespace asio_pulse::detail {

#if defined(ASIO_PULSE_TIMING_HAS_RSEQ)
namespace {

static_assert(offsetof(struct rseq, rseq_cs) == 8);
static_assert(offsetof(struct rseq, cpu_id) == 4);
static_assert(sizeof(std::atomic<std::uint64_t>) == sizeof(std::uint64_t));

// A change could go unnoticed if other clocks of the same thread are armed this many times between
// two looks; each time costs a system call. 64 descriptors of 32 bytes fill half a page.
constexpr std::size_t descriptor_count = 64;

/// struct rseq_cs of the kernel's ABI.
struct alignas(32) descriptor {
  std::uint32_t version;
  std::uint32_t flags;
  std::uint64_t start_ip;
  std::uint64_t post_commit_offset;
  std::uint64_t abort_ip;
};

struct descriptor_page {
  descriptor descriptors[descriptor_count];
  unsigned char section[32];   // the "critical section": data, never executed
  std::uint32_t signature[2];  // RSEQ_SIG, then the abort address
};

void disarm_in_child() noexcept { disarm_rseq(); }

const descriptor_page* make_page() noexcept {
  void* const memory = mmap(nullptr, sizeof(descriptor_page), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    return nullptr;
  }
  auto* const page = new (memory) descriptor_page{};
  page->signature[0] = RSEQ_SIG;
  for (descriptor& d : page->descriptors) {
    d.start_ip = reinterpret_cast<std::uintptr_t>(page->section);
    d.post_commit_offset = sizeof page->section;
    d.abort_ip = reinterpret_cast<std::uintptr_t>(&page->signature[1]);
  }
  mprotect(memory, sizeof(descriptor_page), PROT_READ);
  // Kernels up to 6.18 clear the word in a forked child; that is not promised, so do it here too.
  pthread_atfork(nullptr, nullptr, &disarm_in_child);
  return page;
}

const descriptor_page* page() noexcept {
  static const descriptor_page* const instance = make_page();
  return instance;
}

struct rseq* area() noexcept {
  char* thread = nullptr;
  __asm__("mov %%fs:0, %0" : "=r"(thread));
  return reinterpret_cast<struct rseq*>(thread + __rseq_offset);
}

bool registered() noexcept {
  // If the registration of the thread failed, this is RSEQ_CPU_ID_UNINITIALIZED or
  // RSEQ_CPU_ID_REGISTRATION_FAILED.
  return __rseq_size != 0 &&
         static_cast<std::int32_t>(*static_cast<volatile std::uint32_t*>(&area()->cpu_id)) >= 0;
}

}  // namespace

std::atomic<std::uint64_t>* rseq_word() noexcept {
  if (!registered()) {
    return nullptr;
  }
  // The kernel's ABI defines this word as a 64-bit integer that this thread, and the kernel on its
  // behalf, read and write in one access. In C++ that is an atomic of this size.
  return reinterpret_cast<std::atomic<std::uint64_t>*>(&area()->rseq_cs);
}

const char* rseq_state() noexcept {
  if (__rseq_size == 0) {
    return "the C library has not registered rseq (kernel, GLIBC_TUNABLES or an emulator)";
  }
  return registered() ? "rseq is registered" : "this thread has no rseq registration";
}

bool is_our_descriptor(std::uint64_t value) noexcept {
  const auto first = reinterpret_cast<std::uintptr_t>(page());
  return first != 0 && value >= first && value < first + descriptor_count * sizeof(descriptor);
}

std::uint64_t next_descriptor() noexcept {
  static thread_local std::size_t next = 0;
  const descriptor_page* const all = page();
  if (all == nullptr) {
    return 0;
  }
  next = (next + 1) % descriptor_count;
  return reinterpret_cast<std::uintptr_t>(&all->descriptors[next]);
}

void disarm_rseq() noexcept {
  if (auto* const word = rseq_word();
      word != nullptr && is_our_descriptor(word->load(std::memory_order_relaxed))) {
    word->store(0, std::memory_order_relaxed);
  }
}

#else

std::atomic<std::uint64_t>* rseq_word() noexcept { return nullptr; }
const char* rseq_state() noexcept {
  return "rseq is used on Linux x86-64 with glibc 2.35 or later";
}
bool is_our_descriptor(std::uint64_t) noexcept { return false; }
std::uint64_t next_descriptor() noexcept { return 0; }
void disarm_rseq() noexcept {}

#endif

}  // namespace asio_pulse::detail
