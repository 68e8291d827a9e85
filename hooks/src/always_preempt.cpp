// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/hooks/always_preempt.hpp>

#if defined(ASIO_PULSE_TESTABLE_PREEMPTION) && ASIO_PULSE_TESTABLE_PREEMPTION
#include <cstdlib>
#include <string_view>

namespace asio_pulse::hooks::detail {
namespace {

bool read_environment() noexcept {
  const char* const value = std::getenv("ASIO_PULSE_ALWAYS_PREEMPT");
  return value != nullptr && std::string_view(value) == "1";
}

}  // namespace

const bool always_preempt_requested = read_environment();

}  // namespace asio_pulse::hooks::detail
#endif
