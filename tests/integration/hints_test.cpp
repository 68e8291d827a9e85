// SPDX-License-Identifier: BSL-1.0

// Hints that other threads wait for a worker's CPU: how the worker reacts, and what happens if the
// source dies, gives wrong data or comes back. tests/kernel has the kernel's side.

#include <support/competing_load.hpp>
#include <support/fake_loader.hpp>
#include <support/fixed_program.hpp>
#include <support/sanitizers.hpp>
#include <support/scenario.hpp>
#include <support/silent_file_system.hpp>
//
#include "files/descriptor.hpp"
#include "hint_link.hpp"

#include <asio_pulse/hints.hpp>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/steady_timer.hpp>

#include <gmock/gmock.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>

namespace {

namespace asio = boost::asio;
using namespace pulse_test;
using asio_pulse::determinism;
using asio_pulse::hint_source;

/// Waits until another thread has made the condition true.
template <class Condition>
bool eventually(Condition condition) {
  const auto end = std::chrono::steady_clock::now() + 20s;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(1ms);
  }
  return true;
}

class hints : public testing::Test {
 protected:
  asio_pulse::options opts(hint_source from = hint_source::kernel) {
    asio_pulse::options o = steady();
    o.watchdog = false;
    o.hints = from;
    o.hint_socket = loader.path();
    return o;
  }
  asio_pulse::options opts(const fake_loader& other) {
    asio_pulse::options o = opts();
    o.hint_socket = other.path();
    return o;
  }

  /// Runs short handlers one after another until `done`. Returns false if that takes too long.
  template <class Done>
  static bool run_until(asio_pulse::io_context& io, Done done,
                        std::chrono::seconds limit = std::chrono::seconds{20}) {
    bool was = false;
    const auto end = std::chrono::steady_clock::now() + limit;
    std::function<void()> look = [&] {
      was = done();
      if (was || std::chrono::steady_clock::now() > end) return;
      burn(30us);
      asio::post(io, look);
    };
    asio::post(io, look);
    io.restart();
    io.run();
    return was;
  }
  /// The same, from when the worker has its control block, which `done` gets.
  template <class Done>
  static bool run_attached(asio_pulse::io_context& io, Done done) {
    return run_until(io, [&done] {
      asio_pulse_scb* const block = asio_pulse::hooks::this_thread().block;
      return block != nullptr && done(block);
    });
  }
  static bool attached(asio_pulse::io_context& io) {
    return run_attached(io, [](const asio_pulse_scb*) { return true; });
  }

  fake_loader loader;
};

TEST_F(hints, are_off_unless_asked_for) {
  loader.start();
  asio_pulse::io_context io{opts(hint_source::off)};
  EXPECT_TRUE(run_until(io, [n = 0]() mutable { return ++n == 1000; }));
  EXPECT_EQ(loader.attachments(), 0);
  EXPECT_EQ(asio_pulse::current_hints().source, hint_source::off);
}

TEST_F(hints, of_the_environment_are_off_by_default_and_nonsense_is_refused) {
  loader.start();
  ::unsetenv("ASIO_PULSE_HINTS");
  {
    asio_pulse::io_context io{opts(hint_source::environment)};
    EXPECT_TRUE(run_until(io, [n = 0]() mutable { return ++n == 1000; }));
    EXPECT_EQ(loader.attachments(), 0);
  }
  ::setenv("ASIO_PULSE_HINTS", "kernel", 1);
  {
    asio_pulse::io_context io{opts(hint_source::environment)};
    EXPECT_TRUE(attached(io));
  }
  ::setenv("ASIO_PULSE_HINTS", "sometimes", 1);
  try {
    asio_pulse::io_context io{opts(hint_source::environment)};
    FAIL() << "no exception";
  } catch (const std::invalid_argument& e) {
    EXPECT_THAT(e.what(), testing::HasSubstr("ASIO_PULSE_HINTS must be"));
    EXPECT_THAT(e.what(), testing::HasSubstr("sometimes"));
  }
  ::unsetenv("ASIO_PULSE_HINTS");
}

