// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/poll_path.hpp>

#include <cstdint>

/// \file
/// Which task an operation on a socket belongs to.
///
/// In general an operation belongs to the task of the handler that creates it. This is wrong when
/// connections share an object. For example, one connection may open a client that all others use;
/// then all later work of the client would belong to that connection. And when the client calls
/// back, the rest of another connection's request would belong to the client. A connection's socket
/// is the fixed point. So each connection, accepted or outgoing, has a task, and a table that is
/// indexed by descriptor says which:
///
/// - An accepted socket belongs to the task of its connection. If the first operation on it is
///   started by a task that the program declared, the socket belongs to that task from then on.
/// - An outgoing connect makes a new task for the connection, unless a declared task starts it.
///   Then the socket belongs to that task.
/// - An operation on the socket belongs to the socket's task, whichever task starts it. But what a
///   declared task starts is its own.
/// - When the socket is closed, its connection ends; see path_arbiter::connection_closed().
///
/// Operations on sockets that are not in the table (connected or accepted synchronously, listening,
/// without a connection) belong to the current task, as all other operations do.
///
/// \par Cost  An operation on a socket: two loads and a compare. If the socket belongs to another
///            task, also a lock of the table's entry, which is held for a few instructions.

namespace asio_pulse::hooks {

using descriptor = std::intptr_t;
inline constexpr descriptor no_descriptor = -1;

/// An operation on a socket was created. Not inline, because then gcc would no longer inline the
/// functions with which Asio starts such an operation.
void socket_operation_created(tracked_operation& op, descriptor socket) noexcept;

/// An operation that connects a socket was created.
void connect_created(tracked_operation& op, descriptor socket, void* scheduler) noexcept;

/// The socket is about to be closed.
void socket_closing(descriptor socket) noexcept;

/// The socket was released while open. It is not known what happens with it afterwards.
void socket_released(descriptor socket) noexcept;

/// Makes the socket that of `t`. `fresh`: a declared task that is the first to use it takes it
/// over.
void own_socket(descriptor socket, task_record& t, bool fresh) noexcept;

/// The socket's task with one more reference, or null.
[[nodiscard]] task_record* owner_of_socket(descriptor socket) noexcept;

}  // namespace asio_pulse::hooks
