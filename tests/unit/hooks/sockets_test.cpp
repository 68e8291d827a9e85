// SPDX-License-Identifier: BSL-1.0

// Which task an operation on a socket belongs to.

#include <asio_pulse/hooks/sockets.hpp>
//
#include "poll_path_fakes.hpp"

#include <memory>
#include <thread>

namespace {

using namespace hooks_test;

class sockets : public testing::Test {
 protected:
  sockets() {
    make_known(&scheduler, arbiter);
    arbiter.connections = {&connection, &other};
  }
  ~sockets() override {
    for (const descriptor s : {socket, far_socket}) socket_released(s);
    for (const task_record* t : {&connection, &other, &declared}) {
      EXPECT_EQ(references(*t), 1U);
    }
    EXPECT_TRUE(arbiter.destroyed.empty());
  }

  /// The task of an operation that is started on the socket while `t` is in force.
  static const task_record* started_by(task_record* t, descriptor on = socket) {
    const belongs_to scope(t);
    unannounced op;
    socket_operation_created(op, on);
    return op.task();
  }
  const task_record* connect_by(task_record* t, descriptor on = socket) {
    const belongs_to scope(t);
    unannounced op;
    connect_created(op, on, &scheduler);
    return op.task();
  }
  static bool owned_by(const task_record* t, descriptor s = socket) {
    task_record* const owner = owner_of_socket(s);
    if (owner != nullptr) release(*owner);
    return owner == t;
  }

