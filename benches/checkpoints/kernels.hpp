#ifndef BENCHES_CHECKPOINTS_KERNELS_HPP
#define BENCHES_CHECKPOINTS_KERNELS_HPP

#include <cstdint>

extern const char* const names[];
extern const int kernels;
/// Makes the input. Returns something that depends on it.
std::uint64_t prepare();
/// Runs one kernel once. Returns its result, which is the same in all builds.
std::uint64_t run_kernel(int kernel);

#endif
