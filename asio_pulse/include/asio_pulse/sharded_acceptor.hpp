// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/requirements.hpp>
//
#include <asio_pulse/sharded_context.hpp>
#if !defined(ASIO_PULSE_DISABLE)
#include <asio_pulse/task_group.hpp>
#endif

#include <boost/asio/detail/config.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/socket_base.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/system/error_code.hpp>
#include <boost/system/system_error.hpp>

#if defined(BOOST_ASIO_WINDOWS) || defined(__CYGWIN__)
#error "asio_pulse: sharded_acceptor.hpp needs POSIX sockets"
#include "the error above says what is missing"
#endif

#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

namespace asio_pulse {

/// How connections come to shards.
enum class accept_mode : std::uint8_t {
  /// As reuse_port. If the system refuses that, as one_listener.
  automatic,
  /// Each shard listens on the same port (SO_REUSEPORT), and the kernel distributes connections by a
  /// hash of their addresses. This is the cheapest way. It ignores the load and shard_options::placement.
  /// Any program of the same user may listen on the port as well.
  reuse_port,
  /// One shard listens, and hands each connection to the shard that sharded_context::place() names.
  one_listener,
};

/// The options of a sharded_acceptor.
///
/// The order of the members is stable, so that designated initialisers continue to compile.
struct accept_options {
  accept_mode mode = accept_mode::automatic;
  /// The shard that listens, if it is one.
  std::size_t listener = 0;
  /// How many connections may wait for each listener, as for listen(2).
  int backlog = boost::asio::socket_base::max_listen_connections;
};

/// Accepts TCP connections for all shards. A server in three lines:
///
///     asio_pulse::sharded_context shards;
///     asio_pulse::sharded_acceptor acceptor(shards, endpoint, [](tcp::socket s) { serve(std::move(s)); });
///     shards.run();
///
/// The handler is called on the shard that has the connection, with a socket of its context, once for
/// each connection. It is called on several shards at once. What it throws leaves
/// sharded_context::run(), and accepting continues with the next run().
///
/// Each connection is a task of its own, as after an async_accept (options::accepted).
///
/// If accepting fails, for example because no descriptor is left, the listener pauses for 50 ms.
/// Connections wait in the kernel's queue meanwhile. Without memory for that, it tries again in the
/// shard's next turn.
///
/// \par Thread safety  close() and the figures: any thread. Otherwise: Unsafe.
class sharded_acceptor {
 public:
  using tcp = boost::asio::ip::tcp;
  using handler = std::function<void(tcp::socket)>;

  /// Listens. Connections are accepted while shards.run() is active. `shards` must outlive the
  /// object.
  ///
  /// \par Errors  boost::system::system_error if the address cannot be listened on, or `mode` is
  ///              reuse_port and the system refuses SO_REUSEPORT; std::out_of_range if
  ///              options.listener is no shard; std::bad_alloc.
  sharded_acceptor(sharded_context& shards, const tcp::endpoint& at, handler h,
                   const accept_options& opts = {})
      : shared_(std::make_shared<shared>(shards, std::move(h))) {
    (void)shards.shard(opts.listener);
    boost::system::error_code refused;
    if (opts.mode != accept_mode::one_listener && listen_on_all(at, opts.backlog, refused)) {
      mode_ = accept_mode::reuse_port;
    } else {
      if (opts.mode == accept_mode::reuse_port) throw boost::system::system_error(refused);
      if (refused) why_ = "SO_REUSEPORT was refused: " + refused.message();
      mode_ = accept_mode::one_listener;
      listeners_.push_back(std::make_shared<listener>(shared_, opts.listener));
      listeners_.back()->open(at, opts.backlog, false);
    }
    endpoint_ = listeners_.front()->local();
    for (const auto& l : listeners_) l->start(mode_ == accept_mode::one_listener);
  }
  sharded_acceptor(const sharded_acceptor&) = delete;
  sharded_acceptor& operator=(const sharded_acceptor&) = delete;
  /// Calls close().
  ~sharded_acceptor() { close(); }

  /// Stops listening. Connections that were accepted are served, also after this. Each shard closes its own
  /// listener, so a listener may stay open for a moment after the call.
  void close() {
    for (const auto& l : std::exchange(listeners_, {})) l->close_soon(l);
  }

