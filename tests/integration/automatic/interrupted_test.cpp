// SPDX-License-Identifier: BSL-1.0

// Automatic checkpoints in code of the program that Asio or the library calls in the middle of something.

#include "automatic.hpp"
//
#include <asio_pulse/detail/task_state.hpp>
#include <asio_pulse/hooks/poll_path.hpp>
#include <asio_pulse/task_group.hpp>

#include <boost/asio/buffer.hpp>
#include <boost/asio/read.hpp>

#include <functional>
#include <utility>

namespace {

using namespace automatic;

std::uintptr_t location_in_force() { return asio_pulse::hooks::this_thread_by_now().where; }

/// A stream of the program's. Asio starts its operations in the scope of a source location.
struct looping_stream {
  using executor_type = asio_pulse::io_context::executor_type;
  asio_pulse::io_context& io;
  std::function<void()> loop;

  executor_type get_executor() noexcept { return io.get_executor(); }
  template <class Buffers, class Handler>
  void async_read_some(const Buffers&, Handler&& handler) {
    loop();
    asio::post(io, [h = std::forward<Handler>(handler)]() mutable {
      std::move(h)(boost::system::error_code(), std::size_t{1});
    });
  }
};

/// Each of two operations that are suspended while they begin has the thread to itself, as far as it can
/// see, though they do not end in the order of a stack. `wait` suspends until the flag has changed.
template <class Wait>
void locations_are_kept_apart(Wait wait) {
  const auto until_set = [&](const int& flag) { return flag != 0 || wait(flag); };
  asio_pulse::io_context io{eager()};
  int begun = 0, through = 0, read = 0;
  looping_stream one{io, [&] {
                       const std::uintptr_t mine = location_in_force();
                       EXPECT_TRUE(until_set(begun));
                       EXPECT_EQ(location_in_force(), mine);
                       through = 1;
                     }};
  looping_stream other{io, [&] {
                         const std::uintptr_t mine = location_in_force();
                         begun = 1;
                         EXPECT_TRUE(until_set(through));
                         EXPECT_EQ(location_in_force(), mine);
                       }};
  char bytes[2];
  asio::post(io, asio_pulse::preemptible([&] {
               asio::async_read(one, asio::buffer(bytes, 1),
                                [&](boost::system::error_code, std::size_t) { ++read; });
             }));
  asio::post(io, asio_pulse::preemptible([&] {
               EXPECT_EQ(location_in_force(), 0U) << "that of a handler that is suspended";
               asio::async_read(other, asio::buffer(bytes + 1, 1),
                                [&](boost::system::error_code, std::size_t) { ++read; });
             }));
  io.run();
  EXPECT_EQ(read, 2);
  EXPECT_EQ(location_in_force(), 0U);
  EXPECT_GE(io.stats().checkpoint_yields, 2U);
}

TEST(automatic_interrupted, operations_that_are_suspended_while_they_begin_keep_their_locations) {
  locations_are_kept_apart([](const int& flag) { return checked_until_changed(flag); });
}

TEST(automatic_interrupted, so_they_do_at_checkpoints_of_the_programs_own) {
  locations_are_kept_apart([](const int& flag) {
    yield_deep_down(0, flag);
    return true;
  });
}

// A check in a signal handler may interrupt the thread that moves the task to another group.
TEST(automatic_interrupted, a_check_does_not_wait_for_the_group_of_a_task_that_is_being_moved) {
  auto o = steady();
  o.min_slice = 1us;
  o.quantum = 10s;  // so that it asks for the group's budget
  asio_pulse::io_context io{o};
  const asio_pulse::task_group one(io), other(io);
  const asio_pulse::task t{io, in_group(one)};
  bool checked = false;
  asio_pulse::post(t, asio_pulse::preemptible([&] {
                     EXPECT_TRUE(asio_pulse::this_task::join(other));
                     burn(20us);
                     const auto& state = static_cast<const asio_pulse::detail::task_state&>(
                         *asio_pulse::hooks::this_thread_by_now().current);
                     (void)state.extras.load()->group.exchange(other, [&] {
                       check();
                       return checked = true;
                     });
                   }));
  io.run();
  EXPECT_TRUE(checked);
  EXPECT_EQ(io.stats().automatic_checks, 1U);
}

}  // namespace
