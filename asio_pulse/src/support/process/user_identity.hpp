// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string_view>

/// \file
/// Which user a process acts as, and whether a user id stands for a single user.

namespace asio_pulse::detail {

/// The id that the kernel shows for users that have none in this user namespace ("nobody", 65534,
/// unless it was changed). Empty if all users have one.
///
/// \par Cost    Two small files in /proc.
/// \par Errors  If they cannot be read, returns the usual id.
[[nodiscard]] std::optional<uid_t> unmapped_user() noexcept;

/// Whether the map of a user namespace (/proc/PID/uid_map) contains all users. Pure.
[[nodiscard]] bool maps_every_user(std::string_view map) noexcept;

/// Whether `uid`, as the kernel reports it for a peer, is certainly the user that this process acts
/// as now.
///
/// \par Cost  A system call; for the id of "nobody", that of unmapped_user().
[[nodiscard]] bool is_own_user(uid_t uid) noexcept;

/// The user that a process acts as now. Empty if no such process is visible.
///
/// This is not the owner of /proc/PID, which is root once the process has changed its user.
[[nodiscard]] std::optional<uid_t> effective_user_of(std::uint64_t pid) noexcept;

/// The same for a text of /proc/PID/status. Pure.
[[nodiscard]] std::optional<uid_t> effective_user_in(std::string_view status) noexcept;

}  // namespace asio_pulse::detail
