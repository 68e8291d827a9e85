// SPDX-License-Identifier: BSL-1.0
//
// How many may have how much, and what is left when they go.
#include <gmock/gmock.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <deque>
#include <list>

#include "support.hpp"

namespace bpf_test {
namespace {

using ::testing::HasSubstr;
using service_limits = service_test;
using service_death = service_test;

TEST_F(service_limits, workers_of_a_process) {
  options_.bounds.workers_per_process = 2;
  start();
  client program = connect();
  ask(program, ASIO_PULSE_HELLO);
  std::deque<parked_thread> threads(3);
  EXPECT_EQ(ask(program, ASIO_PULSE_ATTACH, threads[0].tid()).head.slot, 1U);
  EXPECT_EQ(ask(program, ASIO_PULSE_ATTACH, threads[1].tid()).head.slot, 2U);
  const received reply = ask(program, ASIO_PULSE_ATTACH, threads[2].tid());
  EXPECT_EQ(reply.head.refusal, ASIO_PULSE_REFUSED_PROCESS_LIMIT) << "root is not exempt from this";
  EXPECT_THAT(reply.text, HasSubstr("2 workers"));
  EXPECT_EQ(ask(program, ASIO_PULSE_DETACH, threads[0].tid(), 1).head.refusal, ASIO_PULSE_OK);
  EXPECT_EQ(ask(program, ASIO_PULSE_ATTACH, threads[2].tid()).head.slot, 1U);
}

TEST_F(service_limits, all_slots_can_be_had_and_are_all_different) {
  start();
  other_process other(options_.path, ASIO_PULSE_SLOT_COUNT - 1);
  ASSERT_TRUE(other.made());
  ask(other.connection, ASIO_PULSE_HELLO);
  ASSERT_EQ(other.tids().size(), ASIO_PULSE_SLOT_COUNT);
  for (unsigned i = 0; i + 1 < ASIO_PULSE_SLOT_COUNT; ++i) {
    ASSERT_EQ(ask(other.connection, ASIO_PULSE_ATTACH, other.tids()[i]).head.slot, i + 1);
  }
  EXPECT_EQ(ask(other.connection, ASIO_PULSE_ATTACH, other.tids().back()).head.refusal,
            ASIO_PULSE_REFUSED_PROCESS_LIMIT);
  EXPECT_EQ(store_.workers.size(), ASIO_PULSE_SLOT_COUNT - 1);
}

TEST_F(service_limits, slots_of_threads_that_ended_are_taken_when_they_are_needed) {
  options_.bounds.workers_per_process = 2;
  start();
  client program = connect();
  const received hello = ask(program, ASIO_PULSE_HELLO);
  const mapping mine(hello.fd.get());
  std::deque<parked_thread> threads(3);
  ask(program, ASIO_PULSE_ATTACH, threads[0].tid());
  ask(program, ASIO_PULSE_ATTACH, threads[1].tid());
  const pid_t gone = threads[1].tid();
  threads[1].end();
  EXPECT_EQ(ask(program, ASIO_PULSE_ATTACH, threads[2].tid()).head.slot, 2U);
  EXPECT_EQ(store_.workers.count(gone), 0U);
  EXPECT_EQ(store_.workers.count(threads[0].tid()), 1U);
  EXPECT_EQ(mine[2].worker_state, ASIO_PULSE_WORKER_REGISTERED);
}

TEST_F(service_limits, processes_of_a_user) {
  options_.bounds.exempt.reset();
  options_.bounds.processes_per_user = 2;
  start();
  std::list<other_process> others;
  for (int i = 0; i < 3; ++i) others.emplace_back(options_.path);
  auto other = others.begin();
  EXPECT_EQ(ask((other++)->connection, ASIO_PULSE_HELLO).head.refusal, ASIO_PULSE_OK);
  EXPECT_EQ(ask((other++)->connection, ASIO_PULSE_HELLO).head.refusal, ASIO_PULSE_OK);
  const received reply = ask(other->connection, ASIO_PULSE_HELLO);
  EXPECT_EQ(reply.head.refusal, ASIO_PULSE_REFUSED_USER_LIMIT);
  EXPECT_THAT(reply.text, HasSubstr("2 processes"));
  EXPECT_EQ(ask(other->connection, ASIO_PULSE_STATUS).head.refusal, ASIO_PULSE_OK);
  others.front().kill();
  pump();
  EXPECT_EQ(ask(other->connection, ASIO_PULSE_HELLO).head.refusal, ASIO_PULSE_OK);
}

TEST_F(service_limits, workers_of_a_user) {
  options_.bounds.exempt.reset();
  options_.bounds.workers_per_user = 3;
  start();
  other_process first(options_.path, 1);
  other_process second(options_.path, 1);
  ask(first.connection, ASIO_PULSE_HELLO);
  ask(second.connection, ASIO_PULSE_HELLO);
  for (const pid_t tid : first.tids()) {
    EXPECT_EQ(ask(first.connection, ASIO_PULSE_ATTACH, tid).head.refusal, ASIO_PULSE_OK);
  }
  EXPECT_EQ(ask(second.connection, ASIO_PULSE_ATTACH, second.tids()[0]).head.refusal,
            ASIO_PULSE_OK);
  EXPECT_EQ(ask(second.connection, ASIO_PULSE_ATTACH, second.tids()[1]).head.refusal,
            ASIO_PULSE_REFUSED_USER_LIMIT);
  EXPECT_EQ(service_->workers(), 3U);
}

TEST_F(service_limits, connections_of_a_user) {
  options_.bounds.exempt.reset();
  options_.bounds.connections_per_user = 3;
  start();
  std::list<client> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(connect());
    EXPECT_EQ(ask(clients.back(), ASIO_PULSE_STATUS).head.refusal, ASIO_PULSE_OK);
  }
  client late = connect();
  const received reply = after_pump(late);
  EXPECT_EQ(reply.head.refusal, ASIO_PULSE_REFUSED_USER_LIMIT);
  EXPECT_THAT(reply.text, HasSubstr("3 connections"));
  EXPECT_TRUE(late.closed());
  clients.pop_front();
  client next = connect();
  EXPECT_EQ(ask(next, ASIO_PULSE_STATUS).head.refusal, ASIO_PULSE_OK);
}

TEST_F(service_limits, many_processes_at_once) {
  start();
  constexpr int count = 24;
  std::list<other_process> others;
  for (int i = 0; i < count; ++i) others.emplace_back(options_.path, 3);
  // All say everything before anybody is answered.
  for (other_process& other : others) {
    ASSERT_TRUE(other.made());
    other.connection.send(ASIO_PULSE_HELLO);
    for (const pid_t tid : other.tids()) other.connection.send(ASIO_PULSE_ATTACH, tid);
  }
  pump();
  EXPECT_EQ(service_->processes(), count);
  EXPECT_EQ(service_->workers(), 4U * count);
  for (other_process& other : others) {
    const auto hello = other.connection.receive();
    ASSERT_TRUE(hello && hello->fd);
    const mapping theirs(hello->fd.get());
    for (unsigned slot = 1; slot <= 4; ++slot) {
      const auto reply = other.connection.receive();
      ASSERT_TRUE(reply);
      EXPECT_EQ(reply->head.slot, slot);
      EXPECT_EQ(theirs[slot].worker_state, ASIO_PULSE_WORKER_REGISTERED);
    }
    EXPECT_EQ(theirs[5].worker_state, ASIO_PULSE_WORKER_INIT) << "its own array only";
  }
  others.clear();
  pump();
  EXPECT_EQ(service_->processes(), 0U);
  EXPECT_TRUE(store_.workers.empty());
}

TEST_F(service_death, of_a_process_detaches_it_whoever_holds_the_connection) {
  start();
  other_process other(options_.path, 2);
  const received hello = ask(other.connection, ASIO_PULSE_HELLO);
  for (const pid_t tid : other.tids()) ask(other.connection, ASIO_PULSE_ATTACH, tid);
  ASSERT_EQ(store_.workers.size(), 3U);
  const mapping theirs(hello.fd.get());
  other.kill();  // we still hold its end of the connection
  pump();
  EXPECT_EQ(service_->processes(), 0U);
  EXPECT_EQ(service_->workers(), 0U);
  EXPECT_TRUE(store_.workers.empty());
  EXPECT_TRUE(store_.processes.empty());
  EXPECT_TRUE(other.connection.closed());
  EXPECT_EQ(theirs[3].worker_state, ASIO_PULSE_WORKER_DEAD);
}

TEST_F(service_death, of_the_connection_detaches_a_process_that_lives_on) {
  start();
  other_process other(options_.path, 2);
  ask(other.connection, ASIO_PULSE_HELLO);
  for (const pid_t tid : other.tids()) ask(other.connection, ASIO_PULSE_ATTACH, tid);
  ASSERT_EQ(store_.workers.size(), 3U);
  other.connection.close();
  pump();
  EXPECT_TRUE(store_.workers.empty());
  EXPECT_TRUE(store_.processes.empty());
  EXPECT_EQ(service_->connections(), 0U);
}

TEST_F(service_death, lets_the_same_process_come_again) {
  start();
  for (int i = 0; i < 3; ++i) {
    client program = connect();
    EXPECT_EQ(ask(program, ASIO_PULSE_HELLO).head.refusal, ASIO_PULSE_OK);
    EXPECT_EQ(ask(program, ASIO_PULSE_ATTACH, ::gettid()).head.slot, 1U);
    program.close();
    pump();
    EXPECT_EQ(service_->workers(), 0U);
  }
}

TEST_F(service_death, of_one_leaves_the_others_alone) {
  start();
  other_process first(options_.path, 1);
  other_process second(options_.path, 1);
  for (other_process* one : {&first, &second}) {
    ask(one->connection, ASIO_PULSE_HELLO);
    for (const pid_t tid : one->tids()) ask(one->connection, ASIO_PULSE_ATTACH, tid);
  }
  first.kill();
  pump();
  EXPECT_EQ(service_->workers(), 2U);
  for (const pid_t tid : second.tids()) EXPECT_EQ(store_.workers.count(tid), 1U);
}

// Before anything has been read from it.
TEST_F(service_death, of_a_process_that_has_ended_before_it_is_heard) {
  start();
  other_process other(options_.path);
  other.connection.send(ASIO_PULSE_HELLO);
  other.connection.send(ASIO_PULSE_ATTACH, other.pid());
  other.kill();
  pump();
  EXPECT_TRUE(store_.workers.empty());
  EXPECT_TRUE(store_.processes.empty());
}

}  // namespace
}  // namespace bpf_test
