// SPDX-License-Identifier: BSL-1.0
//
// Turns process_metrics into metric families. It is a pure function except for the labels of
// contexts, which must not change while a context lives.

#pragma once

#include <asio_pulse/prometheus.hpp>

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace asio_pulse::detail {

/// How many sites, tasks and groups the source is asked for: all sites of a context, and more tasks than
/// are exported. Those with the same labels are summed up. A sum over the exported ones alone would
/// fall when one of them drops out of the list.
inline constexpr std::size_t considered_sites = 2047;
inline constexpr std::size_t considered_tasks = 1000;
inline constexpr std::size_t considered_groups = 1000;

/// Bytes that are kept of names, of types of sites, of places, and of paths of groups. A cut value ends in the number
/// of bytes that were cut and a checksum of the whole, so that two long values stay distinct.
inline constexpr std::size_t name_bytes = 128;
inline constexpr std::size_t site_bytes = 192;
inline constexpr std::size_t place_bytes = 192;
inline constexpr std::size_t group_bytes = 192;

/// A label's value: escaped as reports are, hence valid UTF-8 on one line, and cut.
[[nodiscard]] std::string label_value(std::string_view text, std::size_t max_bytes);

/// The labels of contexts. Each is unique among the living contexts, and a context keeps its label
/// while it lives. Then the label is reused, so that a program that makes a context a minute has
/// only as many series as it has contexts at a time.
class context_labels {
 public:
  struct entry {
    std::string name;   ///< options::name
    std::string label;  ///< the name, or "unnamed"; with "#2" if another context has that label
    // The highest values so far of sums and differences of counters, which are read one by one. A
    // task that ends meanwhile may be missing from a sum. Prometheus would take the lower value for
    // a restart.
    std::uint64_t polls = 0;
    std::chrono::nanoseconds cpu{0};
    std::uint64_t unknown_stalls = 0;

    void see(const context_metrics&);
  };

  /// Forgets contexts that are gone, and gives labels to new ones.
  void update(const process_metrics&);
  /// The entry of a context that was in the last update().
  [[nodiscard]] entry& operator[](std::uint64_t number) { return entries_.at(number); }

 private:
  [[nodiscard]] bool taken(const std::string& label) const;

  std::uint64_t pid_ = 0;
  std::map<std::uint64_t, entry> entries_;
};

[[nodiscard]] std::vector<prometheus::MetricFamily> to_families(const process_metrics&,
                                                                const prometheus_options&,
                                                                context_labels&);

/// PREFIX_up, the only family of a scrape whose figures could not be collected.
[[nodiscard]] prometheus::MetricFamily up_family(const prometheus_options&, bool up);

}  // namespace asio_pulse::detail
