// SPDX-License-Identifier: BSL-1.0

// What a check does: where it suspends a handler, where it must not, and that it counts why.

#include "automatic.hpp"
//
#include <asio_pulse/mutex.hpp>

#include <boost/asio/bind_executor.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/strand.hpp>

#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <threads.h>

#include <cerrno>
#include <condition_variable>
#include <cstdlib>
#include <latch>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using namespace automatic;
using asio_pulse::statistics;

TEST(automatic_checkpoint, suspends_a_handler_that_knows_nothing_of_it) {
  asio_pulse::io_context io{eager()};
  std::string order;
  int others = 0;
  asio::post(io, asio_pulse::preemptible([&] {
               order += 'a';
               asio::post(io, [&] {
                 order += 'b';
                 ++others;
               });
               EXPECT_TRUE(checked_until_changed(others));
               order += 'c';
             }));
  io.run();
  EXPECT_EQ(order, "abc");
  const statistics s = io.stats();
  EXPECT_GE(s.automatic_suspensions, 1U);
  EXPECT_GE(s.automatic_checks, s.automatic_suspensions);
}

TEST(automatic_checkpoint, only_counts_off_a_fiber) {
  asio_pulse::io_context io{eager()};
  int others = 0;
  asio::post(io, [&] {
    asio::post(io, [&] { ++others; });
    checked_loop(100);
    EXPECT_EQ(others, 0);
  });
  io.run();
  const statistics s = io.stats();
  EXPECT_EQ(s.automatic_checks, 100U);
  EXPECT_EQ(s.automatic_suspensions, 0U);
  check();  // in no handler at all
  EXPECT_EQ(io.stats().automatic_checks, 100U);
}

TEST(automatic_checkpoint, does_nothing_in_shadow_mode) {
  auto o = eager();
  o.shadow = true;
  asio_pulse::io_context io{o};
  asio::post(io, asio_pulse::preemptible([] { checked_loop(); }));
  io.run();
  EXPECT_EQ(io.stats().automatic_suspensions, 0U);
  EXPECT_EQ(io.stats().automatic_checks, 50U);
}

// ---- locks

TEST(automatic_checkpoint, waits_while_a_mutex_is_held) {
  std::mutex m;
  const statistics s = suspended_only_around([&](auto inside) {
    const std::lock_guard lock(m);
    inside();
  });
  EXPECT_GE(s.automatic_refused_lock, 40U);
}

TEST(automatic_checkpoint, waits_for_the_last_of_several_locks) {
  std::mutex one;
  std::recursive_timed_mutex two;
  std::shared_mutex three;
  (void)suspended_only_around([&](auto inside) {
    const std::lock_guard lock(one);
    {
      const std::scoped_lock more(two, three);
      two.lock();
      two.unlock();
    }
    inside();
  });
}

TEST(automatic_checkpoint, waits_while_a_lock_of_any_kind_is_held) {
  const auto held = [](auto take, auto give) {
    const statistics s = suspended_only_around([&](auto inside) {
      take();
      inside();
      give();
    });
    EXPECT_GE(s.automatic_refused_lock, 40U);
  };
  std::mutex m;
  held([&] { EXPECT_TRUE(m.try_lock()); }, [&] { m.unlock(); });
  std::timed_mutex t;
  held([&] { EXPECT_TRUE(t.try_lock_for(1s)); }, [&] { t.unlock(); });
  std::shared_timed_mutex shared;
  held([&] { shared.lock_shared(); }, [&] { shared.unlock_shared(); });
  held([&] { shared.lock(); }, [&] { shared.unlock(); });
  held([&] { EXPECT_TRUE(shared.try_lock_shared()); }, [&] { shared.unlock_shared(); });
  held([&] { EXPECT_TRUE(shared.try_lock_for(1s)); }, [&] { shared.unlock(); });
  pthread_spinlock_t spin;
  ASSERT_EQ(pthread_spin_init(&spin, PTHREAD_PROCESS_PRIVATE), 0);
  held([&] { pthread_spin_lock(&spin); }, [&] { pthread_spin_unlock(&spin); });
  held([&] { EXPECT_EQ(pthread_spin_trylock(&spin), 0); }, [&] { pthread_spin_unlock(&spin); });
  mtx_t c11;
  ASSERT_EQ(mtx_init(&c11, mtx_plain), thrd_success);
  held([&] { mtx_lock(&c11); }, [&] { mtx_unlock(&c11); });
  held([&] { flockfile(stdout); }, [&] { funlockfile(stdout); });
}