  static constexpr descriptor socket = 7;
  static constexpr descriptor far_socket = 5000;
  asio_pulse::timing::manual_clock time;
  fake_arbiter arbiter{time};
  task_record connection{arbiter};
  task_record other{arbiter};
  task_record declared{arbiter};
  char scheduler = 0;
};

TEST_F(sockets, one_that_is_nobodys_follows_the_task_in_force) {
  EXPECT_EQ(started_by(&connection), &connection);
  EXPECT_EQ(started_by(&other), &other);
  EXPECT_EQ(started_by(&declared), &declared);
  EXPECT_EQ(started_by(nullptr), nullptr);
  EXPECT_TRUE(owned_by(nullptr));
}

TEST_F(sockets, of_a_connection_is_its_whoever_starts_something_there) {
  own_socket(socket, connection, true);
  EXPECT_EQ(references(connection), 2U);
  EXPECT_EQ(started_by(&connection), &connection);
  EXPECT_EQ(started_by(&other), &connection);
  EXPECT_EQ(started_by(nullptr), &connection);
  EXPECT_EQ(started_by(&other, far_socket), &other) << "another socket";
  EXPECT_EQ(references(connection), 2U) << "the table's";
}

TEST_F(sockets, what_a_declared_task_starts_is_its_own) {
  own_socket(socket, connection, true);
  EXPECT_EQ(started_by(&connection), &connection);
  EXPECT_EQ(started_by(&declared), &declared);
  EXPECT_EQ(started_by(&other), &connection) << "the socket is still the connection's";
}

TEST_F(sockets, a_fresh_one_is_taken_over_by_a_declared_task) {
  own_socket(socket, connection, true);
  EXPECT_EQ(started_by(&declared), &declared);
  EXPECT_EQ(references(connection), 1U);
  EXPECT_EQ(started_by(&connection), &declared);
  EXPECT_EQ(started_by(nullptr), &declared);
}

TEST_F(sockets, one_is_fresh_until_anybody_has_used_it) {
  own_socket(socket, connection, true);
  EXPECT_EQ(started_by(nullptr), &connection);
  EXPECT_EQ(started_by(&declared), &declared);
  EXPECT_TRUE(owned_by(&connection));
}

TEST_F(sockets, an_outgoing_connection_has_a_task_of_its_own) {
  const worker_scope worker(&scheduler, arbiter, true);
  task_record client(arbiter);
  arbiter.connections.push_back(&client);
  arbiter.newborn = &client;
  EXPECT_EQ(connect_by(&connection), &client);
  EXPECT_EQ(arbiter.opened_by, std::vector<const task_record*>{&connection});
  EXPECT_EQ(references(client), 1U) << "the table's; the operation is gone";
  EXPECT_EQ(started_by(&other), &client);
  // The last reference is the table's.
  socket_closing(socket);
  EXPECT_EQ(arbiter.closed, std::vector<const task_record*>{&client});
  EXPECT_EQ(arbiter.destroyed, std::vector<const task_record*>{&client});
  arbiter.destroyed.clear();
}

TEST_F(sockets, that_a_declared_task_connects_are_its) {
  EXPECT_EQ(connect_by(&declared), &declared);
  EXPECT_TRUE(arbiter.opened_by.empty());
  EXPECT_EQ(started_by(&other), &declared);
  EXPECT_EQ(references(declared), 2U);
  socket_closing(socket);
  EXPECT_EQ(arbiter.closed, std::vector<const task_record*>{&declared});
}

TEST_F(sockets, of_a_context_without_the_rule_follow_the_task_in_force) {
  const worker_scope worker(&scheduler, arbiter, true);
  EXPECT_EQ(connect_by(&connection), &connection);
  EXPECT_EQ(arbiter.opened_by.size(), 1U);
  EXPECT_TRUE(owned_by(nullptr));
}

TEST_F(sockets, a_connect_outside_every_worker_finds_its_arbiter) {
  add_arbiter(&scheduler, arbiter);
  task_record client(arbiter);
  arbiter.connections.push_back(&client);
  arbiter.newborn = &client;
  EXPECT_EQ(connect_by(nullptr), &client);
  EXPECT_EQ(arbiter.opened_by, std::vector<const task_record*>{nullptr});
  acquire(client);
  socket_closing(socket);
  EXPECT_EQ(references(client), 1U);
  remove_arbiter(&scheduler);
  EXPECT_EQ(connect_by(nullptr), nullptr) << "a scheduler without an arbiter";
}

TEST_F(sockets, a_closed_ones_number_is_free_again) {
  own_socket(socket, connection, true);
  socket_closing(socket);
  EXPECT_EQ(arbiter.closed, std::vector<const task_record*>{&connection});
  EXPECT_EQ(references(connection), 1U);
  EXPECT_EQ(started_by(&other), &other);
  socket_closing(socket);
  EXPECT_EQ(arbiter.closed.size(), 1U) << "of a socket that is not in the table";
  own_socket(socket, other, true);
  EXPECT_EQ(started_by(&connection), &other);
}

TEST_F(sockets, one_that_is_given_away_ends_nothing) {
  own_socket(socket, connection, true);
  socket_released(socket);
  EXPECT_TRUE(arbiter.closed.empty());
  EXPECT_EQ(started_by(&other), &other);
}

TEST_F(sockets, another_connection_under_the_same_number_takes_its_place) {
  own_socket(socket, connection, true);
  own_socket(socket, other, true);
  EXPECT_EQ(references(connection), 1U);
  EXPECT_EQ(started_by(nullptr), &other);
}

TEST_F(sockets, numbers_that_are_no_descriptors_are_nobodys) {
  for (const descriptor s : {descriptor{-1}, descriptor{1} << 20, descriptor{1} << 40}) {
    own_socket(s, connection, true);
    EXPECT_TRUE(owned_by(nullptr, s));
    EXPECT_EQ(started_by(&other, s), &other);
    socket_closing(s);
  }
  EXPECT_EQ(references(connection), 1U);
  own_socket((descriptor{1} << 20) - 1, connection, false);
  EXPECT_TRUE(owned_by(&connection, (descriptor{1} << 20) - 1)) << "the last of the table";
  socket_released((descriptor{1} << 20) - 1);
}

TEST_F(sockets, an_accepted_one_is_known_before_it_is_used) {
  const worker_scope worker(&scheduler, arbiter, true);
  task_record born(arbiter);
  arbiter.connections.push_back(&born);
  arbiter.newborn = &born;
  unannounced accept;
  accept_created(accept);
  {
    poll_frame frame(&scheduler, accept, handler);
    frame.accepted_on(socket);
    EXPECT_EQ(references(born), 2U) << "the frame's and the table's";
  }
  EXPECT_EQ(started_by(&other), &born);
  socket_closing(socket);
  EXPECT_EQ(arbiter.destroyed, std::vector<const task_record*>{&born});
  arbiter.destroyed.clear();
}

// A time-out that closes a socket, on one thread, and the connect that completes, on another:
// Asio's users serialise their handlers, not this.
TEST_F(sockets, are_used_and_closed_on_several_threads) {
  constexpr int rounds = 20'000;
  std::thread closes([] {
    for (int i = 0; i < rounds; ++i) socket_closing(socket);
  });
  std::thread opens([&] {
    for (int i = 0; i < rounds; ++i)
      own_socket(socket, i % 2 == 0 ? connection : other, i % 3 == 0);
  });
  int known = 0;
  for (int i = 0; i < rounds; ++i) {
    const task_record* const t = started_by(&declared);
    EXPECT_EQ(t, &declared);
    const task_record* const whose = started_by(nullptr);
    EXPECT_TRUE(whose == nullptr || whose == &connection || whose == &other || whose == &declared);
    known += whose != nullptr ? 1 : 0;
  }
  closes.join();
  opens.join();
  RecordProperty("known", known);
}

}  // namespace
