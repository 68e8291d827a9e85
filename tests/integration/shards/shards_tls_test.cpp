// SPDX-License-Identifier: BSL-1.0

// TLS sessions that move: what the engine knows of the peer moves with the object.

#if defined(ASIO_PULSE_TEST_OPENSSL)

#include <support/io_uring.hpp>
#include <support/moving_sessions.hpp>
//
#include <asio_pulse/movable_ssl.hpp>

#include <boost/asio/ssl.hpp>

#include <openssl/evp.h>
#include <openssl/x509.h>

#include <memory>
#include <string>

namespace {

using namespace pulse_test;
using namespace pulse_test::moving;
namespace ssl = asio::ssl;

/// A context with a certificate that is made here.
ssl::context with_certificate() {
  ssl::context c(ssl::context::tls_server);
  const std::unique_ptr<EVP_PKEY, void (*)(EVP_PKEY*)> key(
      EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256"), EVP_PKEY_free);
  const std::unique_ptr<X509, void (*)(X509*)> cert(X509_new(), X509_free);
  X509_set_version(cert.get(), 2);
  ASN1_INTEGER_set(X509_get_serialNumber(cert.get()), 1);
  X509_gmtime_adj(X509_getm_notBefore(cert.get()), -60);
  X509_gmtime_adj(X509_getm_notAfter(cert.get()), 3600);
  X509_set_pubkey(cert.get(), key.get());
  X509_NAME* const name = X509_get_subject_name(cert.get());
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>("shard"), -1, -1, 0);
  X509_set_issuer_name(cert.get(), name);
  X509_sign(cert.get(), key.get(), EVP_sha256());
  SSL_CTX_use_certificate(c.native_handle(), cert.get());
  SSL_CTX_use_PrivateKey(c.native_handle(), key.get());
  return c;
}

TEST(shards_tls, a_session_moves_between_and_inside_records) {
  sharded_context shards(3, unmoved());
  ssl::context server = with_certificate();
  handles all;
  std::atomic<int> served{0};
  asio_pulse::sharded_acceptor acceptor(
      shards, {asio::ip::address_v4::loopback(), 0},
      [&](tcp::socket s) {
        s.set_option(tcp::no_delay(true));
        const auto ex = s.get_executor();
        asio::co_spawn(
            ex,
            [](ssl::stream<tcp::socket> stream, sharded_context& on, handles& known,
               std::atomic<int>& count) -> asio::awaitable<void> {
              movable here(stream);
              known.add(here.handle());
              co_await stream.async_handshake(ssl::stream_base::server, asio::use_awaitable);
              boost::system::error_code ec;
              for (std::size_t n = 0;; ++n) {
                co_await here.idle(asio_pulse::ssl_buffered(stream));
                // Less than a record: the rest stays in the engine, over a move.
                std::array<char, 1000> text{};
                co_await asio::async_read(stream, asio::buffer(text.data(), 400),
                                          asio::redirect_error(asio::use_awaitable, ec));
                if (ec) break;
                co_await here.move_to(n % on.size());
                EXPECT_EQ(on.this_shard(), n % on.size());
                co_await asio::async_read(stream, asio::buffer(text.data() + 400, 600),
                                          asio::use_awaitable);
                co_await here.move_to((n + 1) % on.size());
                co_await asio::async_write(stream, asio::buffer(text), asio::use_awaitable);
                ++count;
              }
            }(ssl::stream<tcp::socket>(std::move(s), server), shards, all, served),
            asio::detached);
      },
      {.mode = asio_pulse::accept_mode::one_listener});
  runner r(shards);
  asio::io_context io;
  ssl::context of_client(ssl::context::tls_client);
  ssl::stream<tcp::socket> c(io, of_client);
  c.next_layer().connect(acceptor.local_endpoint());
  c.next_layer().set_option(tcp::no_delay(true));
  c.handshake(ssl::stream_base::client);
  constexpr int requests = 200;
  for (int i = 0; i != requests; ++i) {
    std::string text(2000, static_cast<char>('a' + i % 26));
    asio::write(c, asio::buffer(text));  // two requests in one record
    if (i % 3 == 0) (void)all.wait_for(1)[0].move_to(static_cast<std::size_t>(i) % 3);
    std::string back(2000, ' ');
    asio::read(c, asio::buffer(back));
    ASSERT_EQ(back, text);
  }
  c.next_layer().close();
  acceptor.close();
  shards.join();
  r.get();
  EXPECT_EQ(served, 2 * requests);
}

}  // namespace

#endif
