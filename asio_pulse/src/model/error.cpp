// SPDX-License-Identifier: BSL-1.0

#include <asio_pulse/error.hpp>

namespace asio_pulse {

std::string_view to_string(error e) noexcept {
  switch (e) {
    case error::invalid_option:
      return "an option is out of range";
  }
  return {};
}

}  // namespace asio_pulse
