// SPDX-License-Identifier: BSL-1.0

#include "families.hpp"

#include <asio_pulse/report.hpp>

#include <fmt/core.h>
#include <prometheus/check_names.h>

#include <exception>
#include <mutex>
#include <stdexcept>
#include <utility>

namespace asio_pulse {
namespace {

constexpr std::size_t shown_bytes = 64;

// As in the checks of options, the text names the field, the rule and the value.
void validate(const prometheus_options& o) {
  // A label's rule, not a metric's: colons are for recording rules.
  if (!prometheus::CheckLabelName(o.prefix)) {
    throw std::invalid_argument(fmt::format(
        "asio_pulse::prometheus_options.prefix must be a letter or an underscore, then letters, "
        "digits and underscores, without two underscores at the beginning (got \"{}\")",
        escape(o.prefix, shown_bytes)));
  }
  const auto at_most = [](const char* field, std::size_t value, std::size_t most) {
    if (value > most) {
      throw std::invalid_argument(fmt::format(
          "asio_pulse::prometheus_options.{} must be at most {} (got {})", field, most, value));
    }
  };
  at_most("top_tasks", o.top_tasks, detail::considered_tasks);
  at_most("top_sites", o.top_sites, detail::considered_sites);
  at_most("top_groups", o.top_groups, detail::considered_groups);
}

}  // namespace

struct prometheus_collectable::state {
  prometheus_options opts;
  source from;
  std::mutex mutex;  // of labels: an exposer has several threads
  detail::context_labels labels;

  [[nodiscard]] metrics_request request() const {
    return {.top_tasks = opts.top_tasks == 0 ? 0 : detail::considered_tasks,
            .top_sites = opts.top_sites == 0 ? 0 : detail::considered_sites,
            .top_groups = opts.top_groups == 0 ? 0 : detail::considered_groups};
  }
};

prometheus_collectable::prometheus_collectable(prometheus_options opts, source from)
    : state_(std::make_unique<state>()) {
  validate(opts);
  state_->opts = std::move(opts);
  state_->from = from ? std::move(from) : source(&asio_pulse::collect);
  try {
    (void)state_->from(state_->request());
  } catch (const std::exception&) {  // if the fault persists, the first scrape shows it
  }
}

prometheus_collectable::~prometheus_collectable() = default;

std::vector<prometheus::MetricFamily> prometheus_collectable::Collect() const {
  try {
    // The lock covers the reading as well: an older one must not be processed after a newer one.
    const std::scoped_lock lock(state_->mutex);
    return detail::to_families(state_->from(state_->request()), state_->opts, state_->labels);
  } catch (const std::exception&) {
    return {detail::up_family(state_->opts, false)};
  }
}

}  // namespace asio_pulse
