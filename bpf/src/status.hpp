// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <boost/json/fwd.hpp>
#include <functional>
#include <string>
#include <string_view>

#include "ledger.hpp"
#include "scx_pulse.h"
#include "service.hpp"

/// \file
/// What STATUS answers, and how it and the loader's own lines read. Raw integers carry their unit
/// in their name.

namespace asio_pulse::scx {

/// A JSON object that fits into a reply, however many processes there are: the list of them ends
/// where there is no more room, and `processes_not_listed` says how many it lacks.
///
/// \par Errors  std::bad_alloc.
std::string status_json(const system_state& state, const ledger& book,
                        const std::function<void(boost::json::object&)>& describe);

/// The same for people, a line for each thing.
/// \par Errors  std::runtime_error where it is not such an object.
std::string status_text(std::string_view text);

/// All counts, by the names of the members of scx_pulse_counts.
boost::json::object counts_json(const scx_pulse_counts& counts);

/// A line of --stats: what has happened since `before`, in `seconds`; JSON or text, without line
/// end.
std::string statistics_line(const scx_pulse_counts& before, const scx_pulse_counts& now,
                            double seconds, const system_state& state, std::size_t processes,
                            std::size_t workers, bool json);

/// A line of --debug about a record of the ring buffer.
std::string hint_line(const asio_pulse_hint& hint, bool json);

}  // namespace asio_pulse::scx
