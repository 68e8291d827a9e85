// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/changes.hpp>

#include <string>

namespace asio_pulse::detail {

/// The options with the changes.
/// \par Errors  std::bad_alloc.
[[nodiscard]] options changed(options o, const changes& what);

/// The changes that lead from one to the other, as far as options can change. Members that do not
/// differ are empty.
[[nodiscard]] changes difference(const options& from, const options& to) noexcept;

/// Why a context that has `from` cannot get `to`, as "asio_pulse::options.clock cannot change while
/// the context exists: ...". Empty if it can. Two callbacks cannot be compared: on_report counts as
/// changed only if one of them is empty.
/// \par Errors  std::bad_alloc.
[[nodiscard]] std::string fixed_reason(const options& from, const options& to);

/// The names of the options that change, as "shadow, accepted.budget".
/// \par Errors  std::bad_alloc.
[[nodiscard]] std::string names_of(const changes& what);

}  // namespace asio_pulse::detail
