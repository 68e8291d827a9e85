// SPDX-License-Identifier: BSL-1.0
//
// The command scx_pulse with a real scheduler. tests/unit/bpf tests the same with memory files.
#include "service/client.hpp"
#include "service/socket_file.hpp"
#include "vm_support.hpp"
#include "vm_workers.hpp"

#include <asio_pulse/bpf/protocol.h>

#include <boost/json.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

namespace {

namespace json = boost::json;
using namespace std::chrono_literals;
using ::testing::HasSubstr;

const std::string socket_path = "/run/scx_pulse_loader.sock";

/// The program's side of protocol.h, with blocking calls.
class program {
 public:
  program() : socket_(asio_pulse::scx::connect_to_service(socket_path)) {
    asio_pulse_reply reply{};
    const int fd = ask(ASIO_PULSE_HELLO, 0, 0, reply);
    if (fd < 0) return;
    void* const at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at != MAP_FAILED) blocks_ = static_cast<asio_pulse_scb*>(at);
    ::close(fd);
  }
  program(const program&) = delete;
  program& operator=(const program&) = delete;
  ~program() {
    if (blocks_ != nullptr) ::munmap(blocks_, bytes);
  }

  [[nodiscard]] bool ready() const { return blocks_ != nullptr; }
  [[nodiscard]] asio_pulse_scb& block(unsigned slot) const { return blocks_[slot]; }
  [[nodiscard]] const asio_pulse_system& system() const {
    return reinterpret_cast<const asio_pulse_system&>(blocks_[0]);
  }
  unsigned attach(pid_t tid) {
    asio_pulse_reply reply{};
    ask(ASIO_PULSE_ATTACH, tid, 0, reply);
    EXPECT_EQ(reply.refusal, ASIO_PULSE_OK) << std::string(reply.text, reply.text_bytes);
    return reply.slot;
  }
  void leave() { socket_.reset(); }
  [[nodiscard]] bool closed() const {
    char byte = 0;
    return ::recv(socket_.get(), &byte, 1, MSG_DONTWAIT) == 0;
  }

 private:
  int ask(asio_pulse_request_kind kind, pid_t tid, unsigned slot, asio_pulse_reply& reply) {
    const asio_pulse_request request{.magic = ASIO_PULSE_PROTOCOL_MAGIC,
                                     .abi_version = ASIO_PULSE_ABI_VERSION,
                                     .kind = static_cast<std::uint16_t>(kind),
                                     .tid = static_cast<std::uint32_t>(tid),
                                     .slot = slot};
    ::send(socket_.get(), &request, sizeof request, MSG_NOSIGNAL);
    iovec part{.iov_base = &reply, .iov_len = sizeof reply};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    if (::recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC) <= 0) return -1;
    const cmsghdr* const header = CMSG_FIRSTHDR(&message);
    int fd = -1;
    if (header != nullptr) std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
    return fd;
  }

  static constexpr std::size_t bytes = std::size_t{ASIO_PULSE_SLOT_COUNT} * ASIO_PULSE_SCB_BYTES;
  asio_pulse::scx::unique_fd socket_;
  asio_pulse_scb* blocks_ = nullptr;
};

class loader_command : public testing::Test {
 protected:
  void SetUp() override {
    if (!vm::has_program("scx_pulse")) GTEST_SKIP() << "scx_pulse is not in the virtual machine";
  }
  void TearDown() override {
    if (!loader) return;
    loader->signal(SIGTERM);
    EXPECT_EQ(loader->wait(), 0) << loader->output();
  }

  static std::vector<std::string> command(std::vector<std::string> words) {
    words.insert(words.begin(), {"scx_pulse", "--socket", socket_path});
    return words;
  }
  void start(const std::vector<std::string>& more = {}) {
    loader = std::make_unique<vm::child>(command(more));
    wait_until_served();
  }
  void wait_until_served() {
    ASSERT_TRUE(vm::eventually(
        [&] { return !loader->running() || std::filesystem::exists(socket_path); }, 30s));
    ASSERT_TRUE(loader->running()) << loader->output();
  }

  struct outcome {
    int status = -1;
    std::string output;
  };
  static outcome run(const std::vector<std::string>& words) {
    vm::child child(words);
    outcome result;
    result.status = child.wait();
    result.output = child.output();
    return result;
  }

  std::unique_ptr<vm::child> loader;
};

}  // namespace

TEST_F(loader_command, check_finds_all_that_is_needed) {
  const outcome before = run(command({"check", "--json"}));
  EXPECT_EQ(before.status, 0) << before.output;
  EXPECT_TRUE(json::parse(before.output).at("can_run").as_bool());
  EXPECT_EQ(json::parse(before.output).at("hint_source").as_string(), "local");

  start();
  const outcome beside = run(command({"check", "--json"}));
  EXPECT_EQ(beside.status, 0) << beside.output;
  EXPECT_EQ(json::parse(beside.output).at("hint_source").as_string(), "scx_pulse");
  const outcome elsewhere = run({"scx_pulse", "--socket", "/run/elsewhere.sock", "check"});
  EXPECT_EQ(elsewhere.status, 1) << elsewhere.output;
  EXPECT_THAT(elsewhere.output, HasSubstr("the scheduler scx_pulse"));
  EXPECT_THAT(elsewhere.output, HasSubstr("end that scheduler first"));
}

