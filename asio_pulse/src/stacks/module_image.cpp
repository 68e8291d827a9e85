// SPDX-License-Identifier: BSL-1.0

#include "module_image.hpp"

#if defined(ASIO_PULSE_HAVE_LIBDW)

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>
#include <new>
#include <utility>

namespace asio_pulse::detail {

module_image* map_module(const char* path) noexcept {
  std::unique_ptr<module_image> image(new (std::nothrow) module_image);
  if (image == nullptr) return nullptr;
  // Does not block: the name of a module may be that of a pipe or a device by now.
  const int file = ::open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (file < 0) return nullptr;
  struct stat info {};
  if (::fstat(file, &info) == 0 && S_ISREG(info.st_mode) && info.st_size > 0) {
    image->size = static_cast<std::size_t>(info.st_size);
    image->bytes = ::mmap(nullptr, image->size, PROT_READ, MAP_PRIVATE, file, 0);
  }
  ::close(file);
  if (image->bytes == nullptr || image->bytes == MAP_FAILED) return nullptr;
  return image.release();
}

void unmap_modules(module_image* first) noexcept {
  while (first != nullptr) {
    const std::unique_ptr<module_image> image(first);
    first = image->next;
    ::munmap(image->bytes, image->size);
  }
}

}  // namespace asio_pulse::detail

#endif
