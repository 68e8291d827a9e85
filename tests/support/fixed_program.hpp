// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <support/scenario.hpp>
//
#include <boost/asio/strand.hpp>

namespace pulse_test {

/// The actions of a fixed program of tasks, strands and checkpoints, in order. With hints, it
/// starts once its worker has its control block.
inline std::vector<int> fixed_program(asio_pulse::options o) {
  const bool with_hints = o.hints != asio_pulse::hint_source::off;
  asio_pulse::io_context io{std::move(o)};
  std::vector<int> order;
  const asio_pulse::task a{io, unlimited("a")};
  const asio_pulse::task b{io, unlimited("b")};
  const auto strand = boost::asio::make_strand(io);
  int left = 3000;
  std::function<void(int)> next = [&](int id) {
    order.push_back(id);
    order.push_back(asio_pulse::should_yield() ? -1 : -2);
    if (--left <= 0) return;
    const int then = (id * 7 + left) % 5;
    if (then < 2) {
      asio_pulse::post(then == 0 ? a : b, [&next, then] { next(then); });
    } else if (then == 2) {
      boost::asio::post(strand, [&next, then] { next(then); });
    } else {
      boost::asio::post(io, [&next, then] { next(then); });
    }
  };
  std::function<void()> begin = [&] {
    if (with_hints && asio_pulse::hooks::this_thread().block == nullptr) {
      burn(20us);
      boost::asio::post(io, begin);
      return;
    }
    for (int id = 0; id < 5; ++id) boost::asio::post(io, [&next, id] { next(id); });
  };
  boost::asio::post(io, begin);
  io.run();
  return order;
}

}  // namespace pulse_test
