// SPDX-License-Identifier: BSL-1.0
//
// The rules behind lints(). asio_pulse/docs/lints.md names each threshold.

#pragma once

#include <asio_pulse/lints.hpp>

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace asio_pulse::detail {

// The order of lints: first by the kind of harm, the worst first.
enum class harm : std::uint8_t {
  goes_on,     // a worker is stuck now
  delays,      // other handlers had to wait
  uses,        // CPU time may be wasted or unevenly shared
  blind_spots  // the figures are incomplete
};

struct finding {
  lint what;
  harm how = harm::delays;
  std::chrono::nanoseconds cost{
      0};  // how long others waited, or the CPU time: the order within the same harm
};

/// The findings in one context. lint::context and lint::anchor are filled in later.
class findings {
 public:
  void add(lint_kind kind, harm how, std::chrono::nanoseconds cost, std::string_view subject,
           std::string text, std::string advice) {
    found_.push_back(
        {{kind, 0, std::string{subject}, std::move(text), std::move(advice), {}}, how, cost});
  }
  [[nodiscard]] std::vector<finding>& all() noexcept { return found_; }

 private:
  std::vector<finding> found_;
};

/// A name for use in a sentence, cut if it is long. The subject has the whole name.
std::string in_quotes(std::string_view name);

/// " (server.cpp:42)"; empty if the place is not known.
std::string at(const source_place&);

/// Finds handlers that keep a worker busy, computing or waiting.
void look_at_handlers(const context_metrics& now, findings&);

/// Looks at CPU use, delays, and figures that are missing. `before` may be null; then the interval
/// is zero.
void look_at_use(const context_metrics& now, const context_metrics* before,
                 std::chrono::nanoseconds interval, findings&);

/// Looks at the shares of groups, and at refused requests. `before` may be null.
void look_at_groups(const context_metrics& now, const context_metrics* before, findings&);

/// Compares a shard with the others of the process.
void look_at_shards(const process_metrics& all, const context_metrics& now, findings&);

}  // namespace asio_pulse::detail
