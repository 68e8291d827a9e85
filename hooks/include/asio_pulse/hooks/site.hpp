// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>
#include <string_view>
#include <type_traits>

/// \file
/// How a report identifies a handler: by the type of its operation, which is known at compile time,
/// and by a source location if Asio passes one to its tracking macros.

namespace asio_pulse::hooks {

/// A place in the source, as given by `__FILE__`, `__LINE__` and `__func__`. All null if unknown.
struct location {
  const char* file = nullptr;
  std::uint32_t line = 0;
  const char* function = nullptr;
};

/// One kind of operation: a static object for each type of operation that Asio instantiates.
struct site {
  std::string_view type_name;  ///< The operation's type, as the compiler spells it; static storage.
  bool drains = false;  ///< It drains a strand or a task's queue, and runs no user code of its own.
  bool erased = false;  ///< any_io_executor hides its type: the drain of a strand, or user code.
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

/// A handler of ours that drains a queue has this member.
template <class Handler>
concept says_that_it_drains = requires {
  requires Handler::asio_pulse_drains;
};

/// Asio's class that runs the handlers of a strand. It is private in Asio, so it is recognised by
/// its name. detail/asio/asio_internals.hpp does not compile if Asio has renamed it.
template <class Handler>
constexpr bool is_strand_invoker() noexcept {
  return type_name<Handler>().starts_with("boost::asio::detail::strand_executor_service::invoker<");
}

/// Whether an operation, or the handler inside its wrappers, drains a strand or a task's queue.
/// Asio's wrappers have the handler as their first template argument.
template <class Op>
struct drains_others : std::bool_constant<says_that_it_drains<Op> || is_strand_invoker<Op>()> {};
template <template <class...> class Wrapper, class Handler, class... More>
struct drains_others<Wrapper<Handler, More...>>
    : std::bool_constant<says_that_it_drains<Wrapper<Handler, More...>> ||
                         is_strand_invoker<Wrapper<Handler, More...>>() ||
                         drains_others<Handler>::value> {};

template <class Op>
constexpr bool is_erased() noexcept {
  return type_name<Op>().find("asio::detail::executor_function") != std::string_view::npos;
}

template <class Op>
inline constexpr site site_of{type_name<Op>(), drains_others<Op>::value, is_erased<Op>()};

}  // namespace detail
}  // namespace asio_pulse::hooks
