// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/asio/asio_internals.hpp>
#include <asio_pulse/detail/isolation_threads.hpp>
#include <asio_pulse/options.hpp>

#include <boost/asio/execution_context.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>

#include <memory>
#include <thread>
#include <vector>

namespace asio_pulse::detail {

/// The threads that run isolated tasks, and their context.
struct isolation_pool {
  /// \par Errors  What std::thread throws; std::bad_alloc. Threads that were started stay.
  void start(const options& o) {
    threads.reserve(o.isolation_threads);
    while (threads.size() < o.isolation_threads) {
      threads.emplace_back([this, o_priority = o.isolation_priority, o_nice = o.isolation_nice] {
        lower_priority(o_priority, o_nice);
        context.run();
      });
    }
  }
  /// Before a fork: ends the threads, and so waits for handlers that are running. A thread that
  /// waits for work during the fork would leave a waiter in the child's copy of a condition
  /// variable.
  void pause() {
    for (const std::thread& t : threads) {
      if (t.get_id() == std::this_thread::get_id()) return;  // an isolated handler calls fork()
    }
    context.stop();
    for (std::thread& t : threads) t.join();
    threads.clear();
    context.notify_fork(boost::asio::execution_context::fork_prepare);
  }
  /// After the fork, in the parent and in the child.
  void resume(boost::asio::execution_context::fork_event event) {
    if (!threads.empty()) {
      if (event != boost::asio::execution_context::fork_child) return;
      for (std::thread& t : threads) t.detach();  // they were not paused, and do not exist here
      threads.clear();
    }
    context.notify_fork(event);
    context.restart();
  }

  boost::asio::io_context context;
  scheduler_type& scheduler{boost::asio::use_service<scheduler_type>(context)};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work{
      context.get_executor()};
  std::vector<std::thread> threads;
};

/// Ends the threads, and so waits for handlers that are running, unless one of them is the caller.
inline void stop_pool(std::unique_ptr<isolation_pool>& pool) noexcept {
  if (pool == nullptr) return;
  bool inside = false;
  pool->context.stop();
  for (std::thread& t : pool->threads) {
    if (t.get_id() == std::this_thread::get_id()) {
      inside = true;
      t.detach();  // an isolated handler destroys the context: this thread cannot wait for itself
    } else if (t.joinable()) {
      t.join();
    }
  }
  pool->threads.clear();
  if (inside) {
    (void)pool.release();  // this thread is inside its run(), so its memory is leaked
  } else {
    pool.reset();
  }
}

}  // namespace asio_pulse::detail
