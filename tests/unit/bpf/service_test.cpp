// SPDX-License-Identifier: BSL-1.0
#include "service/service.hpp"
// Included first, to check that the header is self-contained.

#include "support.hpp"

#include <boost/json.hpp>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

namespace bpf_test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using service_hello = service_test;
using service_attach = service_test;
using service_status = service_test;
using service_set = service_test;

TEST_F(service_hello, hands_out_an_array_that_both_sides_see) {
  state_.settings.mode = ASIO_PULSE_MODE_ENFORCED;
  state_.pressure = {.cpu = 12, .io = 34, .memory = 56, .known = true};
  state_.queued = 7;
  start();
  client program = connect();
  const received reply = ask(program, ASIO_PULSE_HELLO);
  ASSERT_EQ(reply.head.refusal, ASIO_PULSE_OK) << reply.text;
  EXPECT_EQ(reply.head.kind, ASIO_PULSE_HELLO);
  EXPECT_EQ(reply.head.slots, ASIO_PULSE_SLOT_COUNT);
  EXPECT_EQ(reply.text, "");
  ASSERT_TRUE(reply.fd);
  EXPECT_NE(::fcntl(reply.fd.get(), F_GETFD) & FD_CLOEXEC, 0);

  const mapping mine(reply.fd.get());
  EXPECT_EQ(mine.system().abi_version, ASIO_PULSE_ABI_VERSION);
  EXPECT_EQ(mine.system().mode, ASIO_PULSE_MODE_ENFORCED);
  EXPECT_EQ(mine.system().cpu_pressure, 12);
  EXPECT_EQ(mine.system().io_pressure, 34);
  EXPECT_EQ(mine.system().memory_pressure, 56);
  EXPECT_EQ(mine.system().queued, 7U);
  EXPECT_EQ(mine.system().cpus, 2U);
  EXPECT_EQ(mine.system().slice_ns, 5'000'000U);
  EXPECT_EQ(mine.system().grace_ns, 100'000'000U);
  EXPECT_EQ(mine.system().max_critical_ns, 50'000'000U);
  EXPECT_NE(mine.system().updated_ns, 0U);

  const auto& theirs = store_.processes.at(::getpid());
  mine[3].last_ack_seq = 42;
  EXPECT_EQ(theirs.blocks[3].last_ack_seq, 42U);
  theirs.blocks[3].preempt_seq = 43;
  EXPECT_EQ(mine[3].preempt_seq, 43U);
}

TEST_F(service_hello, refuses_every_other_version_and_says_both) {
  start();
  client program = connect();
  for (const unsigned version : {0U, ASIO_PULSE_ABI_VERSION + 1, 0xffffU}) {
    const received reply = ask(program, ASIO_PULSE_HELLO, 0, 0, version);
    EXPECT_EQ(reply.head.refusal, ASIO_PULSE_REFUSED_VERSION);
    EXPECT_EQ(reply.head.abi_version, ASIO_PULSE_ABI_VERSION);
    EXPECT_THAT(reply.text, HasSubstr("version 1"));
    EXPECT_THAT(reply.text, HasSubstr("version " + std::to_string(version)));
    EXPECT_FALSE(reply.fd);
  }
  EXPECT_EQ(service_->processes(), 0U);
  EXPECT_EQ(ask(program, ASIO_PULSE_HELLO).head.refusal, ASIO_PULSE_OK) << "it may try again";
}

TEST_F(service_hello, is_said_once) {
  start();
  client program = connect();
  ASSERT_EQ(ask(program, ASIO_PULSE_HELLO).head.refusal, ASIO_PULSE_OK);
  const received again = ask(program, ASIO_PULSE_HELLO);
  EXPECT_EQ(again.head.refusal, ASIO_PULSE_REFUSED_ORDER);
  EXPECT_FALSE(again.fd);
  client second = connect();
  EXPECT_EQ(ask(second, ASIO_PULSE_HELLO).head.refusal, ASIO_PULSE_REFUSED_ORDER);
  second.close();
  pump();
  EXPECT_EQ(service_->processes(), 1U) << "the end of the second connection has no effect";
  EXPECT_EQ(ask(program, ASIO_PULSE_ATTACH, ::gettid()).head.refusal, ASIO_PULSE_OK);
}

