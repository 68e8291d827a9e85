// SPDX-License-Identifier: BSL-1.0

// Which group an accepted connection joins, with real sockets.

#include <support/scenario.hpp>
//
#include <asio_pulse/accepted_connection.hpp>
#include <asio_pulse/metrics.hpp>
#include <asio_pulse/task_group.hpp>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>

#include <gmock/gmock.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using namespace pulse_test;
using asio_pulse::accepted_connection;
using asio_pulse::group_ref;
using asio_pulse::report;
using asio_pulse::report_kind;
using asio_pulse::socket_address;
using asio_pulse::task_group;
using testing::HasSubstr;

/// Connections that come from an address of their own, and do nothing.
class clients {
 public:
  explicit clients(tcp::endpoint to) : to_(to) {}
  void connect_from(const char* address) {
    tcp::socket& s = sockets_.emplace_back(io_, tcp::v4());
    s.bind({asio::ip::make_address(address), 0});
    s.connect(to_);
  }
  [[nodiscard]] std::uint16_t last_port() const { return sockets_.back().local_endpoint().port(); }

 private:
  tcp::endpoint to_;
  asio::io_context io_;
  std::vector<tcp::socket> sockets_;
};

/// A listener that keeps what it accepts, and burns some CPU time in a handler of each connection.
class classifying_server {
 public:
  explicit classifying_server(asio_pulse::io_context& io) : io_(io) {}
  void accept(int connections) {
    if (connections == 0) return;
    acceptor_.async_accept([this, connections](error_code ec, tcp::socket socket) {
      if (ec) return;
      const std::uint64_t id = asio_pulse::this_task::id();
      asio::post(io_, [this, id] {
        EXPECT_EQ(asio_pulse::this_task::id(), id);
        burn(300us);
        ++served;
      });
      const std::lock_guard lock(mutex_);
      ids.push_back(id);
      sockets_.push_back(std::move(socket));
      accept(connections - 1);
    });
  }
  [[nodiscard]] tcp::endpoint endpoint() const { return acceptor_.local_endpoint(); }
  void close() { acceptor_.close(); }

  std::vector<std::uint64_t> ids;
  std::atomic<int> served{0};

 private:
  asio_pulse::io_context& io_;
  std::mutex mutex_;
  tcp::acceptor acceptor_{io_, {asio::ip::address_v4::loopback(), 0}};
  std::vector<tcp::socket> sockets_;
};

// ---- addresses

template <class Sockaddr>
socket_address address_of(const Sockaddr& a, std::size_t size = sizeof(Sockaddr)) {
  return socket_address({reinterpret_cast<const std::byte*>(&a), size});
}

TEST(socket_address, says_what_it_is) {
  const tcp::endpoint four(asio::ip::make_address("192.0.2.7"), 4711);
  const tcp::endpoint six(asio::ip::make_address("2001:db8::1"), 80);
  for (const tcp::endpoint& e : {four, six}) {
    const socket_address a({reinterpret_cast<const std::byte*>(e.data()), e.size()});
    EXPECT_TRUE(a);
    EXPECT_EQ(a.family(), e.protocol().family());
    EXPECT_EQ(a.port(), e.port());
    EXPECT_EQ(a.text(), e.address().to_string());
    EXPECT_EQ(a.as<tcp::endpoint>(), e);
  }
  sockaddr_un path{};
  path.sun_family = AF_UNIX;
  std::strcpy(path.sun_path, "/run/shop");
  EXPECT_EQ(address_of(path).text(), "/run/shop");
  EXPECT_EQ(address_of(path).port(), 0);
  std::memcpy(path.sun_path, "\0shop", 5);
  EXPECT_EQ(address_of(path, offsetof(sockaddr_un, sun_path) + 5).text(), std::string("\0shop", 5));
}

