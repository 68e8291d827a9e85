// SPDX-License-Identifier: BSL-1.0

#include <asio_pulse/error.hpp>

namespace asio_pulse {

std::string_view to_string(error e) noexcept {
  switch (e) {
    case error::invalid_option:
      return "an option is out of range";
    case error::fixed_option:
      return "an option cannot change any more";
    case error::mailbox_full:
      return "the shard has too many messages of this one that it has not yet run";
  }
  return {};
}

}  // namespace asio_pulse
