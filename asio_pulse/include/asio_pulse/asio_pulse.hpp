// SPDX-License-Identifier: BSL-1.0
#pragma once

/// \file
/// Includes all public headers except spawn.hpp and preemptible.hpp, which need Boost.Context.

#include <asio_pulse/hooks/requirements.hpp>
//
#include <asio_pulse/checkpoint.hpp>
#include <asio_pulse/co_spawn.hpp>
#include <asio_pulse/io_context.hpp>
#include <asio_pulse/mutex.hpp>
#include <asio_pulse/scheduling_policy.hpp>
#include <asio_pulse/should_yield.hpp>
#include <asio_pulse/task.hpp>
#include <asio_pulse/task_group.hpp>