TEST(socket_address, that_is_missing_or_malformed_is_empty) {
  const auto expect_nothing = [](const socket_address& a) {
    EXPECT_EQ(a.port(), 0);
    EXPECT_EQ(a.text(), "");
  };
  expect_nothing({});
  EXPECT_FALSE(socket_address{});
  EXPECT_EQ(socket_address{}.family(), AF_UNSPEC);
  EXPECT_EQ(socket_address{}.as<tcp::endpoint>(), tcp::endpoint{});
  const std::array<std::byte, 200> ones = [] {
    std::array<std::byte, 200> a{};
    a.fill(std::byte{1});
    return a;
  }();
  EXPECT_FALSE(socket_address(ones)) << "longer than any sockaddr";
  expect_nothing(socket_address(std::span(ones).first(1)));
  expect_nothing(socket_address(std::span(ones).first(128)));
  sockaddr_un none{};
  none.sun_family = AF_UNIX;
  EXPECT_EQ(address_of(none, offsetof(sockaddr_un, sun_path)).text(), "");
  EXPECT_EQ(address_of(none, 4).text(), std::string("\0\0", 2));
}

// ---- connections

class classify : public testing::TestWithParam<std::size_t> {};
INSTANTIATE_TEST_SUITE_P(threads, classify, testing::Values(1, 2));

TEST_P(classify, puts_connections_into_the_groups_of_their_peers) {
  std::map<std::string, task_group> tenants;  // made after the context
  std::mutex mutex;
  std::map<std::uint64_t, std::string> seen;
  std::uint16_t listens_on = 0;
  asio_pulse::options o = steady();
  o.classify = [&](const accepted_connection& c) -> group_ref {
    EXPECT_EQ(c.task_id, asio_pulse::this_task::id());
    EXPECT_EQ(c.listener_name, "listener");
    EXPECT_EQ(c.local().port(), listens_on);
    const std::lock_guard lock(mutex);
    seen[c.task_id] = c.peer().text();
    const auto found = tenants.find(c.peer().text());
    return found != tenants.end() ? found->second : group_ref();
  };
  asio_pulse::io_context io{o};
  for (const char* address : {"127.0.0.2", "127.0.0.3"}) {
    tenants.emplace(address, task_group(io, {.name = address}));
  }
  const asio_pulse::task listener(io, unlimited("listener"));
  classifying_server s(io);
  listens_on = s.endpoint().port();
  clients c(s.endpoint());
  constexpr int each = 6;
  {
    const asio_pulse::task_scope scope(listener);
    s.accept(3 * each);
  }
  for (int i = 0; i != each; ++i) {
    for (const char* from : {"127.0.0.2", "127.0.0.3", "127.0.0.4"}) c.connect_from(from);
  }
  run_on(io, GetParam());
  EXPECT_EQ(s.served, 3 * each);
  EXPECT_EQ(seen.size(), 3U * each);
  const asio_pulse::context_metrics m = io.metrics({.top_tasks = 100});
  for (const auto& [address, group] : tenants) {
    EXPECT_EQ(group.stats().tasks, each) << address;
    EXPECT_GE(group.stats().cpu, each * 300us) << address;
    auto used = 0ns;
    for (const auto& t : m.tasks) {
      const auto known = seen.find(t.id);
      if (known != seen.end() && known->second == address) used += t.cpu;
    }
    // Rounded to nanoseconds at seven places.
    EXPECT_NEAR(static_cast<double>(group.stats().cpu.count()), static_cast<double>(used.count()),
                20.)
        << address;
  }
  EXPECT_EQ(io.stats().classify_failures, 0U);
}

TEST_P(classify, that_throws_leaves_the_connection_in_no_group) {
  std::mutex mutex;
  std::vector<std::string> reports;
  asio_pulse::options o = steady();
  o.report_interval = 1h;  // one for each task
  o.on_report = [&](const report& r) {
    const std::lock_guard lock(mutex);
    if (r.kind == report_kind::misuse) reports.emplace_back(r.detail);
  };
  o.classify = [](const accepted_connection&) -> group_ref {
    throw std::runtime_error("no such tenant");
  };
  asio_pulse::io_context io{o};
  classifying_server s(io);
  clients c(s.endpoint());
  s.accept(8);
  for (int i = 0; i != 8; ++i) c.connect_from("127.0.0.1");
  run_on(io, GetParam());
  EXPECT_EQ(s.served, 8);
  EXPECT_EQ(io.stats().classify_failures, 8U);
  ASSERT_EQ(reports.size(), 1U);
  EXPECT_EQ(reports[0], "options::classify threw an exception: no such tenant");
}