TEST(automatic_checkpoint, is_not_held_up_by_a_lock_that_it_did_not_get) {
  std::mutex m;
  const std::lock_guard lock(m);
  asio_pulse::io_context io{eager()};
  std::thread runner([&] {
    int others = 0;
    asio::post(io, asio_pulse::preemptible([&] {
                 EXPECT_FALSE(m.try_lock());
                 asio::post(io, [&] { ++others; });
                 EXPECT_TRUE(checked_until_changed(others));
               }));
    io.run();
  });
  runner.join();
}

TEST(automatic_checkpoint, is_not_held_up_by_a_lock_of_another_handler) {
  asio_pulse::io_context io{eager()};
  std::mutex m;
  int others = 0;
  asio::post(io, [&] { m.lock(); });  // and another handler unlocks it
  asio::post(io, asio_pulse::preemptible([&] {
               asio::post(io, [&] { ++others; });
               EXPECT_TRUE(checked_until_changed(others));
             }));
  asio::post(io, [&] { m.unlock(); });
  io.run();
}

TEST(automatic_checkpoint, is_held_up_by_a_lock_after_one_too_many_was_given_back) {
  std::thread([] {  // whose count is wrong from then on
    asio_pulse::io_context io{eager()};
    std::mutex handed_over, m;
    handed_over.lock();
    int others = 0;
    asio::post(io, asio_pulse::preemptible([&] {
                 handed_over.unlock();
                 const std::lock_guard lock(m);
                 asio::post(io, [&] { ++others; });
                 checked_loop();
                 EXPECT_EQ(others, 0);
               }));
    io.run();
  })
      .join();
}

TEST(automatic_checkpoint, is_held_up_by_its_lock_after_it_gave_back_that_of_another_handler) {
  std::thread([] {  // whose count is wrong from then on
    asio_pulse::io_context io{eager()};
    std::mutex handed_over, m;
    handed_over.lock();
    int others = 0;
    asio::post(io, asio_pulse::preemptible([&] {
                 const std::lock_guard lock(m);
                 handed_over.unlock();
                 asio::post(io, [&] { ++others; });
                 checked_loop();
                 EXPECT_EQ(others, 0);
               }));
    io.run();
  })
      .join();
}

TEST(automatic_checkpoint, is_not_held_up_by_locks_that_were_given_back_in_any_order) {
  (void)suspended_only_around([](auto inside) {
    std::mutex a, b, c;
    a.lock();
    b.lock();
    a.unlock();
    c.lock();
    b.unlock();
    inside();
    c.unlock();
  });
}

TEST(automatic_checkpoint, keeps_the_count_of_a_handler_that_was_suspended_with_a_lock) {
  asio_pulse::io_context io{eager()};
  std::mutex m;
  int others = 0;
  asio::post(io, asio_pulse::preemptible([&] {
               m.lock();
               asio::post(io, asio_pulse::preemptible([&] {
                            int third = 0;
                            asio::post(io, [&] { ++third; });
                            EXPECT_TRUE(checked_until_changed(third));  // it has no lock itself
                            ++others;
                          }));
               yield_deep_down(1, others);  // the program's own checkpoint: it knows of the lock
               int more = 0;
               asio::post(io, [&] { ++more; });
               checked_loop();
               EXPECT_EQ(more, 0);
               m.unlock();
               EXPECT_TRUE(checked_until_changed(more));
             }));
  io.run();
}

int slow_table() {
  static const int table = [] {
    checked_loop();
    return 7;
  }();
  return table;
}

TEST(automatic_checkpoint, waits_for_the_end_of_a_statics_initialisation) {
  asio_pulse::io_context io{eager()};
  int right = 0;
  for (int i = 0; i < 3; ++i) {
    asio::post(io, asio_pulse::preemptible([&] {
                 right += slow_table() == 7 ? 1 : 0;
                 checked_loop();
               }));
  }
  io.run();
  EXPECT_EQ(right, 3);
  EXPECT_GE(io.stats().automatic_refused_lock, 40U);
  EXPECT_GE(io.stats().automatic_suspensions, 3U);
}