TEST_F(loader_command, a_program_attaches_and_is_told_how_things_are) {
  start({"--slice-ms", "3"});
  program mine;
  ASSERT_TRUE(mine.ready());
  EXPECT_EQ(mine.system().abi_version, ASIO_PULSE_ABI_VERSION);
  EXPECT_EQ(vm::load(mine.system().mode), ASIO_PULSE_MODE_OBSERVER_ONLY);
  EXPECT_EQ(vm::load(mine.system().slice_ns), 3'000'000U);
  EXPECT_EQ(vm::load(mine.system().cpus), 2U);

  const vm::spinner thread;
  const unsigned slot = mine.attach(thread.tid());
  ASSERT_EQ(slot, 1U);
  asio_pulse_scb& block = mine.block(slot);
  EXPECT_TRUE(
      vm::eventually([&] { return vm::load(block.worker_state) == ASIO_PULSE_WORKER_RUNNING; }));
  EXPECT_TRUE(vm::eventually([&] { return vm::load(block.preempt_seq) > 0; }))
      << "it never yields, so it gets hints";

  const std::uint64_t told = vm::load(mine.system().updated_ns);
  EXPECT_TRUE(vm::eventually([&] { return vm::load(mine.system().updated_ns) != told; }, 5s));

  const json::value status = json::parse(asio_pulse::scx::ask_status(socket_path));
  EXPECT_EQ(status.at("workers").as_int64(), 1);
  EXPECT_EQ(status.at("policy").as_string(), "round-robin");
  EXPECT_EQ(status.at("counts").at("registered").to_number<int>(), 1);
  EXPECT_GT(status.at("counts").at("hints").to_number<int>(), 0);
  EXPECT_TRUE(status.at("pressure").at("known").as_bool());

  mine.leave();
  EXPECT_TRUE(
      vm::eventually([&] { return vm::load(block.worker_state) == ASIO_PULSE_WORKER_DEAD; }));
  EXPECT_TRUE(vm::eventually([&] { return vm::load(mine.system().mode) == ASIO_PULSE_MODE_NONE; }));
  EXPECT_TRUE(thread.goes_on());
}

TEST_F(loader_command, set_takes_effect_without_a_reload) {
  start();
  const std::string loads = vm::read("/sys/kernel/sched_ext/enable_seq");
  const program mine;
  ASSERT_TRUE(mine.ready());
  const outcome changed = run(command({"set", "--mode", "enforced", "--grace-ms", "20"}));
  EXPECT_EQ(changed.status, 0) << changed.output;
  EXPECT_EQ(vm::load(mine.system().mode), ASIO_PULSE_MODE_ENFORCED);
  EXPECT_EQ(vm::load(mine.system().grace_ns), 20'000'000U);
  EXPECT_EQ(vm::load(mine.system().slice_ns), 5'000'000U);
  EXPECT_THAT(loader->output(), HasSubstr("settings changed by user 0: mode=enforced"));
  EXPECT_EQ(vm::read("/sys/kernel/sched_ext/enable_seq"), loads);

  vm::child nobody([]() -> int {
    if (::setgid(65534) != 0 || ::setuid(65534) != 0) return 126;
    asio_pulse_set_request change{};
    change.fields = ASIO_PULSE_SET_MODE;
    asio_pulse::scx::ask_change(socket_path, change);
    return 0;
  });
  EXPECT_EQ(nobody.wait(), 126);
  EXPECT_THAT(nobody.output(), HasSubstr("may not change the settings"));
  EXPECT_EQ(vm::load(mine.system().mode), ASIO_PULSE_MODE_ENFORCED);
}

TEST_F(loader_command, statistics_and_hints_are_json_lines) {
  start({"--json", "--debug", "--stats", "0.2"});
  program mine;
  const vm::spinner thread;
  mine.attach(thread.tid());
  EXPECT_TRUE(vm::eventually([&] {
    const std::string output = loader->output();
    return output.find("\"statistics\"") != std::string::npos &&
           output.find("\"hint\"") != std::string::npos;
  }));
  std::istringstream lines(loader->output());
  int objects = 0;
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line.front() != '{' || lines.eof()) continue;  // libbpf's own words
    EXPECT_NO_THROW(EXPECT_TRUE(json::parse(line).is_object())) << line;
    ++objects;
  }
  EXPECT_GE(objects, 3);
}

TEST_F(loader_command, ends_when_asked_and_says_what_it_did) {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    start();
    program mine;
    const vm::spinner thread;
    mine.attach(thread.tid());
    loader->signal(signal);
    EXPECT_EQ(loader->wait(), 0) << loader->output();
    EXPECT_THAT(loader->output(), HasSubstr("gave 1 process(es) with 1 worker(s) back"));
    EXPECT_FALSE(std::filesystem::exists(socket_path));
    EXPECT_EQ(vm::sched_ext_state(), "disabled");
    EXPECT_TRUE(mine.closed());
    EXPECT_TRUE(thread.goes_on());
    loader.reset();
  }
}

// The privileges that `check` asks for are sufficient.
TEST_F(loader_command, runs_with_one_capability) {
  loader = std::make_unique<vm::child>([]() -> int {
    constexpr unsigned long sys_admin = 21;
    for (unsigned long which = 0; ::prctl(PR_CAPBSET_READ, which, 0, 0, 0) >= 0; ++which) {
      if (which != sys_admin) ::prctl(PR_CAPBSET_DROP, which, 0, 0, 0);
    }
    ::execlp("scx_pulse", "scx_pulse", "--socket", socket_path.c_str(), nullptr);
    return 127;
  });
  wait_until_served();
  if (HasFatalFailure()) {
    loader.reset();
    return;
  }
  program mine;
  const vm::spinner thread;
  mine.attach(thread.tid());
  EXPECT_TRUE(vm::eventually(
      [&] { return vm::load(mine.block(1).worker_state) == ASIO_PULSE_WORKER_RUNNING; }));
}
