// SPDX-License-Identifier: BSL-1.0
//
// Programs that violate the protocol, by mistake or on purpose.
#include "service/session.hpp"
#include "support.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace bpf_test {
namespace {

using ::testing::HasSubstr;
using service_hostile = service_test;

std::size_t open_descriptors() {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    static_cast<void>(entry);
    ++count;
  }
  return count;
}

struct bad_message {
  const char* name;
  std::size_t size;
  std::uint32_t magic;
  const char* sentence;
};

TEST_F(service_hostile, what_is_no_request_is_refused_and_the_connection_closed) {
  start();
  const bad_message bad[] = {
      {"one byte", 1, ASIO_PULSE_PROTOCOL_MAGIC, "at least 16 bytes"},
      {"truncated", sizeof(asio_pulse_request) - 1, ASIO_PULSE_PROTOCOL_MAGIC, "at least 16 bytes"},
      {"one byte too many", sizeof(asio_pulse_request) + 1, ASIO_PULSE_PROTOCOL_MAGIC,
       "has 16 bytes, and this one has 17"},
      {"a STATUS as long as a SET", sizeof(asio_pulse_set_request), ASIO_PULSE_PROTOCOL_MAGIC,
       "has 16 bytes, and this one has 64"},
      {"longer than all", sizeof(asio_pulse_set_request) + 1, ASIO_PULSE_PROTOCOL_MAGIC,
       "at most 64 bytes"},
      {"much longer", 100'000, ASIO_PULSE_PROTOCOL_MAGIC, "at most 64 bytes"},
      {"another protocol", sizeof(asio_pulse_request), 0x20544547, "starts with"},
  };
  for (const bad_message& one : bad) {
    client program = connect();
    std::vector<char> bytes(one.size, '\0');
    const asio_pulse_request head{.magic = one.magic,
                                  .abi_version = ASIO_PULSE_ABI_VERSION,
                                  .kind = ASIO_PULSE_STATUS,
                                  .tid = 0,
                                  .slot = 0};
    std::memcpy(bytes.data(), &head, std::min(bytes.size(), sizeof head));
    ASSERT_TRUE(program.send_bytes(bytes.data(), bytes.size())) << one.name;
    const received reply = after_pump(program);
    EXPECT_EQ(reply.head.refusal, ASIO_PULSE_REFUSED_MALFORMED) << one.name;
    EXPECT_EQ(reply.head.kind, 0) << one.name;
    EXPECT_THAT(reply.text, HasSubstr(one.sentence)) << one.name;
    EXPECT_TRUE(program.closed()) << one.name;
  }
  EXPECT_EQ(service_->connections(), 0U);
}

TEST_F(service_hostile, a_set_as_short_as_the_others_is_refused) {
  hooks_.change = [](const scx_pulse_settings&, uid_t) { FAIL(); };
  start();
  client program = connect();
  EXPECT_EQ(ask(program, ASIO_PULSE_SET).head.refusal, ASIO_PULSE_REFUSED_MALFORMED);
  EXPECT_TRUE(program.closed());
}

TEST_F(service_hostile, an_unknown_kind_is_refused_and_the_connection_kept) {
  start();
  client program = connect();
  for (const unsigned kind : {0U, 6U, 0xfffeU}) {
    const received reply = ask(program, static_cast<std::uint16_t>(kind));
    EXPECT_EQ(reply.head.refusal, ASIO_PULSE_REFUSED_MALFORMED) << kind;
    EXPECT_EQ(reply.head.kind, kind);
  }
  EXPECT_EQ(ask(program, ASIO_PULSE_HELLO).head.refusal, ASIO_PULSE_OK);
}

TEST_F(service_hostile, a_message_without_bytes_is_the_end) {
  start();
  client program = connect();
  ask(program, ASIO_PULSE_HELLO);
  ASSERT_TRUE(program.send_bytes("", 0));
  pump();
  EXPECT_TRUE(program.closed());
  EXPECT_EQ(service_->processes(), 0U);
}

TEST_F(service_hostile, passed_descriptors_are_not_kept) {
  start();
  client program = connect();
  pump();  // accepted: its own descriptors are counted below
  int pipes[2];
  ASSERT_EQ(::pipe2(pipes, O_CLOEXEC | O_NONBLOCK), 0);
  const unique_fd reading(pipes[0]);
  unique_fd writing(pipes[1]);
  const std::size_t before = open_descriptors();
  const std::array<int, 3> many{writing.get(), writing.get(), writing.get()};
  if (!program.send_with_fds(many)) {
    EXPECT_EQ(errno, EPERM) << "the kernel itself does not let them pass";
    EXPECT_EQ(ask(program, ASIO_PULSE_HELLO).head.refusal, ASIO_PULSE_OK);
    return;
  }
  EXPECT_EQ(after_pump(program).head.refusal, ASIO_PULSE_REFUSED_MALFORMED);
  EXPECT_TRUE(program.closed());
  program.close();
  EXPECT_LT(open_descriptors(), before);
  writing.reset();
  char byte = 0;
  EXPECT_EQ(::read(reading.get(), &byte, 1), 0) << "no other process holds the writing end";
}

TEST_F(service_hostile, who_does_not_read_holds_up_nobody) {
  start();
  client lazy = connect();
  // Until the service accepts no more requests, because it waits for the peer to read.
  std::size_t sent = 0;
  while (sent < 100'000 && lazy.send(ASIO_PULSE_STATUS)) {
    ++sent;
    pump();
  }
  ASSERT_LT(sent, 100'000U) << "the service has continued to read";
  client other = connect();
  EXPECT_EQ(ask(other, ASIO_PULSE_HELLO).head.refusal, ASIO_PULSE_OK);
  // It gets every reply when it reads.
  std::size_t replies = 0;
  for (;;) {
    pump();
    if (!lazy.receive()) break;
    ++replies;
  }
  EXPECT_EQ(replies, sent);
  EXPECT_EQ(ask(lazy, ASIO_PULSE_STATUS).head.refusal, ASIO_PULSE_OK);
}

TEST_F(service_hostile, requests_one_behind_the_other_are_answered_in_order) {
  start();
  client program = connect();
  program.send(ASIO_PULSE_HELLO);
  program.send(ASIO_PULSE_ATTACH, ::gettid());
  program.send(ASIO_PULSE_DETACH, ::gettid(), 1);
  pump();
  for (const auto kind : {ASIO_PULSE_HELLO, ASIO_PULSE_ATTACH, ASIO_PULSE_DETACH}) {
    const auto reply = program.receive();
    ASSERT_TRUE(reply);
    EXPECT_EQ(reply->head.kind, kind);
    EXPECT_EQ(reply->head.refusal, ASIO_PULSE_OK);
  }
}

TEST_F(service_hostile, a_reply_to_who_has_gone_is_dropped) {
  start();
  for (int i = 0; i < 100; ++i) {
    client program = connect();
    program.send(ASIO_PULSE_HELLO);
    program.close();
    pump();
  }
  EXPECT_EQ(service_->connections(), 0U);
  EXPECT_EQ(service_->processes(), 0U);
  EXPECT_TRUE(store_.processes.empty());
}

// Random requests of random sizes, half of them with a valid beginning. The service continues to
// run, has the right state, and still serves.
TEST_F(service_hostile, random_bytes) {
  hooks_.change = [this](const scx_pulse_settings& to, uid_t) { state_.settings = to; };
  start();
  const std::size_t descriptors = open_descriptors();
  std::mt19937 random(20240229);
  const auto up_to = [&](unsigned most) {
    return std::uniform_int_distribution<unsigned>(0, most)(random);
  };
  std::array<unsigned, ASIO_PULSE_REFUSED_VALUE + 1> seen{};
  parked_thread helper;
  std::optional<client> program;
  for (int i = 0; i < 20'000; ++i) {
    if (!program || program->closed()) program.emplace(connect());
    std::array<unsigned char, 80> bytes{};
    for (auto& byte : bytes) byte = static_cast<unsigned char>(up_to(255));
    std::size_t size = up_to(80);
    if (up_to(9) != 0) {
      asio_pulse_request head{};
      head.magic = ASIO_PULSE_PROTOCOL_MAGIC;
      head.abi_version = static_cast<std::uint16_t>(up_to(19) == 0 ? up_to(65535) : 1);
      head.kind = static_cast<std::uint16_t>(up_to(9) == 0 ? up_to(65535) : up_to(6));
      const pid_t tids[] = {::gettid(), helper.tid(), static_cast<pid_t>(up_to(0x7fffffff)), 1};
      head.tid = static_cast<std::uint32_t>(tids[up_to(3)]);
      head.slot = up_to(3) == 0 ? up_to(0xffffffffU) : up_to(3);
      std::memcpy(bytes.data(), &head, sizeof head);
      if (up_to(9) != 0) {
        size = head.kind == ASIO_PULSE_SET ? sizeof(asio_pulse_set_request) : sizeof head;
      }
    }
    if (!program->send_bytes(bytes.data(), size)) continue;
    pump();
    while (const auto reply = program->receive()) {
      ASSERT_LE(reply->head.refusal, ASIO_PULSE_REFUSED_VALUE);
      EXPECT_EQ(reply->text.empty(),
                reply->head.refusal == ASIO_PULSE_OK && reply->head.kind != ASIO_PULSE_STATUS);
      ++seen[reply->head.refusal];
    }
    ASSERT_EQ(service_->workers(), store_.workers.size());
    ASSERT_EQ(service_->processes(), store_.processes.size());
    ASSERT_LE(service_->workers(), 2U);
  }
  for (const auto code :
       {ASIO_PULSE_OK, ASIO_PULSE_REFUSED_MALFORMED, ASIO_PULSE_REFUSED_VERSION,
        ASIO_PULSE_REFUSED_ORDER, ASIO_PULSE_REFUSED_THREAD, ASIO_PULSE_REFUSED_VALUE}) {
    EXPECT_GT(seen[code], 10U) << "the random requests never lead to " << code;
  }
  program.reset();
  pump();
  EXPECT_EQ(service_->connections(), 0U);
  EXPECT_TRUE(store_.workers.empty());
  EXPECT_TRUE(store_.processes.empty());
  EXPECT_EQ(open_descriptors(), descriptors);
  client last = connect();
  EXPECT_EQ(ask(last, ASIO_PULSE_HELLO).head.refusal, ASIO_PULSE_OK);
}

// A program that writes nonsense into its array affects only itself.
TEST_F(service_hostile, an_array_full_of_noise_changes_nothing) {
  start();
  client program = connect();
  const received hello = ask(program, ASIO_PULSE_HELLO);
  const mapping mine(hello.fd.get());
  ASSERT_EQ(ask(program, ASIO_PULSE_ATTACH, ::gettid()).head.slot, 1U);
  std::memset(&mine[0], 0xff, std::size_t{ASIO_PULSE_SLOT_COUNT} * ASIO_PULSE_SCB_BYTES);
  EXPECT_EQ(ask(program, ASIO_PULSE_STATUS).head.refusal, ASIO_PULSE_OK);
  service_->publish();
  EXPECT_EQ(mine.system().abi_version, ASIO_PULSE_ABI_VERSION);
  EXPECT_EQ(ask(program, ASIO_PULSE_DETACH, ::gettid(), 1).head.refusal, ASIO_PULSE_OK);
  EXPECT_EQ(ask(program, ASIO_PULSE_ATTACH, ::gettid()).head.slot, 1U);
  EXPECT_EQ(mine[1].escapable, 0);
  EXPECT_EQ(mine[1].runtime_pad[40], 0);
}

/// A process with this id, which attaches its only thread and then waits for the end of its input.
/// Empty, with errno, if it cannot be made.
std::optional<pid_t> worker_with_id(pid_t id, const std::string& path, int input) {
  clone_args how{};
  how.exit_signal = SIGCHLD;
  how.set_tid = reinterpret_cast<std::uintptr_t>(&id);
  how.set_tid_size = 1;
  const long made = ::syscall(SYS_clone3, &how, sizeof how);
  if (made < 0) return std::nullopt;
  if (made == 0) {
    for (int fd = 3; fd < 256; ++fd) {  // the ends of other connections
      if (fd != input) ::close(fd);
    }
    client program = client::to(path);
    const bool sent = program.send(ASIO_PULSE_HELLO) && program.send(ASIO_PULSE_ATTACH, id);
    char byte = 0;
    ::_exit(sent && ::read(input, &byte, 1) == 0 ? 0 : 1);
  }
  return static_cast<pid_t>(made);
}

// A hostile program could otherwise end the registrations of others: it attaches many threads, ends
// them, and waits until the kernel gives their ids to other programs.
TEST_F(service_hostile, an_ended_threads_id_ends_no_registration_of_another_process) {
  start();
  client program = connect();
  ask(program, ASIO_PULSE_HELLO);
  parked_thread ended;
  const pid_t id = ended.tid();
  ASSERT_EQ(ask(program, ASIO_PULSE_ATTACH, id).head.refusal, ASIO_PULSE_OK);
  ended.end();
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const unique_fd input(ends[0]);
  unique_fd output(ends[1]);
  std::optional<pid_t> other;
  for (int i = 0; i < 500 && !other; ++i) {  // the kernel frees the id a little later
    other = worker_with_id(id, options_.path, input.get());
    if (!other && errno != EEXIST) GTEST_SKIP() << "ids cannot be chosen: " << std::strerror(errno);
    if (!other) ::usleep(10'000);
  }
  ASSERT_TRUE(other);
  const auto theirs = [&] { return store_.workers[id].tgid == static_cast<std::uint32_t>(id); };
  for (int i = 0; i < 1000 && !theirs(); ++i) {
    pump();
    ::usleep(10'000);
  }
  EXPECT_TRUE(theirs());
  // The program's thread has ended, and so may its connection.
  ask(program, ASIO_PULSE_DETACH, id, 1);
  program.close();
  pump();
  EXPECT_EQ(service_->connections(), 1U);
  EXPECT_EQ(store_.workers.count(id), 1U) << "the other process has lost its registration";
  ::kill(*other, SIGKILL);
  output.reset();
  ::waitpid(*other, nullptr, 0);
}

/// Epoll descriptors that watch each other. The kernel refuses to watch the last one.
std::vector<unique_fd> nested_too_deeply() {
  std::vector<unique_fd> chain;
  chain.emplace_back(::epoll_create1(EPOLL_CLOEXEC));
  constexpr int deepest = 6;  // more than EP_MAX_NESTS
  for (int i = 0; i < deepest; ++i) {
    unique_fd outer(::epoll_create1(EPOLL_CLOEXEC));
    epoll_event event{.events = EPOLLIN, .data = {}};
    if (::epoll_ctl(outer.get(), EPOLL_CTL_ADD, chain.back().get(), &event) != 0) break;
    chain.push_back(std::move(outer));
  }
  return chain;
}

// If the reactor has no room for a connection, the connection is dropped.
TEST_F(service_hostile, a_connection_that_cannot_be_watched_is_closed) {
  struct no_owner final : session_owner {
    answer handle(session&, const asio_pulse_request&, const asio_pulse_set_request&) override {
      return {};
    }
    std::chrono::nanoseconds charge(session&, std::chrono::nanoseconds) override { return {}; }
    void ended(session&) noexcept override {}
  } owner;
  std::vector<unique_fd> chain = nested_too_deeply();
  unique_fd last = std::move(chain.back());
  const int number = last.get();
  EXPECT_THROW(std::make_shared<session>(context_, std::move(last), peer{}, owner),
               boost::system::system_error);
  EXPECT_EQ(::fcntl(number, F_GETFD), -1) << "it is still open";
}

}  // namespace
}  // namespace bpf_test
