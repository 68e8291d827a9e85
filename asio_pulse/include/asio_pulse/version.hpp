// SPDX-License-Identifier: BSL-1.0
#pragma once

/// The version of these headers, as the CMake project has it (which checks that it is the same).
#define ASIO_PULSE_VERSION "0.1.0"
