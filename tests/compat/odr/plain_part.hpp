// SPDX-License-Identifier: BSL-1.0
#pragma once

#if defined(PLAIN_PART_EXPORTS)
#define PLAIN_PART_API __attribute__((visibility("default")))
#else
#define PLAIN_PART_API
#endif

namespace boost::asio {
class io_context;
}

/// A part of a program that was built on plain Boost.Asio, without asio-pulse's tracking
/// definition. Each function makes operations of the untracked layout in another way, and returns
/// when its handler has run.
namespace plain_part {

PLAIN_PART_API void post(boost::asio::io_context& context);
PLAIN_PART_API void wait_for_timer(boost::asio::io_context& context);
PLAIN_PART_API void read_from_socket(boost::asio::io_context& context);
PLAIN_PART_API void run_a_context_of_its_own();
PLAIN_PART_API void use_a_thread_pool();

}  // namespace plain_part
