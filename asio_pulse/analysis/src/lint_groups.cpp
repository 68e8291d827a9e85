// SPDX-License-Identifier: BSL-1.0

#include "lint_rules.hpp"
#include "text/duration_math.hpp"
#include "text/short_numbers.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <string>
#include <string_view>

namespace asio_pulse::detail {
namespace {

using namespace std::chrono_literals;
using std::chrono::nanoseconds;

// Shares are exact only on average, so a group is over its share if it has half as much again, and
// at least a tenth of all groups' CPU time on top. Another group must have had less than three
// quarters of its share, and want more. All are guesses.
constexpr double over_by = 1.5;
constexpr double over_at_least = 0.1;
constexpr double lacking = 0.75;
// With less than half a CPU for all groups together, no group waits for long. Nor while half of
// the probes of the queue, of which there are a hundred a second, waited for less than this.
constexpr double busy_share = 0.5;
constexpr std::uint64_t some_probes = 20;
constexpr nanoseconds queueing = 1ms;
// A few refusals follow from the first moments of an overload, whose cause is not known yet. A guess.
constexpr std::uint64_t many_refused = 20;

class group_rules {
 public:
  group_rules(const context_metrics& now, const context_metrics* before, findings& out)
      : now_(now), before_(before), out_(out) {}

  void look() {
    over_share();
    overloaded();
  }

 private:
  [[nodiscard]] double got(const group_metrics& g) const {
    return share_of(g.recent, now_.group_recent);
  }
  [[nodiscard]] double asked(const group_metrics& g) const {
    return share_of(g.asked, now_.group_recent);
  }
  // The group's path without its last part. Names have no "/" that is not behind a backslash.
  [[nodiscard]] static std::string_view above(const group_metrics& g) {
    for (std::size_t i = g.path.size(); i > 1; --i) {
      if (g.path[i - 1] != '/') continue;
      std::size_t escapes = 0;
      while (escapes < i - 1 && g.path[i - 2 - escapes] == '\\') ++escapes;
      if (escapes % 2 == 0) return std::string_view(g.path).substr(0, i - 1);
    }
    return {};
  }

  [[nodiscard]] double lack(const group_metrics& g) const { return asked(g) - got(g); }

  // The group that lacks most, for each parent.
  [[nodiscard]] std::map<std::string_view, const group_metrics*> lacking_most() const {
    std::map<std::string_view, const group_metrics*> most;
    for (const group_metrics& g : now_.groups) {
      if (!g.wants_more || got(g) >= asked(g) * lacking) continue;
      const group_metrics*& known = most[above(g)];
      if (known == nullptr || lack(*known) < lack(g)) known = &g;
    }
    return most;
  }

  // Whether handlers waited for one another. Otherwise each group got what it wanted.
  [[nodiscard]] bool queues() const {
    const histogram recent =
        before_ != nullptr ? difference(now_.queue_delay, before_->queue_delay) : now_.queue_delay;
    return recent.count >= some_probes && recent.quantile(0.5) >= queueing;
  }

  void over_share() {
    if (share_of(now_.group_recent, now_.recent_interval) < busy_share || !queues()) return;
    const auto most = lacking_most();
    if (most.empty()) return;
    for (const group_metrics& g : now_.groups) {
      if (got(g) < asked(g) * over_by || got(g) - asked(g) < over_at_least) continue;
      const auto beside = most.find(above(g));
      if (beside == most.end()) continue;
      const group_metrics* const worst = beside->second;
      out_.add(lint_kind::over_share, harm::delays, g.recent - std::min(g.recent, g.asked), g.path,
               fmt::format("Group {} takes {:.0f} % of the CPU time of all groups with a weight of "
                           "{:.0f} %, while group {} wants more and has {:.0f} % of its {:.0f} %.",
                           in_quotes(g.path), 100 * got(g), 100 * asked(g), in_quotes(worst->path),
                           100 * got(*worst), 100 * asked(*worst)),
               "Ask admit() before each request of the group, so that it is refused first while "
               "the context is overloaded; give its tasks a budget; or raise its weight, if it is "
               "meant to have that much.");
    }
  }

  void overloaded() {
    const statistics earlier = before_ != nullptr ? before_->totals : statistics{};
    const auto since = [&](std::uint64_t statistics::*member) {
      const std::uint64_t now = now_.totals.*member;
      return now >= earlier.*member ? now - earlier.*member : now;
    };
    const std::uint64_t by_overload = since(&statistics::requests_refused_overload);
    const std::uint64_t by_share = since(&statistics::requests_refused_share);
    if (by_overload < many_refused || by_overload <= by_share) return;
    out_.add(lint_kind::overloaded, harm::delays, nanoseconds{0}, {},
             fmt::format("{} requests were refused because of overload, and not because of one "
                         "group's use ({} were for their group's share): there is more work than "
                         "CPU.",
                         by_overload, by_share),
             "Let more threads call run(), make requests cheaper, or accept fewer connections. If "
             "one tenant causes it, give each tenant a group: then the one that uses more than its "
             "share is refused first.");
  }

  const context_metrics& now_;
  const context_metrics* before_;
  findings& out_;
};

}  // namespace

void look_at_groups(const context_metrics& now, const context_metrics* before, findings& out) {
  group_rules(now, before, out).look();
}

}  // namespace asio_pulse::detail
