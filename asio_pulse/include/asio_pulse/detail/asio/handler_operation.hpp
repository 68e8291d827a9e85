// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <boost/asio/detail/handler_tracking.hpp>
#include <boost/asio/detail/scheduler_operation.hpp>
#include <boost/system/error_code.hpp>

#include <cstddef>

namespace asio_pulse::detail {

using operation_type = boost::asio::detail::scheduler_operation;

/// An operation of ours that passes through Asio's queues as that of a handler does: it has a task,
/// can be held back, and is polled. The code that makes one announces it
/// (BOOST_ASIO_HANDLER_CREATION). `Base` is an operation_type, or is derived from it.
///
/// If there is a `Derived::sent_on(owner)`, it is asked first, and not with a null owner. If it
/// returns true, it has put the operation back into a queue, and the turn ends.
///
/// `Derived::completed(owner)` does the work. If the owner is null, the operation is being
/// destroyed with its context. Asio does not free the operation; completed() may end this object.
template <class Derived, class Base = operation_type>
class handler_operation : public Base {
 protected:
  handler_operation() noexcept : Base(&handler_operation::complete) {}
  ~handler_operation() = default;

 private:
  static void complete([[maybe_unused]] void* owner, operation_type* base,
                       const boost::system::error_code&, std::size_t) {
    auto* const self = static_cast<Derived*>(base);
    if constexpr (requires { self->sent_on(owner); }) {
      if (owner != nullptr && self->sent_on(owner)) return;
    }
    // The tracking macro uses this as the guard of the operation's memory.
    [[maybe_unused]] struct {
      void* v;
      void* p;
    } p{self, self};
    BOOST_ASIO_HANDLER_COMPLETION((*self));
    self->completed(owner);
  }
};

}  // namespace asio_pulse::detail
