// SPDX-License-Identifier: BSL-1.0
//
// The computation of a report, which takes about 80 ms of CPU time, in the states of
// slow_server.cpp (GUIDE_STEP).

#pragma once

#if GUIDE_STEP > 0
#include <asio_pulse/asio_pulse.hpp>
#include <asio_pulse/preemptible.hpp>
#endif

#include <boost/asio/append.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace asio = boost::asio;

namespace chat {

using document = std::vector<std::uint64_t>;

inline std::uint64_t update(std::uint64_t sum, std::uint64_t part) {  // about 20 us
  for (int i = 0; i != 18'000; ++i) sum = (sum ^ part) * 0x100000001b3;
  return sum;
}

#if GUIDE_STEP == 4
//! [deep]
inline std::uint64_t digest(const document& d) {
  std::uint64_t sum = 1;
  for (const std::uint64_t part : d) {
    sum = update(sum, part);
    asio_pulse::checkpoint();  // a plain function: all of the handler is suspended
  }
  return sum;
}
//! [deep]

//! [preemptible]
// Runs digest() in a handler on a fiber, and passes the result to the coroutine that awaits this.
inline asio::awaitable<std::string> async_report(const asio_pulse::task& t, const document& d) {
  return asio::async_initiate<decltype(asio::use_awaitable), void(std::string)>(
      [&](auto done) {
        auto here = asio::get_associated_executor(done);
        auto work = [&d, here, done = std::move(done)]() mutable {
          asio::post(here, asio::append(std::move(done), std::to_string(digest(d))));
        };
        asio_pulse::post(t, asio_pulse::preemptible(std::move(work)));
      },
      asio::use_awaitable);
}
//! [preemptible]
#else
//! [digest]
inline std::uint64_t digest(const document& d) {
  std::uint64_t sum = 1;
  for (const std::uint64_t part : d) sum = update(sum, part);
  return sum;
}
//! [digest]
#endif

#if GUIDE_STEP == 3 || GUIDE_STEP >= 6
//! [checkpoint]
inline asio::awaitable<std::string> report(const document& d) {
  std::uint64_t sum = 1;
  for (const std::uint64_t part : d) {
    sum = update(sum, part);
    ASIO_PULSE_CHECKPOINT();  // others first, if it is time
  }
  co_return std::to_string(sum);
}
//! [checkpoint]
#else
//! [report]
inline asio::awaitable<std::string> report(const document& d) {
  co_return std::to_string(digest(d));
}
//! [report]
#endif

}  // namespace chat
