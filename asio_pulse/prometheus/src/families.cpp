// SPDX-License-Identifier: BSL-1.0

#include "families.hpp"

#include <asio_pulse/report.hpp>
#include <asio_pulse/timing/clock.hpp>

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <string>
#include <utility>
#include <variant>

namespace asio_pulse::detail {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using labels = std::vector<ClientMetric::Label>;
using std::chrono::nanoseconds;

double seconds(nanoseconds value) { return std::chrono::duration<double>(value).count(); }

// The families in the order in which they are first added to.
class family_list {
 public:
  explicit family_list(const std::string& prefix) : prefix_(prefix) {}

  void counter(std::string_view name, std::string_view help, labels l, double value) {
    add(name, MetricType::Counter, help, std::move(l)).counter.value = value;
  }
  void counter(std::string_view name, std::string_view help, labels l, std::uint64_t value) {
    counter(name, help, std::move(l), static_cast<double>(value));
  }
  void gauge(std::string_view name, std::string_view help, labels l, double value) {
    add(name, MetricType::Gauge, help, std::move(l)).gauge.value = value;
  }
  void gauge(std::string_view name, std::string_view help, labels l, std::uint64_t value) {
    gauge(name, help, std::move(l), static_cast<double>(value));
  }
  ClientMetric& add(std::string_view name, MetricType type, std::string_view help, labels l) {
    std::string full = fmt::format("{}_{}", prefix_, name);
    auto at = std::find_if(families_.begin(), families_.end(),
                           [&full](const MetricFamily& f) { return f.name == full; });
    if (at == families_.end()) {
      at = families_.insert(
          families_.end(),
          {.name = std::move(full), .help = std::string(help), .type = type, .metric = {}});
    }
    at->metric.emplace_back().label = std::move(l);
    return at->metric.back();
  }
  std::vector<MetricFamily> take() { return std::move(families_); }

 private:
  const std::string& prefix_;
  std::vector<MetricFamily> families_;
};

// 1, 2.5, 5 in each decade from 1 us to 10 s.
constexpr auto bounds = [] {
  std::array<nanoseconds, 22> result{};
  std::size_t at = 0;
  for (std::int64_t decade = 1'000; decade < 10'000'000'000; decade *= 10) {
    for (const std::int64_t tenths : {10, 25, 50}) result[at++] = nanoseconds{decade * tenths / 10};
  }
  result[at] = std::chrono::seconds{10};
  return result;
}();
static_assert(bounds[0] == std::chrono::microseconds{1} && bounds[20] == std::chrono::seconds{5});

// Texts of the tables as sentences: "handlers run" becomes "Handlers run.". Texts of several parts,
// "kind=operation: ...", keep their first letter.
std::string sentence(std::string text) {
  if (text[0] >= 'a' && text[0] <= 'z' && text.find('=') == text.npos) {
    text[0] = static_cast<char>(text[0] - 'a' + 'A');
  }
  text += '.';
  return text;
}

// A metric's help, made of the rows that it has in the table: "Handlers run on the isolation
// pool.", or "kind=operation: operations put back ...; kind=strand: ..."
std::string help_of(std::string_view metric) {
  std::string help;
  for (const statistic& row : statistic_table) {
    if (row.metric != metric) continue;
    if (!help.empty()) help += "; ";
    if (!row.label.empty()) help += fmt::format("{}={}: ", row.label, row.value);
    help += row.help;
    if (row.time != nullptr) help += ", in seconds";
  }
  if (metric == "stalls_total") help += "; cause=unknown: neither, as far as can be told";
  return sentence(std::move(help));
}

template <typename Of>
std::string help_of(const figure<Of>& row) {
  if (!row.metric_help.empty()) return sentence(std::string(row.metric_help));
  const bool time = std::holds_alternative<nanoseconds Of::*>(row.member);
  return sentence(fmt::format("{}{}", row.help, time ? ", in seconds" : ""));
}

// The sum of the figures of what shares a series; of peaks, the highest.
template <typename Of>
class figure_sum {
 public:
  figure_sum() = default;
  explicit figure_sum(const Of& one) {
    each([&](const figure<Of>& row, double& sum) { sum = raw(row, one); });
  }
  void add(const figure_sum& other) noexcept {
    std::size_t at = 0;
    each([&](const figure<Of>& row, double& sum) {
      const double more = other.sums_[at++];
      sum = row.what == figure<Of>::kind::peak ? std::max(sum, more) : sum + more;
    });
  }
  void export_to(family_list& out, const labels& l) const {
    for (std::size_t i = 0; i != sums_.size(); ++i) {
      const figure<Of>& row = figure_table<Of>[i];
      if (row.metric.empty()) continue;
      const bool time = std::holds_alternative<nanoseconds Of::*>(row.member);
      const double value = time ? sums_[i] / nanoseconds_per_second : sums_[i];
      if (row.what == figure<Of>::kind::counter) {
        out.counter(row.metric, help_of(row), l, value);
      } else {
        out.gauge(row.metric, help_of(row), l, value);
      }
    }
  }

