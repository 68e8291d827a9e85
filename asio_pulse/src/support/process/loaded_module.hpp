// SPDX-License-Identifier: BSL-1.0
#pragma once

namespace asio_pulse::detail {

/// Keeps the shared object that contains this code in memory until the process ends, even after
/// dlclose(), because its threads and signal handlers continue to run. In the program itself this
/// does nothing.
///
/// \par Cost           In a shared object, takes the lock of the dynamic loader once.
/// \par Thread safety  Any thread.
/// \par Errors         None (noexcept). If it is not possible (before glibc 2.34, in a program
///                     without libdl), the object can be unloaded as before.
void keep_this_module() noexcept;

}  // namespace asio_pulse::detail
