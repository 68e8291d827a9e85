// SPDX-License-Identifier: BSL-1.0

// A program on asio-pulse that calls a part built without the tracking definition. Usage: PROGRAM
// WHAT

#include "plain_part.hpp"

#include <asio_pulse/io_context.hpp>

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include <chrono>
#include <iostream>
#include <string_view>

int main(int argc, char** argv) {
  asio_pulse::io_context context;
  boost::asio::steady_timer timer(context, std::chrono::milliseconds(1));
  timer.async_wait([](boost::system::error_code) {});
  boost::asio::post(context, [] {});
  context.run();
  context.restart();

  const std::string_view what = argc > 1 ? argv[1] : "";
  if (what == "post") plain_part::post(context);
  if (what == "timer") plain_part::wait_for_timer(context);
  if (what == "socket") plain_part::read_from_socket(context);
  if (what == "own_context") plain_part::run_a_context_of_its_own();
  if (what == "thread_pool") plain_part::use_a_thread_pool();
  std::cout << "ran to its end\n";
}
