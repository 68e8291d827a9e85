// SPDX-License-Identifier: BSL-1.0
//
// The limits of users and processes, and that their resources are free again when they end.
#include "support.hpp"

#include <gmock/gmock.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <deque>
#include <list>

namespace bpf_test {
namespace {

using namespace std::chrono_literals;
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
  EXPECT_EQ(ask_patiently((other++)->connection, ASIO_PULSE_HELLO).head.refusal, ASIO_PULSE_OK);
  EXPECT_EQ(ask_patiently((other++)->connection, ASIO_PULSE_HELLO).head.refusal, ASIO_PULSE_OK);
  const received reply = ask_patiently(other->connection, ASIO_PULSE_HELLO);
  EXPECT_EQ(reply.head.refusal, ASIO_PULSE_REFUSED_USER_LIMIT);
  EXPECT_THAT(reply.text, HasSubstr("2 processes"));
  EXPECT_EQ(ask_patiently(other->connection, ASIO_PULSE_STATUS).head.refusal, ASIO_PULSE_OK);
  others.front().kill();
  pump();
  EXPECT_EQ(ask_patiently(other->connection, ASIO_PULSE_HELLO).head.refusal, ASIO_PULSE_OK);
}

TEST_F(service_limits, workers_of_a_user) {
  options_.bounds.exempt.reset();
  options_.bounds.workers_per_user = 3;
  start();
  other_process first(options_.path, 1);
  other_process second(options_.path, 1);
  ask_patiently(first.connection, ASIO_PULSE_HELLO);
  ask_patiently(second.connection, ASIO_PULSE_HELLO);
  for (const pid_t tid : first.tids()) {
    EXPECT_EQ(ask_patiently(first.connection, ASIO_PULSE_ATTACH, tid).head.refusal, ASIO_PULSE_OK);
  }
  EXPECT_EQ(ask_patiently(second.connection, ASIO_PULSE_ATTACH, second.tids()[0]).head.refusal,
            ASIO_PULSE_OK);
  EXPECT_EQ(ask_patiently(second.connection, ASIO_PULSE_ATTACH, second.tids()[1]).head.refusal,
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
    EXPECT_EQ(ask_patiently(clients.back(), ASIO_PULSE_STATUS).head.refusal, ASIO_PULSE_OK);
  }
  client late = connect();
  const received reply = after_pump(late);
  EXPECT_EQ(reply.head.refusal, ASIO_PULSE_REFUSED_USER_LIMIT);
  EXPECT_THAT(reply.text, HasSubstr("3 connections"));
  EXPECT_TRUE(late.closed());
  clients.pop_front();
  client next = connect();
  EXPECT_EQ(ask_patiently(next, ASIO_PULSE_STATUS).head.refusal, ASIO_PULSE_OK);
}

/// A process of this user with a number of silent connections.
class silent_user {
 public:
  silent_user(uid_t uid, const std::string& path, int connections) {
    int pair[2] = {-1, -1};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return;
    child_ = ::fork();
    if (child_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (::setgid(uid) != 0 || ::setuid(uid) != 0) ::_exit(1);
      std::list<client> held;
      for (int i = 0; i < connections; ++i) held.push_back(client::to(path));
      (void)!::send(pair[1], "y", 1, MSG_NOSIGNAL);
      for (;;) ::pause();
    }
    const unique_fd theirs(pair[1]);
    const unique_fd ours(pair[0]);
    char said = 0;
    ready_ = ::recv(ours.get(), &said, 1, 0) == 1;
  }
  ~silent_user() {
    ::kill(child_, SIGKILL);
    int status = 0;
    ::waitpid(child_, &status, 0);
  }
  silent_user(const silent_user&) = delete;
  silent_user& operator=(const silent_user&) = delete;
  [[nodiscard]] bool ready() const { return ready_; }

 private:
  pid_t child_ = -1;
  bool ready_ = false;
};

/// The soft limit of this process, for as long as the object lives.
class descriptor_limit {
 public:
  explicit descriptor_limit(rlim_t most) {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    const rlimit now{.rlim_cur = most, .rlim_max = before_.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &now);
  }
  ~descriptor_limit() { ::setrlimit(RLIMIT_NOFILE, &before_); }
  descriptor_limit(const descriptor_limit&) = delete;
  descriptor_limit& operator=(const descriptor_limit&) = delete;

 private:
  rlimit before_{};
};

TEST_F(service_limits, users_cannot_lock_root_out) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can become other users";
  const descriptor_limit few(512);
  options_.bounds = within_descriptors(limits{}, 512);
  start();
  ASSERT_EQ(::chmod((folder_ / "").c_str(), 0711), 0);
  std::list<silent_user> users;
  for (uid_t uid = 61001; uid <= 61004; ++uid) {
    ASSERT_TRUE(users.emplace_back(uid, options_.path, 100).ready());
  }
  pump();
  client root = connect();
  EXPECT_EQ(ask_patiently(root, ASIO_PULSE_STATUS).head.refusal, ASIO_PULSE_OK);
  EXPECT_EQ(service_->connections(), options_.bounds.connections + 1);
  EXPECT_EQ(ask(root, ASIO_PULSE_HELLO).head.refusal, ASIO_PULSE_OK);
}

TEST_F(service_limits, who_asks_for_nothing_is_let_go) {
  auto time = std::chrono::steady_clock::time_point{} + 1h;
  hooks_.now = [&time] { return time; };
  options_.idle_limit = 10s;
  options_.idle_limit_with_blocks = 60s;
  start();
  client silent = connect();
  client asking = connect();
  other_process without_workers(options_.path);
  other_process working(options_.path);
  pump();
  ask(without_workers.connection, ASIO_PULSE_HELLO);
  ask(working.connection, ASIO_PULSE_HELLO);
  ask(working.connection, ASIO_PULSE_ATTACH, working.pid());
  time += 9s;
  ask(asking, ASIO_PULSE_STATUS);
  service_->end_idle();
  EXPECT_EQ(service_->connections(), 4U);
  time += 1s;
  service_->end_idle();
  EXPECT_TRUE(silent.closed());
  EXPECT_EQ(service_->connections(), 3U);
  time += 9s;
  service_->end_idle();
  EXPECT_EQ(service_->connections(), 2U) << "it sent one request, and then no more";
  time += 41s;
  service_->end_idle();
  EXPECT_TRUE(without_workers.connection.closed());
  EXPECT_EQ(service_->processes(), 1U);
  time += 100h;
  service_->end_idle();
  EXPECT_EQ(service_->workers(), 1U) << "a connection with a worker stays open";
  ask(working.connection, ASIO_PULSE_DETACH, working.pid(), 1);
  time += 60s;
  service_->end_idle();
  EXPECT_EQ(service_->connections(), 0U);
}

TEST_F(service_limits, a_place_of_somebody_idle_is_given_to_who_comes) {
  auto time = std::chrono::steady_clock::time_point{} + 1h;
  hooks_.now = [&time] { return time; };
  options_.bounds.exempt.reset();
  options_.bounds.connections = 1;
  start();
  client silent = connect();
  pump();
  time += options_.idle_limit;
  client next = connect();
  EXPECT_EQ(ask_patiently(next, ASIO_PULSE_STATUS).head.refusal, ASIO_PULSE_OK);
  EXPECT_TRUE(silent.closed());
}

TEST_F(service_limits, many_processes_at_once) {
  start();
  constexpr int count = 24;
  std::list<other_process> others;
  for (int i = 0; i < count; ++i) others.emplace_back(options_.path, 3);
  // All send all their requests before the service answers.
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

// Before the service has read from it.
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
