// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <map>
#include <memory>
#include <optional>

#include "service.hpp"
#include "session.hpp"
#include "socket_file.hpp"

/// \file
/// The service's inside: service.cpp takes connections, service_requests.cpp answers.

namespace asio_pulse::scx {

struct service::impl final : session_owner, std::enable_shared_from_this<impl> {
  impl(boost::asio::io_context& io, block_store& blocks, service_options how, service_hooks asked);

  void start();
  void stop() noexcept;
  void publish();

  // service.cpp
  void wait_for_connections();
  void accept_one();
  void wait_for_update();

  // service_requests.cpp
  answer handle(session& from, const asio_pulse_request& request,
                const asio_pulse_set_request& change) override;
  std::chrono::nanoseconds charge(session& from, std::chrono::nanoseconds cost) override;
  void ended(session& which) noexcept override;

  answer hello(session& from);
  answer attach(session& from, pid_t own_tid);
  answer detach(session& from, pid_t own_tid, unsigned slot);
  answer status();
  answer set(const session& from, const asio_pulse_set_request& change);

  struct client {
    std::shared_ptr<session> connection;
    bool has_blocks = false;
    process_blocks blocks = {};
  };
  client& client_of(const session& which) { return clients.at(&which); }
  bool end_dead_namesake(const session& of);
  void forget(const client& owner, const worker_entry& worker) noexcept;
  std::size_t reap(const session& owner);

  boost::asio::io_context& context;
  block_store& store;
  service_options options;
  service_hooks hooks;
  ledger book;
  std::optional<socket_file>
      file;  // until the end: handlers that were cancelled keep `this` longer
  boost::asio::posix::stream_descriptor listener;  // a copy of file's: Asio closes what it is given
  boost::asio::steady_timer update_timer;
  boost::asio::steady_timer accept_timer;
  std::map<const session*, client> clients;
  bool stopped = false;
};

}  // namespace asio_pulse::scx
