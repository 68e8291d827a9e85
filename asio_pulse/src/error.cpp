// SPDX-License-Identifier: BSL-1.0

#include <asio_pulse/error.hpp>

namespace asio_pulse {

std::string_view to_string(error e) noexcept {
  switch (e) {
    case error::invalid_option:
      return "an option is out of range";
    case error::isolation_off:
      return "the context has no isolation pool";
    case error::not_isolatable:
      return "the task was not declared isolatable";
    case error::implicit_strand:
      return "isolation would break the implicit strand of a single-threaded context";
    case error::unsafe_concurrency_hint:
      return "the context was built with BOOST_ASIO_CONCURRENCY_HINT_UNSAFE";
    case error::tracking_mismatch:
      return "a part of the program was built without asio-pulse's handler tracking definition";
    case error::foreign_context:
      return "the execution context is not an asio_pulse::io_context";
    case error::clock_unavailable:
      return "the clock is not available on this machine";
    case error::shut_down:
      return "the context is being destroyed";
  }
  return {};
}

}  // namespace asio_pulse