TEST(automatic_checkpoint, counts_a_static_whose_initialisation_throws_as_over) {
  (void)suspended_only_around([](auto inside) {
    try {
      static const int never = [&]() -> int {
        inside();
        throw std::runtime_error("not today");
      }();
      (void)never;
    } catch (const std::runtime_error&) {  // NOLINT(bugprone-empty-catch): expected
    }
  });
}

TEST(automatic_checkpoint, waits_for_the_end_of_call_once_also_if_it_throws) {
  std::once_flag flag;
  for (int i = 0; i < 2; ++i) {
    (void)suspended_only_around([&](auto inside) {
      try {
        std::call_once(flag, [&] {
          inside();
          throw 1;
        });
      } catch (int) {  // NOLINT(bugprone-empty-catch): expected
      }
    });
  }
}

TEST(automatic_checkpoint, waits_in_a_callback_under_a_lock_of_the_c_library) {
  (void)suspended_only_around([](auto inside) {
    bool first = true;
    auto once = [&] {
      if (std::exchange(first, false)) inside();
    };
    dl_iterate_phdr(
        [](dl_phdr_info*, std::size_t, void* f) {
          (*static_cast<decltype(once)*>(f))();
          return 0;
        },
        &once);
  });
}

int compare_with_checks(const void* a, const void* b) {
  burn(2us);
  check();
  return *static_cast<const int*>(a) - *static_cast<const int*>(b);
}

TEST(automatic_checkpoint, suspends_in_a_comparison_that_qsort_calls) {
  asio_pulse::io_context io{eager()};
  int sorted = 0;
  for (int handler = 0; handler < 3; ++handler) {
    asio::post(io, asio_pulse::preemptible([&] {
                 std::vector<int> v(200);
                 for (int i = 0; i < 200; ++i) v[static_cast<std::size_t>(i)] = i * 79 % 201;
                 std::qsort(v.data(), v.size(), sizeof(int), &compare_with_checks);
                 sorted += std::is_sorted(v.begin(), v.end()) ? 1 : 0;
               }));
  }
  io.run();
  EXPECT_EQ(sorted, 3);
  EXPECT_GE(io.stats().automatic_suspensions, 500U);
}

TEST(automatic_checkpoint, the_figures_of_a_kind_of_handler_say_what_held_it_up) {
  auto o = eager();
  o.metrics = asio_pulse::instrument_mode::on;
  asio_pulse::io_context io{o};
  std::mutex m;
  asio::post(io, asio_pulse::preemptible([&] {
               {
                 const std::lock_guard lock(m);
                 checked_loop();
               }
               checked_loop(5);
             }));
  io.run();
  std::uint64_t suspended = 0, refused = 0, locked = 0;
  std::string lock;
  for (const asio_pulse::site_metrics& s : io.metrics().sites) {
    suspended += s.suspended;
    refused += s.refused;
    locked += s.refused_lock;
    lock += s.lock;
  }
  const statistics s = io.stats();
  EXPECT_EQ(suspended, s.automatic_suspensions);
  EXPECT_EQ(refused, s.automatic_refused_lock + s.automatic_refused_uncounted +
                         s.automatic_refused_exception + s.automatic_refused_critical +
                         s.automatic_refused_signal + s.automatic_refused_parallel +
                         s.automatic_refused_stack + s.automatic_refused_place);
  EXPECT_EQ(locked, s.automatic_refused_lock);
  EXPECT_GE(locked, 40U);
  EXPECT_NE(lock.find(", in "), std::string::npos) << lock;
}

// ---- exceptions

TEST(automatic_checkpoint, waits_while_an_exception_unwinds_the_stack) {
  const statistics s = suspended_only_around([](auto inside) {
    struct at_exit {
      decltype(inside)& f;
      ~at_exit() { f(); }
    };
    try {
      const at_exit loops{inside};
      throw std::runtime_error("x");
    } catch (const std::runtime_error&) {  // NOLINT(bugprone-empty-catch): expected
    }
  });
  EXPECT_GE(s.automatic_refused_exception, 40U);
}

TEST(automatic_checkpoint, waits_in_a_catch_block) {
  const statistics s = suspended_only_around([](auto inside) {
    try {
      throw std::runtime_error("x");
    } catch (const std::runtime_error& e) {
      inside();
      EXPECT_STREQ(e.what(), "x");
    }
  });
  EXPECT_GE(s.automatic_refused_exception, 40U);
}