 private:
  static constexpr double nanoseconds_per_second = 1e9;

  template <typename Do>
  void each(Do what) {
    for (std::size_t i = 0; i != sums_.size(); ++i) what(figure_table<Of>[i], sums_[i]);
  }
  // A count, or nanoseconds. Up to 2^53, which is 104 days, sums are exact.
  static double raw(const figure<Of>& row, const Of& of) {
    return std::visit([&](auto member) { return plain(of.*member); }, row.member);
  }
  static double plain(std::uint64_t value) { return static_cast<double>(value); }
  static double plain(nanoseconds value) { return static_cast<double>(value.count()); }
  static double plain(bool value) { return value ? 1.0 : 0.0; }

  std::array<double, figure_table<Of>.size()> sums_{};
};

void add_totals(family_list& out, const context_metrics& c, const context_labels::entry& known) {
  const std::string& context = known.label;
  const auto with = [&context](std::string_view name, std::string_view value) {
    labels l{{"context", context}};
    if (!name.empty()) l.push_back({std::string(name), std::string(value)});
    return l;
  };
  const labels plain{{"context", context}};
  out.gauge("enabled", "1 if the context accounts for its handlers (options::enabled).", plain,
            c.enabled ? 1.0 : 0.0);
  out.gauge("shadow", "1 in shadow mode: decisions are reported, not enforced.", plain,
            c.shadow ? 1.0 : 0.0);
  out.gauge("collecting",
            "1 if histograms, and metrics of sites and workers, are being collected; 0 also at the "
            "first scrape of a context that collects on demand.",
            plain, c.collecting ? 1.0 : 0.0);
  out.gauge("clock_info", "1; the label is the clock with which polls are measured.",
            with("clock", timing::to_string(c.totals.clock)), 1.0);
  out.counter("polls_total", "Handlers run, of all tasks.", plain, known.polls);
  out.counter("cpu_seconds_total", "CPU time of handlers, in seconds.", plain, seconds(known.cpu));
  for (const statistic& row : statistic_table) {
    if (row.metric.empty()) continue;
    const std::string help = help_of(row.metric);
    const labels l = row.label.empty() ? plain : with(row.label, row.value);
    if (row.time != nullptr) {
      out.counter(fmt::format("{}_seconds_total", row.metric), help, l,
                  seconds(c.totals.*row.time));
    } else if (row.what == statistic::kind::counter) {
      out.counter(row.metric, help, l, c.totals.*row.count);
    } else {
      out.gauge(row.metric, help, l, c.totals.*row.count);
    }
  }
  // What is left of statistics::stalls.
  out.counter("stalls_total", help_of("stalls_total"), with("cause", "unknown"),
              known.unknown_stalls);
  out.gauge("instrument_bytes", "Memory held by the instruments, in bytes.", plain,
            c.instrument_bytes);
  out.gauge("uncollected_workers",
            "Threads that are not measured: options::instrument_bytes leaves no room for them.",
            plain, c.uncollected_workers);
  if (!c.stalls.empty()) {
    const auto newest = std::max_element(c.stalls.begin(), c.stalls.end(),
                                         [](const auto& a, const auto& b) { return a.at < b.at; });
    out.gauge("last_stall_timestamp_seconds",
              "When a poll was last found stuck, in seconds since 1970.", plain,
              seconds(newest->at.time_since_epoch()));
  }
}

// How many durations are at most `limit`. A bucket counts or not by about its own middle, whatever
// its neighbours hold: otherwise a count could fall when a neighbour fills.
std::uint64_t at_most(const histogram& h, nanoseconds limit) {
  std::uint64_t sum = 0;
  for (const histogram::bucket& b : h.buckets) {
    if (b.upper - b.upper / 16 <= limit) sum += b.count;
  }
  return sum;
}

void add_histogram(family_list& out, std::string_view name, std::string_view help,
                   const std::string& context, const histogram& h) {
  auto& to = out.add(name, MetricType::Histogram, help, {{"context", context}}).histogram;
  for (const nanoseconds bound : bounds) {
    to.bucket.push_back({.cumulative_count = at_most(h, bound), .upper_bound = seconds(bound)});
  }
  // The count and the buckets are read one after another, while they grow.
  to.sample_count = std::max(h.count, at_most(h, nanoseconds::max()));
  to.sample_sum = seconds(h.sum);
}

void add_workers(family_list& out, const context_metrics& c, const std::string& context) {
  const auto live = std::count_if(c.workers.begin(), c.workers.end(),
                                  [](const worker_metrics& w) { return w.thread != 0; });
  out.gauge("workers", "Threads that poll the context.", {{"context", context}},
            static_cast<double>(live));
  for (std::size_t n = 0; n != c.workers.size(); ++n) {
    const worker_metrics& w = c.workers[n];
    // The position and not the thread's id, which changes with each restart.
    const labels l{{"context", context}, {"worker", fmt::format("{}", n)}};
    figure_sum(w).export_to(out, l);
  }
}

// Sites with the same labels are added up.
void add_sites(family_list& out, const context_metrics& c, const std::string& context,
               std::size_t most) {
  struct series {
    labels l;
    figure_sum<site_metrics> sum;
    nanoseconds cpu;
  };
  std::vector<series> shown;
  for (const site_metrics& s : c.sites) {
    std::string place;
    if (!s.place.file.empty()) {
      place = label_value(fmt::format("{}:{}", s.place.file, s.place.line), place_bytes);
    } else {
      place = label_value(s.place.function, place_bytes);
    }
    shown.push_back({{{"context", context},
                      {"site", label_value(s.type, site_bytes)},
                      {"place", std::move(place)}},
                     figure_sum(s),
                     s.cpu});
  }
  std::sort(shown.begin(), shown.end(), [](const auto& a, const auto& b) { return a.l < b.l; });
  std::size_t kept = 0;
  for (std::size_t n = 0; n != shown.size(); ++n) {
    if (kept != 0 && shown[kept - 1].l == shown[n].l) {
      shown[kept - 1].sum.add(shown[n].sum);
      shown[kept - 1].cpu += shown[n].cpu;
    } else {
      if (kept != n) shown[kept] = std::move(shown[n]);
      ++kept;
    }
  }
  shown.resize(kept);
  std::stable_sort(shown.begin(), shown.end(),
                   [](const auto& a, const auto& b) { return a.cpu > b.cpu; });
  shown.resize(std::min(shown.size(), most));
  for (const series& one : shown) one.sum.export_to(out, one.l);
}

// Tasks of one name share a series. All are gauges, because which tasks are considered changes from
// scrape to scrape.
void add_tasks(family_list& out, const context_metrics& c, const std::string& context,
               std::size_t most) {
  struct group {
    figure_sum<task_metrics> sum{};
    nanoseconds recent{0};
    tier level = tier::monitor;

    void add(const group& other) noexcept {
      sum.add(other.sum);
      recent += other.recent;
      level = std::max(level, other.level);
    }
  };
  const auto alone = [](const task_metrics& t) { return group{figure_sum(t), t.recent, t.level}; };
  std::map<std::string, group> by_name;
  for (const task_metrics& t : c.tasks) by_name[label_value(t.name, name_bytes)].add(alone(t));
  std::vector<std::pair<std::string, group>> shown(by_name.begin(), by_name.end());
  std::stable_sort(shown.begin(), shown.end(),
                   [](const auto& a, const auto& b) { return a.second.recent > b.second.recent; });
  constexpr std::string_view rest = "(all other)";
  group others = alone(c.other_tasks);
  for (std::size_t n = shown.size(); n-- != 0;) {
    if (n >= most || shown[n].first == rest) {
      others.add(shown[n].second);
      shown.erase(shown.begin() + static_cast<std::ptrdiff_t>(n));
    }
  }
  shown.emplace_back(rest, others);
  const double interval = seconds(c.recent_interval);
  std::string tier_help = "The highest tier among the tasks of this name:";
  for (std::size_t i = 0; i < tier_count; ++i) {
    tier_help += fmt::format(" {} {}{}", i, tier_names[i], i + 1 < tier_count ? "," : ".");
  }
  for (const auto& [name, g] : shown) {
    const labels l{{"context", context}, {"task", name}};
    out.gauge("task_cpus",
              "Recent CPU use of the tasks of this name, in CPU seconds per second (1 is one CPU).",
              l, interval > 0 ? seconds(g.recent) / interval : 0.0);
    out.gauge("task_tier", tier_help, l, static_cast<std::uint64_t>(g.level));
    g.sum.export_to(out, l);
  }
}

// Groups with the same path share a series. The rest has none, as with sites: a sum of its counters
// would fall whenever a group leaves it.
void add_groups(family_list& out, const context_metrics& c, const std::string& context,
                std::size_t most) {
  struct series {
    figure_sum<group_metrics> sum{};
    double recent = 0;  // in seconds
    double asked = 0;
  };
  std::map<std::string, series> by_path;
  for (const group_metrics& g : c.groups) {
    series& s = by_path[label_value(g.path, group_bytes)];
    s.sum.add(figure_sum(g));
    s.recent += seconds(g.recent);
    s.asked += seconds(g.asked);
  }
  std::vector<std::pair<std::string, series>> shown(by_path.begin(), by_path.end());
  std::stable_sort(shown.begin(), shown.end(),
                   [](const auto& a, const auto& b) { return a.second.recent > b.second.recent; });
  shown.resize(std::min(shown.size(), most));
  out.gauge("groups", "Groups of tasks.", {{"context", context}}, c.group_count);
  for (const auto& [path, s] : shown) {
    const labels l{{"context", context}, {"group", path}};
    const double all = seconds(c.group_recent);
    const auto share = [all](double part) { return all > 0 ? part / all : 0.0; };
    out.gauge("group_share_ratio",
              "The group's part of the recent CPU time of all groups, from 0 to 1.", l,
              share(s.recent));
    out.gauge("group_share_asked_ratio",
              "The part of the recent CPU time of all groups that the group's weight asked for, "
              "from 0 to 1.",
              l, share(s.asked));
    s.sum.export_to(out, l);
  }
}

labels shard_labels(const context_metrics& c, const std::string& context) {
  return {{"context", context},
          {"set", std::to_string(c.shard.set)},
          {"shard", std::to_string(c.shard.index)}};
}

}  // namespace

