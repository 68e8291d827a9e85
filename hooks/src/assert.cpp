// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/hooks/assert.hpp>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#if defined(_WIN32)
#include <io.h>
#else
#include <unistd.h>
#endif

namespace asio_pulse::hooks::detail {

void assertion_failed(const char* condition, const char* file, int line,
                      const char* function) noexcept {
  // Without formatting functions and in one write, because this may run on a fiber's small stack or
  // in a signal handler.
  char text[1024];
  std::size_t size = 0;
  const auto add = [&](const char* part) {
    const std::size_t n = std::strlen(part);
    const std::size_t fits = n < sizeof text - size ? n : sizeof text - size;
    std::memcpy(text + size, part, fits);
    size += fits;
  };
  char digits[12] = {};
  char* digit = digits + sizeof digits - 1;
  for (unsigned rest = static_cast<unsigned>(line); rest != 0; rest /= 10) {
    *--digit = static_cast<char>('0' + rest % 10);
  }
  for (const char* const part : {"asio_pulse: assertion failed: ", condition, ", in ", function,
                                 " at ", file, ":", static_cast<const char*>(digit), "\n"}) {
    add(part);
  }
#if defined(_WIN32)
  (void)::_write(2, text, static_cast<unsigned>(size));
#else
  (void)!::write(STDERR_FILENO, text, size);
#endif
  std::abort();
}

}  // namespace asio_pulse::hooks::detail
