#ifndef ASIO_PULSE_CHECKPOINTS_GCC_COMPILER_HPP
#define ASIO_PULSE_CHECKPOINTS_GCC_COMPILER_HPP

// The headers of the compiler, for what reads and changes its code.

#include "writer.hpp"

// GCC's headers need each other in this order.
// clang-format off
#include <basic-block.h>
#include <cfganal.h>
#include <cfghooks.h>
#include <cfgloop.h>
#include <cfgloopmanip.h>
#include <context.h>
#include <ggc.h>
#include <gimple-iterator.h>
#include <gimple-ssa.h>
#include <options.h>
#include <ssa.h>
#include <stringpool.h>
#include <tree-cfg.h>
#include <tree-dfa.h>
#include <tree-eh.h>
#include <tree-into-ssa.h>
#include <tree-pass.h>
#include <tree-scalar-evolution.h>
#include <tree-ssa-loop-manip.h>
#include <tree-ssa-loop-niter.h>
#include <tree-ssa-operands.h>
#include <varasm.h>
// clang-format on

namespace asio_pulse::checkpoints {

using gcc_loop = class ::loop;

}  // namespace asio_pulse::checkpoints

#endif
