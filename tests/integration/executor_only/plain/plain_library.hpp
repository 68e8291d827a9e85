// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/io_context.hpp>

#include <cstddef>
#include <functional>
#include <string>

/// A library that was built on plain Boost.Asio, in C++17, and knows nothing of asio-pulse: it
/// creates, queues and completes operations of its own, some in functions that the program
/// instantiates as well.
namespace plain_library {

/// Posts `count` handlers; each calls step(its number).
void post_many(const boost::asio::any_io_executor& ex, int count, std::function<void(int)> step);

/// A chain of timers, `count` long; then done().
void tick(const boost::asio::any_io_executor& ex, int count, std::function<void()> done);

/// Sends the text through a pair of connected sockets, byte by byte; done(what came out).
void through_sockets(const boost::asio::any_io_executor& ex, std::string text,
                     std::function<void(std::string)> done);

/// A strand over the executor, with `count` handlers in it; each calls step(its number).
void in_a_strand(const boost::asio::any_io_executor& ex, int count, std::function<void(int)> step);

/// A chain of `count` deferred handlers; done(count).
void chain(const boost::asio::any_io_executor& ex, int count, std::function<void(int)> done);

/// Runs the context until it is out of work, as a library that was handed one would.
std::size_t run(boost::asio::io_context& context);

/// The size of the operation of a posted handler, as the library sees it.
std::size_t operation_size();

}  // namespace plain_library
