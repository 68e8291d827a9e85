// SPDX-License-Identifier: BSL-1.0
//
// The library's error codes. errno keeps the system category.

#pragma once

#include <asio_pulse/hooks/requirements.hpp>
//
#include <boost/system/error_code.hpp>

#include <string>
#include <string_view>
#include <type_traits>

namespace asio_pulse {

/// What setup can fail with. The category's name is "asio_pulse"; zero is success.
enum class error {
  invalid_option = 1,  ///< an option is out of range; invalid_reason() names it
  fixed_option = 2,    ///< an option cannot change while the context or the task exists
  mailbox_full = 3,    ///< too many messages from one shard to another wait to run there
  no_such_shard = 4,   ///< the number of a shard is too large
  shard_drained = 5,   ///< the shard is being drained, and takes nothing
  shards_stopped = 6,  ///< the shards were stopped
  already_moving = 7,  ///< an earlier order to move was not carried out yet
  session_ended = 8,   ///< what should move does not exist any more
  move_forbidden = 9,  ///< the session must not move now (movable::stay)
  not_movable = 10,    ///< the handler is bound to an executor that is not the shard's own
};

/// The text of an error. Empty if the value is not an enumerator.
std::string_view to_string(error) noexcept;

namespace detail {

// The destructor of Boost.System's base class is public and not virtual, because categories are
// never deleted through it.
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wnon-virtual-dtor"
#endif

// Inline, as is everything that names Boost.System: the sizes of its types differ between versions
// of Boost, and one build of the compiled library has to serve all of them.
class category final : public boost::system::error_category {
 public:
  const char* name() const noexcept override { return "asio_pulse"; }
  std::string message(int value) const override {
    if (value == 0) return "success";
    const std::string_view text = to_string(static_cast<error>(value));
    return text.empty() ? "unknown asio_pulse error " + std::to_string(value) : std::string(text);
  }
};

#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

}  // namespace detail

/// The category "asio_pulse".
inline const boost::system::error_category& error_category() noexcept {
  static const detail::category instance;
  return instance;
}

/// Found by argument-dependent lookup, so that an `error` converts to an error_code.
inline boost::system::error_code make_error_code(error e) noexcept {
  return {static_cast<int>(e), error_category()};
}

}  // namespace asio_pulse

namespace boost::system {

template <>
struct is_error_code_enum<asio_pulse::error> : std::true_type {};

}  // namespace boost::system
