// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/hooks/site.hpp>

#include <gtest/gtest.h>

namespace {

using asio_pulse::hooks::detail::drains_others;
using asio_pulse::hooks::detail::site_of;

struct some_handler {};
struct drain {
  static constexpr bool asio_pulse_drains = true;
};
struct no_drain {
  static constexpr bool asio_pulse_drains = false;
};
struct incomplete;
template <class Handler, class... More>
struct some_operation {};
template <class Handler, int>
struct numbered {};

TEST(site, an_operation_drains_where_its_handler_says_so) {
  EXPECT_TRUE(drains_others<drain>::value);
  EXPECT_TRUE((drains_others<some_operation<drain, int>>::value));
  EXPECT_TRUE((drains_others<some_operation<some_operation<drain>, int>>::value));
  EXPECT_TRUE(site_of<some_operation<drain>>.drains);
}

TEST(site, no_other_does) {
  EXPECT_FALSE(drains_others<some_handler>::value);
  EXPECT_FALSE(drains_others<no_drain>::value);
  EXPECT_FALSE((drains_others<some_operation<some_handler, drain>>::value)) << "not its handler";
  EXPECT_FALSE((drains_others<some_operation<incomplete>>::value));
  EXPECT_FALSE((drains_others<numbered<drain, 1>>::value));
  EXPECT_FALSE(site_of<some_operation<some_handler>>.drains);
}

TEST(site, is_named_as_the_compiler_spells_the_type) {
  EXPECT_NE(site_of<some_operation<some_handler>>.type_name.find("some_operation<"),
            std::string_view::npos);
  EXPECT_NE(site_of<some_operation<some_handler>>.type_name.find("some_handler"),
            std::string_view::npos);
}

}  // namespace

namespace boost::asio::detail {

// As Asio has it, but for what is in it.
class strand_executor_service {
 public:
  template <class Executor, class = void>
  class invoker {};
};

TEST(site, a_strand_of_asio_drains) {
  using invoker = strand_executor_service::invoker<const int>;
  EXPECT_TRUE(drains_others<invoker>::value);
  EXPECT_TRUE((drains_others<some_operation<invoker, int>>::value));
  EXPECT_FALSE(drains_others<strand_executor_service>::value);
}

}  // namespace boost::asio::detail
