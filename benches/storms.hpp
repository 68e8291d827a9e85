// SPDX-License-Identifier: BSL-1.0
//
// Storms of small handlers that freeze plain Boost.Asio. Each is a task with a budget of 0.5 ms in
// 5 ms.

#pragma once

#include "annotations.hpp"
#include "measure.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>

#include <pthread.h>

#include <chrono>
#include <cstddef>
#include <exception>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>

namespace bench {

inline constexpr std::chrono::microseconds storm_work{10};

/// Counts the storm's handlers, and checks that they run in the order in which they were started.
struct storm_progress {
  unsigned total;
  unsigned done = 0;
  bool ordered = true;

  bool over() const { return done == total; }

  void step(unsigned number) {
    spin(storm_work);
    ordered = ordered && number == done;
    ++done;
  }
};

template <class Executor>
void storm_of_posts(const Executor& executor, storm_progress& storm) {
  for (unsigned i = 0; i < storm.total; ++i) {
    boost::asio::post(executor, [&storm, i] { storm.step(i); });
  }
}

/// A handler that dispatches the next one: Asio calls it at once, inside the first, and so on down
/// the stack.
inline void recurse(io_context& io, storm_progress& storm) {
  storm.step(storm.done);
  if (storm.over()) return;
  auto next = [&io, &storm] { recurse(io, storm); };
  if (should_yield()) {
    boost::asio::post(io, std::move(next));
  } else {
    boost::asio::dispatch(io, std::move(next));
  }
}

inline boost::asio::awaitable<void> child(storm_progress& storm) {
  storm.step(storm.done);
  co_return;
}

inline boost::asio::awaitable<void> storm_of_children(storm_progress& storm) {
  while (!storm.over()) {
    co_await child(storm);
    ASIO_PULSE_CHECKPOINT();
  }
}

inline void start_storm(io_context& io, const std::string& scenario, storm_progress& storm) {
  const task_scope scope{task{io, std::chrono::microseconds{500}, std::chrono::milliseconds{5}}};
  if (scenario == "posts") {
    storm_of_posts(io.get_executor(), storm);
  } else if (scenario == "strand") {
    storm_of_posts(boost::asio::make_strand(io), storm);
  } else if (scenario == "dispatch") {
    boost::asio::post(io, [&io, &storm] { recurse(io, storm); });
  } else if (scenario == "children") {
    boost::asio::co_spawn(io, storm_of_children(storm), boost::asio::detached);
  } else {
    throw std::invalid_argument("no scenario called " + scenario);
  }
}

/// Runs \p body on a thread with a deep stack: plain Asio's recursion is as deep as the storm is
/// long. Throws what \p body throws.
inline void on_deep_stack(const std::function<void()>& body) {
  struct job {
    const std::function<void()>& body;
    std::exception_ptr error;
  } work{body, nullptr};
  pthread_attr_t attributes;
  pthread_t thread;
  const auto call = [](void* raw) -> void* {
    auto& here = *static_cast<job*>(raw);
    try {
      here.body();
    } catch (...) {
      here.error = std::current_exception();
    }
    return nullptr;
  };
  if (pthread_attr_init(&attributes) != 0 ||
      pthread_attr_setstacksize(&attributes, std::size_t{64} << 20) != 0 ||
      pthread_create(&thread, &attributes, call, &work) != 0) {
    throw std::runtime_error("cannot start a thread with a deep stack");
  }
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
  if (work.error) std::rethrow_exception(work.error);
}

}  // namespace bench