TEST_F(hints, a_worker_attaches_in_run_and_detaches_on_leaving) {
  loader.start();
  auto o = opts();
  o.escalation = asio_pulse::escalation_policy::hybrid;
  o.hint_priority = 777;
  asio_pulse::io_context io{o};
  EXPECT_TRUE(run_attached(io, [&](const asio_pulse_scb* block) {
    EXPECT_EQ(block->policy, ASIO_PULSE_POLICY_HYBRID);
    EXPECT_EQ(block->priority, 777);
    EXPECT_EQ(block->escapable, 1);
    EXPECT_EQ(block->critical, 0);
    EXPECT_EQ(loader.attached(), 1);
    EXPECT_EQ(asio_pulse::current_hints().source, hint_source::kernel);
    EXPECT_EQ(asio_pulse::current_hints().workers, 1U);
    return true;
  }));
  EXPECT_EQ(asio_pulse::hooks::this_thread().block, nullptr);
  EXPECT_TRUE(eventually([&] { return loader.attached() == 0; }));
  EXPECT_EQ(asio_pulse::current_hints().workers, 0U);
}

TEST_F(hints, poll_and_run_one_do_not_attach) {
  loader.start();
  asio_pulse::io_context io{opts()};
  for (int n = 0; n < 1000; ++n) {
    asio::post(io, [] { EXPECT_EQ(asio_pulse::hooks::this_thread().block, nullptr); });
    asio::post(io, [] {});
    io.restart();
    io.poll_one();
    io.run_one();
    io.poll();
  }
  EXPECT_EQ(loader.attachments(), 0);
}

TEST_F(hints, make_a_checkpoint_yield_and_are_acknowledged_with_the_reason) {
  loader.start();
  auto o = opts();
  o.quantum = 1h;
  asio_pulse::io_context io{o};
  ASSERT_TRUE(attached(io));
  bool wanted = false;
  bool before = true;
  std::uint8_t reason = ASIO_PULSE_YIELD_NONE;
  int step = 0;
  EXPECT_TRUE(run_attached(io, [&](asio_pulse_scb* block) {
    if (step == 0) {
      before = always_preempt() ? false : asio_pulse::should_yield();
      std::atomic_ref(block->preempt_seq).fetch_add(1);
      wanted = asio_pulse::should_yield();
      step = 1;
      return false;
    }
    // In the next poll it was acknowledged.
    reason = block->yield_reason;
    EXPECT_EQ(block->last_ack_seq, block->preempt_seq);
    return true;
  }));
  EXPECT_FALSE(before);
  EXPECT_TRUE(wanted);
  EXPECT_EQ(reason, ASIO_PULSE_YIELD_CHECKPOINT);
  EXPECT_EQ(io.stats().hints, 1U);
}

TEST_F(hints, that_nobody_asks_for_are_acknowledged_at_the_end_of_the_poll) {
  loader.start();
  asio_pulse::io_context io{opts()};
  ASSERT_TRUE(attached(io));
  bool hinted = false;
  EXPECT_TRUE(run_attached(io, [&](asio_pulse_scb* block) {
    if (!hinted) {
      std::atomic_ref(block->preempt_seq).fetch_add(1);
      burn(50us);
      hinted = true;
      return false;
    }
    EXPECT_EQ(block->last_ack_seq, block->preempt_seq);
    EXPECT_EQ(block->yield_reason, ASIO_PULSE_YIELD_POLL_END);
    return true;
  }));
}

TEST_F(hints, put_the_task_that_was_running_behind_everybody_else_once) {
  if (always_preempt()) GTEST_SKIP() << "every operation is put back once";
  loader.start();
  asio_pulse::io_context io{opts()};
  const asio_pulse::task hog{io, unlimited("hog")};
  const asio_pulse::task other{io, unlimited("other")};
  ASSERT_TRUE(attached(io));
  std::vector<int> order;
  EXPECT_TRUE(run_attached(io, [&, begun = false](asio_pulse_scb* block) mutable {
    if (!begun) {
      begun = true;
      asio_pulse::post(hog, [&, block] {
        std::atomic_ref(block->preempt_seq).fetch_add(1);
        burn(100us);
        order.push_back(0);
      });
      for (int n = 1; n <= 3; ++n) asio_pulse::post(hog, [&order, n] { order.push_back(n); });
      for (int n = 11; n <= 13; ++n) asio_pulse::post(other, [&order, n] { order.push_back(n); });
    }
    return order.size() == 7;
  }));
  // Each in its order; the rest of the hog's handlers after the others.
  EXPECT_THAT(order, testing::ElementsAre(0, 11, 12, 13, 1, 2, 3));
  EXPECT_EQ(io.stats().deferrals, 1U);
  EXPECT_EQ(hog.current_tier(), asio_pulse::tier::monitor);
}

