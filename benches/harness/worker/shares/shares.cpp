// SPDX-License-Identifier: BSL-1.0
//
// Groups of tasks: who gets the CPU, who is refused, and what that costs.

#include "shares.hpp"

#include <stdexcept>

namespace worker {

outcome shares(const request& r) {
  static const std::map<std::string, outcome (*)(const request&)> parts{
      {"weights", shares_weights},   {"lengths", shares_lengths},   {"flood", shares_flood},
      {"overload", shares_overload}, {"deadline", shares_deadline}, {"priority", shares_priority},
      {"cost", shares_cost},         {"many", shares_many},         {"classify", shares_classify},
      {"update", shares_update}};
  const auto part = parts.find(r.variant);
  if (part == parts.end()) throw std::invalid_argument("shares: no variant \"" + r.variant + "\"");
  return part->second(r);
}

}  // namespace worker
