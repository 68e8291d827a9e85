// SPDX-License-Identifier: BSL-1.0
//
// A storm of small handlers beside the probe.

#include "../../storms.hpp"
#include "probe.hpp"
#include "server.hpp"

namespace worker {

outcome storm(const request& r) {
  outcome result;
  bench::on_deep_stack([&] {
    server s{{.workers = 1}};
    bench::storm_progress progress{r.handlers};
    probe timer{s.io(), [&progress] { return progress.over(); }};
    bench::start_storm(s.io(), r.variant, progress);
    const auto start = clock_type::now();  // the time to queue the storm is not measured
    timer.start(start);
    s.run();
    result.values["elapsed_ms"] = ms(clock_type::now() - start);
    result.values["handlers"] = progress.done;
    timer.add_to(result);
    s.add_counts(result, start);
    result.check(progress.over(), "each handler ran once");
    result.check(progress.ordered, "the handlers ran in the order in which they were started");
  });
  if (result.verified) {
    result.verification =
        "each handler ran once and in order; each deadline of the probe was "
        "counted once";
  }
  return result;
}

}  // namespace worker
