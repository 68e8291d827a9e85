// SPDX-License-Identifier: BSL-1.0

// Which task work belongs to when connections do work for one another, with real sockets.

#include <support/scenario.hpp>
//
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/udp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include <gmock/gmock.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <deque>
#include <latch>
#include <memory>
#include <optional>
#include <set>

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using namespace pulse_test;
using testing::Each;
using testing::ElementsAre;
using testing::Ne;
using testing::SizeIs;

std::uint64_t whose() { return asio_pulse::this_task::id(); }
using ids = std::set<std::uint64_t>;

const tcp::endpoint any_port{asio::ip::address_v4::loopback(), 0};

/// A message is one byte, since the contents do not matter here.
class message {
 public:
  [[nodiscard]] asio::mutable_buffer buffer() noexcept { return asio::buffer(byte_); }

 private:
  std::array<char, 1> byte_{};
};

/// Answers each message, on a thread and a context of its own, as a database does.
class upstream {
 public:
  upstream() {
    accept();
    thread_ = std::thread([this] { io_.run(); });
  }
  ~upstream() {
    asio::post(io_, [this] { acceptor_.close(); });
    thread_.join();
  }
  upstream(const upstream&) = delete;
  upstream& operator=(const upstream&) = delete;

  [[nodiscard]] tcp::endpoint endpoint() const { return endpoint_; }

 private:
  struct session : std::enable_shared_from_this<session> {
    explicit session(tcp::socket s) : socket(std::move(s)) {}
    void answer() {
      asio::async_read(socket, bytes.buffer(),
                       [self = shared_from_this()](error_code ec, std::size_t) {
                         if (ec) return;
                         asio::async_write(self->socket, self->bytes.buffer(),
                                           [self](error_code failed, std::size_t) {
                                             if (!failed) self->answer();
                                           });
                       });
    }
    tcp::socket socket;
    message bytes;
  };
  void accept() {
    acceptor_.async_accept([this](error_code ec, tcp::socket socket) {
      if (ec) return;
      std::make_shared<session>(std::move(socket))->answer();
      accept();
    });
  }

  asio::io_context io_;
  tcp::acceptor acceptor_{io_, any_port};
  const tcp::endpoint endpoint_ = acceptor_.local_endpoint();
  std::thread thread_;
};

/// The program's only connection to it, which is opened at the first use. Requests are written one
/// after the other, and each answer is passed to the handler that asked.
class shared_client {
 public:
  shared_client(asio::io_context& io, tcp::endpoint to) : socket_(io), to_(to) {}

  void request(std::function<void()> answered) {
    queue_.push_back(std::move(answered));
    if (!std::exchange(opened_, true)) {
      socket_.async_connect(to_, [this](error_code ec) {
        EXPECT_FALSE(ec) << ec.message();
        seen.insert(whose());
        connected_ = true;
        read();
        write();
      });
    } else {
      write();
    }
  }
  void close() { socket_.close(); }

  ids seen;  ///< the tasks in whose handlers the client's own work ran

 private:
  void write() {
    if (!connected_ || writing_ || to_write_ == queue_.size()) return;
    writing_ = true;
    asio::async_write(socket_, out_.buffer(), [this](error_code ec, std::size_t) {
      EXPECT_FALSE(ec) << ec.message();
      seen.insert(whose());
      writing_ = false;
      ++to_write_;
      write();
    });
  }
  void read() {
    asio::async_read(socket_, in_.buffer(), [this](error_code ec, std::size_t) {
      if (ec) return;
      seen.insert(whose());
      const auto answered = std::move(queue_.front());
      queue_.pop_front();
      --to_write_;
      answered();
      read();
    });
  }

  tcp::socket socket_;
  tcp::endpoint to_;
  std::deque<std::function<void()>> queue_;
  std::size_t to_write_ = 0;  ///< written already, of the queue
  bool opened_ = false;
  bool connected_ = false;
  bool writing_ = false;
  message in_;
  message out_;
};