TEST_F(service_hello, tells_of_a_store_that_fails_and_is_as_before) {
  start();
  client program = connect();
  store_.fail_open = true;
  const received reply = ask(program, ASIO_PULSE_HELLO);
  EXPECT_EQ(reply.head.refusal, ASIO_PULSE_REFUSED_INTERNAL);
  EXPECT_THAT(reply.text, HasSubstr("the store is full"));
  EXPECT_EQ(service_->processes(), 0U);
  store_.fail_open = false;
  EXPECT_EQ(ask(program, ASIO_PULSE_HELLO).head.refusal, ASIO_PULSE_OK);
}

TEST_F(service_hello, comes_before_attach_and_detach) {
  start();
  client program = connect();
  EXPECT_EQ(ask(program, ASIO_PULSE_ATTACH, ::gettid()).head.refusal, ASIO_PULSE_REFUSED_ORDER);
  EXPECT_EQ(ask(program, ASIO_PULSE_DETACH, ::gettid(), 1).head.refusal, ASIO_PULSE_REFUSED_ORDER);
  EXPECT_TRUE(store_.calls.empty());
}

TEST_F(service_attach, registers_the_thread_with_its_start) {
  start();
  client program = connect();
  const received hello = ask(program, ASIO_PULSE_HELLO);
  const mapping mine(hello.fd.get());
  mine[1].preempt_seq = 99;
  mine[1].critical = 1;
  mine[1].cpu_sequence = 7;
  const received reply = ask(program, ASIO_PULSE_ATTACH, ::gettid());
  ASSERT_EQ(reply.head.refusal, ASIO_PULSE_OK) << reply.text;
  EXPECT_EQ(reply.head.slot, 1U);
  ASSERT_EQ(store_.workers.count(::gettid()), 1U);
  const scx_pulse_registration& made = store_.workers.at(::gettid());
  EXPECT_EQ(made.tgid, static_cast<std::uint32_t>(::getpid()));
  EXPECT_EQ(made.slot, 1U);
  EXPECT_NE(made.start_ticks, 0U);
  EXPECT_EQ(mine[1].worker_state, ASIO_PULSE_WORKER_REGISTERED);
  EXPECT_EQ(mine[1].preempt_seq, 0U) << "the values of the last thread were removed";
  EXPECT_EQ(mine[1].critical, 0);
  EXPECT_EQ(mine[1].cpu_sequence, 0U);
  EXPECT_EQ(mine[1].priority, ASIO_PULSE_PRIORITY_DEFAULT);
}

TEST_F(service_attach, refuses_a_thread_that_is_not_there) {
  start();
  client program = connect();
  ask(program, ASIO_PULSE_HELLO);
  parked_thread gone;
  gone.end();
  for (const pid_t tid : {0, -1, 0x7fffffff, gone.tid()}) {
    const received reply = ask(program, ASIO_PULSE_ATTACH, tid);
    EXPECT_EQ(reply.head.refusal, ASIO_PULSE_REFUSED_THREAD) << tid;
    EXPECT_THAT(reply.text, HasSubstr("has no thread"));
  }
  EXPECT_TRUE(store_.workers.empty());
}

TEST_F(service_attach, refuses_the_threads_of_other_processes) {
  start();
  const other_process other(options_.path, 1);
  ASSERT_TRUE(other.made());
  client program = connect();
  ask(program, ASIO_PULSE_HELLO);
  for (const pid_t tid : {other.tids()[0], other.tids()[1], pid_t{1}, ::getppid()}) {
    EXPECT_EQ(ask(program, ASIO_PULSE_ATTACH, tid).head.refusal, ASIO_PULSE_REFUSED_THREAD) << tid;
  }
  EXPECT_TRUE(store_.workers.empty());
}

TEST_F(service_attach, goes_by_who_connected_and_not_by_who_sends) {
  start();
  other_process other(options_.path);
  ASSERT_TRUE(other.made());
  // This process holds the connection, but its thread does not belong to the peer.
  ASSERT_EQ(ask(other.connection, ASIO_PULSE_HELLO).head.refusal, ASIO_PULSE_OK);
  EXPECT_EQ(store_.processes.count(other.pid()), 1U);
  EXPECT_EQ(ask(other.connection, ASIO_PULSE_ATTACH, ::gettid()).head.refusal,
            ASIO_PULSE_REFUSED_THREAD);
  EXPECT_EQ(ask(other.connection, ASIO_PULSE_ATTACH, other.pid()).head.refusal, ASIO_PULSE_OK);
}

