// SPDX-License-Identifier: BSL-1.0

// The source of Boost.Asio, for programs that compile it separately
// (BOOST_ASIO_SEPARATE_COMPILATION).

#include <boost/asio/impl/src.hpp>
