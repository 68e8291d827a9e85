// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/context_core.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace asio_pulse::detail {

/// The changes that inspectors make to a context, and how they are taken back.
///
/// Each change is remembered, the last 16 of them. undo() takes back the last one that is left. It
/// does so only while the value is the one that the inspector has set: what the program, or another
/// inspector, has set since is not overwritten.
///
/// \par Thread safety  Distinct objects: Safe. Shared objects: Unsafe.
class context_control {
 public:
  /// The text is a sentence without a full stop.
  struct answer {
    bool refused = false;
    std::string text{};
    context_core::made_update made{};  ///< to be announced where no lock is held
  };

  // All of them change either what they say or, if they throw std::bad_alloc, nothing.
  [[nodiscard]] answer set_shadow(context_core& core, bool shadow);
  /// \param path  as in path_of().
  [[nodiscard]] answer set_weight(context_core& core, std::string_view path, unsigned weight);
  [[nodiscard]] answer undo(context_core& core);

 private:
  struct shadow_step {
    bool set;
  };
  struct weight_step {
    std::string path;
    std::uint64_t id;  ///< of the group; another one may have its path later
    unsigned before;
    unsigned set;
  };
  using step = std::variant<shadow_step, weight_step>;

  void reserve();
  void remember(step s) noexcept;
  [[nodiscard]] static answer take_back(context_core& core, const shadow_step& s);
  [[nodiscard]] static answer take_back(context_core& core, const weight_step& s);

  std::vector<step> steps_;  ///< the latest at the end
};

}  // namespace asio_pulse::detail