/// The other end of a connection to the server under test: a plain socket, on the test's own
/// thread.
class visitor {
 public:
  explicit visitor(tcp::endpoint to) { socket_.connect(to); }
  void ask() {
    asio::write(socket_, bytes_.buffer());
    asio::read(socket_, bytes_.buffer());
  }
  void leave() { socket_.close(); }

 private:
  asio::io_context io_;
  tcp::socket socket_{io_};
  message bytes_;
};

/// One connection of the server.
struct served {
  ids seen{};             ///< the tasks in whose handlers its own work ran
  std::size_t tasks = 0;  ///< tasks in the context, as of the last check
  std::latch gone{1};
};

/// Serves a number of connections with the shared client.
class front_server {
 public:
  front_server(asio_pulse::io_context& io, shared_client& client, std::size_t connections)
      : io_(io), client_(client), served_(connections) {
    accept(0);
  }
  [[nodiscard]] tcp::endpoint endpoint() const { return endpoint_; }
  [[nodiscard]] std::vector<served>& connections() noexcept { return served_; }

 private:
  struct session : std::enable_shared_from_this<session> {
    session(front_server& s, tcp::socket with, served& n)
        : server(s), socket(std::move(with)), notes(n) {}
    ~session() { notes.gone.count_down(); }
    void serve() {
      asio::async_read(socket, bytes.buffer(),
                       [self = shared_from_this()](error_code ec, std::size_t) {
                         if (ec) return;
                         self->notes.seen.insert(whose());
                         self->notes.tasks = self->server.io_.stats().tasks;
                         self->server.client_.request([self] { self->reply(); });
                       });
    }
    void reply() {
      asio::async_write(socket, bytes.buffer(),
                        [self = shared_from_this()](error_code, std::size_t) {
                          self->notes.seen.insert(whose());
                          self->serve();
                        });
    }
    front_server& server;
    tcp::socket socket;
    served& notes;
    message bytes;
  };
  void accept(std::size_t number) {
    acceptor_.async_accept([this, number](error_code ec, tcp::socket socket) {
      EXPECT_FALSE(ec) << ec.message();
      std::make_shared<session>(*this, std::move(socket), served_[number])->serve();
      if (number + 1 < served_.size()) accept(number + 1);
    });
  }

  asio_pulse::io_context& io_;
  shared_client& client_;
  tcp::acceptor acceptor_{io_, any_port};
  const tcp::endpoint endpoint_ = acceptor_.local_endpoint();
  std::vector<served> served_;
};

TEST(connection_tasks, a_shared_client_is_not_the_work_of_who_opened_it) {
  const upstream data_base;
  asio_pulse::io_context io(steady());
  shared_client client(io, data_base.endpoint());
  constexpr std::size_t others = 4;
  front_server server(io, client, 1 + others);
  std::thread outside([&] {
    visitor first(server.endpoint());
    first.ask();  // opens the client
    std::deque<visitor> rest;
    for (std::size_t i = 0; i < others; ++i) rest.emplace_back(server.endpoint()).ask();
    first.leave();
    server.connections().front().gone.wait();
    for (int round = 0; round < 20; ++round) {
      for (visitor& v : rest) v.ask();
    }
    for (visitor& v : rest) v.leave();
    for (std::size_t i = 1; i <= others; ++i) server.connections()[i].gone.wait();
    asio::post(io, [&] { client.close(); });
  });
  io.run();
  outside.join();

  ASSERT_THAT(client.seen, SizeIs(1)) << "all work of the client belongs to one task";
  ids all = client.seen;
  for (const served& s : server.connections()) {
    EXPECT_THAT(s.seen, SizeIs(1)) << "all work of a connection belongs to one task";
    all.insert(s.seen.begin(), s.seen.end());
  }
  EXPECT_THAT(all, SizeIs(2 + others)) << "and each connection has a different task";
  EXPECT_FALSE(all.contains(0));
  // The first one had left, and the client continued for the others.
  EXPECT_EQ(server.connections().back().tasks, 1U + others);
  EXPECT_EQ(io.stats().tasks, 0U);
}

