// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/asio/asio_internals.hpp>

#include <boost/asio/detail/recycling_allocator.hpp>
#include <boost/asio/detail/thread_info_base.hpp>

#include <cstddef>
#include <new>

namespace asio_pulse::detail {

/// Memory for the next turn of a strand.
///
/// If something was added to a strand while it ran a batch of handlers, it posts itself again at
/// the end of the batch. Asio does that in a destructor, so the program ends if there is no memory.
/// It takes the memory from a small cache of the thread, which the handlers of the batch may have
/// emptied. So before the library adds something to a strand that runs on this thread, it takes
/// memory here. This object puts it into the cache when it is destroyed.
///
/// Handlers that the batch runs after that may empty the cache again. The program may then end as
/// it does with plain Asio if a handler posts to its own strand.
///
/// \par Cost    Four accesses to the cache. An allocation only if the cache has no such memory.
/// \par Errors  None (noexcept). Without memory the object converts to false.
class drain_memory {
 public:
  drain_memory() noexcept = default;
  drain_memory(const drain_memory&) = delete;
  drain_memory& operator=(const drain_memory&) = delete;

  explicit operator bool() const noexcept { return turn_.there() && function_.there(); }

  /// Puts memory into the cache at once, for code that allocates nothing else before the batch ends.
  /// Returns false if there is none.
  [[nodiscard]] static bool provide() noexcept { return static_cast<bool>(drain_memory()); }

 private:
  // The operation in which a strand posts itself has about 100 bytes. The cache takes up to 1020.
  static constexpr std::size_t size = 256;
  struct alignas(std::max_align_t) block {
    std::byte bytes[size];
  };

  template <class Purpose>
  class reserve {
   public:
    reserve() noexcept : at_(allocate<block>()) {}
    ~reserve() {
      if (at_ == nullptr) return;
      // If the cache is full, perhaps of smaller memory, one place is made free.
      std::byte* const displaced = allocate<std::byte>();
      allocator<block>().deallocate(at_, 1);
      if (displaced != nullptr) allocator<std::byte>().deallocate(displaced, 1);
    }
    reserve(const reserve&) = delete;
    reserve& operator=(const reserve&) = delete;

    [[nodiscard]] bool there() const noexcept { return at_ != nullptr; }

   private:
    template <class T>
    using allocator = asio_detail::recycling_allocator<T, Purpose>;

    template <class T>
    static T* allocate() noexcept {
      try {
        return allocator<T>().allocate(1);
      } catch (const std::bad_alloc&) {
        return nullptr;
      }
    }

    block* at_;
  };

  reserve<asio_detail::thread_info_base::default_tag> turn_;
  /// For an executor whose type is erased (any_io_executor).
  reserve<asio_detail::thread_info_base::executor_function_tag> function_;
};

}  // namespace asio_pulse::detail
