// SPDX-License-Identifier: BSL-1.0

#include "plugin.hpp"

#include <asio_pulse/io_context.hpp>
#include <asio_pulse/report.hpp>
#include <asio_pulse/task.hpp>

#include <boost/asio/post.hpp>

#include <atomic>
#include <chrono>
#include <exception>
#include <string>
#include <thread>

namespace {

const char* make_task(boost::asio::io_context& io) {
  static std::string said;
  said.clear();
  try {
    const asio_pulse::task t{io, {.name = "of_the_plugin"}};
  } catch (const std::exception& e) {
    said = e.what();
  }
  return said.c_str();
}

bool serve() {
  static std::atomic<bool> told{false};
  asio_pulse::options o;
  o.inspectable = false;
  o.stall_threshold = std::chrono::milliseconds{2};
  o.report_interval = std::chrono::nanoseconds{0};
  o.on_report = [](const asio_pulse::report& r) {
    if (r.kind == asio_pulse::report_kind::stall && !r.stack.empty()) told = true;
  };
  // Never destroyed, to test a plugin that is unloaded without cleaning up.
  auto& io = *new asio_pulse::io_context{o};
  boost::asio::post(io, [] {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds{60};
    while (!told && std::chrono::steady_clock::now() < end) {
    }
  });
  std::thread([&io] { io.run(); }).join();
  return told;
}

void post(boost::asio::io_context& io, void (*handler)()) { boost::asio::post(io, handler); }

}  // namespace

extern "C" [[gnu::visibility("default")]] const plugin_functions plugin_functions{
    .make_task = &make_task, .serve = &serve, .post = &post};