// What is reported when one connection is classified by `chooses`, which fails.
std::string told_of(const std::function<group_ref(const accepted_connection&)>& chooses) {
  std::string told;
  asio_pulse::options o = steady();
  o.on_report = [&](const report& r) { told = r.detail; };
  o.classify = chooses;
  asio_pulse::io_context io{o};
  classifying_server s(io);
  clients c(s.endpoint());
  s.accept(1);
  c.connect_from("127.0.0.1");
  io.run();
  EXPECT_EQ(s.served, 1);
  EXPECT_EQ(io.stats().classify_failures, 1U);
  return told;
}

TEST(classify, that_throws_something_else_is_told_too) {
  EXPECT_EQ(told_of([](const accepted_connection&) -> group_ref { throw 1; }),  // NOLINT
            "options::classify threw an exception");
}

TEST(classify, that_returns_a_group_of_another_context_is_refused) {
  asio_pulse::io_context other;
  const task_group foreign(other);
  EXPECT_EQ(told_of([&](const accepted_connection&) -> group_ref { return foreign; }),
            "options::classify returned a group of another context");
  EXPECT_EQ(foreign.stats().tasks, 0U);
}

TEST(classify, that_is_slow_is_a_slow_poll_of_the_listener) {
  std::vector<std::string> slow;
  asio_pulse::options o = steady();
  o.stall_threshold = 2ms;
  o.watchdog = false;
  o.on_report = [&](const report& r) {
    if (r.kind == report_kind::slow_poll) slow.emplace_back(r.task);
  };
  o.classify = [](const accepted_connection&) -> group_ref {
    burn(5ms);
    return {};
  };
  asio_pulse::io_context io{o};
  const asio_pulse::task listener(io, unlimited("listener"));
  classifying_server s(io);
  clients c(s.endpoint());
  // The clock may not vouch for a poll on a busy machine.
  for (int i = 0; i != 50 && slow.empty(); ++i) {
    {
      const asio_pulse::task_scope scope(listener);
      s.accept(1);
    }
    c.connect_from("127.0.0.1");
    io.restart();
    io.run();
  }
  ASSERT_FALSE(slow.empty());
  EXPECT_EQ(slow[0], "listener");
}

TEST(classify, is_not_called_for_what_is_no_accepted_connection_of_its_own) {
  int calls = 0;
  asio_pulse::options o = steady();
  o.classify = [&](const accepted_connection&) -> group_ref {
    ++calls;
    return {};
  };
  asio_pulse::io_context io{o};
  classifying_server s(io);
  clients c(s.endpoint());
  s.accept(1);
  asio::post(io, [&] { s.close(); });  // the accept fails
  io.run();
  EXPECT_EQ(calls, 0);
  EXPECT_EQ(s.served, 0);

  classifying_server again(io);
  clients others(again.endpoint());
  io.update({.accept_rule = false});
  again.accept(1);
  others.connect_from("127.0.0.1");
  io.restart();
  io.run();
  EXPECT_EQ(again.served, 1);
  EXPECT_EQ(calls, 0) << "the connection is the listener's work";
}

TEST(classify, into_a_socket_of_the_programs) {
  std::vector<std::uint16_t> ports;
  asio_pulse::options o = steady();
  o.classify = [&](const accepted_connection& c) -> group_ref {
    ports.push_back(c.peer().port());
    return {};
  };
  asio_pulse::io_context io{o};
  tcp::acceptor acceptor(io, {asio::ip::address_v4::loopback(), 0});
  tcp::socket socket(io);
  acceptor.async_accept(socket, [](error_code ec) { EXPECT_FALSE(ec); });
  clients c(acceptor.local_endpoint());
  c.connect_from("127.0.0.1");
  io.run();
  ASSERT_EQ(ports.size(), 1U);
  // Not known if the accept was put back.
  EXPECT_EQ(ports[0], always_preempt() ? 0 : c.last_port());
}

