// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/stack_trace.hpp>

#include <elfutils/libdwfl.h>

#include <string_view>

/// \file
/// The names that a module's debug information has for an address.

namespace asio_pulse::detail {

/// The function at `pc` and, after it, the functions into which it was inlined. The last one is the
/// function that has the address. Never empty; what is not known is empty in it. `pc` must be in
/// `module`, inside the instruction; for a call, that is one byte before its return address.
///
/// A file and a line are given only if the debug information covers the address. Code that was
/// compiled without debug information may be next to code that has it.
///
/// \par Cost    The first address in a translation unit reads the unit's debug information, which
///              takes milliseconds if it is large. Later addresses walk it.
/// \par Errors  std::bad_alloc. The session must then be ended, because libdw may have been
///              interrupted at any point.
stack_trace names_at(Dwfl_Module& module, Dwarf_Addr pc);

/// The beginning of the coroutine body that contains `pc`; 0 if, by its symbol, it is not in one.
Dwarf_Addr coroutine_body(Dwfl_Module& module, Dwarf_Addr pc) noexcept;

/// The file's name without its folders, or a name for the vdso. The text belongs to libdwfl.
std::string_view module_name(Dwfl_Module& module) noexcept;

/// The offset that addr2line expects for `address`.
std::uintptr_t module_offset(Dwfl_Module& module, Dwarf_Addr address) noexcept;

}  // namespace asio_pulse::detail
