// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <boost/json/object.hpp>

#include <string>

namespace pulse_bench {

/// The report as one page of HTML that needs nothing else: the template with the result in it.
std::string report_page(const boost::json::object& result);

}  // namespace pulse_bench
