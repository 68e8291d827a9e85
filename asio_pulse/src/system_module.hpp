// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <string_view>

namespace asio_pulse::detail {

/// Whether an ELF file, by its base name, belongs to the system under every C++ program: the C and
/// C++ libraries, the loader, the vdso, sanitizers' run-time libraries; and this library.
bool module_is_system(std::string_view base_name) noexcept;

}  // namespace asio_pulse::detail
