// SPDX-License-Identifier: BSL-1.0
#include "loaded_module.hpp"

#if defined(__linux__) && defined(__ELF__)
#include <dlfcn.h>
#include <link.h>
#include <sys/auxv.h>

#include <cstdint>

// Weak, because a statically linked program may not have these functions, and does not need them.
#pragma weak dladdr
#pragma weak dlopen

// Defined by the linker: the ELF header of the module that contains this code.
// NOLINTNEXTLINE(bugprone-reserved-identifier,readability-identifier-naming): the linker's name
extern "C" [[gnu::visibility("hidden")]] const ElfW(Ehdr) __ehdr_start;
#endif

namespace asio_pulse::detail {

void keep_this_module() noexcept {
#if defined(__linux__) && defined(__ELF__)
  const auto headers = reinterpret_cast<std::uintptr_t>(&__ehdr_start) + __ehdr_start.e_phoff;
  if (headers == ::getauxval(AT_PHDR)) return;
  if (&::dladdr == nullptr || &::dlopen == nullptr) return;
  Dl_info here{};
  if (::dladdr(&__ehdr_start, &here) == 0 || here.dli_fname == nullptr) return;
  (void)::dlopen(here.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
#endif
}

}  // namespace asio_pulse::detail
