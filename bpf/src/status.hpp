// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "program/scx_pulse.h"
#include "quota.hpp"
#include "service/service.hpp"

#include <boost/json/fwd.hpp>

#include <functional>
#include <string>
#include <string_view>

/// \file
/// The answer to STATUS, and the text of it and of the loader's own lines. Integers have their unit
/// in the name.

namespace asio_pulse::scx {

/// A JSON object that fits into a reply, however many processes there are. The list of processes is
/// cut to what fits; `processes_not_listed` is the number of the others.
///
/// \par Errors  std::bad_alloc.
std::string status_json(const system_state& state, const user_quotas& quotas,
                        const std::function<void(boost::json::object&)>& describe);

/// The same as text, with a line for each member.
///
/// \par Errors  std::runtime_error if `text` is not such an object.
std::string status_text(std::string_view text);

/// All counts, with the names of the members of scx_pulse_counts.
boost::json::object counts_json(const scx_pulse_counts& counts);

/// A line of --stats about the time since `before`, which is `seconds`; JSON or text, without a
/// newline.
std::string statistics_line(const scx_pulse_counts& before, const scx_pulse_counts& now,
                            double seconds, const system_state& state, std::size_t processes,
                            std::size_t workers, bool json);

/// A line of --debug about a record of the ring buffer.
std::string hint_line(const asio_pulse_hint& hint, bool json);

}  // namespace asio_pulse::scx
