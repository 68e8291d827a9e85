// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>
#include <string_view>

/// \file
/// What a report calls a handler when nobody named its task: the operation's type, known at compile
/// time, and the source location where Asio hands one to its tracking macros.

namespace asio_pulse::hooks {

/// A place in the source, as `__FILE__`, `__LINE__` and `__func__` give it. All null where unknown.
struct location {
  const char* file = nullptr;
  std::uint32_t line = 0;
  const char* function = nullptr;
};

/// One kind of operation: a static object for each type of operation that Asio instantiates.
struct site {
  std::string_view type_name;  ///< The operation's type, as the compiler spells it; static storage.
  bool drains = false;  ///< Drains a strand or a task's queue: it runs no user code of its own.
};

namespace detail {

template <class Op>
constexpr std::string_view type_name() noexcept {
#if defined(__clang__) || defined(__GNUC__)
  constexpr std::string_view whole = __PRETTY_FUNCTION__;
  constexpr std::size_t from = whole.find("Op = ") + 5;
#if defined(__clang__)
  constexpr std::size_t to = whole.rfind(']');
#else
  // gcc appends "; std::string_view = ..." after the parameters of the function itself.
  constexpr std::size_t semi = whole.rfind("; std::string_view");
  constexpr std::size_t to = semi == std::string_view::npos ? whole.rfind(']') : semi;
#endif
  return whole.substr(from, to - from);
#elif defined(_MSC_VER)
  return __FUNCSIG__;
#else
  return "handler";
#endif
}

template <class Op>
constexpr bool drains_others() noexcept {
  return type_name<Op>().find("strand_executor_service::invoker<") != std::string_view::npos ||
         type_name<Op>().find("asio_pulse::detail::serial_driver") != std::string_view::npos;
}

template <class Op>
inline constexpr site site_of{type_name<Op>(), drains_others<Op>()};

}  // namespace detail
}  // namespace asio_pulse::hooks