TEST_F(hints, are_named_to_the_hook_that_hears_of_yields) {
  if (always_preempt()) GTEST_SKIP() << "everything yields, for no other reason";
  using asio_pulse::hooks::yield_event;
  using asio_pulse::hooks::yield_reason;
  loader.start();
  auto o = opts();
  o.quantum = 1h;
  asio_pulse::io_context io{o};
  std::vector<yield_reason> reasons;
  std::uint64_t operations = 0;
  const asio_pulse::task hog{io, unlimited("hog")};
  const auto c = io.hooks().install({.yielded = [&](const yield_event& e) {
    EXPECT_EQ(e.task_id, hog.id());
    EXPECT_FALSE(e.site.empty());
    reasons.push_back(e.reason);
    if (e.reason != yield_reason::hint) operations += e.operations;
  }});
  ASSERT_TRUE(attached(io));
  int left = 4;
  EXPECT_TRUE(run_attached(io, [&, begun = false](asio_pulse_scb* block) mutable {
    if (!begun) {
      begun = true;
      asio_pulse::post(hog, [&, block] {
        std::atomic_ref(block->preempt_seq).fetch_add(1);
        EXPECT_TRUE(asio_pulse::should_yield());
        --left;
      });
      for (int n = 0; n < 3; ++n) asio_pulse::post(hog, [&left] { --left; });
    }
    return left == 0;
  }));
  EXPECT_THAT(reasons, testing::ElementsAre(yield_reason::hint, yield_reason::deferred));
  EXPECT_EQ(io.stats().checkpoint_yields, 1U);
  EXPECT_EQ(operations, io.stats().yields);
}

using hints_timing = hints;

TEST_F(hints_timing, pressure_shortens_the_quantum_and_loss_makes_defensive) {
  if (always_preempt()) GTEST_SKIP() << "every checkpoint yields";
  loader.start();
  auto o = opts();
  o.quantum = 20ms;
  o.min_slice = 100us;
  asio_pulse::io_context io{o};
  ASSERT_TRUE(attached(io));
  // How long a poll may run until its checkpoints yield.
  const auto allowed = [] {
    const auto begun = std::chrono::steady_clock::now();
    while (!asio_pulse::should_yield()) burn(20us);
    return std::chrono::steady_clock::now() - begun;
  };
  std::chrono::nanoseconds calm{};
  std::chrono::nanoseconds lost{};
  std::uint8_t mode = 99;
  int step = 0;
  EXPECT_TRUE(run_attached(io, [&](asio_pulse_scb* block) {
    switch (step++) {
      case 0:
        calm = allowed();
        return false;
      case 1:
        std::atomic_ref(block->preempt_seq).fetch_add(1);
        std::atomic_ref(block->lost_hints).fetch_add(1);
        burn(50us);
        return false;
      case 2:
        lost = allowed();
        mode = block->determinism;
        return true;
      default:
        return true;
    }
  }));
  EXPECT_GE(calm, 19ms);
  EXPECT_LT(lost, calm * 3 / 4);
  EXPECT_EQ(mode, ASIO_PULSE_DEFENSIVE);
  EXPECT_EQ(io.stats().hints_lost, 1U);
}

TEST_F(hints, in_a_critical_section_wait_and_the_flag_is_shown) {
  loader.start();
  auto o = opts();
  o.quantum = 1h;
  asio_pulse::io_context io{o};
  ASSERT_TRUE(attached(io));
  EXPECT_TRUE(run_attached(io, [&](asio_pulse_scb* block) {
    EXPECT_EQ(block->critical, 0);
    {
      const asio_pulse::critical_section outer;
      EXPECT_EQ(block->critical, 1);
      std::atomic_ref(block->preempt_seq).fetch_add(1);
      EXPECT_FALSE(asio_pulse::should_yield());
      {
        const asio_pulse::critical_section inner;
        EXPECT_EQ(block->critical, 1);
        // Another context's handlers are in no section of ours.
        asio_pulse::io_context nested{steady()};
        asio::post(nested, [&] { EXPECT_EQ(block->critical, 0); });
        nested.run();
        EXPECT_EQ(block->critical, 1);
      }
      EXPECT_EQ(block->critical, 1);
    }
    EXPECT_EQ(block->critical, 0);
    EXPECT_TRUE(asio_pulse::should_yield());
    return true;
  }));
}