// The same with coroutines, each of which uses the shared connection itself.
TEST(connection_tasks, a_coroutine_is_its_own_connections_again_after_using_anothers) {
  const upstream data_base;
  asio_pulse::io_context io(steady());
  tcp::acceptor acceptor(io, any_port);
  const tcp::endpoint to = acceptor.local_endpoint();
  std::optional<tcp::socket> client;
  struct seen {
    ids own;
    ids with_client;
  };
  std::deque<seen> sessions;
  std::size_t tasks = 0;
  const auto session = [&](tcp::socket socket, seen& notes) -> asio::awaitable<void> {
    message bytes;
    for (;;) {
      try {
        co_await asio::async_read(socket, bytes.buffer(), asio::use_awaitable);
      } catch (const boost::system::system_error&) {
        co_return;
      }
      notes.own.insert(whose());
      tasks = io.stats().tasks;
      if (!client) {
        client.emplace(io);
        co_await client->async_connect(data_base.endpoint(), asio::use_awaitable);
        notes.with_client.insert(whose());
      }
      co_await asio::async_write(*client, bytes.buffer(), asio::use_awaitable);
      notes.with_client.insert(whose());
      co_await asio::async_read(*client, bytes.buffer(), asio::use_awaitable);
      notes.with_client.insert(whose());
      co_await asio::async_write(socket, bytes.buffer(), asio::use_awaitable);
      notes.own.insert(whose());
    }
  };
  std::function<void()> accept = [&] {
    acceptor.async_accept([&](error_code ec, tcp::socket socket) {
      if (ec) return;
      asio::co_spawn(io, session(std::move(socket), sessions.emplace_back()), asio::detached);
      accept();
    });
  };
  accept();
  std::thread outside([&] {
    visitor first(to);
    first.ask();
    visitor second(to);
    second.ask();
    first.leave();
    for (int i = 0; i < 20; ++i) second.ask();
    second.leave();
    asio::post(io, [&] { acceptor.close(); });
  });
  io.run();
  outside.join();
  client.reset();

  ASSERT_THAT(sessions, SizeIs(2));
  ids all;
  for (const seen& s : sessions) {
    EXPECT_THAT(s.own, SizeIs(1));
    EXPECT_EQ(s.with_client, sessions.front().with_client);
    EXPECT_THAT(s.with_client, SizeIs(1));
    all.insert(s.own.begin(), s.own.end());
    all.insert(s.with_client.begin(), s.with_client.end());
  }
  EXPECT_THAT(all, SizeIs(3));
  EXPECT_FALSE(all.contains(0));
  EXPECT_EQ(tasks, 2U)
      << "of the second connection and of the client, long after the first connection was closed";
  EXPECT_EQ(io.stats().tasks, 0U);
}

// ---- what outlives its connection

/// Accepts one connection, calls `begin` to start something for it, and closes it when the other
/// end does. Then `go_on` says how long the rest continues.
class left_behind : public testing::Test {
 protected:
  void run(std::function<void()> begin) {
    acceptor_.async_accept([this, begin](error_code ec, tcp::socket socket) {
      ASSERT_FALSE(ec) << ec.message();
      session_.emplace(std::move(socket));
      session_->async_read_some(bytes_.buffer(), [this](error_code, std::size_t) {
        connection_ = whose();
        session_->close();
        closed_ = true;
        EXPECT_EQ(whose(), connection_) << "until its handler has ended";
      });
      begin();
      acceptor_.close();
    });
    visitor v(acceptor_.local_endpoint());
    std::thread outside([&v, this] {
      ticked_.wait();
      v.leave();
    });
    io_.run();
    outside.join();
    EXPECT_NE(connection_, 0U);
    EXPECT_EQ(io_.stats().tasks, 0U);
  }
  /// Runs the work that was left behind: `stop` after this many turns since the close.
  bool tick() {
    (closed_ ? after_ : before_).push_back(whose());
    if (before_.size() == 3 && !closed_) ticked_.count_down();
    return after_.size() < 5;
  }
  void expect_nobodys() {
    EXPECT_THAT(before_, Each(connection_));
    EXPECT_GE(before_.size(), 3U);
    ASSERT_THAT(after_, SizeIs(5));
    EXPECT_THAT(after_, Each(0U));
  }

