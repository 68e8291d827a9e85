// SPDX-License-Identifier: BSL-1.0

// Each expression here compiles for asio_pulse::io_context exactly where it compiles for
// boost::asio::io_context: how it is constructed, how its member functions are named and called.

#include <asio_pulse/io_context.hpp>
//
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/version.hpp>
#include <boost/bind/bind.hpp>
#include <boost/mem_fn.hpp>
#include <boost/system/error_code.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <thread>
#include <type_traits>
#include <utility>
#if BOOST_ASIO_VERSION >= 103400  // Boost 1.87
#include <boost/asio/config.hpp>
#endif

namespace {

using stock = boost::asio::io_context;
using ours = asio_pulse::io_context;
using boost::system::error_code;

// ---- constructors

template <class... Args>
constexpr bool constructed_alike =
    std::is_constructible_v<stock, Args...> == std::is_constructible_v<ours, Args...>;

/// `Context f() { return {args...}; }`, which needs a constructor that is not explicit.
template <class Context, class... Args>
concept returned_from = requires(void (*take)(Context), Args&&... args) {
  take({std::forward<Args>(args)...});
};
template <class... Args>
constexpr bool converted_alike = returned_from<stock, Args...> == returned_from<ours, Args...>;

template <class... Args>
constexpr bool as_stock = constructed_alike<Args...>&& converted_alike<Args...>;

/// Every constructor of the base class takes options of ours before its own arguments.
template <class... Args>
constexpr bool with_options = std::is_constructible_v<stock, Args...> ==
                              std::is_constructible_v<ours, asio_pulse::options, Args...>;

template <class... Args>
constexpr bool complete = as_stock<Args...>&& with_options<Args...>;

static_assert(complete<>);
static_assert(complete<int>);
static_assert(complete<const int&>);
static_assert(complete<unsigned>);
static_assert(complete<int, int>);
static_assert(complete<const char*>);
static_assert(as_stock<stock&> && as_stock<stock>);
static_assert(!std::is_constructible_v<ours, ours&> && !std::is_constructible_v<ours, const ours&>);
static_assert(!std::is_constructible_v<ours, ours>);
static_assert(!std::is_convertible_v<int, ours> &&
              !std::is_convertible_v<asio_pulse::options, ours>);

using allocator = std::allocator<std::byte>;
static_assert(complete<std::allocator_arg_t, allocator>);
static_assert(complete<std::allocator_arg_t, const allocator&>);
static_assert(complete<std::allocator_arg_t, allocator, int>);
#if BOOST_ASIO_VERSION >= 103400
using maker = boost::asio::execution_context::service_maker;
static_assert(std::is_constructible_v<ours, const maker&>);
static_assert(complete<const maker&>);
static_assert(complete<boost::asio::config_from_env>);
static_assert(complete<boost::asio::config_from_string>);
static_assert(complete<boost::asio::config_from_concurrency_hint>);
static_assert(complete<const maker&, int>);
static_assert(complete<std::allocator_arg_t, allocator, const maker&>);
static_assert(complete<std::allocator_arg_t, allocator, boost::asio::config_from_string>);
#endif
#if BOOST_ASIO_VERSION >= 103800  // Boost 1.90
static_assert(std::is_constructible_v<ours, std::allocator_arg_t, allocator, const maker&>);
static_assert(std::is_constructible_v<ours, asio_pulse::options, std::allocator_arg_t, allocator>);
#endif

// ---- member functions, named

template <class Function>
void take(Function);

// The ways in which programs pass `&io_context::run` and similar names. If a name is overloaded,
// only some of them compile, and which names are overloaded differs by version and macro.
#define NAMED_ALIKE(function)                                                             \
  template <class C>                                                                      \
  concept function##_in_a_thread = requires(C & c) {                                      \
    std::thread(&C::function, &c);                                                        \
  };                                                                                      \
  template <class C>                                                                      \
  concept function##_in_bind = requires(C & c) {                                          \
    std::bind(&C::function, &c)();                                                        \
  };                                                                                      \
  template <class C>                                                                      \
  concept function##_in_boost_bind = requires(C & c) {                                    \
    boost::bind(&C::function, &c)();                                                      \
  };                                                                                      \
  template <class C>                                                                      \
  concept function##_in_mem_fn = requires(C & c) {                                        \
    std::mem_fn (&C::function)(c);                                                        \
  };                                                                                      \
  template <class C>                                                                      \
  concept function##_in_boost_mem_fn = requires(C & c) {                                  \
    boost::mem_fn (&C::function)(c);                                                      \
  };                                                                                      \
  template <class C>                                                                      \
  concept function##_in_invoke = requires(C & c) {                                        \
    std::invoke(&C::function, c);                                                         \
  };                                                                                      \
  template <class C>                                                                      \
  concept function##_as_it_is = requires {                                                \
    take(&C::function);                                                                   \
  };                                                                                      \
  template <class C>                                                                      \
  concept function##_plain = requires(C & c) {                                            \
    c.function();                                                                         \
  };                                                                                      \
  template <class C>                                                                      \
  concept function##_with_error = requires(C & c, error_code & ec) {                      \
    c.function(ec);                                                                       \
  };                                                                                      \
  template <class C>                                                                      \
  concept function##_with_error_bound =                                                   \
      function##_with_error<C>&& requires(C & c, error_code ec) {                         \
    boost::bind(&C::function, &c, ec)();                                                  \
  };                                                                                      \
  template <class C>                                                                      \
  concept function##_of_its_type = requires {                                             \
    static_cast<typename C::count_type (C::*)()>(&C::function);                           \
  };                                                                                      \
  template <class C>                                                                      \
  concept function##_with_error_of_its_type = requires {                                  \
    static_cast<typename C::count_type (C::*)(error_code&)>(&C::function);                \
  };                                                                                      \
  static_assert(function##_in_a_thread<ours> == function##_in_a_thread<stock>);           \
  static_assert(function##_in_bind<ours> == function##_in_bind<stock>);                   \
  static_assert(function##_in_boost_bind<ours> == function##_in_boost_bind<stock>);       \
  static_assert(function##_in_mem_fn<ours> == function##_in_mem_fn<stock>);               \
  static_assert(function##_in_boost_mem_fn<ours> == function##_in_boost_mem_fn<stock>);   \
  static_assert(function##_in_invoke<ours> == function##_in_invoke<stock>);               \
  static_assert(function##_as_it_is<ours> == function##_as_it_is<stock>);                 \
  static_assert(function##_with_error_bound<ours> == function##_with_error_bound<stock>); \
  static_assert(function##_plain<ours> == function##_plain<stock>);                       \
  static_assert(function##_with_error<ours> == function##_with_error<stock>);             \
  static_assert(function##_of_its_type<ours> == function##_of_its_type<stock>);           \
  static_assert(function##_with_error_of_its_type<ours> == function##_with_error_of_its_type<stock>)

NAMED_ALIKE(run);
NAMED_ALIKE(poll);
NAMED_ALIKE(run_one);
NAMED_ALIKE(poll_one);
NAMED_ALIKE(stop);
NAMED_ALIKE(restart);
NAMED_ALIKE(reset);
NAMED_ALIKE(stopped);
NAMED_ALIKE(get_executor);

// Checks that the expressions compile at all. Otherwise the comparisons above would prove nothing.
static_assert(run_in_boost_bind<stock> && run_plain<stock> && run_of_its_type<stock>);
#if defined(BOOST_ASIO_NO_DEPRECATED) || BOOST_ASIO_VERSION >= 103400
static_assert(run_in_a_thread<stock> && run_in_bind<stock> && run_in_mem_fn<stock> &&
              run_in_invoke<stock> && !run_with_error<stock>);
#else
static_assert(!run_in_a_thread<stock> && run_with_error<stock> &&
              run_with_error_of_its_type<stock>);
#endif

// The timed ones are templates.
template <class C>
concept timed = requires(C& c, std::chrono::milliseconds d,
                         std::chrono::steady_clock::time_point t) {
  { c.run_for(d) } -> std::same_as<typename C::count_type>;
  { c.run_until(t) } -> std::same_as<typename C::count_type>;
  { c.run_one_for(d) } -> std::same_as<typename C::count_type>;
  { c.run_one_until(t) } -> std::same_as<typename C::count_type>;
  std::bind(&C::template run_for<std::int64_t, std::milli>, &c, d)();
};
static_assert(timed<stock> && timed<ours>);

// ---- what else programs rely on

static_assert(std::is_same_v<ours::executor_type, stock::executor_type>);
static_assert(std::is_same_v<ours::count_type, stock::count_type>);
static_assert(std::is_convertible_v<ours*, stock*>);
static_assert(std::is_same_v<decltype(boost::asio::make_work_guard(std::declval<ours&>())),
                             decltype(boost::asio::make_work_guard(std::declval<stock&>()))>);

// ---- and it works

template <class Context>
void post_and(Context& io, const std::function<void()>& run) {
  bool ran = false;
  boost::asio::post(io, [&ran] { ran = true; });
  run();
  EXPECT_TRUE(ran);
}

TEST(drop_in, runs_by_its_name) {
  ours io;
  post_and(io, [&] { EXPECT_EQ(boost::bind(&ours::run, &io)(), 1U); });
  io.restart();
  post_and(io, [&] { EXPECT_EQ(boost::bind(&ours::poll_one, &io)(), 1U); });
#if defined(BOOST_ASIO_NO_DEPRECATED) || BOOST_ASIO_VERSION >= 103400
  io.restart();
  post_and(io, [&] { std::thread(&ours::run, &io).join(); });
#else
  io.restart();
  error_code ec = boost::system::errc::make_error_code(boost::system::errc::io_error);
  post_and(io, [&] { EXPECT_EQ(io.run(ec), 1U); });
  EXPECT_FALSE(ec);
#endif
}

TEST(drop_in, takes_options_before_what_its_base_class_takes) {
  const asio_pulse::options o;
  ours hinted(o, 1);
  post_and(hinted, [&] { EXPECT_EQ(hinted.run(), 1U); });
#if BOOST_ASIO_VERSION >= 103400
  ours configured(o, boost::asio::config_from_string("scheduler.concurrency_hint=1"));
  EXPECT_EQ(boost::asio::config(configured).get("scheduler", "concurrency_hint", 0), 1);
  post_and(configured, [&] { EXPECT_EQ(configured.run(), 1U); });
#endif
}

#if BOOST_ASIO_VERSION >= 103800
/// Counts what was allocated and not freed.
template <class T>
struct counting_allocator {
  using value_type = T;
  explicit counting_allocator(long& n) noexcept : used(&n) {}
  template <class U>
  counting_allocator(const counting_allocator<U>& other) noexcept : used(other.used) {}  // NOLINT
  T* allocate(std::size_t n) {
    ++*used;
    return std::allocator<T>().allocate(n);
  }
  void deallocate(T* p, std::size_t n) noexcept {
    --*used;
    std::allocator<T>().deallocate(p, n);
  }
  template <class U>
  friend bool operator==(const counting_allocator& a, const counting_allocator<U>& b) noexcept {
    return a.used == b.used;
  }
  long* used;
};

TEST(drop_in, uses_the_allocator_that_it_is_given) {
  long used = 0;
  {
    ours io(std::allocator_arg, counting_allocator<std::byte>(used));
    EXPECT_GT(used, 0);
    post_and(io, [&] { EXPECT_EQ(io.run(), 1U); });
  }
  EXPECT_EQ(used, 0);
}
#endif

}  // namespace
