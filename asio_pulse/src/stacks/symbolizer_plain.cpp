// SPDX-License-Identifier: BSL-1.0

// Without libdw a trace contains only the module and offset, from which addr2line finds the
// function.

#if !defined(ASIO_PULSE_HAVE_LIBDW)

#include "mapped_code.hpp"
#include "symbolizer.hpp"

#include <string_view>

namespace asio_pulse::detail {

struct symbolizer::state {};

symbolizer::symbolizer() noexcept = default;
symbolizer::~symbolizer() = default;

stack_trace symbolizer::trace(const captured_stack& stack, std::size_t max_frames) noexcept {
  stack_trace result;
  try {
    if (max_frames == 0 || stack.pc() == 0) return result;
    stack_frame& frame = result.emplace_back();
    frame.address = stack.pc();
    for (const mapped_code& code : read_mapped_code()) {
      if (frame.address < code.begin || frame.address >= code.end) continue;
      std::string_view name = code.path;
      if (const auto slash = name.rfind('/'); slash != name.npos) name.remove_prefix(slash + 1);
      frame.module = name;
      frame.offset = frame.address - code.begin;
    }
  } catch (...) {  // out of memory
    result.clear();
  }
  return result;
}

}  // namespace asio_pulse::detail

#endif