TEST_F(service_attach, knows_threads_of_another_pid_namespace_by_their_own_numbers) {
  start();
  other_process other(options_.path, 2, true);
  if (!other.made()) GTEST_SKIP() << "this machine lets us make no PID namespace";
  ASSERT_EQ(other.pid(), 1);
  ASSERT_EQ(ask(other.connection, ASIO_PULSE_HELLO).head.refusal, ASIO_PULSE_OK);
  ASSERT_EQ(store_.processes.size(), 1U);
  const pid_t host_pid = store_.processes.begin()->first;
  EXPECT_NE(host_pid, 1);
  EXPECT_EQ(ask(other.connection, ASIO_PULSE_ATTACH, host_pid).head.refusal,
            ASIO_PULSE_REFUSED_THREAD)
      << "the number outside of the namespace is not valid for the program";
  for (const pid_t tid : other.tids()) {
    const received reply = ask(other.connection, ASIO_PULSE_ATTACH, tid);
    EXPECT_EQ(reply.head.refusal, ASIO_PULSE_OK) << tid << ": " << reply.text;
  }
  EXPECT_EQ(store_.workers.size(), 3U);
  EXPECT_EQ(store_.workers.count(host_pid), 1U)
      << "the scheduler knows it by the number outside of the namespace";
  EXPECT_EQ(ask(other.connection, ASIO_PULSE_DETACH, 1, 1).head.refusal, ASIO_PULSE_OK);
  EXPECT_EQ(store_.workers.count(host_pid), 0U);
}

TEST_F(service_attach, takes_a_thread_once) {
  start();
  client program = connect();
  ask(program, ASIO_PULSE_HELLO);
  ask(program, ASIO_PULSE_ATTACH, ::gettid());
  const received again = ask(program, ASIO_PULSE_ATTACH, ::gettid());
  EXPECT_EQ(again.head.refusal, ASIO_PULSE_REFUSED_THREAD);
  EXPECT_THAT(again.text, HasSubstr("slot 1"));
  EXPECT_EQ(service_->workers(), 1U);
}

TEST_F(service_attach, gives_the_slot_back_when_the_store_fails) {
  start();
  client program = connect();
  ask(program, ASIO_PULSE_HELLO);
  store_.fail_add = true;
  const received reply = ask(program, ASIO_PULSE_ATTACH, ::gettid());
  EXPECT_EQ(reply.head.refusal, ASIO_PULSE_REFUSED_INTERNAL);
  EXPECT_THAT(reply.text, HasSubstr("the map is full"));
  EXPECT_EQ(service_->workers(), 0U);
  store_.fail_add = false;
  EXPECT_EQ(ask(program, ASIO_PULSE_ATTACH, ::gettid()).head.slot, 1U);
}

TEST_F(service_attach, detach_retires_the_block_and_frees_the_slot) {
  start();
  client program = connect();
  const received hello = ask(program, ASIO_PULSE_HELLO);
  const mapping mine(hello.fd.get());
  parked_thread first, second;
  ASSERT_EQ(ask(program, ASIO_PULSE_ATTACH, first.tid()).head.slot, 1U);
  ASSERT_EQ(ask(program, ASIO_PULSE_ATTACH, second.tid()).head.slot, 2U);
  mine[1].cpu_sequence = 8;
  // Neither with the number nor with the slot of another thread.
  EXPECT_EQ(ask(program, ASIO_PULSE_DETACH, first.tid(), 2).head.refusal,
            ASIO_PULSE_REFUSED_THREAD);
  EXPECT_EQ(ask(program, ASIO_PULSE_DETACH, second.tid(), 1).head.refusal,
            ASIO_PULSE_REFUSED_THREAD);
  for (const unsigned slot : {0U, 3U, ASIO_PULSE_SLOT_COUNT, 0xffffffffU}) {
    EXPECT_EQ(ask(program, ASIO_PULSE_DETACH, first.tid(), slot).head.refusal,
              ASIO_PULSE_REFUSED_THREAD)
        << slot;
  }
  EXPECT_EQ(service_->workers(), 2U);
  EXPECT_EQ(ask(program, ASIO_PULSE_DETACH, first.tid(), 1).head.refusal, ASIO_PULSE_OK);
  EXPECT_EQ(mine[1].worker_state, ASIO_PULSE_WORKER_DEAD);
  EXPECT_EQ(mine[1].cpu_sequence, 9U) << "odd: no longer published";
  EXPECT_EQ(store_.workers.count(first.tid()), 0U);
  EXPECT_EQ(store_.workers.count(second.tid()), 1U);
  parked_thread third;
  EXPECT_EQ(ask(program, ASIO_PULSE_ATTACH, third.tid()).head.slot, 1U);
}

