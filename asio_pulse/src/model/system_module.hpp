// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <string_view>

namespace asio_pulse::detail {

/// Whether an ELF file, by its base name, belongs to the system or to this library: the C and C++
/// libraries, the loader, the vdso, the run-time libraries of sanitizers.
bool module_is_system(std::string_view base_name) noexcept;

}  // namespace asio_pulse::detail
