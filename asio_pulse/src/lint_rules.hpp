// SPDX-License-Identifier: BSL-1.0
//
// The rules behind lints(). asio_pulse/docs/lints.md names each threshold.

#pragma once

#include <asio_pulse/metrics.hpp>

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace asio_pulse::detail {

// What is worse, first by the kind of harm.
enum class harm : std::uint8_t {
  goes_on,     // a worker is stuck now
  delays,      // others waited for it
  uses,        // CPU time that may be wasted or unevenly shared
  blind_spots  // less is seen than there is
};

struct finding {
  lint what;
  harm how = harm::delays;
  std::chrono::nanoseconds cost{
      0};  // that others waited, or CPU time: orders findings of the same harm
};

/// What a rule finds in one context; lint::context and lint::anchor are filled in later.
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

/// A name in a sentence, cut; longer ones are to be read in the subject.
std::string quoted(std::string_view name);

/// " (server.cpp:42)"; nothing where it is not known.
std::string at(const source_place&);

/// Handlers that keep their workers, computing or waiting.
void look_at_handlers(const context_metrics& now, findings&);

/// How CPU time is used, delays, and what is not seen. `before` may be null, and the interval is
/// then zero.
void look_at_use(const context_metrics& now, const context_metrics* before,
                 std::chrono::nanoseconds interval, findings&);

}  // namespace asio_pulse::detail
