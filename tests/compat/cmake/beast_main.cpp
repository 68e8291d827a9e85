// SPDX-License-Identifier: BSL-1.0

// What Beast's Jamfile puts in its libraries lib-asio, lib-beast and lib-test.

#include <boost/asio/impl/src.hpp>

#if defined(COMPAT_HAS_OPENSSL)
#include <boost/asio/ssl/impl/src.hpp>
#endif

#include <boost/beast/_experimental/unit_test/main.ipp>
#include <boost/beast/src.hpp>