TEST(automatic_checkpoint, handlers_that_throw_at_the_same_time_catch_their_own) {
  asio_pulse::io_context io{eager()};
  int right = 0;
  for (int id = 0; id < 4; ++id) {
    asio::post(io, asio_pulse::preemptible([&, id] {
                 for (int i = 0; i < 20; ++i) {
                   try {
                     checked_loop(3);
                     throw id;
                   } catch (int caught) {
                     checked_loop(3);
                     right += caught == id ? 1 : 0;
                   }
                 }
               }));
  }
  io.run();
  EXPECT_EQ(right, 80);
  EXPECT_GE(io.stats().automatic_suspensions, 80U);
}

// ---- what the program has said

TEST(automatic_checkpoint, waits_in_a_critical_section) {
  const statistics s = suspended_only_around([](auto inside) {
    const asio_pulse::critical_section section;
    inside();
  });
  EXPECT_GE(s.automatic_refused_critical, 40U);
}

TEST(automatic_checkpoint, waits_in_a_no_yield_scope_without_a_report) {
  auto o = eager();
  int reports = 0;
  o.on_report = [&](const asio_pulse::report&) { ++reports; };
  asio_pulse::io_context io{o};
  int others = 0;
  asio::post(io, asio_pulse::preemptible([&] {
               asio::post(io, [&] { ++others; });
               const asio_pulse::no_yield_scope scope;
               checked_loop();
               EXPECT_EQ(others, 0);
             }));
  io.run();
  EXPECT_GE(io.stats().automatic_refused_critical, 40U);
  EXPECT_EQ(reports, 0);
}

TEST(automatic_checkpoint, waits_in_a_hook_of_the_program) {
  asio_pulse::io_context io{eager()};
  int calls = 0;
  const auto handle = io.hooks().install({.yielded = [&](const asio_pulse::hooks::yield_event&) {
    ++calls;
    checked_loop(5);
  }});
  int others = 0;
  asio::post(io, asio_pulse::preemptible([&] {
               asio::post(io, [&] { ++others; });
               EXPECT_TRUE(checked_until_changed(others));
             }));
  io.run();
  EXPECT_GE(calls, 1);
}

// ---- signal handlers

int suspended_in_a_signal_handler = 0;
const int* others_seen_by_signals = nullptr;
void loops_in_a_signal_handler(int) {
  const int before = *others_seen_by_signals;
  checked_loop(20);
  suspended_in_a_signal_handler += *others_seen_by_signals - before;
}

TEST(automatic_checkpoint, waits_in_a_signal_handler) {
  struct sigaction ours {
  }, before{};
  ours.sa_handler = &loops_in_a_signal_handler;
  ASSERT_EQ(sigaction(SIGUSR2, &ours, &before), 0);
  int outside = 0;
  others_seen_by_signals = &outside;
  const statistics s = suspended_only_around([&](auto inside) {
    ASSERT_EQ(raise(SIGUSR2), 0);
    // With the signal blocked on the thread, the loop could be in a handler.
    sigset_t usr2, old;
    sigemptyset(&usr2);
    sigaddset(&usr2, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &usr2, &old);
    inside();
    pthread_sigmask(SIG_SETMASK, &old, nullptr);
  });
  EXPECT_GE(s.automatic_refused_signal, 19U);
  ASSERT_EQ(sigaction(SIGUSR2, &before, nullptr), 0);
}

TEST(automatic_checkpoint, accepts_other_signals_that_the_thread_blocks_from_the_next_handler_on) {
  asio_pulse::io_context io{eager()};
  sigset_t usr2, old;
  sigemptyset(&usr2);
  sigaddset(&usr2, SIGUSR2);
  int others = 0;
  asio::post(io, asio_pulse::preemptible([&] { checked_loop(3); }));
  asio::post(io, [&] { pthread_sigmask(SIG_BLOCK, &usr2, &old); });
  asio::post(io, asio_pulse::preemptible([&] { checked_loop(3); }));
  asio::post(io, asio_pulse::preemptible([&] {
               asio::post(io, [&] { ++others; });
               EXPECT_TRUE(checked_until_changed(others));
             }));
  io.run();
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
  EXPECT_GE(io.stats().automatic_refused_signal, 1U);
}

// ---- the stack, and where the handler came from

void deep(std::uintptr_t below, int& suspended, const int& others) {
  char here = 0;
  asm volatile("" : : "r"(&here) : "memory");
  if (reinterpret_cast<std::uintptr_t>(&here) > below) return deep(below, suspended, others);
  const int before = others;
  checked_loop(10);
  suspended += others - before;
}