TEST_F(service_attach, end_of_the_service_gives_everything_back) {
  start();
  client program = connect();
  const received hello = ask(program, ASIO_PULSE_HELLO);
  const mapping mine(hello.fd.get());
  ask(program, ASIO_PULSE_ATTACH, ::gettid());
  stop();
  EXPECT_TRUE(program.closed());
  EXPECT_EQ(mine.system().mode, ASIO_PULSE_MODE_NONE) << "it is not written any more";
  EXPECT_EQ(mine[1].mode, ASIO_PULSE_MODE_NONE);
  EXPECT_THAT(store_.calls,
              ElementsAre("open_process", "add_worker", "remove_worker", "close_process"));
  EXPECT_FALSE(std::filesystem::exists(options_.path));
}

TEST_F(service_status, is_json_and_needs_no_hello_and_no_version) {
  state_.pressure = {.cpu = 12, .io = 1, .memory = 2, .known = true};
  hooks_.describe = [](boost::json::object& out) { out["more"] = "of it"; };
  start();
  client program = connect();
  ask(program, ASIO_PULSE_HELLO);
  ask(program, ASIO_PULSE_ATTACH, ::gettid());
  client asker = connect();
  const received reply = ask(asker, ASIO_PULSE_STATUS, 0, 0, 77);
  ASSERT_EQ(reply.head.refusal, ASIO_PULSE_OK);
  const boost::json::value status = boost::json::parse(reply.text);
  EXPECT_EQ(status.at("mode").as_string(), "observer");
  EXPECT_EQ(status.at("settings").at("slice_ns").as_int64(), 5'000'000);
  EXPECT_EQ(status.at("pressure").at("cpu_percent").as_int64(), 12);
  EXPECT_TRUE(status.at("pressure").at("known").as_bool());
  EXPECT_EQ(status.at("processes").as_int64(), 1);
  EXPECT_EQ(status.at("workers").as_int64(), 1);
  EXPECT_EQ(status.at("connections").as_int64(), 2);
  EXPECT_EQ(status.at("process_list").as_array().size(), 1U);
  EXPECT_EQ(status.at("process_list").at(0).at("pid").as_int64(), ::getpid());
  EXPECT_EQ(status.at("process_list").at(0).at("uid").as_int64(), ::getuid());
  EXPECT_EQ(status.at("process_list").at(0).at("workers").as_int64(), 1);
  EXPECT_EQ(status.at("processes_not_listed").as_int64(), 0);
  EXPECT_EQ(status.at("more").as_string(), "of it");
}

TEST_F(service_status, publish_tells_every_process) {
  start();
  client program = connect();
  const received hello = ask(program, ASIO_PULSE_HELLO);
  const mapping mine(hello.fd.get());
  const std::uint64_t first = mine.system().updated_ns;
  state_.pressure.cpu = 77;
  state_.queued = 5;
  service_->publish();
  EXPECT_EQ(mine.system().cpu_pressure, 77);
  EXPECT_EQ(mine.system().queued, 5U);
  EXPECT_GT(mine.system().updated_ns, first);
}

TEST_F(service_status, element_0_is_written_again_by_itself) {
  options_.update_every = std::chrono::milliseconds{1};
  start();
  client program = connect();
  const received hello = ask(program, ASIO_PULSE_HELLO);
  const mapping mine(hello.fd.get());
  state_.queued = 9;
  context_.restart();
  while (mine.system().queued != 9U) ASSERT_EQ(context_.run_one(), 1U);
}

asio_pulse_set_request change_to(std::uint32_t fields) {
  asio_pulse_set_request change{};
  change.fields = fields;
  change.mode = ASIO_PULSE_MODE_ENFORCED;
  change.slice_ns = 2'000'000;
  change.grace_ns = 30'000'000;
  return change;
}

