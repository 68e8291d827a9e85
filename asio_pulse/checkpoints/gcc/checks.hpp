#ifndef ASIO_PULSE_CHECKPOINTS_GCC_CHECKS_HPP
#define ASIO_PULSE_CHECKPOINTS_GCC_CHECKS_HPP

#include "compiler.hpp"
#include "loops.hpp"

namespace asio_pulse::checkpoints {

/// Subtracts from the fuel on this edge; calls the slow path when it is used up.
void subtract(edge e, work charge, location_t where);
/// The same before the last statement of a block, whose ways out cannot be split.
void subtract_before_end(basic_block b, work charge, location_t where);
/// The same on an edge that perhaps cannot be split.
void subtract_on(edge e, work charge, location_t where);

/// Starts a counter for a nest: an SSA name of which all others are new definitions. update_ssa() adds the phis.
tree start_counter(edge e);
/// Subtracts from the counter on this edge, which can be split.
void count(edge e, tree counter, work charge, location_t where);

/// Makes the loop run in chunks, with a check after each.
void strip(gcc_loop* l, const strip_plan& plan, work chunk);

}  // namespace asio_pulse::checkpoints

#endif
