// SPDX-License-Identifier: BSL-1.0
#pragma once

namespace asio_pulse::detail {

/// A function that is called when the thread ends. The object must be a constinit thread_local.
///
/// A thread_local object with a destructor could do the same. But the C library allocates memory
/// for it when the thread first uses it, and ends the program if there is none.
struct thread_exit_hook {
  void (*const run)() noexcept;
  thread_exit_hook* next = nullptr;
  bool set = false;
};

/// Makes `hook.run()` be called when this thread ends: before the hooks that were set earlier, and
/// after the thread's objects with destructors are gone. In the thread that ends the program it is
/// called when static objects are destroyed. In threads that still run then, it is never called.
/// After the call it can be set again.
///
/// \par Cost    None once it is set.
/// \par Errors  Returns false if there is no memory; then it will not be called.
[[nodiscard]] bool at_thread_exit(thread_exit_hook& hook) noexcept;

}  // namespace asio_pulse::detail
