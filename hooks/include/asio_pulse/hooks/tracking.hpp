// SPDX-License-Identifier: BSL-1.0
#pragma once

/// \file
/// The custom handler tracking header, which BOOST_ASIO_CUSTOM_HANDLER_TRACKING names. Asio
/// includes it; other code need not include it.
///
/// All translation units and libraries of a program must see the same Asio. If some are compiled
/// without the definition, operations have two layouts in one program. Two renames give functions
/// that handle operations another mangled name, so that the two kinds are not confused, and
/// hooks/src/tracked/mismatch.cpp catches the calls that only an untracked unit makes.
///
/// \par Source  Boost.Asio, detail/handler_tracking.hpp: the list of macros.
///              BOOST_ASIO_HANDLER_LOCATION is needed as well, and missing from that list.

#include <asio_pulse/hooks/requirements.hpp>
//
#include <asio_pulse/hooks/always_preempt.hpp>
#include <asio_pulse/hooks/poll_path.hpp>
#include <asio_pulse/hooks/sockets.hpp>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#define scheduler_operation scheduler_operation_tracked_by_asio_pulse
#define scheduler_thread_info scheduler_thread_info_tracked_by_asio_pulse
#define reactor_op reactor_op_tracked_by_asio_pulse
#define wait_op wait_op_tracked_by_asio_pulse

/// Asio is compiled with tracking in this translation unit.
#define ASIO_PULSE_TRACKING 1

namespace boost::asio::detail {
class scheduler;
class scheduler_operation;
}  // namespace boost::asio::detail

extern "C" const char asio_pulse_tracking_in_force;
/// Prints what is wrong with the build, and aborts.
extern "C" [[noreturn]] void asio_pulse_refuse_untracked() noexcept;

namespace {
/// Makes the linker take hooks/src/tracked/mismatch.cpp.
#if defined(__GNUC__)
[[gnu::used]]
#endif
[[maybe_unused]] const char* const asio_pulse_tracked_unit = &asio_pulse_tracking_in_force;
}  // namespace

