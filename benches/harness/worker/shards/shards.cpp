// SPDX-License-Identifier: BSL-1.0
#include "shards.hpp"

#include <stdexcept>

namespace worker {

outcome shards(const request& r) {
  static const std::map<std::string, outcome (*)(const request&)> parts {
    {"posts", shards_posts}, {"overhead", shards_overhead}, {"message", shards_message},
        {"wake", shards_wake},
#if !defined(BENCH_STOCK)
        {"moving", shards_moving}, {"polls", shards_polls}, {"memory", shards_memory},
        {"model", shards_model}, {"sticky", shards_sticky}, {"simulate", shards_simulate},
        {"simulate-still", shards_simulate}, {"simulate-stealing", shards_simulate}, {
      "simulate-queue", shards_simulate
    }
#endif
  };
  const auto part = parts.find(r.variant);
  if (part == parts.end()) throw std::invalid_argument("shards: no variant \"" + r.variant + "\"");
  return part->second(r);
}

}  // namespace worker