  asio_pulse::io_context io_{steady()};
  tcp::acceptor acceptor_{io_, any_port};
  std::optional<tcp::socket> session_;
  message bytes_;
  std::uint64_t connection_ = 0;
  bool closed_ = false;
  std::latch ticked_{1};
  std::vector<std::uint64_t> before_;
  std::vector<std::uint64_t> after_;
};

TEST_F(left_behind, a_timer_is_nobodys) {
  asio::steady_timer timer(io_);
  std::function<void()> next = [&] {
    timer.expires_after(1ms);
    timer.async_wait([&](error_code) {
      if (tick()) next();
    });
  };
  run(next);
  expect_nobodys();
}

TEST_F(left_behind, handlers_that_post_themselves_are_nobodys) {
  std::function<void()> next = [&] {
    asio::post(io_, [&] {
      if (tick()) next();
    });
  };
  run(next);
  expect_nobodys();
}

TEST_F(left_behind, a_strands_handlers_are_nobodys) {
  const auto strand = asio::make_strand(io_);
  std::function<void()> next = [&] {
    asio::post(strand, [&] {
      if (tick()) next();
    });
  };
  run(next);
  expect_nobodys();
}

TEST_F(left_behind, a_coroutine_is_nobodys) {
  const auto loop = [&]() -> asio::awaitable<void> {
    asio::steady_timer timer(io_);
    do {
      timer.expires_after(1ms);
      co_await timer.async_wait(asio::use_awaitable);
    } while (tick());
  };
  run([&] { asio::co_spawn(io_, loop(), asio::detached); });
  expect_nobodys();
}

TEST_F(left_behind, work_of_a_declared_task_stays_its) {
  std::optional<asio_pulse::task> declared;
  declared.emplace(io_, unlimited("declared"));
  const auto id = declared->id();
  std::function<void()> next = [&] {
    asio::post(io_, [&] {
      if (tick()) next();
      if (after_.size() == 5) declared.reset();
    });
  };
  run([&] {
    const asio_pulse::task_scope scope(*declared);
    next();
  });
  EXPECT_THAT(before_, Each(id));
  EXPECT_THAT(after_, Each(id));
}

// A connection that is held back is closed. Nothing that waits for its turn is lost.
TEST(connection_tasks, what_is_put_back_when_the_connection_closes_is_run) {
  asio_pulse::options o = steady();
  o.accepted = stingy("connection");
  asio_pulse::io_context io(o);
  tcp::acceptor acceptor(io, any_port);
  std::optional<tcp::socket> session;
  constexpr int storm = 400;
  std::vector<std::atomic<int>> runs(storm);
  acceptor.async_accept([&](error_code, tcp::socket socket) {
    session.emplace(std::move(socket));
    session->async_wait(tcp::socket::wait_write, [&](error_code) {
      for (int i = 0; i < storm; ++i) {
        asio::post(io, [&, i] {
          burn(30us);
          ++runs[static_cast<std::size_t>(i)];
          if (i == storm / 2) session->close();
        });
      }
    });
  });
  visitor v(acceptor.local_endpoint());
  on_threads(2, [&](std::size_t) { io.run(); });
  for (const auto& n : runs) EXPECT_EQ(n, 1);
  EXPECT_EQ(io.stats().tasks, 0U);
  EXPECT_EQ(io.stats().parked, 0U);
}

// ---- outgoing connections

class outgoing : public testing::Test {
 protected:
  explicit outgoing(asio_pulse::options o = steady()) : io_(std::move(o)) {}

  /// In a handler of no task.
  template <class Function>
  void in_a_handler(Function f) {
    asio::post(io_, std::move(f));
    io_.run();
    io_.restart();
  }

  asio_pulse::io_context io_;
  upstream other_end_;
  tcp::socket socket_{io_};
  message bytes_;
  std::vector<std::uint64_t> seen_;
};

