// SPDX-License-Identifier: BSL-1.0
//
// Clients that send HTTP requests at times that do not depend on the answers: an open loop.

#pragma once

#include "worker.hpp"

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace worker {

/// The requests of one tenant, which its header X-Tenant names.
struct tenant_load {
  std::string name;
  double rate = 0;  ///< requests a second, at random times; 0: each after the answer to another
  unsigned connections = 1;
};

/// In ns since the start.
struct request_times {
  std::int64_t due = 0;    ///< when it should have been sent
  std::int64_t sent = -1;  ///< when a connection was free; negative: never
  std::int64_t done = -1;  ///< when the answer was read; negative: never
  int status = 0;          ///< of the answer

  /// Counts from the time at which it should have been sent, so that nothing is left out while the
  /// server makes the client wait (no coordinated omission). Without an answer: until \p end.
  std::int64_t latency(std::int64_t end) const { return (done < 0 ? end : done) - due; }
};

struct sent_requests {
  std::vector<std::vector<request_times>> of;  ///< of each tenant, in the order of their times
  std::int64_t end = 0;                        ///< when the client stopped waiting
  std::string fault;                           ///< an answer that is not HTTP; empty: none
};

/// Sends for \p duration, and waits for the last answers at most for \p patience. A connection has
/// one request at a time; a request that finds no free one waits, and its latency goes on. The times
/// are those of a Poisson process with a fixed seed, the same in each run. Keeps a CPU busy.
///
/// \par Errors  std::system_error.
sent_requests send_requests(std::uint16_t port, const std::vector<tenant_load>& tenants,
                            std::chrono::milliseconds duration, std::chrono::milliseconds patience);

}  // namespace worker