TEST(classify, connections_of_a_unix_socket) {
  using asio::local::stream_protocol;
  std::vector<std::string> local;
  asio_pulse::options o = steady();
  o.classify = [&](const accepted_connection& c) -> group_ref {
    EXPECT_EQ(c.local().family(), AF_UNIX);
    local.push_back(c.local().text());
    return {};
  };
  asio_pulse::io_context io{o};
  const std::string name = std::string(1, '\0') + "asio_pulse_test." + std::to_string(::getpid());
  stream_protocol::acceptor acceptor(io, stream_protocol::endpoint(name));
  std::optional<stream_protocol::socket> kept;
  acceptor.async_accept([&](error_code, stream_protocol::socket s) { kept = std::move(s); });
  asio::io_context outside;
  stream_protocol::socket client(outside);
  client.connect(stream_protocol::endpoint(name));
  io.run();
  EXPECT_THAT(local, testing::ElementsAre(name));
}

TEST(classify, is_set_and_replaced_after_the_context_was_made) {
  asio_pulse::io_context io{steady()};
  std::string changed;
  const auto hooks = io.hooks().install(
      {.options_changed = [&](const auto& event) { changed += std::string(event.changed) + ";"; }});
  const task_group first(io);
  const task_group second(io);
  EXPECT_FALSE(io.get_options().classify);
  io.classify([&](const accepted_connection&) -> group_ref { return first; });
  io.update_to(io.get_options());  // nothing has changed
  classifying_server s(io);
  clients c(s.endpoint());
  const auto accept_one = [&] {
    s.accept(1);
    c.connect_from("127.0.0.1");
    io.restart();
    io.run();
  };
  accept_one();
  io.classify([group = group_ref(second)](const accepted_connection&) { return group; });
  accept_one();
  EXPECT_EQ(io.get_options().classify(accepted_connection{}), group_ref(second));
  io.classify({});
  accept_one();
  EXPECT_EQ(first.stats().tasks, 1U);
  EXPECT_EQ(second.stats().tasks, 1U);
  EXPECT_EQ(s.served, 3);
  EXPECT_EQ(io.stats().updates, 3U);
  EXPECT_EQ(changed, "classify;classify;classify;");
  asio_pulse::options with = io.get_options();
  with.classify = [](const accepted_connection&) -> group_ref { return {}; };
  try {
    io.update_to(with);
    FAIL();
  } catch (const std::invalid_argument& e) {
    EXPECT_THAT(e.what(), HasSubstr("options.classify cannot change"));
  }
}

// For TSan and ASan: callbacks come and go while two threads call them.
TEST_P(classify, is_replaced_while_connections_come) {
  asio_pulse::io_context io{steady()};
  std::vector<task_group> groups;
  for (int i = 0; i != 4; ++i) groups.emplace_back(io);
  classifying_server s(io);
  clients c(s.endpoint());
  constexpr int connections = 100;
  s.accept(connections);
  std::atomic<int> calls{0};
  std::thread program([&] {
    for (int i = 0; i != connections; ++i) {
      c.connect_from("127.0.0.1");
      for (int k = 0; k != 4; ++k) {
        const auto owned = std::make_shared<group_ref>(groups[static_cast<std::size_t>(i + k) % 4]);
        io.classify([owned, &calls](const accepted_connection&) {
          ++calls;
          return *owned;
        });
      }
    }
  });
  run_on(io, GetParam());
  program.join();
  EXPECT_EQ(s.served, connections);
  std::uint64_t members = 0;
  for (const task_group& g : groups) members += g.stats().tasks;
  EXPECT_EQ(members, static_cast<std::uint64_t>(calls));
  EXPECT_EQ(io.stats().classify_failures, 0U);
}

}  // namespace