TEST_F(hints, a_section_that_outlives_its_poll_is_shown_no_more) {
  loader.start();
  asio_pulse::io_context io{opts()};
  ASSERT_TRUE(attached(io));
  std::unique_ptr<asio_pulse::critical_section> forgotten;
  EXPECT_TRUE(run_attached(io, [&](asio_pulse_scb* block) {
    if (forgotten == nullptr) {
      forgotten = std::make_unique<asio_pulse::critical_section>();
      return false;
    }
    EXPECT_EQ(block->critical, 0);
    return true;
  }));
}

TEST_F(hints, escapable_per_context_and_per_scope) {
  loader.start();
  auto o = opts();
  o.escapable = false;
  asio_pulse::io_context io{o};
  ASSERT_TRUE(attached(io));
  EXPECT_TRUE(run_attached(io, [&](const asio_pulse_scb* block) {
    EXPECT_EQ(block->escapable, 0);
    {
      const asio_pulse::escapable_scope yes(true);
      EXPECT_EQ(block->escapable, 1);
      {
        const asio_pulse::escapable_scope no(false);
        EXPECT_EQ(block->escapable, 0);
      }
      EXPECT_EQ(block->escapable, 1);
    }
    EXPECT_EQ(block->escapable, 0);
    return true;
  }));
}

TEST_F(hints, shadow_mode_agrees_to_nothing_and_acknowledges_nothing) {
  loader.start();
  auto o = opts();
  o.shadow = true;
  o.escalation = asio_pulse::escalation_policy::thread_kick;
  asio_pulse::io_context io{o};
  ASSERT_TRUE(attached(io));
  int step = 0;
  EXPECT_TRUE(run_attached(io, [&](asio_pulse_scb* block) {
    EXPECT_EQ(block->escapable, 0);
    if (step++ == 0) {
      std::atomic_ref(block->preempt_seq).fetch_add(1);
      EXPECT_FALSE(asio_pulse::should_yield());
      burn(50us);
      return false;
    }
    EXPECT_NE(block->last_ack_seq, block->preempt_seq);
    return io.stats().hints == 1;
  }));
}

// ---- loaders that end or fail

TEST_F(hints, the_loader_dies_and_returns) {
  loader.start();
  asio_pulse::io_context io{opts()};
  ASSERT_TRUE(attached(io));
  int deaths = 0;
  EXPECT_TRUE(run_until(
      io,
      [&, alive = true]() mutable {
        const bool has = asio_pulse::hooks::this_thread().block != nullptr;
        if (alive && has) {
          loader.stop();
          alive = false;
          ++deaths;
        } else if (!alive && !has) {
          EXPECT_THAT(asio_pulse::current_hints().why,
                      testing::AnyOf(testing::HasSubstr("ended"), testing::HasSubstr("serves")));
          if (deaths == 3) return true;
          loader.start();
          alive = true;
        }
        return false;
      },
      60s));
  EXPECT_EQ(deaths, 3);
}

TEST_F(hints, a_loader_that_comes_later_is_found) {
  asio_pulse::io_context io{opts()};
  bool started = false;
  EXPECT_TRUE(run_until(io, [&, n = 0]() mutable {
    if (++n == 2000) {
      EXPECT_EQ(asio_pulse::hooks::this_thread().block, nullptr);
      loader.start();
      started = true;
    }
    return started && asio_pulse::hooks::this_thread().block != nullptr;
  }));
}

