// SPDX-License-Identifier: BSL-1.0
//
// The library's error codes. errno keeps the system category.

#pragma once

#include <boost/system/error_code.hpp>

#include <string>
#include <string_view>
#include <type_traits>

namespace asio_pulse {

/// What setup can fail with. The category's name is "asio_pulse"; zero is success.
enum class error {
  invalid_option = 1,       ///< an option is out of range; invalid_reason() names it
  isolation_off,            ///< the context has no isolation pool (isolation_threads is zero)
  not_isolatable,           ///< the task was not declared isolatable
  implicit_strand,          ///< isolation would break the implicit strand of a one-thread context
  unsafe_concurrency_hint,  ///< BOOST_ASIO_CONCURRENCY_HINT_UNSAFE: no locks, so no other thread
  tracking_mismatch,        ///< a part of the program was built without the tracking definition
  foreign_context,          ///< the execution context is not an asio_pulse::io_context
  clock_unavailable,        ///< the clock that was asked for does not work on this machine
  shut_down,                ///< the context is being destroyed
};

/// The text of an error; empty for a value that is none.
std::string_view to_string(error) noexcept;

namespace detail {

// Boost.System's base class has a public destructor that is not virtual: its categories are never
// deleted through it.
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wnon-virtual-dtor"
#endif

// Inline, as everything that names Boost.System: its types differ in size between versions of
// Boost, and one build of the compiled library serves all of them.
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
