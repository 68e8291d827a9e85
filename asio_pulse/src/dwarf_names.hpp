// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <elfutils/libdwfl.h>

#include <asio_pulse/stack_trace.hpp>

/// \file
/// What a module's debug information calls an address.

namespace asio_pulse::detail {

/// The function at `pc`, which may have been inlined into others: innermost first, the last one is
/// the function that has the address. Never empty; what is not known is left empty. `pc` lies in
/// `module`, inside the instruction: of a call, one byte before where it returns to.
///
/// \par Cost    The first address in a translation unit reads the unit's debug information:
///              milliseconds where it is large. Later ones walk it.
/// \par Errors  std::bad_alloc.
stack_trace names_at(Dwfl_Module& module, Dwarf_Addr pc);

/// Where the body of the coroutine begins that `pc` lies in; 0 if it is no coroutine's, as far as
/// the compiler's symbols tell.
Dwarf_Addr coroutine_body(Dwfl_Module& module, Dwarf_Addr pc) noexcept;

/// The file's name without its folders; of the vdso, that it is one.
std::string module_name(Dwfl_Module& module);

/// What addr2line calls `address`.
std::uintptr_t module_offset(Dwfl_Module& module, Dwarf_Addr address) noexcept;

}  // namespace asio_pulse::detail
