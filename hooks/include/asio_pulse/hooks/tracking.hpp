// SPDX-License-Identifier: BSL-1.0
#pragma once

/// \file
/// The custom handler tracking header: what BOOST_ASIO_CUSTOM_HANDLER_TRACKING names. Asio includes
/// it; nobody else needs to.
///
/// Every translation unit and library of a program must see the same Asio. Where some are compiled
/// without the definition, operations have two layouts in one program. Two renames keep the two
/// from being taken for one another (functions that handle operations get another mangled name),
/// and hooks/src/tracked/mismatch.cpp catches the calls that only an untracked unit makes.
///
/// \par Source  Boost.Asio, detail/handler_tracking.hpp: the list of macros;
/// BOOST_ASIO_HANDLER_LOCATION is needed as
///              well, and missing from that list.

#include <asio_pulse/hooks/poll_path.hpp>
#include <cstring>

#define scheduler_operation scheduler_operation_tracked_by_asio_pulse
#define scheduler_thread_info scheduler_thread_info_tracked_by_asio_pulse
#define reactor_op reactor_op_tracked_by_asio_pulse
#define wait_op wait_op_tracked_by_asio_pulse

/// Asio is compiled with tracking in this translation unit.
#define ASIO_PULSE_TRACKING 1

namespace boost::asio::detail {
class scheduler_operation;
}

extern "C" const char asio_pulse_tracking_in_force;
/// Says what is wrong with the build, and aborts.
extern "C" [[noreturn]] void asio_pulse_refuse_untracked() noexcept;

namespace {
/// Pulls hooks/src/tracked/mismatch.cpp into the link.
#if defined(__GNUC__)
[[gnu::used]]
#endif
[[maybe_unused]] const char* const asio_pulse_tracked_unit = &asio_pulse_tracking_in_force;
}  // namespace

namespace asio_pulse::hooks::detail {

/// Stands for a name that a completion function does not have (see below).
struct absent {};

template <class Op, class Pointer>
ASIO_PULSE_DETAIL_INLINE bool held_back(void* owner, Op& op, Pointer& p) noexcept {
#if !defined(ASIO_PULSE_ALWAYS_PREEMPT) || !ASIO_PULSE_ALWAYS_PREEMPT
  const task_record* t = op.task();
  if (t == nullptr || t->gated.load(std::memory_order_relaxed) == 0) [[likely]] {
    return false;
  }
#endif
  if (owner == nullptr) return false;
  if (!gate(owner, static_cast<boost::asio::detail::scheduler_operation*>(&op), op)) return false;
  p.v = p.p = nullptr;  // the operation lives on: its guard must not free it
  return true;
}
template <class Op>
constexpr bool held_back(absent, Op&, absent) noexcept {
  return false;
}
template <class Op, class Pointer>
constexpr bool held_back(absent, Op&, Pointer&) noexcept {
  return false;
}
template <class Op>
constexpr bool held_back(void*, Op&, absent) noexcept {
  return false;
}

/// What the completion macros declare.
class completion : public poll_frame {
 public:
  template <class Op>
  ASIO_PULSE_DETAIL_INLINE completion(void* owner, Op& op) noexcept
      : poll_frame(owner, op, site_of<Op>) {}
  template <class Op>
  ASIO_PULSE_DETAIL_INLINE completion(absent, Op& op) noexcept
      : poll_frame(&hooks::no_scheduler, op, site_of<Op>) {}
  ASIO_PULSE_DETAIL_INLINE ~completion() {}
};

/// Called where Asio says which operation it has just created.
template <class Context, class Op, class Object, class Native>
ASIO_PULSE_DETAIL_INLINE void created(Context&&, Op& op, const char*, Object&&, Native&&,
                                      const char* name) noexcept {
  // A literal: the comparison is made by the compiler.
  if (std::strcmp(name, "async_accept") == 0) accept_created(op);
}

/// Called where a reactor has registered a descriptor; its record is an operation under epoll only.
template <class Context>
ASIO_PULSE_DETAIL_INLINE void registered(Context&&, std::uintmax_t,
                                         [[maybe_unused]] std::uintmax_t data) noexcept {
#if defined(BOOST_ASIO_HAS_EPOLL)
  reactor_registered(static_cast<std::uintptr_t>(data));
#endif
}

}  // namespace asio_pulse::hooks::detail

// Completion functions name their scheduler `owner` and their memory guard `p`. Those that do not
// have one of them (channels; immediate completions from Boost 1.83 on) find these instead.
namespace boost::asio::detail {
inline constexpr ::asio_pulse::hooks::detail::absent owner{}, p{};
}
namespace boost::asio::experimental::detail {
inline constexpr ::asio_pulse::hooks::detail::absent owner{}, p{};
}

#define BOOST_ASIO_INHERIT_TRACKED_HANDLER : public ::asio_pulse::hooks::tracked_operation
#define BOOST_ASIO_ALSO_INHERIT_TRACKED_HANDLER , public ::asio_pulse::hooks::tracked_operation
#define BOOST_ASIO_HANDLER_TRACKING_INIT (void)0
#define BOOST_ASIO_HANDLER_LOCATION(args) \
  ::asio_pulse::hooks::location_scope asio_pulse_location args
#define BOOST_ASIO_HANDLER_CREATION(args) ::asio_pulse::hooks::detail::created args
#define BOOST_ASIO_HANDLER_COMPLETION(args)                           \
  if (::asio_pulse::hooks::detail::held_back(owner, args, p)) return; \
  ::asio_pulse::hooks::detail::completion asio_pulse_completion(owner, args)
#define BOOST_ASIO_HANDLER_INVOCATION_BEGIN(args) (void)0
#define BOOST_ASIO_HANDLER_INVOCATION_END (void)0
#define BOOST_ASIO_HANDLER_OPERATION(args) (void)0
#define BOOST_ASIO_HANDLER_REACTOR_REGISTRATION(args) ::asio_pulse::hooks::detail::registered args
#define BOOST_ASIO_HANDLER_REACTOR_DEREGISTRATION(args) (void)0
#define BOOST_ASIO_HANDLER_REACTOR_READ_EVENT 1
#define BOOST_ASIO_HANDLER_REACTOR_WRITE_EVENT 2
#define BOOST_ASIO_HANDLER_REACTOR_ERROR_EVENT 4
#define BOOST_ASIO_HANDLER_REACTOR_EVENTS(args) ::asio_pulse::hooks::reactor_returned()
#define BOOST_ASIO_HANDLER_REACTOR_OPERATION(args) (void)0