  /// Where it listens. If it was given port 0, the port is the one that the system has chosen.
  [[nodiscard]] tcp::endpoint local_endpoint() const noexcept { return endpoint_; }
  /// reuse_port or one_listener.
  [[nodiscard]] accept_mode mode() const noexcept { return mode_; }
  /// Why the mode is one_listener although SO_REUSEPORT was wanted. Otherwise empty.
  [[nodiscard]] const std::string& why() const noexcept { return why_; }
  /// Connections for which the handler was called.
  [[nodiscard]] std::uint64_t accepted() const noexcept {
    return shared_->accepted.load(std::memory_order_relaxed);
  }
  /// Connections that the listener's shard kept because the mailbox of the one that was chosen was
  /// full.
  [[nodiscard]] std::uint64_t kept() const noexcept {
    return shared_->kept.load(std::memory_order_relaxed);
  }
  /// Attempts to accept that failed, for example because no descriptor was free.
  [[nodiscard]] std::uint64_t failures() const noexcept {
    return shared_->failures.load(std::memory_order_relaxed);
  }

 private:
  struct shared {
    shared(sharded_context& c, handler h) : shards(c), serve(std::move(h)) {}

    void begin(tcp::socket s) {
      accepted.fetch_add(1, std::memory_order_relaxed);
      serve(std::move(s));
    }

    sharded_context& shards;
    handler serve;
    std::atomic<std::uint64_t> accepted{0};
    std::atomic<std::uint64_t> kept{0};
    std::atomic<std::uint64_t> failures{0};
  };

  /// A descriptor on its way to the shard that will have it.
  class descriptor {
   public:
    explicit descriptor(int fd) noexcept : fd_(fd) {}
    descriptor(descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    descriptor& operator=(descriptor&&) = delete;
    ~descriptor() {
      if (fd_ >= 0) ::close(fd_);
    }
    [[nodiscard]] int get() const noexcept { return fd_; }
    int release() noexcept { return std::exchange(fd_, -1); }

   private:
    int fd_;
  };

  /// A connection comes to its shard.
  struct arrival {
    void operator()() {
      if (to->shards.draining(shard) && moves_on()) return;
      tcp::socket s(to->shards.shard(shard));
      boost::system::error_code ec;
      s.assign(protocol, fd.get(), ec);
      if (ec) {
        to->failures.fetch_add(1, std::memory_order_relaxed);
        return;
      }
      [[maybe_unused]] const int socket = fd.release();
#if !defined(ASIO_PULSE_DISABLE)
      detail::begin_connection(socket);
#endif
      to->begin(std::move(s));
    }
    // It was sent before the drain of its shard began.
    [[nodiscard]] bool moves_on() {
      const std::shared_ptr<shared> all = to;
      const std::size_t here = std::exchange(shard, all->shards.place_index());
      try {
        if (shard != here && all->shards.try_post(shard, std::move(*this))) return true;
      } catch (const std::bad_alloc&) {  // it stays
        // NOLINTNEXTLINE(bugprone-use-after-move): on a spare thread it was, and is closed
        if (to == nullptr) {
          all->failures.fetch_add(1, std::memory_order_relaxed);
          return true;
        }
      }
      shard = here;  // NOLINT(bugprone-use-after-move): nothing was moved from it
      return false;
    }

    std::shared_ptr<shared> to;
    std::size_t shard;
    tcp protocol;
    descriptor fd;
  };

  class listener : public std::enable_shared_from_this<listener> {
   public:
    listener(std::shared_ptr<shared> s, std::size_t shard)
        : shared_(std::move(s)),
          io_(shared_->shards.shard(shard)),
          scheduler_(boost::asio::use_service<detail::scheduler_type>(io_)),
          shard_(shard),
          acceptor_(io_),
          pause_(io_) {}

    void open(const tcp::endpoint& at, int backlog, bool reuse_port) {
      protocol_ = at.protocol();
      acceptor_.open(protocol_);
      acceptor_.set_option(boost::asio::socket_base::reuse_address(true));
      if (reuse_port) acceptor_.set_option(port_reuse(true));
      acceptor_.bind(at);
      acceptor_.listen(backlog);
    }
    [[nodiscard]] tcp::endpoint local() const { return acceptor_.local_endpoint(); }

    /// Operations are started on the shard's thread.
    void start(bool hands_over) {
      hands_over_ = hands_over;
      if (hands_over) acceptor_.native_non_blocking(true);
      boost::asio::post(io_, [self = shared_from_this()] { self->go_on(); });
    }
    void close_soon(const std::shared_ptr<listener>& self) {
      boost::asio::post(io_, [self] {
        boost::system::error_code ignored;
        self->acceptor_.close(ignored);
        self->pause_.cancel();
      });
    }

   private:
    using port_reuse = boost::asio::detail::socket_option::boolean<SOL_SOCKET, SO_REUSEPORT>;

