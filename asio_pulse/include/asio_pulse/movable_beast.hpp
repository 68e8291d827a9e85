// SPDX-License-Identifier: BSL-1.0
#pragma once

/// \file
/// For sessions on boost::beast::tcp_stream that move, also below a TLS stream. asio_pulse.hpp does not
/// include this. (Beast's functions on a tcp::socket need only movable.hpp.)

#include <asio_pulse/hooks/requirements.hpp>
//
#include <asio_pulse/movable.hpp>

#include <boost/beast/core/tcp_stream.hpp>

#include <tuple>

namespace asio_pulse {

namespace detail {

template struct expose<"beast.stream", &boost::beast::tcp_stream::impl_>;

}  // namespace detail

/// The stream's own timers move with it, and with them its time-outs.
template <>
struct movable_parts<boost::beast::tcp_stream> {
  static auto parts(boost::beast::tcp_stream& s) {
    auto& own = *(s.*detail::exposed<"beast.stream">);
    return std::tie(own.socket, own.read.timer, own.write.timer, own.timer);
  }
};

}  // namespace asio_pulse
