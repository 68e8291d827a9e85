// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "service.hpp"
#include "session.hpp"
#include "socket_file.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>

#include <map>
#include <memory>
#include <optional>

/// \file
/// The implementation of the service: service.cpp accepts connections, service_requests.cpp answers
/// requests.

namespace asio_pulse::scx {

struct service::impl final : session_owner, std::enable_shared_from_this<impl> {
  impl(boost::asio::io_context& io, block_store& blocks, service_options how, service_hooks asked);

  void start();
  void stop() noexcept;
  void publish();
  void end_idle();

  // service.cpp
  void wait_for_connections();
  void accept_one();
  void wait_for_update();
  void refuse_connection(int socket, const refusal& why) const noexcept;
  void accept_again_after(std::chrono::nanoseconds pause);
  [[nodiscard]] std::chrono::steady_clock::time_point now() const {
    return hooks.now ? hooks.now() : std::chrono::steady_clock::now();
  }

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
    std::chrono::steady_clock::time_point last_request = {};
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
  user_quotas quotas;
  std::optional<socket_file>
      file;  // reset at the end, because cancelled handlers keep `this` alive for longer
  boost::asio::posix::stream_descriptor listener;  // a duplicate, because Asio closes it
  boost::asio::steady_timer update_timer;
  boost::asio::steady_timer accept_timer;
  std::map<const session*, client> clients;
  // Which process the store's registration of a thread is of. A thread may end without a DETACH,
  // and the kernel gives its id to a thread of another process.
  std::map<pid_t, pid_t> registered;
  bool stopped = false;
};

}  // namespace asio_pulse::scx
