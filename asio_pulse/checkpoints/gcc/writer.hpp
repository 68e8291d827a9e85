#ifndef ASIO_PULSE_CHECKPOINTS_GCC_WRITER_HPP
#define ASIO_PULSE_CHECKPOINTS_GCC_WRITER_HPP

// The library's headers stand before GCC's, which redefine names like malloc.
#include "../decisions.hpp"
#include "../selection.hpp"

#include <functional>
#include <string>
#include <vector>

// GCC's headers need each other in this order.
// clang-format off
#include <gcc-plugin.h>

#include <tree.h>

#include <gimple.h>
// clang-format on

namespace asio_pulse::checkpoints {

using tell = std::function<void(unsigned line, const std::string& text)>;

/// A function type, as far as registers go: two types with the same text take and return the same.
std::string shape_of(tree function_type);

/// What the collector of the compiler must keep.
const ggc_root_tab* roots();

/// Writes the checks of a function. `leads_back`: may this call of it lead back to it? Returns whether there are any.
bool write_checks(function* f, const std::function<bool(function*, gcall*)>& leads_back,
                  const tell& tell);

}  // namespace asio_pulse::checkpoints

#endif