TEST_F(outgoing, connection_is_a_task_of_its_own) {
  tcp::socket second(io_);
  in_a_handler([&] {
    socket_.async_connect(other_end_.endpoint(), [&](error_code ec) {
      EXPECT_FALSE(ec);
      seen_.push_back(whose());
      asio::post(io_, [&] { seen_.push_back(whose()); });
      second.async_connect(other_end_.endpoint(), [&](error_code) { seen_.push_back(whose()); });
    });
  });
  ASSERT_THAT(seen_, SizeIs(3));
  EXPECT_THAT(seen_, Each(Ne(0U)));
  EXPECT_THAT(ids(seen_.begin(), seen_.end()), SizeIs(2)) << "each connection is a different task";
  EXPECT_EQ(io_.stats().tasks, 2U);
  socket_.close();
  second.close();
  EXPECT_EQ(io_.stats().tasks, 0U);
}

TEST_F(outgoing, connection_that_is_started_before_the_context_runs) {
  socket_.async_connect(other_end_.endpoint(), [&](error_code) { seen_.push_back(whose()); });
  io_.run();
  EXPECT_THAT(seen_, ElementsAre(Ne(0U)));
  // Started by work of no task, on the connection's socket.
  asio::async_write(socket_, bytes_.buffer(),
                    [&](error_code, std::size_t) { seen_.push_back(whose()); });
  io_.restart();
  io_.run();
  ASSERT_THAT(seen_, SizeIs(2));
  EXPECT_EQ(seen_[1], seen_[0]);
}

TEST_F(outgoing, connection_that_tries_several_endpoints) {
  tcp::acceptor closed(io_, any_port);
  const std::array<tcp::endpoint, 2> endpoints{closed.local_endpoint(), other_end_.endpoint()};
  closed.close();
  in_a_handler([&] {
    asio::async_connect(socket_, endpoints, [&](error_code ec, const tcp::endpoint& to) {
      EXPECT_FALSE(ec) << ec.message();
      EXPECT_EQ(to, endpoints[1]);
      seen_.push_back(whose());
      asio::async_write(socket_, bytes_.buffer(),
                        [&](error_code, std::size_t) { seen_.push_back(whose()); });
    });
  });
  ASSERT_THAT(seen_, SizeIs(2));
  EXPECT_NE(seen_[0], 0U);
  EXPECT_EQ(seen_[1], seen_[0]);
  EXPECT_EQ(io_.stats().tasks, 1U) << "no task is left of the endpoint that refused";
}

TEST_F(outgoing, connection_that_fails_leaves_nothing) {
  tcp::acceptor closed(io_, any_port);
  const tcp::endpoint to = closed.local_endpoint();
  closed.close();
  in_a_handler([&] {
    socket_.async_connect(to, [&](error_code ec) {
      EXPECT_TRUE(ec);
      seen_.push_back(whose());
      socket_.close();
    });
  });
  EXPECT_THAT(seen_, ElementsAre(Ne(0U)));
  EXPECT_EQ(io_.stats().tasks, 0U);
}

TEST_F(outgoing, connection_of_a_declared_task_is_its) {
  const asio_pulse::task declared(io_, unlimited("client"));
  const auto note = [&](auto&&...) { seen_.push_back(whose()); };
  in_a_handler([&] {
    const asio_pulse::task_scope scope(declared);
    socket_.async_connect(other_end_.endpoint(), note);
  });
  // When other work uses it, that belongs to the client's task.
  in_a_handler([&] { asio::async_write(socket_, bytes_.buffer(), note); });
  EXPECT_THAT(seen_, ElementsAre(declared.id(), declared.id()));
  EXPECT_EQ(io_.stats().tasks, 1U);
}

