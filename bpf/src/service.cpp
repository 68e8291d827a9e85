// SPDX-License-Identifier: BSL-1.0
#include "service.hpp"

#include <fcntl.h>
#include <sys/socket.h>

#include <cerrno>
#include <stdexcept>
#include <utility>

#include "control_blocks.hpp"
#include "service_impl.hpp"

namespace asio_pulse::scx {
namespace {

using boost::system::error_code;

#ifndef SO_PASSRIGHTS
constexpr int so_passrights = 83;  // Linux 6.16
#else
constexpr int so_passrights = SO_PASSRIGHTS;
#endif

// When there are no descriptors left for connections: between a loop that spins on accept, and
// programs that wait. A guess.
constexpr std::chrono::milliseconds accept_pause{100};

service_options checked(service_options options, const service_hooks& hooks) {
  if (options.update_every.count() <= 0) {
    throw std::invalid_argument("service_options::update_every must be positive");
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
      book(options.bounds),
      file(std::in_place, options.path, options.mode),
      listener(io, ::fcntl(file->fd(), F_DUPFD_CLOEXEC, 0)),
      update_timer(io),
      accept_timer(io) {
  // A peer that passes descriptors is to get EPERM. Where the kernel does not know this, they are
  // dropped on reception, which is as good but for sockets that linger: their last close may wait.
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

// One a turn: who connects over and over again gets no more turns than others.
void service::impl::accept_one() {
  const auto before = std::chrono::steady_clock::now();
  unique_fd socket(
      ::accept4(listener.native_handle(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!socket) {
    if (errno != EMFILE && errno != ENFILE && errno != ENOMEM && errno != ENOBUFS) {
      return wait_for_connections();
    }
    accept_timer.expires_after(accept_pause);
    accept_timer.async_wait([self = shared_from_this()](error_code ec) {
      if (!ec && !self->stopped) self->wait_for_connections();
    });
    return;
  }
  peer who = peer::of(socket.get());
  const uid_t uid = who.uid;
  if (const refusal refused = book.connect(uid, before)) {
    asio_pulse_reply reply{};
    reply.magic = ASIO_PULSE_PROTOCOL_MAGIC;
    reply.abi_version = ASIO_PULSE_ABI_VERSION;
    reply.kind = ASIO_PULSE_HELLO;
    reply.refusal = static_cast<std::uint32_t>(refused.code);
    reply.text_bytes = static_cast<std::uint32_t>(refused.text.copy(reply.text, sizeof reply.text));
    ::send(socket.get(), &reply, offsetof(asio_pulse_reply, text) + reply.text_bytes,
           MSG_DONTWAIT | MSG_NOSIGNAL);
    return wait_for_connections();
  }
  std::shared_ptr<session> made;
  try {
    made = std::make_shared<session>(context, std::move(socket), std::move(who), *this);
    clients[made.get()].connection = made;
  } catch (...) {  // no memory, or no room in the reactor: as if it had never come
    book.disconnect(uid);
    return wait_for_connections();
  }
  try {
    made->start(charge(*made, std::chrono::steady_clock::now() - before));
  } catch (...) {
    made->end();
  }
  wait_for_connections();
}

void service::impl::wait_for_update() {
  update_timer.expires_after(options.update_every);
  update_timer.async_wait([self = shared_from_this()](error_code ec) {
    if (ec || self->stopped) return;
    self->publish();
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
std::size_t service::connections() const noexcept { return impl_->clients.size(); }
std::size_t service::processes() const noexcept { return impl_->book.process_count(); }
std::size_t service::workers() const noexcept { return impl_->book.worker_count(); }

}  // namespace asio_pulse::scx
