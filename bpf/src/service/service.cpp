// SPDX-License-Identifier: BSL-1.0
#include "service.hpp"

#include "control_blocks.hpp"
#include "service_impl.hpp"

#include <fcntl.h>
#include <sys/socket.h>

#include <cerrno>
#include <stdexcept>
#include <utility>
#include <vector>

namespace asio_pulse::scx {
namespace {

using boost::system::error_code;

#ifndef SO_PASSRIGHTS
constexpr int so_passrights = 83;  // Linux 6.16
#else
constexpr int so_passrights = SO_PASSRIGHTS;
#endif

// How long to wait if there are no descriptors left for connections. A guess: with less, the loop
// spins on accept; with more, programs wait longer.
constexpr std::chrono::milliseconds accept_pause{100};

service_options checked(service_options options, const service_hooks& hooks) {
  if (options.update_every.count() <= 0) {
    throw std::invalid_argument("service_options::update_every must be positive");
  }
  if (options.idle_limit.count() <= 0 || options.idle_limit_with_blocks.count() <= 0) {
    throw std::invalid_argument("service_options::idle_limit and its like must be positive");
  }
  if (options.bounds.workers_per_process >= ASIO_PULSE_SLOT_COUNT) {
    throw std::invalid_argument("service_options::bounds.workers_per_process must be below 129");
  }
  if ((options.mode & ~mode_t{0777}) != 0) {
    throw std::invalid_argument("service_options::mode must be permission bits, 0 to 0777");
  }
  if (!hooks.look) throw std::invalid_argument("service_hooks::look must not be empty");
  return options;
}

}  // namespace

service::impl::impl(boost::asio::io_context& io, block_store& blocks, service_options how,
                    service_hooks asked)
    : context(io),
      store(blocks),
      options(checked(std::move(how), asked)),
      hooks(std::move(asked)),
      quotas(options.bounds),
      file(std::in_place, options.path, options.mode),
      listener(io, ::fcntl(file->fd(), F_DUPFD_CLOEXEC, 0)),
      update_timer(io),
      accept_timer(io) {
  // Peers that pass descriptors get EPERM. If the kernel does not support this, the descriptors are
  // dropped on reception. The only difference is for sockets that linger, whose last close may
  // block.
  const int off = 0;
  ::setsockopt(file->fd(), SOL_SOCKET, so_passrights, &off, sizeof off);
}

void service::impl::start() {
  wait_for_connections();
  wait_for_update();
}

void service::impl::stop() noexcept {
  stopped = true;
  error_code ignored;
  listener.close(ignored);
  file.reset();
  update_timer.cancel();
  accept_timer.cancel();
  while (!clients.empty()) clients.begin()->second.connection->end();
}

void service::impl::wait_for_connections() {
  listener.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                      [self = shared_from_this()](error_code ec) {
                        if (ec || self->stopped) return;
                        self->accept_one();
                      });
}

void service::impl::accept_again_after(std::chrono::nanoseconds pause) {
  accept_timer.expires_after(pause);
  accept_timer.async_wait([self = shared_from_this()](error_code ec) {
    if (!ec && !self->stopped) self->wait_for_connections();
  });
}

void service::impl::refuse_connection(int socket, const refusal& why) const noexcept {
  asio_pulse_reply reply{};
  reply.magic = ASIO_PULSE_PROTOCOL_MAGIC;
  reply.abi_version = ASIO_PULSE_ABI_VERSION;
  reply.kind = ASIO_PULSE_HELLO;
  reply.refusal = static_cast<std::uint32_t>(why.code);
  reply.text_bytes = static_cast<std::uint32_t>(why.text.copy(reply.text, sizeof reply.text));
  ::send(socket, &reply, offsetof(asio_pulse_reply, text) + reply.text_bytes,
         MSG_DONTWAIT | MSG_NOSIGNAL);
}

// Accepts one connection in each turn, so that a user that connects again and again gets no more
// turns than others.
void service::impl::accept_one() {
  const auto before = std::chrono::steady_clock::now();
  unique_fd socket(
      ::accept4(listener.native_handle(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!socket) {
    if (errno != EMFILE && errno != ENFILE && errno != ENOMEM && errno != ENOBUFS) {
      return wait_for_connections();
    }
    end_idle();
    return accept_again_after(accept_pause);
  }
  const uid_t uid = peer::user_of(socket.get());
  refusal refused = quotas.connect(uid, before);
  if (refused) {
    end_idle();  // this may free a place
    refused = quotas.connect(uid, before);
  }
  if (refused) {
    refuse_connection(socket.get(), refused);
    socket.reset();
    // As for requests, at most a tenth of the loader's time.
    const auto cost = std::chrono::steady_clock::now() - before;
    return accept_again_after(cost * (user_quotas::share - 1));
  }
  std::shared_ptr<session> made;
  try {
    peer who = peer::of(socket.get());
    made = std::make_shared<session>(context, std::move(socket), std::move(who), *this);
    client& entry = clients[made.get()];
    entry.connection = made;
    entry.last_request = now();
  } catch (...) {  // no memory, or no room in the reactor: the connection is dropped
    quotas.disconnect(uid);
    return wait_for_connections();
  }
  try {
    made->start(charge(*made, std::chrono::steady_clock::now() - before));
  } catch (...) {
    made->end();
  }
  wait_for_connections();
}

void service::impl::end_idle() {
  const auto at = now();
  std::vector<std::shared_ptr<session>> idle;
  for (const auto& [which, owner] : clients) {
    const bool working = owner.has_blocks && quotas.has_workers(which->who().pid);
    const auto limit = owner.has_blocks ? options.idle_limit_with_blocks : options.idle_limit;
    if (!working && at - owner.last_request >= limit) idle.push_back(owner.connection);
  }
  for (const auto& one : idle) one->end();
}

void service::impl::wait_for_update() {
  update_timer.expires_after(options.update_every);
  update_timer.async_wait([self = shared_from_this()](error_code ec) {
    if (ec || self->stopped) return;
    self->publish();
    self->end_idle();
    self->wait_for_update();
  });
}

void service::impl::publish() {
  const system_state state = hooks.look();
  const std::uint64_t now = monotonic_ns();
  for (auto& [which, owner] : clients) {
    if (owner.has_blocks) write_system_block(owner.blocks.blocks[0], state, now);
  }
}

service::service(boost::asio::io_context& context, block_store& store, service_options options,
                 service_hooks hooks)
    : impl_(std::make_shared<impl>(context, store, std::move(options), std::move(hooks))) {
  impl_->start();
}

service::~service() { impl_->stop(); }

void service::publish() { impl_->publish(); }
void service::end_idle() { impl_->end_idle(); }
std::size_t service::connections() const noexcept { return impl_->clients.size(); }
std::size_t service::processes() const noexcept { return impl_->quotas.process_count(); }
std::size_t service::workers() const noexcept { return impl_->quotas.worker_count(); }

}  // namespace asio_pulse::scx
