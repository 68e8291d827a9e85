// SPDX-License-Identifier: BSL-1.0

#include "sampler.hpp"

#include <exception>
#include <utility>

namespace asio_pulse::top {

sampler::sampler(watcher from, std::chrono::milliseconds interval)
    : from_(std::move(from)),
      interval_(interval),
      thread_([this](const std::stop_token& stop) { run(stop); }) {}

std::optional<reading> sampler::take() {
  const std::scoped_lock lock(mutex_);
  return std::exchange(newest_, std::nullopt);
}

void sampler::set_interval(std::chrono::milliseconds interval) {
  const std::scoped_lock lock(mutex_);
  interval_ = interval;
  changed_.notify_all();
}

void sampler::pause(bool paused) {
  const std::scoped_lock lock(mutex_);
  paused_ = paused;
  changed_.notify_all();
}

void sampler::run(const std::stop_token& stop) {
  auto last = std::chrono::steady_clock::now();
  while (!stop.stop_requested()) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, stop, [&] { return !paused_; });
      // Woken early if the interval or the pause has changed. Then the due time is computed again.
      const auto seen = interval_;
      const bool other = changed_.wait_until(lock, stop, last + seen,
                                             [&] { return paused_ || interval_ != seen; });
      if (stop.stop_requested()) return;
      if (other) continue;
    }
    last = std::chrono::steady_clock::now();
    reading result;
    try {
      result = from_.read();
    } catch (const std::exception& e) {  // out of memory; the next reading may succeed
      result.trouble = e.what();
    }
    const bool ended = result.ended;
    const std::scoped_lock lock(mutex_);
    newest_ = std::move(result);
    if (ended) return;
  }
}

}  // namespace asio_pulse::top
