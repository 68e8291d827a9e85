// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/metrics.hpp>

#include <cstddef>
#include <functional>
#include <string>
#include <unordered_set>

namespace asio_pulse::detail {

/// Finds a site of an earlier reading. A hostile process may have thousands, with long names that
/// differ only at their ends, so they are not compared one by one.
class site_index {
 public:
  /// Of the reading's sites, which must outlive the index. Null: there was no earlier reading.
  /// \par Errors  std::bad_alloc.
  explicit site_index(const context_metrics* reading) {
    if (reading == nullptr) return;
    known_.reserve(reading->sites.size());
    for (const site_metrics& site : reading->sites) known_.insert(&site);
  }

  /// The first site with this type and place; null if there is none.
  [[nodiscard]] const site_metrics* find(const site_metrics& wanted) const {
    const auto found = known_.find(&wanted);
    return found == known_.end() ? nullptr : *found;
  }

 private:
  struct hash {
    std::size_t operator()(const site_metrics* s) const noexcept {
      constexpr std::size_t odd = 0x9e3779b97f4a7c15;
      const std::hash<std::string> of;
      return ((of(s->type) * odd + of(s->place.file)) * odd + s->place.line) * odd +
             of(s->place.function);
    }
  };
  struct same {
    bool operator()(const site_metrics* a, const site_metrics* b) const noexcept {
      return a->type == b->type && a->place == b->place;
    }
  };

  std::unordered_set<const site_metrics*, hash, same> known_;
};

}  // namespace asio_pulse::detail
