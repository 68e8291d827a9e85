// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>

namespace boost::asio {
class io_context;
}

/// The functions of the plugin, which the program looks up by the name "plugin_functions".
struct plugin_functions {
  /// Makes a task in the program's context. Returns the text of the exception, or an empty text if
  /// there is none.
  const char* (*make_task)(boost::asio::io_context&);
  /// Runs a context of the plugin, with a handler that is stuck until it is reported with its
  /// stack. Returns false if it is not reported. The context is not destroyed.
  bool (*serve)();
  /// Posts a handler to the program's context.
  void (*post)(boost::asio::io_context&, void (*handler)());
};