MetricFamily up_family(const prometheus_options& opts, bool up) {
  MetricFamily f{.name = opts.prefix + "_up",
                 .help = "1 if the figures of this scrape could be collected.",
                 .type = MetricType::Gauge,
                 .metric = std::vector<ClientMetric>(1)};
  f.metric[0].gauge.value = up ? 1.0 : 0.0;
  return f;
}

std::vector<MetricFamily> to_families(const process_metrics& m, const prometheus_options& opts,
                                      context_labels& names) {
  names.update(m);
  family_list out(opts.prefix);
  out.gauge("build_info", "1; the labels give the version of asio-pulse and the program.",
            {{"version", label_value(m.version, name_bytes)},
             {"program", label_value(m.program, name_bytes)}},
            1.0);
  out.gauge("contexts", "Contexts alive.", {}, static_cast<double>(m.contexts.size()));
  for (const context_metrics& c : m.contexts) {
    context_labels::entry& entry = names[c.number];
    entry.see(c);
    add_totals(out, c, entry);
    add_histogram(out, "poll_duration_seconds", "How long handlers ran, in seconds.", entry.label,
                  c.poll_duration);
    add_histogram(
        out, "queue_delay_seconds",
        "How long a ready handler waits for its turn, in seconds; measured with a probe that "
        "is posted every 10 ms while the context is busy.",
        entry.label, c.queue_delay);
    if (c.shard.shards != 0) figure_sum(c.shard).export_to(out, shard_labels(c, entry.label));
    if (opts.workers) add_workers(out, c, entry.label);
    if (opts.top_sites != 0) add_sites(out, c, entry.label, opts.top_sites);
    if (opts.top_tasks != 0) add_tasks(out, c, entry.label, opts.top_tasks);
    if (opts.top_groups != 0) add_groups(out, c, entry.label, opts.top_groups);
  }
  std::vector<MetricFamily> families = out.take();
  families.insert(families.begin(), up_family(opts, true));
  return families;
}

}  // namespace asio_pulse::detail
