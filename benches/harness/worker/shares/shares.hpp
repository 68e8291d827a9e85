// SPDX-License-Identifier: BSL-1.0
//
// The parts of the scenario `shares`, by their variants.

#pragma once

#include "../worker.hpp"

namespace worker {

/// Groups that all want more than there is, by their weights: what each got in any second.
outcome shares_weights(const request& r);
/// The same for groups of equal weight, whose handlers take 5 us or 500 us.
outcome shares_lengths(const request& r);
/// Two tenants of an HTTP server, one of which sends ten times its share.
outcome shares_flood(const request& r);
/// The goodput of an HTTP server at loads up to twice what it can serve.
outcome shares_overload(const request& r);
/// Jobs with deadlines at 90 % load.
outcome shares_deadline(const request& r);
/// A class of tasks beside more urgent ones that want the whole CPU.
outcome shares_priority(const request& r);
/// The cost of a poll with and without groups.
outcome shares_cost(const request& r);
/// The cost of a poll, and the memory, of 10 000 groups.
outcome shares_many(const request& r);
/// What classifying an accepted connection costs.
outcome shares_classify(const request& r);
/// Changes of options while workers poll.
outcome shares_update(const request& r);

}  // namespace worker
