// SPDX-License-Identifier: BSL-1.0

// Shards: run(), stop(), finish(), join(), exceptions and destruction with messages under way;
// messages in order, once, bounded; placement; accepting in both modes; what is refused.

#include <support/io_uring.hpp>
#include <support/scenario.hpp>
#include <support/stuck.hpp>
//
#include <asio_pulse/sharded.hpp>
#include <asio_pulse/sharded_acceptor.hpp>
#include <asio_pulse/sharded_context.hpp>

#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/use_future.hpp>
#include <boost/asio/write.hpp>

#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>

namespace {
std::atomic<bool> refuse_reuse_port{false};
std::atomic<int> refuse_accepts{0};
std::atomic<unsigned> refuse_accepts_on{0};  // the listener's port
}  // namespace

// As a kernel without SO_REUSEPORT.
extern "C" int setsockopt(int fd, int level, int name, const void* value, socklen_t size) {
  if (refuse_reuse_port && level == SOL_SOCKET && name == SO_REUSEPORT) {
    errno = ENOPROTOOPT;
    return -1;
  }
  return static_cast<int>(::syscall(SYS_setsockopt, fd, level, name, value, size));
}
// As a process that has no descriptors left. Other threads of the tests may accept as well.
extern "C" int accept4(int fd, sockaddr* address, socklen_t* size, int flags) {
  sockaddr_in own{};
  socklen_t room = sizeof own;
  if (refuse_accepts > 0 && ::getsockname(fd, reinterpret_cast<sockaddr*>(&own), &room) == 0 &&
      own.sin_family == AF_INET && ntohs(own.sin_port) == refuse_accepts_on) {
    --refuse_accepts;
    errno = EMFILE;
    return -1;
  }
  return static_cast<int>(::syscall(SYS_accept4, fd, address, size, flags));
}

