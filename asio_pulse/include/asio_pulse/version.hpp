// SPDX-License-Identifier: BSL-1.0
#pragma once

/// The version of these headers. CMake checks that it is the version of the project.
#define ASIO_PULSE_VERSION "0.1.0"
