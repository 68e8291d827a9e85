// SPDX-License-Identifier: BSL-1.0
//
// Boost.JSON, compiled here once, so that no library of Boost's is needed at run time.
#include <boost/json/src.hpp>