TEST_F(outgoing, datagram_socket_that_is_connected_is_a_task_too) {
  asio::ip::udp::socket receiver(io_, {asio::ip::address_v4::loopback(), 0});
  asio::ip::udp::socket sender(io_, asio::ip::udp::v4());
  in_a_handler([&] {
    sender.async_connect(receiver.local_endpoint(), [&](error_code) {
      seen_.push_back(whose());
      sender.async_send(bytes_.buffer(),
                        [&](error_code, std::size_t) { seen_.push_back(whose()); });
    });
  });
  ASSERT_THAT(seen_, SizeIs(2));
  EXPECT_NE(seen_[0], 0U);
  EXPECT_EQ(seen_[1], seen_[0]);
}

TEST_F(outgoing, socket_that_is_given_away_is_nobodys) {
  in_a_handler([&] { socket_.async_connect(other_end_.endpoint(), [&](error_code) {}); });
  EXPECT_EQ(io_.stats().tasks, 1U);
  tcp::socket other(io_);
  other.assign(tcp::v4(), socket_.release());
  EXPECT_EQ(io_.stats().tasks, 0U);
  in_a_handler([&] {
    asio::async_write(other, bytes_.buffer(),
                      [&](error_code, std::size_t) { seen_.push_back(whose()); });
  });
  EXPECT_THAT(seen_, ElementsAre(0U));
}

// A descriptor that was closed without Asio becomes another socket.
TEST_F(outgoing, connection_is_forgotten_when_its_descriptor_is_another_socket) {
  in_a_handler([&] { socket_.async_connect(other_end_.endpoint(), [&](error_code) {}); });
  const int descriptor = socket_.native_handle();
  const int fresh = ::socket(AF_INET, SOCK_DGRAM, 0);
  ASSERT_EQ(::dup2(fresh, descriptor), descriptor);
  ::close(fresh);
  asio::ip::udp::socket other(io_, asio::ip::udp::v4(), descriptor);
  other.bind({asio::ip::address_v4::loopback(), 0});
  in_a_handler([&] {
    other.async_send_to(bytes_.buffer(), other.local_endpoint(),
                        [&](error_code, std::size_t) { seen_.push_back(whose()); });
  });
  EXPECT_THAT(seen_, ElementsAre(0U));
  (void)socket_.release();
}

class outgoing_without_the_rule : public outgoing {
 protected:
  static asio_pulse::options off() {
    asio_pulse::options o = steady();
    o.connect_rule = false;
    return o;
  }
  outgoing_without_the_rule() : outgoing(off()) {}
};
TEST_F(outgoing_without_the_rule, connection_is_the_work_of_whoever_opens_it) {
  in_a_handler([&] {
    socket_.async_connect(other_end_.endpoint(), [&](error_code) { seen_.push_back(whose()); });
  });
  EXPECT_THAT(seen_, ElementsAre(0U));
  EXPECT_EQ(io_.stats().tasks, 0U);
}

// A time-out closes the socket on one thread while the connect completes on another.
TEST_F(outgoing, connections_and_time_outs_on_two_threads) {
  constexpr int connections = 300;
  struct attempt {
    explicit attempt(asio::io_context& io)
        : socket(asio::make_strand(io)), timer(socket.get_executor()) {}
    tcp::socket socket;
    asio::steady_timer timer;
  };
  std::atomic<int> ended{0};
  std::function<void()> next = [&] {
    auto a = std::make_shared<attempt>(io_);
    asio::post(a->socket.get_executor(), [&, a] {
      a->timer.expires_after(std::chrono::microseconds{100});
      a->timer.async_wait([a](error_code) { a->socket.close(); });
      a->socket.async_connect(other_end_.endpoint(), [&, a](error_code) {
        a->timer.cancel();
        a->socket.close();
        if (++ended < connections) next();
      });
    });
  };
  for (int i = 0; i < 4; ++i) asio::post(io_, next);
  on_threads(2, [&](std::size_t) { io_.run(); });
  EXPECT_GE(ended, connections);
  EXPECT_EQ(io_.stats().tasks, 0U);
}

// ---- accepted connections

class accepted : public testing::Test {
 protected:
  asio_pulse::io_context io_{steady()};
  tcp::acceptor acceptor_{io_, any_port};
  message bytes_;
  std::vector<std::uint64_t> seen_;
};

