// SPDX-License-Identifier: BSL-1.0

#include "lint_rules.hpp"

#include <asio_pulse/lints.hpp>
#include <asio_pulse/report.hpp>

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <utility>

namespace asio_pulse {
namespace {

// How much of a name a text contains. The subject has the whole name.
constexpr std::size_t name_bytes = 60;
constexpr std::size_t file_bytes = 80;

}  // namespace

std::string detail::in_quotes(std::string_view name) {
  return name.empty() ? std::string{"an unnamed handler"}
                      : fmt::format("\"{}\"", escape(name, name_bytes));
}

std::string detail::at(const source_place& place) {
  if (place.file.empty()) return {};
  return fmt::format(" ({}:{})", escape(place.file, file_bytes), place.line);
}

std::string_view to_string(lint_kind kind) noexcept {
  static constexpr std::array<std::string_view, 16> names{
      "long_poll",   "self_waking",  "greedy_strand", "blocked_lock",
      "blocked_dns", "blocked_call", "rising_delay",  "hot_task",
      "held_back",   "no_watchdog",  "not_collected", "over_share",
      "overloaded",  "hot_shard",    "shared_cpu",    "refused_checkpoint"};
  static_assert(static_cast<std::size_t>(lint_kind::refused_checkpoint) + 1 == names.size());
  const auto index = static_cast<std::size_t>(kind);
  return index < names.size() ? names[index] : "unknown";
}

std::vector<lint> lints(const process_metrics& now, const process_metrics* before) {
  // Another process with the same id, or the two readings are not in order.
  if (before != nullptr && (before->pid != now.pid || before->uptime >= now.uptime)) {
    before = nullptr;
  }
  const std::chrono::nanoseconds interval =
      before == nullptr ? std::chrono::nanoseconds{0} : now.uptime - before->uptime;
  std::vector<detail::finding> found;
  for (const context_metrics& context : now.contexts) {
    const context_metrics* earlier = nullptr;
    if (before != nullptr) {
      const auto same = std::find_if(before->contexts.begin(), before->contexts.end(),
                                     [&](const auto& c) { return c.number == context.number; });
      if (same != before->contexts.end()) earlier = &*same;
    }
    detail::findings of_it;
    detail::look_at_handlers(context, of_it);
    detail::look_at_use(context, earlier, interval, of_it);
    detail::look_at_groups(context, earlier, of_it);
    detail::look_at_shards(now, context, of_it);
    for (detail::finding& f : of_it.all()) {
      f.what.context = context.number;
      f.what.anchor = to_string(f.what.kind);
      found.push_back(std::move(f));
    }
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const detail::finding& a, const detail::finding& b) {
                     return a.how != b.how ? a.how < b.how : a.cost > b.cost;
                   });
  std::vector<lint> result;
  result.reserve(found.size());
  for (detail::finding& f : found) result.push_back(std::move(f.what));
  return result;
}

}  // namespace asio_pulse
