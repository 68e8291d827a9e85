#ifndef ASIO_PULSE_CHECKPOINTS_GCC_LOOPS_HPP
#define ASIO_PULSE_CHECKPOINTS_GCC_LOOPS_HPP

#include "compiler.hpp"

namespace asio_pulse::checkpoints {

/// A loop of the form `do … while ((i += step) != end)`, or `< end`; `i` is a number or a pointer.
struct strip_plan {
  gphi* phi = nullptr;
  gcond* test = nullptr;
  tree next = NULL_TREE, end = NULL_TREE;
  bool end_is_left = false;
  tree_code stays = ERROR_MARK;  // `next stays end` keeps the loop running
  edge exit = nullptr;
  HOST_WIDE_INT step = 0;
};

/// Whether the loop has that form; fills in the plan.
bool find_strip(gcc_loop* l, strip_plan& plan);

/// The line that a report about the loop should name.
location_t location_of(gcc_loop* l);

/// The loop in the terms of ../decisions.hpp. `plain_edges`: all edges of the function can carry new values.
loop_facts describe(gcc_loop* l, bool plain_edges);

}  // namespace asio_pulse::checkpoints

#endif
