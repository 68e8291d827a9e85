// SPDX-License-Identifier: BSL-1.0
#pragma once

/// \file
/// For TLS sessions that move. asio_pulse.hpp does not include this; it needs OpenSSL.

#include <asio_pulse/hooks/requirements.hpp>
//
#include <asio_pulse/movable.hpp>

#include <boost/asio/ssl/stream.hpp>

#include <openssl/bio.h>
#include <openssl/ssl.h>

#include <cstddef>

namespace asio_pulse {

/// How many bytes a TLS stream has received and not yet given to its reader, decrypted or not. The socket
/// may not become readable for them:
///
///     co_await here.idle(buffer.size() + asio_pulse::ssl_buffered(stream));
///
/// \par Cost  Some function calls.
template <class Next>
[[nodiscard]] std::size_t ssl_buffered(boost::asio::ssl::stream<Next>& stream) noexcept {
  SSL* const engine = stream.native_handle();
  const auto clear = static_cast<std::size_t>(SSL_pending(engine));
  const std::size_t sealed = BIO_ctrl_pending(SSL_get_rbio(engine));
  return clear + sealed + (SSL_has_pending(engine) != 0 ? 1 : 0);
}

}  // namespace asio_pulse
