// SPDX-License-Identifier: BSL-1.0
#include "wanted_hints.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>

namespace asio_pulse {

hint_source detail::wanted_hints(const options& o) {
  if (o.hints != hint_source::environment) return o.hints;
  const char* const set = std::getenv("ASIO_PULSE_HINTS");
  const std::string_view text = set != nullptr ? set : "";
  if (text.empty()) return hint_source::off;
  for (const hint_source s :
       {hint_source::off, hint_source::automatic, hint_source::kernel, hint_source::local}) {
    if (text == to_string(s)) return s;
  }
  throw std::invalid_argument(
      "the environment variable ASIO_PULSE_HINTS must be off, automatic, "
      "kernel or local (got " +
      std::string(text) + ")");
}

}  // namespace asio_pulse
