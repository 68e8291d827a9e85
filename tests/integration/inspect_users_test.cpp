// SPDX-License-Identifier: BSL-1.0
//
// Which users may inspect a process, and what others can do to it, with real users, user namespaces
// and limits, in separate processes.

#include <support/inspecting.hpp>
#include <support/sanitizers.hpp>
//
#include "process/user_identity.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>

#include <chrono>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#if !defined(PULSE_TEST_TSAN)  // it does not follow threads into a fork

namespace {

using namespace std::chrono_literals;
using namespace pulse_test;
using testing::HasSubstr;
using testing::StartsWith;

constexpr uid_t owner = 61001;
constexpr uid_t stranger = 61002;

// For serving(). Writes "unshared", or "no" if that is not allowed, and waits for map_owner_to().
void move_to_a_user_namespace(int parent) {
  become(owner);
  ::prctl(PR_SET_DUMPABLE, 1);
  if (::unshare(CLONE_NEWUSER) != 0) return (void)::send(parent, "no", 3, 0);
  (void)!::send(parent, "unshared", 9, 0);
  char mapped = 0;
  (void)!::recv(parent, &mapped, 1, 0);
}

// `owner` is that user in the process's namespace.
void map_owner_to(uid_t user, const forked& process) {
  std::ofstream("/proc/" + std::to_string(process.pid()) + "/uid_map")
      << user << " " << owner << " 1\n";
  (void)!::send(process.socket(), "m", 1, MSG_NOSIGNAL);
}

class inspect_users : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "only root can become another user";
  }
};

TEST_F(inspect_users, a_daemon_that_drops_its_privileges_can_be_looked_into_as_its_new_user) {
  const forked daemon(serving({}, [](int) { become(owner); }));
  ASSERT_EQ(daemon.said(), "ready");
  EXPECT_EQ(look_as(owner, daemon.pid()), "ok");
  EXPECT_EQ(look_as(owner, daemon.pid()), "ok");
  EXPECT_EQ(look_as(0, daemon.pid()), "ok");
  EXPECT_THAT(look_as(stranger, daemon.pid()), HasSubstr("belongs to another user"));
}

TEST_F(inspect_users, such_a_daemon_is_found_by_its_new_user) {
  const forked daemon(serving({}, [](int) { become(owner); }));
  ASSERT_EQ(daemon.said(), "ready");
  const auto finds = [&daemon](uid_t user) {
    return forked([user, pid = daemon.pid()](int) -> std::string {
             become(user);
             std::error_code ec;
             for (const auto& p : asio_pulse::inspectable_processes(ec)) {
               if (p.pid == pid) return "found";
             }
             return "not found";
           })
        .said();
  };
  EXPECT_EQ(finds(owner), "found");
  EXPECT_EQ(finds(stranger), "not found");
}

// The server refuses by itself, even if an inspector would not have asked.
TEST_F(inspect_users, another_user_is_refused_at_once) {
  const forked process(serving([](int) { become(owner); }, {}));
  ASSERT_EQ(process.said(), "ready");
  const forked other([pid = process.pid()](int) {
    become(stranger);
    return raw_client(pid).first_line_of_metrics();
  });
  EXPECT_EQ(other.said(), "asio-pulse/3 error this process belongs to another user\n");
}

/// Connects this many times as a user, keeps all connections, and returns how many were answered
/// with "ok".
std::function<std::string(int)> holding(uid_t user, std::uint64_t pid, int count) {
  return [=](int) {
    if (user != ::geteuid()) become(user);
    std::vector<raw_client> held;
    int answered = 0;
    for (int n = 0; n < count; ++n) {
      if (held.emplace_back(pid).first_line_of_metrics().starts_with("asio-pulse/3 ok")) ++answered;
    }
    static const auto forever = std::move(held);
    return std::to_string(answered);
  };
}

TEST_F(inspect_users, others_take_no_place_and_the_user_none_of_roots) {
  const forked process(serving([](int) { become(owner); }, {}));
  ASSERT_EQ(process.said(), "ready");
  const forked strangers(holding(stranger, process.pid(), 100));
  EXPECT_EQ(strangers.said(), "0");
  EXPECT_EQ(look_as(owner, process.pid()), "ok");
  const forked owners(holding(owner, process.pid(), 10));
  EXPECT_EQ(owners.said(), "6");
  EXPECT_THAT(look_as(owner, process.pid()), HasSubstr("too many inspectors are connected"));
  EXPECT_EQ(look_as(0, process.pid()), "ok");
  const forked roots(holding(0, process.pid(), 10));
  EXPECT_EQ(roots.said(), "2");
}

