// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <support/scenario.hpp>
//
#include <boost/asio/executor_work_guard.hpp>

#include <future>
#include <memory>
#include <optional>

/// \file
/// For tests of compensation: handlers that are stuck, and calls that report them in place of the
/// watchdog. The watchdog itself is off, so that nothing depends on time.

namespace pulse_test {

inline constexpr auto long_enough = 60s;  // for events that must happen on any machine

inline asio_pulse::options with_spares(std::size_t n, std::chrono::nanoseconds cooldown = 1h) {
  auto o = steady();
  o.watchdog = false;
  o.spare_workers = n;
  o.spare_cooldown = cooldown;
  return o;
}

template <class Predicate>
[[nodiscard]] bool until(Predicate p) {
  const auto end = std::chrono::steady_clock::now() + long_enough;
  while (!p()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(100us);
  }
  return true;
}

template <class T>
[[nodiscard]] bool comes(std::future<T>& f) {
  return f.wait_for(long_enough) == std::future_status::ready;
}
template <class T>
[[nodiscard]] bool is_there(std::future<T>& f) {
  return f.wait_for(0s) == std::future_status::ready;
}

/// A handler that does not end until it is released. It may end after this object.
class hog {
  struct shared {
    std::thread::id thread;
    std::atomic<bool> ended{false};
    std::promise<void> inside;
    std::promise<void> may_end;
  };
  const std::shared_ptr<shared> shared_ = std::make_shared<shared>();
  bool released_ = false;

 public:
  hog() = default;
  ~hog() { release(); }
  hog(const hog&) = delete;
  hog& operator=(const hog&) = delete;

  [[nodiscard]] auto handler() {
    return [its = shared_] {
      its->thread = std::this_thread::get_id();
      its->inside.set_value();
      its->may_end.get_future().wait();
      its->ended = true;
    };
  }
  void wait_until_inside() { shared_->inside.get_future().wait(); }
  void release() {
    if (!std::exchange(released_, true)) shared_->may_end.set_value();
  }

  const std::thread::id& thread = shared_->thread;
  const std::atomic<bool>& ended = shared_->ended;
};

/// A context with spare workers, with the calls that the watchdog would make.
class compensated {
 public:
  explicit compensated(asio_pulse::options o = with_spares(1)) : io(std::move(o)) {}

  [[nodiscard]] auto& service() { return asio_pulse::detail::service_of(io); }
  [[nodiscard]] auto spares() { return service().spares()->snapshot(); }

  /// Reports this many workers as stuck until one more spare is active.
  [[nodiscard]] bool compensate(std::size_t stuck) {
    const auto before = spares().activated;
    return until([&] {
      service().compensate(stuck);
      return spares().activated > before;
    });
  }
  void relieved(std::size_t still_stuck) { service().relieved(still_stuck); }
  [[nodiscard]] bool all_parked() {
    return until([&] { return spares().active == 0; });
  }

  /// The number of handlers that are stuck() now; the object reports them in place of the watchdog.
  class watched {
   public:
    explicit watched(compensated& c)
        : thread_([this, &c] {
            while (!over_) {
              const std::size_t stuck = c.stuck_;
              if (stuck != 0) {
                c.service().compensate(stuck);
              } else {
                c.relieved(0);
              }
              std::this_thread::sleep_for(100us);
            }
          }) {}
    ~watched() {
      over_ = true;
      thread_.join();
    }

   private:
    std::atomic<bool> over_{false};
    std::thread thread_;
  };
  /// In a handler: is stuck until the condition holds.
  template <class Condition>
  void stuck_until(Condition holds) {
    ++stuck_;
    while (!holds()) std::this_thread::yield();
    --stuck_;
  }

  /// A worker of the program.
  [[nodiscard]] std::future<std::size_t> worker() {
    return std::async(std::launch::async, [this] { return io.run(); });
  }
  /// Posts a hog and waits until it has a worker.
  void post(hog& h) {
    boost::asio::post(io, h.handler());
    h.wait_until_inside();
  }
  /// Runs `f` in a handler, and waits for it.
  template <class Function>
  [[nodiscard]] bool in_handler(Function f) {
    std::promise<void> done;
    auto ended = done.get_future();
    boost::asio::post(io, [&] {
      f();
      done.set_value();
    });
    return comes(ended);
  }

  /// As a new context.
  void restart() {
    work.reset();
    io.restart();
    work.emplace(io.get_executor());
  }

  asio_pulse::io_context io;
  /// Something waits, and run() does not end.
  std::optional<boost::asio::executor_work_guard<boost::asio::io_context::executor_type>> work{
      io.get_executor()};

 private:
  std::atomic<std::size_t> stuck_{0};
};

}  // namespace pulse_test
