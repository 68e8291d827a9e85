// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <support/sanitizers.hpp>
#include <support/stuck.hpp>
//
#include "program.hpp"

#include <asio_pulse/report.hpp>

#include <boost/asio/post.hpp>

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

/// \file
/// Collects what the watchdog reports to a program.

namespace pulse_test {

/// Copies of the reports of stalls. A report has either a stack or the reason why it has none.
class told {
 public:
  struct stall {
    std::string function{};  ///< the function to blame
    asio_pulse::stall_cause cause{};
    asio_pulse::no_stack why{};
    std::size_t frames = 0;
    std::string call{};
    std::uint64_t thread = 0;
    std::string line{};
  };

  [[nodiscard]] asio_pulse::options options() {
    asio_pulse::options o;
    o.report_interval = 0ns;
    o.reports_per_second = 0;
    o.on_report = [this](const asio_pulse::report& r) { add(r); };
    return o;
  }
  [[nodiscard]] std::vector<stall> all() const {
    const std::lock_guard lock(mutex_);
    return all_;
  }
  template <class Predicate>
  [[nodiscard]] bool any(Predicate wanted) const {
    const std::lock_guard lock(mutex_);
    return std::any_of(all_.begin(), all_.end(), wanted);
  }
  /// Called in a handler: whether there is a report of its own stall that passes. `from`: the
  /// number of earlier reports.
  template <class Predicate>
  [[nodiscard]] bool any_since(std::size_t from, Predicate wanted) const {
    const std::lock_guard lock(mutex_);
    return std::any_of(all_.begin() + static_cast<std::ptrdiff_t>(from), all_.end(), wanted);
  }
  [[nodiscard]] std::size_t count() const {
    const std::lock_guard lock(mutex_);
    return all_.size();
  }

 private:
  void add(const asio_pulse::report& r) {
    if (r.kind != asio_pulse::report_kind::stall) return;
    stall s{.cause = r.cause,
            .why = r.why_no_stack,
            .frames = r.stack.size(),
            .call = std::string(r.system_call),
            .thread = r.thread,
            .line = asio_pulse::format(r)};
    if (const auto blamed = asio_pulse::blamed_frame(r.stack); blamed != asio_pulse::no_frame) {
      s.function = r.stack[blamed].function;
    }
    require((s.frames == 0) == (s.why != asio_pulse::no_stack::none), s.line);
    const std::lock_guard lock(mutex_);
    all_.push_back(std::move(s));
  }

  mutable std::mutex mutex_;
  std::vector<stall> all_;
};

/// Computes until `over()`.
template <class Over>
[[gnu::noinline]] void compute_until(Over over) {
  while (!over()) {
    for (int i = 0; i != 10'000; ++i) asm volatile("");
  }
}

/// Waits in the kernel until `over()`.
template <class Over>
[[gnu::noinline]] void wait_until(Over over) {
  while (!over()) std::this_thread::sleep_for(20ms);
}

/// A handler that is stuck until it is reported with its stack.
inline void see_own_stall(asio_pulse::io_context& io, const told& reports) {
  const std::size_t before = reports.count();
  boost::asio::post(io, [&] {
    compute_until([&] {
      return reports.any_since(before, [](const told::stall& s) { return s.frames != 0; });
    });
  });
  io.restart();
  io.run();
}

}  // namespace pulse_test