TEST_F(service_set, changes_what_is_named_and_tells_the_programs) {
  hooks_.change = [this](const scx_pulse_settings& to, uid_t uid) {
    EXPECT_EQ(uid, ::getuid());
    state_.settings = to;
  };
  start();
  client program = connect();
  const received hello = ask(program, ASIO_PULSE_HELLO);
  const mapping mine(hello.fd.get());
  client operator_ = connect();
  operator_.send(change_to(ASIO_PULSE_SET_SLICE | ASIO_PULSE_SET_MODE));
  const received reply = after_pump(operator_);
  EXPECT_EQ(reply.head.refusal, ASIO_PULSE_OK) << reply.text;
  EXPECT_EQ(reply.head.kind, ASIO_PULSE_SET);
  EXPECT_EQ(state_.settings.slice_ns, 2'000'000U);
  EXPECT_EQ(state_.settings.mode, ASIO_PULSE_MODE_ENFORCED);
  EXPECT_EQ(state_.settings.grace_ns, 100'000'000U) << "not named";
  EXPECT_EQ(mine.system().slice_ns, 2'000'000U);
  EXPECT_EQ(mine.system().mode, ASIO_PULSE_MODE_ENFORCED);
}

TEST_F(service_set, is_refused_to_others) {
  bool changed = false;
  hooks_.change = [&](const scx_pulse_settings&, uid_t) { changed = true; };
  uid_t asked = 0;
  hooks_.may_change = [&](uid_t uid) {
    asked = uid;
    return false;
  };
  start();
  client somebody = connect();
  somebody.send(change_to(ASIO_PULSE_SET_SLICE));
  const received reply = after_pump(somebody);
  EXPECT_EQ(reply.head.refusal, ASIO_PULSE_REFUSED_PERMISSION);
  EXPECT_THAT(reply.text, HasSubstr("only root"));
  EXPECT_EQ(asked, ::getuid());
  EXPECT_FALSE(changed);
}

TEST_F(service_set, refuses_nonsense_by_name_and_changes_nothing) {
  bool changed = false;
  hooks_.change = [&](const scx_pulse_settings&, uid_t) { changed = true; };
  start();
  client program = connect();
  asio_pulse_set_request change = change_to(ASIO_PULSE_SET_GRACE | ASIO_PULSE_SET_SLICE);
  change.slice_ns = ~std::uint64_t{0};
  program.send(change);
  const received reply = after_pump(program);
  EXPECT_EQ(reply.head.refusal, ASIO_PULSE_REFUSED_VALUE);
  EXPECT_THAT(reply.text, HasSubstr("--slice-ms must be from 0.1ms to 1000ms"));
  EXPECT_FALSE(changed);
}

TEST_F(service_set, tells_when_the_scheduler_does_not_take_it) {
  hooks_.change = [](const scx_pulse_settings&, uid_t) { throw std::runtime_error("no map"); };
  start();
  client program = connect();
  program.send(change_to(ASIO_PULSE_SET_SLICE));
  const received reply = after_pump(program);
  EXPECT_EQ(reply.head.refusal, ASIO_PULSE_REFUSED_INTERNAL);
  EXPECT_THAT(reply.text, HasSubstr("no map"));
}

TEST_F(service_hello, options_that_make_no_sense_are_refused_by_name) {
  const auto refused = [&](auto spoil) {
    service_options spoilt = options_;
    service_hooks hooks = hooks_;
    spoil(spoilt, hooks);
    try {
      const service never(context_, store_, spoilt, hooks);
    } catch (const std::invalid_argument& why) {
      return std::string(why.what());
    }
    return std::string("was accepted");
  };
  EXPECT_THAT(refused([](service_options& o, service_hooks&) { o.update_every = {}; }),
              HasSubstr("update_every"));
  EXPECT_THAT(refused([](service_options& o, service_hooks&) { o.mode = 01777; }),
              HasSubstr("mode"));
  EXPECT_THAT(
      refused([](service_options& o, service_hooks&) { o.bounds.workers_per_process = 129; }),
      HasSubstr("workers_per_process"));
  EXPECT_THAT(refused([](service_options&, service_hooks& h) { h.look = {}; }), HasSubstr("look"));
}

}  // namespace
}  // namespace bpf_test