TEST_F(hints, a_loader_without_manners_costs_the_hints_and_nothing_else) {
  struct bad {
    const char* what;
    std::function<void(fake_loader::manners&)> make;
    const char* why;
  };
  const bad cases[] = {
      {"another version", [](auto& m) { m.refuse_hello = ASIO_PULSE_REFUSED_VERSION; }, "refuses"},
      {"an answer of another version", [](auto& m) { m.abi_version = 77; }, "version 77"},
      {"no memory", [](auto& m) { m.descriptors.emplace(); }, "no control blocks"},
      {"more blocks than there is memory", [](auto& m) { m.slots = 4000; },
       "holds 129 control blocks, and the source announces 4000"},
      {"absurdly many", [](auto& m) { m.slots = ~0U; }, "must serve 2 to 65536"},
      {"none", [](auto& m) { m.slots = 0; }, "must serve 2 to 65536"},
      {"a message that is too long", [](auto& m) { m.trailing_bytes = 1; }, "not scx_pulse"},
      {"all threads are refused", [](auto& m) { m.refuse_attach = ASIO_PULSE_REFUSED_THREAD; },
       "refused by the test"},
      {"the system's own slot", [](auto& m) { m.first_slot = 0; }, "assigns"},
      {"an invalid slot", [](auto& m) { m.first_slot = ASIO_PULSE_SLOT_COUNT; }, "assigns"},
      {"other messages", [](auto& m) { m.garbage = true; }, "not scx_pulse"},
      {"silence", [](auto& m) { m.silent = true; }, "does not answer"},
  };
  for (const bad& c : cases) {
    SCOPED_TRACE(c.what);
    fake_loader rude;
    c.make(rude.how);
    rude.start();
    asio_pulse::io_context io{opts(rude)};
    const auto begun = std::chrono::steady_clock::now();
    EXPECT_TRUE(run_until(io, [&] {
      EXPECT_EQ(asio_pulse::hooks::this_thread().block, nullptr);
      return asio_pulse::current_hints().why.find(c.why) != std::string::npos;
    })) << asio_pulse::current_hints().why;
    EXPECT_LT(std::chrono::steady_clock::now() - begun, 15s);
    rude.stop();
  }
}

// ---- the memory that a source sends

/// Runs a worker with this source until the status says `why`. Returns true if it did, and the
/// worker had no control block meanwhile.
bool refuses(asio_pulse::io_context& io, const std::string& why) {
  const auto end = std::chrono::steady_clock::now() + 20s;
  bool said = false;
  bool ever = false;
  std::function<void()> look = [&] {
    ever = ever || asio_pulse::hooks::this_thread().block != nullptr;
    said = asio_pulse::current_hints().why.find(why) != std::string::npos;
    if (said || std::chrono::steady_clock::now() > end) return;
    burn(30us);
    asio::post(io, look);
  };
  asio::post(io, look);
  io.restart();
  io.run();
  EXPECT_TRUE(said) << asio_pulse::current_hints().why << "\ninstead of: " << why;
  return said && !ever;
}

/// Descriptors of this process that are open on the same thing as `fd`.
int copies_of(int fd) {
  const auto target = [](const std::string& entry) {
    std::error_code gone;
    return std::filesystem::read_symlink(entry, gone).string();
  };
  const std::string wanted = target("/proc/self/fd/" + std::to_string(fd));
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    count += target(entry.path()) == wanted ? 1 : 0;
  }
  return count;
}

using asio_pulse::detail::descriptor;

descriptor memory_of(std::size_t bytes, unsigned flags, int seals) {
  descriptor made(::memfd_create("sent", MFD_CLOEXEC | MFD_ALLOW_SEALING | flags));
  if (made && ::ftruncate(made.get(), static_cast<off_t>(bytes)) != 0) return {};
  if (made && seals != 0) (void)::fcntl(made.get(), F_ADD_SEALS, seals);
  return made;
}

constexpr std::size_t array_bytes = ASIO_PULSE_SLOT_COUNT * sizeof(asio_pulse_scb);

// Without the check the worker would get SIGBUS when it first reads its control block.
TEST_F(hints, memory_that_the_source_can_take_away_is_not_used) {
  for (const int seals : {0, F_SEAL_GROW, F_SEAL_GROW | F_SEAL_SEAL}) {
    fake_loader liar;
    liar.how.seals = seals;
    liar.how.truncates = true;
    liar.start();
    asio_pulse::io_context io{opts(liar)};
    EXPECT_TRUE(refuses(io, "size can still be reduced"));
  }
}

TEST_F(hints, sealed_memory_stays_however_the_source_tries) {
  loader.how.seals = F_SEAL_SHRINK;
  loader.how.truncates = true;
  loader.start();
  asio_pulse::io_context io{opts()};
  EXPECT_TRUE(attached(io));
}