TEST(automatic_checkpoint, waits_where_the_stack_is_nearly_used_up) {
  if (sanitized) GTEST_SKIP() << "a sanitizer's frames are larger";
  asio_pulse::io_context io{eager()};
  int others = 0, suspended = 0;
  asio::post(io, asio_pulse::preemptible([&] {
               asio::post(io, [&] { ++others; });
               deep(asio_pulse::detail::fiber_here()->bottom() + 6144, suspended, others);
               EXPECT_EQ(suspended, 0);
               EXPECT_TRUE(checked_until_changed(others));
             }));
  io.run();
  EXPECT_GE(io.stats().automatic_refused_stack, 9U);
}

TEST(automatic_checkpoint, waits_inside_an_inline_dispatch_and_a_nested_run) {
  asio_pulse::io_context io{eager()};
  auto strand = asio::make_strand(io);
  int others = 0;
  asio::post(io, asio_pulse::preemptible([&] {
               asio::post(io, [&] { ++others; });
               asio::dispatch(strand, [&] {
                 checked_loop();
                 EXPECT_EQ(others, 0);
               });
               asio_pulse::io_context inner{eager()};
               asio::post(inner, [&] {
                 checked_loop();
                 EXPECT_EQ(others, 0);
               });
               inner.run();
               EXPECT_TRUE(checked_until_changed(others));
             }));
  io.run();
  EXPECT_GE(io.stats().automatic_refused_place, 40U);
}

TEST(automatic_checkpoint, waits_where_asio_does_not_lock) {
  asio_pulse::io_context io{eager(), BOOST_ASIO_CONCURRENCY_HINT_UNSAFE};
  asio::post(io, asio_pulse::preemptible([&] { checked_loop(); }));
  io.run();
  EXPECT_EQ(io.stats().automatic_suspensions, 0U);
  EXPECT_GE(io.stats().automatic_refused_place, 40U);
}

TEST(automatic_checkpoint, suspends_with_a_hint_for_one_thread_that_keeps_the_locks) {
  asio_pulse::io_context io{eager(), 1};
  int others = 0;
  asio::post(io, asio_pulse::preemptible([&] {
               asio::post(io, [&] { ++others; });
               EXPECT_TRUE(checked_until_changed(others));
             }));
  io.run();
}

TEST(automatic_checkpoint, keeps_the_order_of_a_strand) {
  asio_pulse::io_context io{eager()};
  auto strand = asio::make_strand(io);
  std::string order;
  int others = 0;
  asio::post(strand, asio_pulse::preemptible([&] {
               order += 'a';
               asio::post(io, [&] { ++others; });
               EXPECT_TRUE(checked_until_changed(others));
               order += 'b';
             }));
  asio::post(strand, [&] { order += 'c'; });
  io.run();
  // As with a coroutine, others of the strand may run between two parts.
  EXPECT_TRUE(order == "abc" || order == "acb") << order;
}

TEST(automatic_checkpoint, suspends_a_handler_of_a_task_and_charges_it) {
  asio_pulse::io_context io{eager()};
  asio_pulse::task t{io, unlimited("job")};
  int others = 0;
  asio_pulse::post(t, asio_pulse::preemptible([&] {
                     asio::post(io, [&] { ++others; });
                     EXPECT_TRUE(checked_until_changed(others));
                     burn(1ms);
                   }));
  io.run();
  EXPECT_GE(t.stats().cpu, 1ms);
  EXPECT_GE(t.stats().polls, 2U);
}

TEST(automatic_checkpoint, keeps_errno_and_the_registers) {
  asio_pulse::io_context io{eager()};
  int done = 0;
  for (int n = 1; n <= 3; ++n) {
    asio::post(io, asio_pulse::preemptible([&, n] {
                 double sum = 0;
                 const double step = n * 0.5;
                 for (int i = 0; i < 200; ++i) {
                   errno = n;
                   asm volatile("" : "+x"(sum));
                   check();
                   asm volatile("" : "+x"(sum));
                   sum += step;
                   ASSERT_EQ(errno, n);
                   burn(1us);
                 }
                 ASSERT_EQ(sum, 200 * step);
                 ++done;
               }));
  }
  io.run();
  EXPECT_EQ(done, 3);
  EXPECT_GE(io.stats().automatic_suspensions, 100U);
}

}  // namespace
