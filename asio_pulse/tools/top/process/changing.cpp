// SPDX-License-Identifier: BSL-1.0

#include "changing.hpp"

#include <fmt/core.h>

#include <exception>
#include <memory>
#include <system_error>

namespace asio_pulse::top {

change_result change_process(machine& m, std::uint64_t pid, std::uint64_t context,
                             const context_change& what) {
  std::error_code ec;
  const std::unique_ptr<peer> to = m.open();
  to->connect(pid, ec);
  std::string answer = ec ? std::string() : to->change(context, what, ec);
  if (!ec) return {true, std::move(answer)};
  if (ec == std::errc::operation_not_permitted) {
    return {false, fmt::format("refused: {}", to->detail())};
  }
  return {false, to->detail().empty() ? ec.message() : to->detail()};
}

void start_change(background<change_result>& on, machine& m, std::uint64_t pid,
                  std::uint64_t context, const context_change& what) {
  on.start([&m, pid, context, what]() -> change_result {
    try {
      return change_process(m, pid, context, what);
    } catch (const std::exception& e) {  // out of memory
      return {false, e.what()};
    }
  });
}

}  // namespace asio_pulse::top
