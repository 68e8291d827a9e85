// SPDX-License-Identifier: BSL-1.0

#include <asio_pulse/stack_trace.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <vector>

namespace {

using asio_pulse::blamed_frame;
using asio_pulse::no_frame;
using asio_pulse::stack_frame;
using asio_pulse::stack_trace;
using asio_pulse::stall_cause;

stack_frame named(std::string function, std::string file = {}, std::string module = "server") {
  stack_frame f;
  f.address = 0x401234;
  f.function = std::move(function);
  f.file = std::move(file);
  f.line = f.file.empty() ? 0 : 7;
  f.module = std::move(module);
  f.offset = 0x1234;
  return f;
}

struct judged {
  const char* function;
  bool user;
  friend void PrintTo(const judged& j, std::ostream* to) { *to << j.function; }
};

class own_name : public testing::TestWithParam<judged> {};

TEST_P(own_name, decides) {
  const stack_trace one{named(GetParam().function)};
  EXPECT_EQ(blamed_frame(one), GetParam().user ? 0 : no_frame);
}

INSTANTIATE_TEST_SUITE_P(
    users, own_name,
    testing::Values(
        judged{"parse(char const*)", true}, judged{"main", true}, judged{"read_all", true},
        judged{"(anonymous namespace)::parse(std::string const&)", true},
        judged{"app::session::on_read(boost::system::error_code, unsigned long)", true},
        judged{"void app::visit<std::vector<int> >(std::vector<int>&)", true},
        judged{"std::vector<boost::asio::ip::address> app::addresses()", true},
        judged{"boost::asio::awaitable<void, boost::asio::any_io_executor> app::serve(int)", true},
        judged{"app::f(boost::asio::io_context&)::{lambda(auto:1)#1}::operator()<int>(int) const",
               true},
        judged{"auto app::g(int)::{lambda(std::function<void ()>)#2}::operator()<>() const", true},
        judged{"main::{lambda()#1}::operator()() const", true},
        judged{"app::less::operator<(app::less const&) const", true},
        judged{"bool app::operator< <std::string>(std::string const&)", true},
        judged{"app::stream& app::operator<<<int>(app::stream&, int)", true},
        judged{"app::text::operator std::string() const", true},
        judged{"app::pointer::operator->() const", true},
        judged{"decltype (std::declval<int>() + 1) app::sum<int>(int)", true},
        judged{"app::slow::~slow()", true}, judged{"app::f(int) [clone .cold]", true},
        judged{"_ZN3app1fEN5boost4asio10io_contextE", true}, judged{"stdx::f()", true},
        judged{"asio_pulse_user::f()", true}, judged{"boost_user::asio::f()", true},
        judged{"operator_table::find(int)", true}, judged{"free_all", true},
        judged{"memcpy_fast(void*)", true}));

INSTANTIATE_TEST_SUITE_P(
    checks_and_what_takes_the_c_librarys_place, own_name,
    testing::Values(judged{"asio_pulse_out_of_fuel", false}, judged{"asio_pulse_refuel", false},
                    judged{"asio_pulse_checkpoint_saved", false}, judged{"memcpy", false},
                    judged{"free", false}, judged{"pthread_mutex_lock", false},
                    judged{
                        "asio_pulse::detail::chunked::(anonymous namespace)::forwards(void*, void "
                        "const*, unsigned long)",
                        false}));

INSTANTIATE_TEST_SUITE_P(
    internals, own_name,
    testing::Values(
        judged{"std::this_thread::yield()", false},
        judged{"void std::__invoke_impl<void, app::f()::{lambda()#1}&>(std::__invoke_other, "
               "app::f()::{lambda()#1}&)",
               false},
        judged{"std::enable_if<app::yes<int>::value, app::t>::type std::visit<app::v>(app::v&&)",
               false},
        judged{"std::__cxx11::basic_string<char>::~basic_string()", false},
        judged{"__gnu_cxx::new_allocator<app::x>::allocate(unsigned long)", false},
        judged{"boost::asio::detail::executor_op<boost::asio::detail::binder0<app::handler>, "
               "std::allocator<void> >::do_complete(void*, "
               "boost::asio::detail::scheduler_operation*, boost::system::error_code const&, "
               "unsigned long)",
               false},
        judged{"decltype (app::f()) std::__invoke<app::x>(app::x&&)", false},
        judged{
            "boost::context::detail::transfer_t boost::context::detail::fiber_ontop<app::f>(int)",
            false},
        judged{"asio_pulse::detail::serial_queue::run()", false},
        judged{"operator new(unsigned long)", false}, judged{"operator delete[](void*)", false},
        judged{"_ZN5boost4asio6detail11executor_opINS1_7binder0I3appEE", false},
        judged{"_start", false}, judged{"__libc_start_call_main", false}, judged{"", true}));

TEST(blamed_frame, judges_by_module_and_file_first) {
  EXPECT_EQ(
      blamed_frame(stack_trace{named("read", {}, "libc.so.6"), named("", {}, "libstdc++.so.6.0"),
                               named("clock_gettime", {}, "[vdso]"),
                               named("malloc", {}, "libasan.so.8.0.0"), named("work()")}),
      4U);
  EXPECT_EQ(blamed_frame(stack_trace{
                named("operator()", "/usr/include/c++/12/bits/invoke.h"),
                named("lock", "/usr/include/x86_64-linux-gnu/c++/12/bits/gthr-default.h"),
                named("run", "/opt/boost/include/boost/asio/detail/impl/scheduler.ipp"),
                named("step", "/opt/llvm/include/c++/v1/__functional"),
                named("post", "/opt/include/asio_pulse/task_executor.hpp"),
                named("app::work()", "/home/asio_pulse/c++/src/boost.asio/work.cpp")}),
            5U);
  EXPECT_EQ(blamed_frame(stack_trace{}), no_frame);
  EXPECT_EQ(blamed_frame(stack_trace{named("", {}, "")}), no_frame);
}

TEST(blamed_frame, prefers_whoever_called_boost) {
  const stack_trace called{named("boost::re_detail::match()"), named("app::search()"),
                           named("main")};
  EXPECT_EQ(blamed_frame(called), 1U);
  const stack_trace alone{named("boost::beast::http::detail::f()"), named("main")};
  EXPECT_EQ(blamed_frame(alone), 0U);
}

TEST(blamed_frame, prefers_who_has_a_name) {
  EXPECT_EQ(blamed_frame(stack_trace{named(""), named("app::work()"), named("main")}), 1U);
  EXPECT_EQ(blamed_frame(stack_trace{named("", {}, "libc.so.6"), named(""), named("")}), 1U);
}

TEST(blamed_frame, survives_names_that_are_none) {
  for (const char* const bad :
       {"(", "<", "operator", "operator<", "f(", "<<<>", ">>", "->", "{", "]", " ", "::", "(((",
        "decltype", "decltype (", "operator()", "a operator", "(anonymous namespace"}) {
    EXPECT_LE(blamed_frame(stack_trace{named(bad)}) + 1, 1U) << bad;
  }
}

TEST(format_stack, is_a_line_for_each_frame) {
  stack_trace frames{named("parse(char const*)", "src/parse.cpp"), named("read", {}, "libc.so.6"),
                     named("", {}, "server"), named("", {}, "")};
  frames[0].inlined = true;
  frames[1].awaiting = true;
  EXPECT_EQ(asio_pulse::format(frames),
            "  #0 parse(char const*) at src/parse.cpp:7 (inlined)\n"
            "  #1 read in libc.so.6+0x1234 (awaiting)\n"
            "  #2 server+0x1234\n"
            "  #3 0x401234\n");
  EXPECT_EQ(asio_pulse::format(stack_trace{}), "");
}

TEST(format_stack, escapes_and_cuts_what_files_say) {
  const stack_trace frames{named("f\n#1 forged" + std::string(5000, 'x'), "a\x1b[31m.cpp", "m")};
  const std::string text = asio_pulse::format(frames);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
  EXPECT_EQ(text.find('\x1b'), text.npos);
  EXPECT_LT(text.size(), 1000U);
}

TEST(stall_cause, has_a_name) {
  EXPECT_EQ(to_string(stall_cause::spinning), "spinning");
  EXPECT_EQ(to_string(stall_cause::descheduled), "descheduled");
  EXPECT_EQ(to_string(static_cast<stall_cause>(99)), "unknown");
}

}  // namespace
