// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/admission.hpp>
#include <asio_pulse/group_ref.hpp>
#include <asio_pulse/options.hpp>
#include <asio_pulse/statistics.hpp>

#include <cstdint>
#include <string_view>

/// \file
/// What task_group.hpp needs of the library.

namespace asio_pulse::detail {

class context_core;

/// \par Errors  As task_group's constructor.
[[nodiscard]] group_ref make_group(context_core& core, const group_options& opts);
[[nodiscard]] std::uint64_t id_of(const group_state& g) noexcept;
[[nodiscard]] std::string_view name_of(const group_state& g) noexcept;
[[nodiscard]] unsigned weight_of(const group_state& g) noexcept;
/// \par Errors  std::invalid_argument.
void set_weight(group_state& g, unsigned weight);
[[nodiscard]] group_statistics figures_of(const group_state& g) noexcept;
[[nodiscard]] admission admit(group_state& g) noexcept;
/// See this_task::join().
bool join_group(const group_ref& to);
/// \par Errors  As this_task::begin().
void begin_task(const task_options& opts);
/// The rest of this poll, and what it creates, is work of a connection that was accepted on this socket,
/// as after an accept (options::accepted, accept_rule, classify). Without memory it stays as it is.
void begin_connection(std::intptr_t socket) noexcept;

}  // namespace asio_pulse::detail