    // Waits for the next connection. The listener must not end because there is no memory for that now.
    void go_on() {
      try {
        hands_over_ ? wait() : accept();
      } catch (const std::bad_alloc&) {
        try_again();
      }
    }
    // In the next turn. That needs no memory.
    void try_again() noexcept {
      shared_->failures.fetch_add(1, std::memory_order_relaxed);
      retry_.listens = shared_from_this();
      scheduler_.post_immediate_completion(&retry_, false);
    }
    struct retry final : detail::operation_type {
      retry() noexcept : operation_type(&retry::run) {}
      static void run(void* owner, operation_type* self, const boost::system::error_code&,
                      std::size_t) {
        // If the owner is null, the context is destroyed, and the listener may be.
        const std::shared_ptr<listener> l = std::move(static_cast<retry*>(self)->listens);
        if (owner == nullptr) return;
        if (detail::shard_state* const s = detail::shard_state::current()) s->uncounted();
        if (l->acceptor_.is_open()) l->go_on();
      }
      std::shared_ptr<listener> listens;  ///< while it is queued
    };

    // ---- one listener for each shard

    void accept() {
      acceptor_.async_accept(
          [self = shared_from_this()](boost::system::error_code ec, tcp::socket s) {
            self->accepted(ec, std::move(s));
          });
    }
    void accepted(boost::system::error_code ec, tcp::socket s) {
      if (ec) {
        if (acceptor_.is_open()) fail(ec.value());
        return;
      }
      // Before the handler, which may throw. If it was closed meanwhile, this connection still is served.
      if (acceptor_.is_open()) go_on();
      if (shared_->shards.draining(shard_) && moves_on(s)) return;
      shared_->begin(std::move(s));
    }

    // This shard is being drained: the connection goes to another one.
    [[nodiscard]] bool moves_on(tcp::socket& s) {
      boost::system::error_code ec;
      descriptor fd(s.release(ec));
      if (ec) return false;
      try {
        hand_over(std::move(fd));
      } catch (const std::bad_alloc&) {  // the connection is closed
        shared_->failures.fetch_add(1, std::memory_order_relaxed);
      }
      return true;
    }

    // ---- one listener for all: connections never come to the listener's reactor

    void wait() {
      acceptor_.async_wait(tcp::acceptor::wait_read,
                           [self = shared_from_this()](boost::system::error_code) {
                             if (self->acceptor_.is_open()) self->take_some();
                           });
    }

    void take_some() {
      constexpr int at_once = 16;  // a guess: between system calls saved and the shard's own work
      for (int i = 0; i != at_once; ++i) {
        descriptor fd(
            ::accept4(acceptor_.native_handle(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
        if (fd.get() < 0) {
          if (errno == EAGAIN) break;
          return fail(errno);
        }
        try {
          hand_over(std::move(fd));
        } catch (const std::bad_alloc&) {  // the connection is closed
          return fail(ENOMEM);
        }
      }
      go_on();
    }

    void hand_over(descriptor fd) {
      arrival a{shared_, shared_->shards.place_index(), protocol_, std::move(fd)};
      const std::size_t to = a.shard;
      if (shared_->shards.try_post(to, std::move(a))) return;
      shared_->kept.fetch_add(1, std::memory_order_relaxed);
      a.shard = shard_;  // NOLINT(bugprone-use-after-move): nothing was moved from it
      boost::asio::post(io_, std::move(a));
    }

    // The connection has ended while it waited, which says nothing about the next one.
    [[nodiscard]] static bool lost(int code) noexcept {
      return code == ECONNABORTED || code == EPROTO || code == EINTR;
    }
    void fail(int code) {
      shared_->failures.fetch_add(1, std::memory_order_relaxed);
      if (lost(code)) return go_on();
      try {
        pause_.expires_after(std::chrono::milliseconds(50));
        pause_.async_wait([self = shared_from_this()](boost::system::error_code) {
          if (self->acceptor_.is_open()) self->go_on();
        });
      } catch (const std::bad_alloc&) {
        try_again();
      }
    }

    std::shared_ptr<shared> shared_;
    io_context& io_;
    detail::scheduler_type& scheduler_;
    std::size_t shard_;
    bool hands_over_ = false;
    tcp protocol_ = tcp::v4();
    tcp::acceptor acceptor_;
    boost::asio::steady_timer pause_;
    retry retry_;
  };

  // Returns false, and listens nowhere, if a step fails.
  [[nodiscard]] bool listen_on_all(tcp::endpoint at, int backlog, boost::system::error_code& ec) {
    std::vector<std::shared_ptr<listener>> all;
    try {
      for (std::size_t i = 0; i != shared_->shards.size(); ++i) {
        all.push_back(std::make_shared<listener>(shared_, i));
        all.back()->open(at, backlog, true);
        at = all.back()->local();  // with the port that the others share
      }
    } catch (const boost::system::system_error& e) {
      ec = e.code();
      return false;
    }
    listeners_ = std::move(all);
    return true;
  }

  std::shared_ptr<shared> shared_;
  std::vector<std::shared_ptr<listener>> listeners_;
  tcp::endpoint endpoint_;
  accept_mode mode_ = accept_mode::automatic;
  std::string why_;
};

}  // namespace asio_pulse