/// CPU time that the thread that answers uses while we wait. First waits until the thread has its name.
std::chrono::nanoseconds cpu_while(std::uint64_t pid, std::chrono::milliseconds wait) {
  auto before = cpu_of_thread(pid, "pulse-inspect");
  for (; !before; before = cpu_of_thread(pid, "pulse-inspect")) std::this_thread::yield();
  std::this_thread::sleep_for(wait);
  const auto after = cpu_of_thread(pid, "pulse-inspect");
  EXPECT_TRUE(after);
  return after ? *after - *before : 0ns;
}

/// Opens files until no descriptor is free. Before that, it waits until the thread that answers has
/// its name, by which the test knows it: the thread needs a descriptor to see whether it may set it.
void use_up_descriptors() {
  const auto self = static_cast<std::uint64_t>(::getpid());
  while (!cpu_of_thread(self, "pulse-inspect")) std::this_thread::yield();
  const rlimit few{.rlim_cur = 64, .rlim_max = 64};
  if (::setrlimit(RLIMIT_NOFILE, &few) != 0) std::abort();
  while (::open("/dev/null", O_RDONLY | O_CLOEXEC) >= 0) {
  }
}

TEST_F(inspect_users, a_process_without_descriptors_is_served_and_does_not_spin) {
  if (sanitizer_needs_descriptors) GTEST_SKIP() << "the sanitizer needs descriptors";
  const forked process(serving([](int) { become(owner); }, [](int) { use_up_descriptors(); }));
  ASSERT_EQ(process.said(), "ready");
  for (int n = 0; n < 3; ++n) EXPECT_EQ(look_as(owner, process.pid()), "ok");
  const forked strangers(holding(stranger, process.pid(), 20));
  EXPECT_EQ(strangers.said(), "0");
  EXPECT_EQ(look_as(owner, process.pid()), "ok");

  // The descriptor that is kept for this is in use, and the next one waits.
  const forked holder(holding(owner, process.pid(), 1));
  EXPECT_EQ(holder.said(), "1");
  const forked waits([pid = process.pid()](int) -> std::string {
    become(stranger);
    static const raw_client waiting(pid);
    return waiting.connected() ? "waits" : "not connected";
  });
  EXPECT_EQ(waits.said(), "waits");
  EXPECT_LT(cpu_while(process.pid(), 1s), 100ms);
}

using inspect_users_timing = inspect_users;

TEST_F(inspect_users_timing, a_flood_of_others_costs_little_and_keeps_nobody_out) {
  const forked process(serving([](int) { become(owner); }, {}));
  ASSERT_EQ(process.said(), "ready");
  const auto knock = [pid = process.pid()](int) -> std::string {
    become(stranger);
    for (;;) {
      const raw_client another(pid);
    }
  };
  const forked first(knock);
  const forked second(knock);
  EXPECT_LT(cpu_while(process.pid(), 2s), 300ms);
  EXPECT_EQ(look_as(owner, process.pid()), "ok");
}

// In the namespace an unmapped user looks like "nobody", and this process acts as "nobody".
TEST_F(inspect_users, in_a_user_namespace_nobody_is_not_this_user) {
  const forked process(serving(move_to_a_user_namespace, {}));
  if (process.said() != "unshared") GTEST_SKIP() << "no user namespaces here";
  map_owner_to(65534, process);
  ASSERT_EQ(process.said(), "ready");
  const forked other([pid = process.pid()](int) {
    become(stranger);
    return raw_client(pid).first_line_of_metrics();
  });
  EXPECT_THAT(other.said(), StartsWith("asio-pulse/3 error "));
}

TEST_F(inspect_users, in_a_user_namespace_a_mapped_user_is_this_user) {
  const forked process(serving(move_to_a_user_namespace, {}));
  if (process.said() != "unshared") GTEST_SKIP() << "no user namespaces here";
  map_owner_to(1000, process);
  ASSERT_EQ(process.said(), "ready");
  EXPECT_EQ(look_as(owner, process.pid()), "ok");
  EXPECT_THAT(look_as(stranger, process.pid()), HasSubstr("belongs to another user"));
}

}  // namespace

#endif