TEST_F(accepted, what_one_sends_to_the_others_is_theirs) {
  std::vector<tcp::socket> sockets;
  std::vector<std::uint64_t> own;
  std::function<void()> accept = [&] {
    acceptor_.async_accept([&](error_code, tcp::socket socket) {
      sockets.push_back(std::move(socket));
      sockets.back().async_wait(tcp::socket::wait_write, [&](error_code) {
        own.push_back(whose());
        if (own.size() < 3) return accept();
        // The last one sends something to all.
        for (tcp::socket& s : sockets) {
          asio::async_write(s, bytes_.buffer(),
                            [&](error_code, std::size_t) { seen_.push_back(whose()); });
        }
      });
    });
  };
  accept();
  sockets.reserve(3);
  std::deque<visitor> visitors;
  for (int i = 0; i < 3; ++i) visitors.emplace_back(acceptor_.local_endpoint());
  io_.run();
  EXPECT_THAT(ids(own.begin(), own.end()), SizeIs(3));
  EXPECT_EQ(ids(seen_.begin(), seen_.end()), ids(own.begin(), own.end()));
}

TEST_F(accepted, connection_that_a_declared_task_is_the_first_to_use_is_its) {
  const asio_pulse::task session(io_, unlimited("session"));
  std::optional<tcp::socket> socket;
  acceptor_.async_accept([&](error_code, tcp::socket s) {
    socket.emplace(std::move(s));
    const asio_pulse::task_scope scope(session);
    socket->async_wait(tcp::socket::wait_write, [&](error_code) { seen_.push_back(whose()); });
  });
  const visitor v(acceptor_.local_endpoint());
  io_.run();
  io_.restart();
  asio::async_write(*socket, bytes_.buffer(),
                    [&](error_code, std::size_t) { seen_.push_back(whose()); });
  io_.run();
  EXPECT_THAT(seen_, ElementsAre(session.id(), session.id()));
  socket.reset();
  EXPECT_EQ(io_.stats().tasks, 1U) << "the declared one";
}

// The old way, into a socket that exists.
TEST_F(accepted, into_a_socket_of_the_programs) {
  if (always_preempt()) GTEST_SKIP() << "an accept that was put back does not tell its socket";
  tcp::socket socket(io_);
  acceptor_.async_accept(socket, [&](error_code) { seen_.push_back(whose()); });
  const visitor v(acceptor_.local_endpoint());
  io_.run();
  io_.restart();
  // Started outside of all tasks.
  socket.async_wait(tcp::socket::wait_write, [&](error_code) { seen_.push_back(whose()); });
  EXPECT_EQ(io_.stats().tasks, 1U);
  io_.run();
  ASSERT_THAT(seen_, SizeIs(2));
  EXPECT_NE(seen_[1], 0U);
  socket.close();
  EXPECT_EQ(io_.stats().tasks, 0U);
}

TEST_F(accepted, connections_under_the_same_descriptor_are_different_tasks) {
  constexpr int connections = 100;
  std::set<int> descriptors;
  std::function<void()> accept = [&] {
    acceptor_.async_accept([&](error_code, tcp::socket socket) {
      descriptors.insert(socket.native_handle());
      auto s = std::make_shared<tcp::socket>(std::move(socket));
      s->async_read_some(bytes_.buffer(), [&, s](error_code, std::size_t) {
        seen_.push_back(whose());
        s->close();
        if (seen_.size() < connections) accept();
      });
    });
  };
  accept();
  std::thread outside([to = acceptor_.local_endpoint()] {
    for (int i = 0; i < connections; ++i) visitor(to).leave();
  });
  io_.run();
  outside.join();
  EXPECT_THAT(ids(seen_.begin(), seen_.end()), SizeIs(connections));
  EXPECT_LT(descriptors.size(), std::size_t{connections})
      << "no descriptor was reused: this tests nothing";
  EXPECT_EQ(io_.stats().tasks, 0U);
}

}  // namespace