TEST_F(hints, what_is_no_memory_is_refused_by_name_and_closed) {
  const std::string folder = std::filesystem::temp_directory_path().string();
  const std::string path = folder + "/asio_pulse_file_" + std::to_string(::getpid());
  int pair[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  const descriptor one_end(pair[0]);
  const descriptor other_end(pair[1]);
  const descriptor file(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  ASSERT_TRUE(file);
  ASSERT_EQ(::ftruncate(file.get(), array_bytes), 0);
  ::unlink(path.c_str());
  const descriptor directory(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const descriptor event(::eventfd(0, EFD_CLOEXEC));
  const descriptor zeros(::open("/dev/zero", O_RDWR | O_CLOEXEC));
  const descriptor path_only(::open(folder.c_str(), O_PATH | O_CLOEXEC));
  const descriptor small = memory_of(array_bytes - 1, 0, F_SEAL_SHRINK);
  const descriptor read_only = memory_of(array_bytes, 0, F_SEAL_SHRINK | F_SEAL_WRITE);
  const descriptor huge =
      memory_of(std::size_t{2} << 20, MFD_HUGETLB, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  struct sent {
    const char* what;
    const descriptor& fd;
    std::string why;
  };
  const sent cases[] = {
      {"a file", file, path},
      {"a directory", directory, "it is " + folder},
      {"a path", path_only, "it is " + folder},
      {"a socket", one_end, "it is socket:["},
      {"an eventfd", event, "anon_inode:[eventfd]"},
      {"a device", zeros, "it is /dev/zero"},
      {"less memory than it says", small, "holds 128 control blocks"},
      {"memory that cannot be written", read_only, "cannot be mapped"},
      {"huge pages", huge, "huge pages"},
  };
  for (const sent& c : cases) {
    SCOPED_TRACE(c.what);
    if (!c.fd) {
      std::printf("skipped: this machine has no %s\n", c.what);
      continue;
    }
    const int before = copies_of(c.fd.get());
    fake_loader liar;
    liar.how.descriptors = {c.fd.get()};
    liar.start();
    {
      asio_pulse::io_context io{opts(liar)};
      EXPECT_TRUE(refuses(io, c.why));
    }
    liar.stop();
    EXPECT_TRUE(eventually([&] { return copies_of(c.fd.get()) == before; }));
  }
}

TEST_F(hints, a_flood_of_descriptors_never_arrives) {
  int pipes[2];
  ASSERT_EQ(::pipe2(pipes, O_CLOEXEC), 0);
  const descriptor reading(pipes[0]);
  const descriptor writing(pipes[1]);
  const std::vector<int> flood(253, reading.get());  // the most that the kernel lets pass
  {
    fake_loader liar;
    liar.how.descriptors = flood;
    liar.start();
    asio_pulse::io_context io{opts(liar)};
    EXPECT_TRUE(refuses(io, "more than one descriptor"));
  }
  {
    fake_loader liar;
    liar.how.more_on_attach = flood;
    liar.start();
    asio_pulse::io_context io{opts(liar)};
    EXPECT_TRUE(refuses(io, "descriptors that were not requested"));
  }
  // Descriptors in a socket's queue are closed with the socket. The two ends of the pipe look
  // alike.
  EXPECT_TRUE(eventually([&] { return copies_of(reading.get()) == 2; }));
}

/// The beginning of Linux's structure for BPF_MAP_CREATE, for systems without <linux/bpf.h>.
struct map_attributes {
  std::uint32_t type;
  std::uint32_t key_size = 4;
  std::uint32_t value_size = sizeof(asio_pulse_scb);
  std::uint32_t max_entries = ASIO_PULSE_SLOT_COUNT;
  std::uint32_t flags = 1U << 10;  // BPF_F_MMAPABLE
};

TEST_F(hints, of_bpf_maps_an_array_of_blocks_is_taken_and_no_other) {
  constexpr int map_create = 0;
  const auto made = [](map_attributes a) {
    return descriptor(static_cast<int>(::syscall(SYS_bpf, map_create, &a, sizeof a)));
  };
  const descriptor array = made({.type = 2});
  if (!array) GTEST_SKIP() << "no BPF map can be made here: " << std::strerror(errno);
  const descriptor hash = made({.type = 1, .flags = 0});
  const descriptor other_elements = made({.type = 2, .value_size = 64});
  const descriptor fewer = made({.type = 2, .max_entries = 100});
  const descriptor unmappable = made({.type = 2, .flags = 0});
  const auto refused = [this](const descriptor& map, const char* why) {
    fake_loader liar;
    liar.how.descriptors = {map.get()};
    liar.start();
    asio_pulse::io_context io{opts(liar)};
    return refuses(io, why);
  };
  EXPECT_TRUE(refused(hash, "BPF map of type 1 with elements of 128 bytes"));
  EXPECT_TRUE(refused(other_elements, "elements of 64 bytes"));
  EXPECT_TRUE(refused(fewer, "holds 100 control blocks"));
  EXPECT_TRUE(refused(unmappable, "cannot be mapped"));

  loader.how.descriptors = {array.get()};
  loader.start();
  void* const at = ::mmap(nullptr, array_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, array.get(), 0);
  ASSERT_NE(at, MAP_FAILED);
  static_cast<asio_pulse_system*>(at)->mode = ASIO_PULSE_MODE_NONE;
  asio_pulse::io_context io{opts()};
  EXPECT_TRUE(attached(io));
  ::munmap(at, array_bytes);
}

TEST_F(hints, a_file_system_that_never_answers_is_not_asked) {
  silent_file_system files;
  if (!files.mounted()) GTEST_SKIP() << "no file system of our own can be mounted here";
  loader.how.descriptors = {files.file()};
  loader.start();
  asio_pulse::io_context io{opts()};
  EXPECT_TRUE(refuses(io, "control_blocks, and must be a memory file"));
  EXPECT_EQ(files.asked(), 0);
}

// ---- silence

TEST_F(hints, no_worker_ever_waits_for_a_silent_loader) {
  loader.how.silent = true;
  loader.start();
  asio_pulse::io_context io{opts()};
  std::chrono::nanoseconds longest{};
  auto last = std::chrono::steady_clock::now();
  int slow = 0;
  EXPECT_TRUE(run_until(io, [&, end = last + 1500ms]() mutable {
    const auto now = std::chrono::steady_clock::now();
    if (now - last > 300ms) ++slow;
    longest = std::max<std::chrono::nanoseconds>(longest, now - last);
    last = now;
    return now > end;
  }));
  EXPECT_EQ(slow, 0) << longest.count() << " ns";
}

// ---- forks, and the end of workers

TEST_F(hints, an_exception_through_run_gives_everything_back) {
  loader.start();
  asio_pulse::io_context io{opts()};
  ASSERT_TRUE(attached(io));
  std::function<void()> throws_when_attached = [&] {
    if (asio_pulse::hooks::this_thread().block != nullptr) throw std::runtime_error("thrown");
    asio::post(io, throws_when_attached);
  };
  asio::post(io, throws_when_attached);
  io.restart();
  EXPECT_THROW(io.run(), std::runtime_error);
  EXPECT_EQ(asio_pulse::hooks::this_thread().block, nullptr);
  EXPECT_TRUE(eventually([&] { return loader.attached() == 0; }));
}

TEST_F(hints, several_workers_each_have_their_own_block) {
  loader.start();
  asio_pulse::io_context io{opts()};
  std::mutex mutex;
  std::vector<const asio_pulse_scb*> blocks;
  auto guard = asio::make_work_guard(io);
  std::vector<std::thread> threads;
  std::function<void()> look = [&] {
    {
      const std::lock_guard lock(mutex);
      const asio_pulse_scb* const block = asio_pulse::hooks::this_thread().block;
      if (block != nullptr && std::find(blocks.begin(), blocks.end(), block) == blocks.end()) {
        blocks.push_back(block);
      }
      if (blocks.size() == 3) {
        guard.reset();
        return;
      }
    }
    asio::post(io, look);
  };
  for (int n = 0; n < 4; ++n) asio::post(io, look);
  run_on(io, 3);
  EXPECT_EQ(blocks.size(), 3U);
  EXPECT_TRUE(eventually([&] { return loader.attached() == 0; }));
}

TEST_F(hints, a_nested_run_keeps_the_outer_ones_block) {
  loader.start();
  asio_pulse::io_context io{opts()};
  ASSERT_TRUE(attached(io));
  EXPECT_TRUE(run_attached(io, [&](const asio_pulse_scb* block) {
    asio_pulse::io_context inner{opts()};
    asio::post(inner, [&] { EXPECT_EQ(asio_pulse::hooks::this_thread().block, block); });
    inner.run();
    EXPECT_EQ(asio_pulse::hooks::this_thread().block, block);
    io.poll();
    EXPECT_EQ(asio_pulse::hooks::this_thread().block, block);
    return true;
  }));
}

#if !defined(PULSE_TEST_TSAN)  // it does not follow forks
TEST_F(hints, a_forked_child_has_nothing_of_its_parents) {
  loader.start();
  asio_pulse::io_context io{opts()};
  ASSERT_TRUE(attached(io));
  EXPECT_TRUE(run_attached(io, [&](const asio_pulse_scb* block) {
    const std::uint64_t acks = block->acks;
    io.notify_fork(asio::execution_context::fork_prepare);
    const pid_t child = ::fork();
    if (child == 0) {
      io.notify_fork(asio::execution_context::fork_child);
      int fault = asio_pulse::hooks::this_thread().block != nullptr ? 1 : 0;
      std::atomic_ref(const_cast<asio_pulse_scb*>(block)->preempt_seq).fetch_add(1);
      burn(100us);
      if (asio_pulse::hooks::this_thread().block != nullptr) fault |= 2;
      if (block->acks != acks) fault |= 4;
      ::_exit(fault);
    }
    io.notify_fork(asio::execution_context::fork_parent);
    int status = -1;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
    EXPECT_EQ(asio_pulse::hooks::this_thread().block, block);
    return true;
  }));
}
#endif

TEST_F(hints, workers_come_and_go_while_the_loader_does) {
  asio_pulse::io_context io{opts()};
  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> ran{0};
  std::uint64_t posted = 0;
  const auto guard = asio::make_work_guard(io);
  std::vector<std::thread> threads;
  for (int n = 0; n < 3; ++n) {
    threads.emplace_back([&] {
      while (!done) {
        io.run_for(3ms);
      }
    });
  }
  const auto end = std::chrono::steady_clock::now() + (thread_sanitizer ? 4s : 2s);
  while (std::chrono::steady_clock::now() < end) {
    loader.start();
    for (int n = 0; n < 200; ++n, ++posted) {
      asio::post(io, [&] {
        burn(20us);
        ++ran;
      });
      if (n % 50 == 0) loader.hint(1 + static_cast<std::uint32_t>(n) % 100);
    }
    std::this_thread::sleep_for(10ms);
    loader.stop();
  }
  EXPECT_TRUE(eventually([&] { return ran.load() == posted; }));
  done = true;
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(ran.load(), posted);
}

// ---- without hints nothing changes

TEST_F(hints, an_idle_source_changes_nothing) {
  if (always_preempt()) GTEST_SKIP() << "in this build it depends on CPU time which task continues";
  auto o = opts(hint_source::off);
  o.quantum = 1h;  // no decisions that depend on the clock
  const std::vector<int> without = fixed_program(o);
  loader.start();
  loader.press(100);
  o.hints = hint_source::kernel;
  EXPECT_EQ(without, fixed_program(o));
  EXPECT_GT(without.size(), 5000U);
}

// ---- without a scheduler

TEST_F(hints, automatic_falls_back_to_what_the_kernel_tells_everybody) {
  asio_pulse::io_context io{opts(hint_source::automatic)};
  asio_pulse::hint_status status;
  ASSERT_TRUE(run_until(io, [&] {
    status = asio_pulse::current_hints();
    const auto says = [&](const char* what) { return status.why.find(what) != std::string::npos; };
    // If a source was lost a moment ago, the hub tries again only after a pause.
    const bool alone = says("no scx_pulse serves") || says("scx_pulse has ended");
    return alone && (status.source != hint_source::off || says("/proc"));
  })) << status.why;
  if (status.source == hint_source::off) GTEST_SKIP() << status.why;
  EXPECT_EQ(status.source, hint_source::local);
  EXPECT_EQ(status.workers, 1U);
}

TEST_F(hints, automatic_prefers_a_loader_that_comes_later) {
  asio_pulse::io_context io{opts(hint_source::automatic)};
  bool started = false;
  EXPECT_TRUE(run_until(io, [&, n = 0]() mutable {
    if (++n == 1000) {
      loader.start();
      started = true;
    }
    return started && asio_pulse::current_hints().source == hint_source::kernel;
  }));
}

TEST_F(hints, others_who_want_the_cpu_are_noticed_without_a_scheduler) {
  const competing_load load;
  asio_pulse::io_context io{opts(hint_source::local)};
  const bool hinted = run_until(io, [&] {
    burn(200us);
    return io.stats().hints >= 3 ||
           (asio_pulse::current_hints().source == hint_source::off &&
            asio_pulse::current_hints().why.find("/proc") != std::string::npos);
  });
  const auto status = asio_pulse::current_hints();
  if (status.why.find("/proc/pressure/cpu:") != std::string::npos) GTEST_SKIP() << status.why;
  EXPECT_TRUE(hinted) << status.why;
}

}  // namespace