namespace asio_pulse::hooks::detail {

/// Stands for a name that a completion function does not have (see below).
struct absent {};

/// Asio keeps the result of a wait in the operation. It is operation_aborted if the wait was
/// cancelled.
template <class Op>
completes how(const Op& op) noexcept {
  if constexpr (requires { op.ec_.value(); }) {
    const auto& system = decltype(op.ec_)().category();
#if defined(_WIN32)
    constexpr int cancelled = 995;  // ERROR_OPERATION_ABORTED
#else
    constexpr int cancelled = ECANCELED;
#endif
    return op.ec_.value() == cancelled && op.ec_.category() == system ? completes::aborted
                                                                      : completes::waited;
  } else {
    return completes::posted;
  }
}

/// What held_back() asks for operations of gated tasks. Out of line, so that it is not a part of each
/// completion function.
template <class Op>
ASIO_PULSE_DETAIL_COLD bool gated(void* owner, Op& op) {
  if (owner == nullptr) return false;
  auto* const operation = static_cast<boost::asio::detail::scheduler_operation*>(&op);
  const gate_verdict verdict = gate(owner, operation, op, how(op), site_of<Op>);
  if (verdict == gate_verdict::runs) return false;
  return verdict == gate_verdict::held ||
         this_thread().arbiter->run_on_fiber(op, operation, owner, site_of<Op>);
}

/// Whether the turn of the operation ends here: it was put back, or has run on a fiber.
template <class Op, class Pointer>
ASIO_PULSE_DETAIL_INLINE bool held_back(void* owner, Op& op, Pointer& p) {
  const task_record* t = op.task();
  if (!always_preempt() &&
      (t == nullptr ? !this_thread().gates_all : t->gated.load(std::memory_order_relaxed) == 0))
      [[likely]] {
    return false;
  }
  // If so, the operation continues to live, or is freed when it completes, which may throw: its guard
  // must not free it. The guard is not passed on, so that it can stay in registers.
  const auto memory = p.v;
  const auto object = p.p;
  p.v = p.p = nullptr;
  if (gated(owner, op)) return true;
  p.v = memory;
  p.p = object;
  return false;
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

/// Whether `Op` is an instance of the template with this name.
template <class Op>
constexpr bool is_kind(std::string_view kind) noexcept {
  const std::string_view name = type_name<Op>();
  return name.substr(0, name.find('<')).ends_with(kind);
}

#if defined(__GNUC__)
#pragma GCC diagnostic push
// Only a C-style cast can convert to a private base class.
#pragma GCC diagnostic ignored "-Wold-style-cast"
#endif
/// The socket that an accept hands to its handler is a private base class of the operation.
template <template <class, class, class, class> class Op, class Protocol, class Executor, class H,
          class E>
descriptor new_peer(Op<Protocol, Executor, H, E>& op) noexcept {
  using peer = typename Protocol::socket::template rebind_executor<Executor>::other;
  return static_cast<descriptor>(((peer&)op).native_handle());  // NOLINT
}
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

/// The object that the completion macros declare.
class completion : public poll_frame {
 public:
  template <class Op>
  ASIO_PULSE_DETAIL_INLINE completion(void* owner, Op& op) noexcept
      : poll_frame(owner, op, site_of<Op>) {
    if constexpr (is_kind<Op>("_move_accept_op")) {
      if (const descriptor socket = new_peer(op); socket != no_descriptor) accepted_on(socket);
    } else if constexpr (is_kind<Op>("_accept_op") && requires { op.ec_; }) {
      // The connection was accepted into a socket of the program, which the operation does not
      // show. Asio has just registered the socket on this thread, unless the accept failed, or that
      // was before the operation was put back.
      const descriptor socket =
          std::exchange(this_thread().registered_descriptor, descriptor{no_descriptor});
      if (!op.ec_) accepted_on(put_back_before() ? no_descriptor : socket);
    }
  }
  template <class Op>
  ASIO_PULSE_DETAIL_INLINE completion(absent, Op& op) noexcept
      : poll_frame(&hooks::no_scheduler, op, site_of<Op>) {}
  ASIO_PULSE_DETAIL_INLINE ~completion() {}
};

#if defined(BOOST_ASIO_HAS_IOCP)
template <class Context>
void* scheduler_of(Context&&) noexcept {
  return nullptr;
}
#else
template <class Context>
void* scheduler_of(Context& context) noexcept {
  return &use_service<boost::asio::detail::scheduler>(context);
}
#endif

/// Called when Asio announces that a handler waits in the operation that it has just created. Asio
/// does not announce objects that only pass through its queues.
template <class Context, class Op, class Object, class Native>
ASIO_PULSE_DETAIL_INLINE void created([[maybe_unused]] Context&& context, Op& op, const char* type,
                                      Object&&, [[maybe_unused]] Native&& native,
                                      const char* name) noexcept {
  // The arguments are literals, so the compiler evaluates the comparisons.
  if (std::strcmp(type, "socket") != 0) {
    op.announce();
  } else if (std::strcmp(name, "async_accept") == 0) {
    accept_created(op);
  } else if (std::strcmp(name, "async_connect") == 0) {
    if constexpr (is_kind<Op>("_connect_op")) {
      connect_created(op, static_cast<descriptor>(native), scheduler_of(context));
    } else {
      op.announce();
    }
  } else {
    socket_operation_created(op, static_cast<descriptor>(native));
  }
}

/// Called when Asio announces something that is not an asynchronous operation.
template <class Context, class Object, class Native>
ASIO_PULSE_DETAIL_INLINE void operated(Context&&, const char* type, Object&&,
                                       [[maybe_unused]] Native&& native,
                                       const char* name) noexcept {
  if (std::strcmp(type, "socket") != 0) return;
  if (std::strcmp(name, "close") == 0) socket_closing(static_cast<descriptor>(native));
  if (std::strcmp(name, "release") == 0) socket_released(static_cast<descriptor>(native));
}

/// Called when epoll has registered a descriptor: a socket that was just opened or assigned. If
/// something is known about this number, it is about another socket, which was not closed through
/// Asio.
template <class Context, class Native, class Data>
void registered(Context&&, Native&& native, Data&&) noexcept {
  this_thread().registered_descriptor = static_cast<descriptor>(native);
  socket_released(static_cast<descriptor>(native));
}

}  // namespace asio_pulse::hooks::detail

// Completion functions call their scheduler `owner` and their memory guard `p`. In those that lack
// one of them (channels; immediate completions from Boost 1.83 on) the macros find these instead.
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
#define BOOST_ASIO_HANDLER_OPERATION(args) ::asio_pulse::hooks::detail::operated args
#define BOOST_ASIO_HANDLER_REACTOR_REGISTRATION(args) ::asio_pulse::hooks::detail::registered args
#define BOOST_ASIO_HANDLER_REACTOR_DEREGISTRATION(args) (void)0
#define BOOST_ASIO_HANDLER_REACTOR_READ_EVENT 1
#define BOOST_ASIO_HANDLER_REACTOR_WRITE_EVENT 2
#define BOOST_ASIO_HANDLER_REACTOR_ERROR_EVENT 4
#define BOOST_ASIO_HANDLER_REACTOR_EVENTS(args) ::asio_pulse::hooks::reactor_returned()
#define BOOST_ASIO_HANDLER_REACTOR_OPERATION(args) (void)0
