// SPDX-License-Identifier: BSL-1.0
//
// From process_metrics to metric families: a pure function, but for the names of contexts, which
// must not change while a context lives.

#pragma once

#include <asio_pulse/prometheus.hpp>

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace asio_pulse::detail {

/// How many sites and tasks the source is asked for. All sites that a context tells apart, and more
/// tasks than are shown: what has the same labels is summed up, and a sum over those at the top
/// alone would fall when one of them is overtaken.
inline constexpr std::size_t considered_sites = 2047;
inline constexpr std::size_t considered_tasks = 1000;

/// Bytes that are kept of names, of sites' types and of places; a cut one is followed by how much
/// was left out and by a checksum of the whole, so that two of them stay two.
inline constexpr std::size_t name_bytes = 128;
inline constexpr std::size_t site_bytes = 192;
inline constexpr std::size_t place_bytes = 192;

/// A label's value: escaped as reports are, hence valid UTF-8 on one line, and cut.
[[nodiscard]] std::string label_value(std::string_view text, std::size_t max_bytes);

/// The contexts' labels. Each is unique among the living and stays as it is while the context
/// lives; that of one that is gone is given away again, so that a program that makes a context a
/// minute has as many series as it has contexts at a time.
class context_labels {
 public:
  struct entry {
    std::string name;   ///< options::name
    std::string label;  ///< it, or "unnamed", and "#2" if another has that
    // The highest so far of what is a sum or a difference of counters that are read one by one: a
    // task that ends meanwhile is in neither of the sums, and what fell would be a restart to
    // Prometheus.
    std::uint64_t polls = 0;
    std::chrono::nanoseconds cpu{0};
    std::uint64_t unknown_stalls = 0;

    void see(const context_metrics&);
  };

  /// Forgets contexts that are gone, and names new ones.
  void update(const process_metrics&);
  /// Of a context of the last update.
  [[nodiscard]] entry& operator[](std::uint64_t number) { return entries_.at(number); }

 private:
  [[nodiscard]] bool taken(const std::string& label) const;

  std::uint64_t pid_ = 0;
  std::map<std::uint64_t, entry> entries_;
};

[[nodiscard]] std::vector<prometheus::MetricFamily> to_families(const process_metrics&,
                                                                const prometheus_options&,
                                                                context_labels&);

/// What is left when there are no figures: PREFIX_up.
[[nodiscard]] prometheus::MetricFamily up_family(const prometheus_options&, bool up);

}  // namespace asio_pulse::detail