namespace {

namespace asio = boost::asio;
using namespace pulse_test;
using asio::ip::tcp;
using asio_pulse::accept_mode;
using asio_pulse::sharded;
using asio_pulse::sharded_acceptor;
using asio_pulse::sharded_context;
using testing::HasSubstr;

asio_pulse::shard_options quiet_shards() { return {.context = steady()}; }

std::size_t entries(const char* folder) {
  std::size_t n = 0;
  for ([[maybe_unused]] const auto& e : std::filesystem::directory_iterator(folder)) ++n;
  return n;
}
/// The watchdog keeps up to so many files in /proc open. A context has three descriptors of its own,
/// and these tests make more than one, or many connections.
constexpr std::size_t watchdogs = 3;
std::size_t descriptor_count() { return entries("/proc/self/fd"); }
std::size_t thread_count() { return entries("/proc/self/task"); }

/// What the process makes once, for its first context.
void first_context() {
  sharded_context first(2, quiet_shards());
  first.finish();
  first.run();
}

template <class F>
std::string refusal(F f) {
  try {
    f();
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
  return "not refused";
}

/// Counts its instances, to see that functions are destroyed.
class living {
 public:
  explicit living(std::atomic<int>& alive) : alive_(&alive) { ++*alive_; }
  living(const living& other) : alive_(other.alive_) { ++*alive_; }
  living& operator=(const living&) = delete;
  ~living() { --*alive_; }

 private:
  std::atomic<int>* alive_;
};

/// Runs shards on a thread. If the test has not waited for the end, as after an assertion that failed, the
/// destructor makes them end.
class shards_thread {
 public:
  explicit shards_thread(sharded_context& s)
      : shards_(s), done_(std::async(std::launch::async, [&s] { return s.run(); })) {}
  ~shards_thread() {
    if (done_.valid()) shards_.stop();
  }
  shards_thread(const shards_thread&) = delete;
  shards_thread& operator=(const shards_thread&) = delete;
  std::size_t get() { return done_.get(); }

 private:
  sharded_context& shards_;
  std::future<std::size_t> done_;
};

class shards_of : public testing::TestWithParam<std::size_t> {
 protected:
  std::size_t count() const { return GetParam(); }
  sharded_context shards{GetParam(), quiet_shards()};
};
INSTANTIATE_TEST_SUITE_P(count, shards_of, testing::Values(1, 2, 8),
                         testing::PrintToStringParamName());

// ---- messages

TEST_P(shards_of, every_pair_is_ordered_and_nothing_is_lost) {
  constexpr int each = 500;
  // seen[receiver][sender]: the next number. Only the receiver uses its row.
  sharded<std::vector<int>> seen(shards, std::vector<int>(count()));
  std::atomic<int> wrong{0};
  struct source {
    sharded_context& shards;
    sharded<std::vector<int>>& seen;
    std::atomic<int>& wrong;
    std::size_t self;
    std::vector<int> next;

    // Sends until a mailbox is full, and comes back for the rest.
    void operator()() {
      bool all = true;
      for (std::size_t to = 0; to != shards.size(); ++to) {
        for (; next[to] != each; ++next[to]) {
          const bool sent = shards.try_post(to, [this, n = next[to]] {
            if (seen.local()[self]++ != n) ++wrong;
          });
          if (!sent) break;
        }
        all = all && next[to] == each;
      }
      if (!all) asio::post(shards.shard(self), std::ref(*this));
    }
  };
  std::vector<source> sources;
  for (std::size_t i = 0; i != count(); ++i) {
    sources.push_back({shards, seen, wrong, i, std::vector<int>(count())});
  }
  for (std::size_t i = 0; i != count(); ++i) asio::post(shards.shard(i), std::ref(sources[i]));
  shards.finish();
  const std::size_t handlers = shards.run();
  EXPECT_EQ(wrong, 0);
  for (std::size_t i = 0; i != count(); ++i) {
    EXPECT_THAT(seen.at(i), testing::Each(each)) << "on shard " << i;
  }
  // The messages and the sources' turns, and no turn of the library's own.
  EXPECT_GE(handlers, count() * count() * each + count());
  std::uint64_t received = 0;
  for (std::size_t i = 0; i != count(); ++i) received += shards.stats(i).received;
  EXPECT_EQ(received, count() * (count() - 1) * each);
}

TEST_P(shards_of, a_message_is_counted_as_one_handler) {
  const std::size_t to = count() - 1;
  asio::post(shards.shard(0), [&] {
    for (int i = 0; i != 10; ++i) shards.post(to, [] {});
  });
  shards.finish();
  EXPECT_EQ(shards.run(), 11U);
}

TEST_P(shards_of, a_request_returns_to_its_task_and_its_shard) {
  sharded<int> calls(shards);
  const asio_pulse::task t(shards.shard(0), unlimited("asks"));
  int answers = 0;
  asio_pulse::co_spawn(
      t,
      [&]() -> asio::awaitable<void> {
        for (int i = 0; i != 300; ++i) {
          const std::size_t to = static_cast<std::size_t>(i) % count();
          const std::size_t ran_on = co_await shards.on(to, [&] {
            ++calls.local();
            return shards.this_shard().value();
          });
          EXPECT_EQ(ran_on, to);
          EXPECT_EQ(shards.this_shard(), 0U);
          EXPECT_EQ(asio_pulse::this_task::id(), t.id());
          ++answers;
        }
      },
      asio::detached);
  shards.finish();
  shards.run();
  EXPECT_EQ(answers, 300);
  int sum = 0;
  for (std::size_t i = 0; i != count(); ++i) sum += calls.at(i);
  EXPECT_EQ(sum, 300);
}

TEST_P(shards_of, what_a_request_throws_comes_to_the_one_who_asks) {
  std::string caught;
  asio::co_spawn(
      shards.shard(0),
      [&]() -> asio::awaitable<void> {
        try {
          co_await shards.on(count() - 1, [] { throw std::runtime_error("over there"); });
        } catch (const std::runtime_error& e) {
          caught = e.what();
        }
      },
      asio::detached);
  shards.finish();
  shards.run();
  EXPECT_EQ(caught, "over there");
}

TEST_P(shards_of, requests_from_other_threads_and_other_contexts) {
  shards_thread r(shards);
  // A future: completes on a thread of a shard. A context of the program's: on that.
  EXPECT_EQ(shards
                .on(
                    count() - 1, [&] { return shards.this_shard(); }, asio::use_future)
                .get(),
            count() - 1);
  asio::io_context theirs;
  bool on_theirs = false;
  asio::co_spawn(
      theirs,
      [&]() -> asio::awaitable<void> {
        const int v = co_await shards.on(0, [] { return 7; });
        on_theirs =
            v == 7 && !shards.this_shard() && theirs.get_executor().running_in_this_thread();
      },
      asio::detached);
  theirs.run();
  EXPECT_TRUE(on_theirs);
  shards.join();
  r.get();
}

TEST_P(shards_of, posts_of_other_threads_are_ordered) {
  constexpr int each = 2000;
  std::array<int, 3> next{};  // used by the last shard alone
  int wrong = 0;
  shards_thread r(shards);
  on_threads(3, [&](std::size_t n) {
    for (int i = 0; i != each; ++i) {
      shards.post(count() - 1, [&, n, i] {
        if (next[n]++ != i) ++wrong;
      });
    }
  });
  shards.join();
  EXPECT_EQ(r.get(), 3U * each);
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(next, (std::array<int, 3>{each, each, each}));
}

TEST_P(shards_of, a_broadcast_comes_to_every_shard_once) {
  sharded<int> calls(shards);
  asio::post(shards.shard(0), [&] { shards.broadcast([&] { ++calls.local(); }); });
  shards.broadcast([&] { ++calls.local(); });  // from a thread that is no shard
  shards.finish();
  shards.run();
  for (std::size_t i = 0; i != count(); ++i) EXPECT_EQ(calls.at(i), 2);
}

TEST(shards, handlers_are_counted_while_the_library_is_switched_off) {
  asio_pulse::shard_options o = quiet_shards();
  o.context.enabled = false;
  sharded_context shards(2, o);
  asio::post(shards.shard(0), [&] {
    for (int i = 0; i != 10; ++i) shards.post(1, [] {});
  });
  shards.finish();
  EXPECT_EQ(shards.run(), 11U);
}

TEST(shards, a_full_mailbox_refuses_and_the_function_is_not_moved_from) {
  asio_pulse::shard_options o = quiet_shards();
  o.mailbox = 4;
  sharded_context shards(2, o);
  std::atomic<int> ran{0};
  std::promise<void> blocked;
  std::promise<void> go;
  asio::post(shards.shard(1), [&, gone = go.get_future().share()] {
    blocked.set_value();
    gone.wait();
  });
  int sent = 0;
  asio::post(shards.shard(0), [&] {
    blocked.get_future().wait();  // the other one does not look into its mailbox
    auto text = std::make_shared<int>(5);
    auto f = [&ran, text] { ran += *text; };
    while (shards.try_post(1, f)) ++sent;
    EXPECT_EQ(text.use_count(), sent + 2) << "each is a copy";
    EXPECT_FALSE(shards.try_post(1, std::move(f)));
    EXPECT_EQ(text.use_count(), sent + 2) << "nothing was moved";
    f();
    const int before = ran;
    try {
      shards.post(1, f);
      ADD_FAILURE() << "not refused";
    } catch (const boost::system::system_error& e) {
      EXPECT_EQ(e.code(), asio_pulse::error::mailbox_full);
    }
    EXPECT_THROW(shards.broadcast([&ran] { ran += 100; }), boost::system::system_error);
    EXPECT_EQ(before, ran);
    go.set_value();
  });
  shards.finish();
  shards.run();
  EXPECT_EQ(sent, 4);
  EXPECT_EQ(ran, 5 + 4 * 5) << "all that was accepted, and no copy of the broadcast";
}

TEST(shards, a_refused_request_completes_with_the_error) {
  asio_pulse::shard_options o = quiet_shards();
  o.mailbox = 2;
  sharded_context shards(2, o);
  int answered = 0;
  int refused = 0;
  for (int i = 0; i != 50; ++i) {
    asio::co_spawn(
        shards.shard(0),
        [&]() -> asio::awaitable<void> {
          try {
            co_await shards.on(1, [] {});
            ++answered;
          } catch (const boost::system::system_error& e) {
            EXPECT_EQ(e.code(), asio_pulse::error::mailbox_full);
            ++refused;
          }
        },
        asio::detached);
  }
  shards.finish();
  shards.run();
  EXPECT_EQ(answered + refused, 50);
  EXPECT_GE(answered, 2);
}

TEST(shards, a_sender_that_is_faster_is_held_up) {
  asio_pulse::shard_options o = quiet_shards();
  o.mailbox = 8;
  sharded_context shards(2, o);
  std::atomic<int> accepted{0};
  int ran = 0;
  int most_behind = 0;
  std::function<void()> flood = [&] {
    while (accepted < 5000) {
      ++accepted;
      const bool sent = shards.try_post(1, [&] {
        ++ran;
        most_behind = std::max(most_behind, accepted.load() - ran);
        if (ran % 16 == 0) std::this_thread::yield();
      });
      if (!sent) {
        --accepted;
        asio::post(shards.shard(0), flood);
        return;
      }
    }
  };
  asio::post(shards.shard(0), flood);
  shards.finish();
  shards.run();
  EXPECT_EQ(ran, 5000);
  // 8 in the mailbox, 8 in the queue, and one that is living and not yet sent.
  EXPECT_LE(most_behind, 17);
}

TEST(shards, a_shard_is_only_woken_when_it_sleeps) {
  sharded_context shards(2, quiet_shards());
  asio::post(shards.shard(0), [&] {
    for (int i = 0; i != 200; ++i) shards.post(1, [] {});
  });
  std::promise<void> sent;
  // The receiver has its first turn when all 200 are there.
  asio::post(shards.shard(1), [&, f = sent.get_future().share()] { f.wait(); });
  asio::post(shards.shard(0), [&] { sent.set_value(); });
  shards.finish();
  shards.run();
  EXPECT_EQ(shards.stats(1).received, 200U);
  EXPECT_EQ(shards.stats(1).wakes, 1U);
}

TEST(shards, a_message_belongs_to_no_task_of_its_sender) {
  sharded_context shards(2, quiet_shards());
  const asio_pulse::task t(shards.shard(0), unlimited("sender"));
  std::uint64_t id = 99;
  asio_pulse::post(t, [&] { shards.post(1, [&] { id = asio_pulse::this_task::id(); }); });
  shards.finish();
  shards.run();
  EXPECT_EQ(id, 0U);
}

TEST(shards, this_shard_is_empty_elsewhere) {
  sharded_context a(2, quiet_shards());
  sharded_context b(1, quiet_shards());
  EXPECT_FALSE(a.this_shard());
  std::optional<std::size_t> in_a;
  std::optional<std::size_t> in_b = 5;
  asio::post(a.shard(1), [&] {
    in_a = a.this_shard();
    in_b = b.this_shard();
    b.post(0, [] {});  // as any other thread
  });
  a.finish();
  b.finish();
  a.run();
  EXPECT_EQ(in_a, 1U);
  EXPECT_FALSE(in_b);
  EXPECT_EQ(b.run(), 1U);
  EXPECT_THROW((void)sharded<int>(a).local(), std::logic_error);
}

// ---- the end

TEST_P(shards_of, stop_leaves_what_is_queued_and_restart_goes_on) {
  std::atomic<int> ran{0};
  for (std::size_t i = 0; i != count(); ++i) {
    asio::post(shards.shard(i), [&] { shards.stop(); });
    for (int n = 0; n != 100; ++n) asio::post(shards.shard(i), [&] { ++ran; });
  }
  shards.run();
  EXPECT_TRUE(shards.stopped());
  EXPECT_EQ(shards.run(), 0U) << "it is stopped";
  shards.restart();
  shards.finish();
  shards.run();
  while (ran < static_cast<int>(count()) * 100) {  // another stop() of those above
    shards.restart();
    shards.finish();
    shards.run();
  }
  EXPECT_EQ(ran, static_cast<int>(count()) * 100);
}

TEST_P(shards_of, join_waits_for_chains_between_shards) {
  int hops = 0;
  std::promise<void> started;
  std::function<void()> hop = [&] {
    if (++hops == 1) started.set_value();
    if (hops == 1000) return;
    shards.post(static_cast<std::size_t>(hops) % count(), hop);
  };
  shards_thread r(shards);
  shards.post(0, hop);
  started.get_future().wait();  // run() is active
  shards.join();
  EXPECT_EQ(hops, 1000);
  EXPECT_EQ(r.get(), 1000U);
}

TEST_P(shards_of, an_exception_leaves_run_and_nothing_else_is_lost) {
  std::atomic<int> ran{0};
  for (std::size_t i = 0; i != count(); ++i) {
    for (int n = 0; n != 50; ++n) {
      asio::post(shards.shard(i), [&, n, i] {
        ++ran;
        shards.post((i + 1) % count(), [&] { ++ran; });
        if (n % 10 == 9) throw n;
      });
    }
  }
  shards.finish();
  int thrown = 0;
  for (bool done = false; !done;) {
    try {
      shards.run();
      done = true;
    } catch (const int n) {
      EXPECT_EQ(n % 10, 9);
      ++thrown;
    }
  }
  EXPECT_EQ(thrown, static_cast<int>(count()) * 5);
  EXPECT_EQ(ran, static_cast<int>(count()) * 100);
}

TEST_P(shards_of, destruction_with_messages_and_requests_under_way) {
  std::atomic<int> alive{0};
  {
    sharded_context dying(count(), quiet_shards());
    shards_thread r(dying);
    std::atomic<int> started{0};
    for (std::size_t i = 0; i != count(); ++i) {
      asio::post(dying.shard(i), [&, i] {
        for (std::size_t to = 0; to != count(); ++to) {
          // A handler of one shard owns a timer and a socket of another.
          auto timer = std::make_shared<asio::steady_timer>(dying.shard(to), 1h);
          timer->async_wait([timer, c = living(alive)](boost::system::error_code) {});
          asio::co_spawn(
              dying.shard(i),
              [](sharded_context& s, std::size_t where, living c) -> asio::awaitable<void> {
                tcp::socket socket(s.shard(where), tcp::v4());
                // Not a temporary: GCC 12 destroys captures in the operand of co_await twice.
                const auto f = [c] {};
                for (;;) co_await s.on(where, f);
              }(dying, to, living(alive)),
              asio::detached);
        }
        ++started;
      });
    }
    while (started != static_cast<int>(count())) std::this_thread::yield();
    dying.stop();
    r.get();
  }
  EXPECT_EQ(alive, 0);
}

TEST_P(shards_of, never_run_and_destroyed) {
  std::atomic<int> alive{0};
  {
    sharded_context dying(count(), quiet_shards());
    dying.broadcast([c = living(alive)] {});
    (void)dying.on(
        0, [c = living(alive)] {}, asio::use_future);
    EXPECT_GT(alive, 0);
  }
  EXPECT_EQ(alive, 0);
}

TEST(shards, run_refuses_a_second_caller) {
  sharded_context shards(2, quiet_shards());
  shards_thread r(shards);
  std::promise<void> inside;
  shards.post(0, [&] { inside.set_value(); });
  inside.get_future().wait();
  EXPECT_THROW(shards.run(), std::logic_error);
  shards.join();
  r.get();
}

TEST(shards, stop_of_one_context_has_no_effect) {
  sharded_context shards(2, quiet_shards());
  shards_thread r(shards);
  std::promise<void> stopped;
  shards.post(1, [&] {
    shards.shard(1).stop();
    stopped.set_value();
  });
  stopped.get_future().wait();
  std::promise<void> ran;
  shards.post(1, [&] { ran.set_value(); });
  ran.get_future().wait();
  shards.join();
  r.get();
}

TEST(shards, descriptors_and_threads_are_back_where_they_were) {
  first_context();
  const std::size_t fds = descriptor_count();
  const std::size_t tasks = thread_count();
  for (int i = 0; i != 3; ++i) {
    sharded_context shards(8, quiet_shards());
    shards.broadcast([&] { shards.broadcast([] {}); });
    shards.finish();
    EXPECT_EQ(shards.run(), 8U + 64U);
  }
  EXPECT_LE(descriptor_count(), fds + watchdogs);
  // A thread that was joined is listed for a moment longer.
  EXPECT_TRUE(until([&] { return thread_count() <= tasks; })) << thread_count() << " threads";
}

// ---- what is refused

TEST(shards, bad_input_is_refused_by_name) {
  EXPECT_THAT(refusal([] { sharded_context(0); }),
              HasSubstr("number of shards must be at least 1"));
  EXPECT_THAT(refusal([] { sharded_context(65); }),
              HasSubstr("number of shards must be at most 64, not 65"));
  EXPECT_THAT(refusal([] { sharded_context(1, {.cpus = {4711}}); }),
              HasSubstr("shard_options.cpus: CPU 4711 does not exist"));
  EXPECT_THAT(refusal([] { sharded_context(1, {.mailbox = 0}); }),
              HasSubstr("shard_options.mailbox must be from 1 to 65536, not 0"));
  EXPECT_THAT(refusal([] { sharded_context(1, {.context = {.quantum = -1ns}}); }),
              HasSubstr("quantum"));
  EXPECT_THAT(refusal([] {
                sharded_context(1, {.placement = static_cast<asio_pulse::placement_rule>(9)});
              }),
              HasSubstr("shard_options.placement"));
  sharded_context shards(2, quiet_shards());
  EXPECT_THROW((void)shards.shard(2), std::out_of_range);
  EXPECT_THROW(shards.post(2, [] {}), std::out_of_range);
  EXPECT_THROW(sharded_acceptor(shards, {asio::ip::address_v4::loopback(), 0}, [](tcp::socket) {},
                                {.listener = 2}),
               std::out_of_range);
}

TEST(shards, as_many_as_the_process_may_use) {
  EXPECT_EQ(sharded_context().size(), sharded_context::usable_shards());
  EXPECT_GE(sharded_context::usable_shards(), 1U);
}

TEST(shards, threads_are_pinned_if_that_is_wanted) {
  for (const bool pinned : {false, true}) {
    asio_pulse::shard_options o = quiet_shards();
    o.pinned = pinned;
    sharded_context shards(2, o);
    sharded<int> cpus(shards);
    shards.broadcast([&] {
      cpu_set_t mine;
      CPU_ZERO(&mine);
      ASSERT_EQ(sched_getaffinity(0, sizeof mine, &mine), 0);
      cpus.local() = CPU_COUNT(&mine);
    });
    shards.finish();
    shards.run();
    for (std::size_t i = 0; i != 2; ++i) {
      if (pinned && !shards.stats(i).pinned) GTEST_SKIP() << "this system pins no threads";
      EXPECT_EQ(shards.stats(i).pinned, pinned);
      if (pinned) {
        EXPECT_EQ(cpus.at(i), 1);
      }
    }
  }
}

// ---- placement

TEST(shards, a_placement_function_that_throws_falls_back_and_is_counted) {
  asio_pulse::shard_options o = quiet_shards();
  std::atomic<int> calls{0};
  o.place = [&](const asio_pulse::placement_view& v) -> std::size_t {
    if (++calls % 2 == 0) throw std::runtime_error("no idea");
    return v.loads.size() - 1;
  };
  sharded_context shards(3, o);
  EXPECT_EQ(shards.place_index(), 2U);
  EXPECT_LT(shards.place_index(), 3U);
  EXPECT_EQ(shards.place_index(), 2U);
  EXPECT_EQ(shards.placement_failures(), 1U);
  EXPECT_EQ(shards.place_index("user 1"), shards.place_index("user 1"));
  EXPECT_EQ(&shards.place("user 1"), &shards.shard(shards.place_index("user 1")));
  shards.stop();
}

TEST(shards, a_stuck_shard_gets_no_new_work) {
  asio_pulse::shard_options o = quiet_shards();
  o.placement = asio_pulse::placement_rule::least_loaded;
  sharded_context shards(3, o);
  shards_thread r(shards);
  std::promise<void> stuck;
  std::promise<void> go;
  shards.post(1, [&] {
    stuck.set_value();
    go.get_future().wait();
  });
  stuck.get_future().wait();
  // Its measurement began and does not end, so its delay grows.
  while (shards.load(1).delay < 200ms) std::this_thread::sleep_for(10ms);
  // The two others are idle; what they have published may be late on a busy machine.
  while (shards.load(0).delay > 50ms || shards.load(2).delay > 50ms) std::this_thread::yield();
  EXPECT_NE(shards.place_index(), 1U);
  go.set_value();
  while (shards.load(1).delay >= 200ms) std::this_thread::sleep_for(10ms);
  shards.join();
  r.get();
}

// ---- accepting

struct accepting {
  std::size_t shards;
  accept_mode mode;
};
std::ostream& operator<<(std::ostream& o, const accepting& a) {
  return o << a.shards << (a.mode == accept_mode::one_listener ? "_one_listener" : "_reuse_port");
}

class acceptor_with : public testing::TestWithParam<accepting> {};
INSTANTIATE_TEST_SUITE_P(modes, acceptor_with,
                         testing::Values(accepting{1, accept_mode::reuse_port},
                                         accepting{2, accept_mode::reuse_port},
                                         accepting{8, accept_mode::reuse_port},
                                         accepting{1, accept_mode::one_listener},
                                         accepting{2, accept_mode::one_listener},
                                         accepting{8, accept_mode::one_listener}),
                         testing::PrintToStringParamName());

asio::awaitable<void> echo(tcp::socket socket) {
  std::array<char, 64> buffer{};
  boost::system::error_code ec;
  for (;;) {
    const std::size_t n = co_await socket.async_read_some(
        asio::buffer(buffer), asio::redirect_error(asio::use_awaitable, ec));
    if (ec) co_return;
    co_await asio::async_write(socket, asio::buffer(buffer, n), asio::use_awaitable);
  }
}

/// Sends a number, and returns whether it came back.
bool echoes(tcp::socket& s, int n) {
  int back = -1;
  asio::write(s, asio::buffer(&n, sizeof n));
  asio::read(s, asio::buffer(&back, sizeof back));
  return back == n;
}

TEST_P(acceptor_with, every_connection_is_served_once_on_its_shard) {
  constexpr int connections = 64;
  const auto& [count, mode] = GetParam();
  first_context();
  const std::size_t fds = descriptor_count();
  {
    sharded_context shards(count, quiet_shards());
    sharded<int> served(shards);
    std::atomic<int> wrong{0};
    std::set<std::pair<std::size_t, std::uint64_t>> tasks;  // ids are unique in a context
    std::mutex tasks_mutex;
    sharded_acceptor acceptor(
        shards, {asio::ip::address_v4::loopback(), 0},
        [&](tcp::socket s) {
          const std::size_t here = shards.this_shard().value();
          if (&asio::query(s.get_executor(), asio::execution::context) != &shards.shard(here))
            ++wrong;
          ++served.local();
          {
            const std::lock_guard lock(tasks_mutex);
            tasks.emplace(here, asio_pulse::this_task::id());
          }
          asio::co_spawn(shards.shard(here), echo(std::move(s)), asio::detached);
        },
        {.mode = mode});
    EXPECT_EQ(acceptor.mode(), mode);
    EXPECT_EQ(acceptor.why(), "");
    shards_thread r(shards);
    asio::io_context clients;
    std::vector<tcp::socket> sockets;
    for (int i = 0; i != connections; ++i) {
      sockets.emplace_back(clients).connect(acceptor.local_endpoint());
      EXPECT_TRUE(echoes(sockets.back(), i));
    }
    for (tcp::socket& s : sockets) EXPECT_TRUE(echoes(s, 7));
    sockets.clear();
    acceptor.close();
    shards.join();
    r.get();
    EXPECT_EQ(wrong, 0);
    EXPECT_EQ(acceptor.accepted(), static_cast<unsigned>(connections));
    EXPECT_EQ(acceptor.failures(), 0U);
    EXPECT_EQ(tasks.size(), static_cast<unsigned>(connections)) << "each connection is a task";
    int sum = 0;
    for (std::size_t i = 0; i != count; ++i) {
      sum += served.at(i);
      if (mode == accept_mode::one_listener) {
        EXPECT_EQ(served.at(i), connections / static_cast<int>(count)) << "round robin";
      }
    }
    EXPECT_EQ(sum, connections);
  }
  EXPECT_LE(descriptor_count(), fds + watchdogs);
}

TEST(sharded_acceptor, without_reuse_port_falls_back_and_says_so) {
  refuse_reuse_port = true;
  sharded_context shards(2, quiet_shards());
  std::atomic<int> accepted{0};
  sharded_acceptor acceptor(shards, {asio::ip::address_v4::loopback(), 0},
                            [&](tcp::socket) { ++accepted; });
  EXPECT_EQ(acceptor.mode(), accept_mode::one_listener);
  EXPECT_THAT(acceptor.why(), HasSubstr("SO_REUSEPORT was refused: Protocol not available"));
  EXPECT_THROW(sharded_acceptor(shards, {asio::ip::address_v4::loopback(), 0}, [](tcp::socket) {},
                                {.mode = accept_mode::reuse_port}),
               boost::system::system_error);
  refuse_reuse_port = false;
  shards_thread r(shards);
  asio::io_context client;
  tcp::socket s(client);
  s.connect(acceptor.local_endpoint());
  boost::system::error_code ec;
  char c = 0;
  asio::read(s, asio::buffer(&c, 1), ec);  // the handler has closed it
  EXPECT_EQ(ec, asio::error::eof);
  EXPECT_EQ(accepted, 1);
  acceptor.close();
  shards.join();
  r.get();
}

TEST(sharded_acceptor, an_address_in_use_is_an_error) {
  sharded_context shards(2, quiet_shards());
  tcp::acceptor other(shards.shard(0), {asio::ip::address_v4::loopback(), 0});
  try {
    sharded_acceptor(shards, other.local_endpoint(), [](tcp::socket) {});
    ADD_FAILURE() << "not refused";
  } catch (const boost::system::system_error& e) {
    EXPECT_EQ(e.code(), asio::error::address_in_use);
  }
}

TEST(sharded_acceptor, goes_on_when_there_are_descriptors_again) {
  sharded_context shards(2, quiet_shards());
  sharded_acceptor acceptor(shards, {asio::ip::address_v4::loopback(), 0},
                            [&](tcp::socket s) {
                              asio::co_spawn(shards.shard(shards.this_shard().value()),
                                             echo(std::move(s)), asio::detached);
                            },
                            {.mode = accept_mode::one_listener});
  refuse_accepts_on = acceptor.local_endpoint().port();
  refuse_accepts = 2;
  shards_thread r(shards);
  asio::io_context client;
  tcp::socket s(client);
  s.connect(acceptor.local_endpoint());
  EXPECT_TRUE(echoes(s, 1));
  EXPECT_EQ(acceptor.failures(), 2U);
  s.close();
  acceptor.close();
  shards.join();
  r.get();
}

TEST(sharded_acceptor, a_handler_that_throws_leaves_run_and_accepting_goes_on) {
  for (const accept_mode mode : {accept_mode::reuse_port, accept_mode::one_listener}) {
    sharded_context shards(2, quiet_shards());
    std::atomic<int> calls{0};
    sharded_acceptor acceptor(shards, {asio::ip::address_v4::loopback(), 0},
                              [&](tcp::socket) {
                                if (++calls == 1) throw std::runtime_error("the first");
                              },
                              {.mode = mode});
    asio::io_context client;
    tcp::socket first(client);
    first.connect(acceptor.local_endpoint());
    EXPECT_THROW(shards.run(), std::runtime_error);
    shards_thread r(shards);
    tcp::socket second(client);
    second.connect(acceptor.local_endpoint());
    while (calls != 2) std::this_thread::yield();
    acceptor.close();
    shards.join();
    r.get();
  }
}

}  // namespace
