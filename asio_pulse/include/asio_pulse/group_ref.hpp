// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/requirements.hpp>
//
#include <boost/smart_ptr/intrusive_ptr.hpp>

#include <utility>

namespace asio_pulse {
namespace detail {

struct group_state;
void intrusive_ptr_add_ref(group_state*) noexcept;
void intrusive_ptr_release(group_state*) noexcept;

}  // namespace detail

/// Refers to a task_group, or to none. Options have such members; assign a task_group to them.
///
/// \par Thread safety  Distinct objects: Safe. Shared objects: Unsafe.
class group_ref {
 public:
  group_ref() noexcept = default;
  explicit group_ref(boost::intrusive_ptr<detail::group_state> group) noexcept
      : group_(std::move(group)) {}

  /// Whether it refers to a group.
  explicit operator bool() const noexcept { return group_ != nullptr; }
  friend bool operator==(const group_ref&, const group_ref&) noexcept = default;

  /// For the library.
  [[nodiscard]] detail::group_state* get() const noexcept { return group_.get(); }

 private:
  boost::intrusive_ptr<detail::group_state> group_;
};

}  // namespace asio_pulse
