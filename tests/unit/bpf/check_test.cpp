// SPDX-License-Identifier: BSL-1.0
#include "check.hpp"
// Included first, to check that the header is self-contained.

#include "support.hpp"

#include <boost/json.hpp>

#include <gmock/gmock.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string_view>

namespace {

using namespace asio_pulse::scx;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

machine good_machine() {
  machine found;
  found.kernel_release = "7.2.12";
  found.sched_ext = true;
  found.btf = btf_state::readable;
  found.scheduler_type = true;
  found.may_load = true;
  found.user_namespace = namespace_state::first;
  found.pid_namespace = namespace_state::first;
  found.pressure.known = true;
  found.slice_request = true;
  found.slice_extension = true;
  found.socket_path = "/run/x.sock";
  found.serving = "nobody is there";
  return found;
}

const check_item& item_of(const check_report& report, const std::string& name) {
  const auto found = std::find_if(report.items.begin(), report.items.end(),
                                  [&](const check_item& one) { return one.name == name; });
  EXPECT_NE(found, report.items.end()) << name;
  return *found;
}

TEST(check, a_good_machine_can_run_it_and_nothing_is_to_be_done) {
  const check_report report = judge(good_machine());
  EXPECT_TRUE(report.can_run);
  for (const check_item& one : report.items) {
    EXPECT_TRUE(one.present) << one.name;
    EXPECT_EQ(one.remedy, "") << one.name;
    EXPECT_NE(one.detail, "") << one.name;
  }
  EXPECT_EQ(what_is_missing(report), "");
  EXPECT_THAT(check_text(report), HasSubstr("scx_pulse can run here (kernel 7.2.12)"));
  EXPECT_THAT(check_text(report), Not(HasSubstr("MISSING")));
}

TEST(check, a_kernel_without_namespaces_is_no_container) {
  const bpf_test::temporary_folder self;
  std::filesystem::create_directory(self / "ns");
  EXPECT_EQ(look_at_namespace(self / "", "user"), namespace_state::unknown) << "no /proc at all";
  std::ofstream(self / "status") << "Name:\tx\n";
  EXPECT_EQ(look_at_namespace(self / "", "user"), namespace_state::first);
  EXPECT_EQ(look_at_namespace(self / "", "pid"), namespace_state::first);
  std::ofstream(self / "ns/user") << "";
  EXPECT_EQ(look_at_namespace(self / "", "user"), namespace_state::other);
  std::filesystem::remove_all(self / "ns");
  EXPECT_EQ(look_at_namespace(self / "", "pid"), namespace_state::first);
}

struct lack {
  const char* item;
  void (*spoil)(machine&);
  bool can_run;
  const char* detail;
};

TEST(check, each_lack_is_named_with_its_remedy) {
  const lack lacks[] = {
      {"sched_ext", [](machine& m) { m.sched_ext = false; }, false, "no sched_ext"},
      {"btf", [](machine& m) { m.btf = btf_state::absent; }, false, "no /sys/kernel/btf/vmlinux"},
      {"btf", [](machine& m) { m.btf = btf_state::unreadable; }, false, "cannot be read"},
      {"kfuncs", [](machine& m) { m.scheduler_type = false; }, false, "struct sched_ext_ops"},
      {"kfuncs",
       [](machine& m) {
         m.missing_kfuncs = {"one or two", "three"};
       },
       false, "lacks one or two, three"},
      {"privileges", [](machine& m) { m.may_load = false; }, false,
       "CAP_SYS_ADMIN is not in effect"},
      {"privileges", [](machine& m) { m.pid_namespace = namespace_state::other; }, false,
       "PID namespace"},
      {"privileges", [](machine& m) { m.user_namespace = namespace_state::other; }, false,
       "user namespace"},
      {"privileges", [](machine& m) { m.user_namespace = namespace_state::unknown; }, false,
       "not known whether this is a container"},
      {"no_other_scheduler", [](machine& m) { m.attached = "scx_other"; }, false, "scx_other"},
      {"pressure", [](machine& m) { m.pressure.known = false; }, true, "PSI"},
      {"slice_request", [](machine& m) { m.slice_request = false; }, true, "slice length"},
      {"slice_extension", [](machine& m) { m.slice_extension = false; }, true, "absent"},
  };
  for (const lack& one : lacks) {
    machine found = good_machine();
    one.spoil(found);
    const check_report report = judge(found);
    EXPECT_EQ(report.can_run, one.can_run) << one.item;
    const check_item& judged = item_of(report, one.item);
    EXPECT_FALSE(judged.present) << one.item;
    EXPECT_EQ(judged.needed, !one.can_run) << one.item;
    EXPECT_THAT(judged.detail, HasSubstr(one.detail));
    EXPECT_NE(judged.remedy, "") << one.item;
    EXPECT_EQ(judged.remedy.find('\n'), std::string::npos);
    const std::string text = check_text(report);
    EXPECT_THAT(text, HasSubstr(judged.remedy));
    EXPECT_THAT(text, HasSubstr(one.can_run ? "absent   " : "MISSING  "));
    EXPECT_THAT(text, HasSubstr(one.can_run ? "scx_pulse can run" : "scx_pulse cannot run"));
    EXPECT_EQ(what_is_missing(report) == "", one.can_run) << one.item;
  }
}

TEST(check, hints_come_from_a_scx_pulse_that_answers) {
  machine found = good_machine();
  EXPECT_EQ(judge(found).hint_source, "local");
  EXPECT_THAT(judge(found).hints, HasSubstr("nobody is there"));
  found.pressure.known = false;
  EXPECT_EQ(judge(found).hint_source, "none");
  EXPECT_THAT(judge(found).hints, HasSubstr("nobody is there"));
  found.served = true;
  found.attached = "scx_pulse_1.0";
  EXPECT_EQ(judge(found).hint_source, "scx_pulse");
  EXPECT_THAT(judge(found).hints, HasSubstr("/run/x.sock"));
  EXPECT_TRUE(judge(found).can_run) << "it does";
}

TEST(check, json_says_the_same) {
  machine found = good_machine();
  found.sched_ext = false;
  found.kernel_release = "5.\"0\"";
  const check_report report = judge(found);
  const boost::json::value parsed = boost::json::parse(check_json(report));
  EXPECT_FALSE(parsed.at("can_run").as_bool());
  EXPECT_EQ(parsed.at("kernel").as_string(), "5.\"0\"");
  EXPECT_EQ(parsed.at("hint_source").as_string(), report.hint_source.c_str());
  const auto& items = parsed.at("items").as_array();
  ASSERT_EQ(items.size(), report.items.size());
  for (std::size_t i = 0; i < items.size(); ++i) {
    EXPECT_EQ(items[i].at("name").as_string(), report.items[i].name.c_str());
    EXPECT_EQ(items[i].at("present").as_bool(), report.items[i].present);
    EXPECT_EQ(items[i].at("needed").as_bool(), report.items[i].needed);
    EXPECT_EQ(items[i].at("remedy").as_string(), report.items[i].remedy.c_str());
  }
}

// What the BPF program declares, and what is asked of the kernel for it, are the same functions.
TEST(check, asks_for_the_kfuncs_that_the_program_calls) {
  std::ifstream header(ASIO_PULSE_KERNEL_HEADER);
  ASSERT_TRUE(header);
  std::stringstream content;
  content << header.rdbuf();
  const std::string text = content.str();
  std::set<std::string> strong, weak, asked_alone, asked;
  // A declaration ends with "… NAME(…) __ksym;" or "… __ksym __weak;".
  constexpr std::string_view mark = " __ksym";
  for (std::size_t at = text.find(mark); at != std::string::npos; at = text.find(mark, at + 1)) {
    const std::size_t bracket = text.rfind('(', at);
    const std::size_t name = text.find_last_of(" *\n", bracket) + 1;
    ASSERT_NE(bracket, std::string::npos);
    const bool is_weak = text.compare(at + mark.size(), 7, " __weak") == 0;
    (is_weak ? weak : strong).insert(text.substr(name, bracket - name));
  }
  for (const kfunc& names : needed_kfuncs()) {
    if (names[1].empty()) asked_alone.emplace(names[0]);
    for (const std::string_view name : names) {
      if (!name.empty()) asked.emplace(name);
    }
  }
  EXPECT_GE(strong.size(), 5U);
  EXPECT_EQ(strong, asked_alone);
  weak.erase("scx_bpf_task_set_slice");  // it does without
  for (const std::string& name : weak) EXPECT_EQ(asked.count(name), 1U) << name;
  for (const std::string& name : asked)
    EXPECT_EQ(strong.count(name) + weak.count(name), 1U) << name;
}

TEST(check, looks_at_this_machine) {
  const bpf_test::temporary_folder folder;
  const machine found = look_at_machine(folder / "none.sock");
  EXPECT_NE(found.kernel_release, "");
  EXPECT_EQ(found.sched_ext, std::filesystem::exists("/sys/kernel/sched_ext"));
  EXPECT_EQ(found.btf == btf_state::absent, !std::filesystem::exists("/sys/kernel/btf/vmlinux"));
  EXPECT_FALSE(found.served);
  EXPECT_THAT(found.serving, HasSubstr("scx_pulse is not running"));
  if (found.btf == btf_state::readable && !found.sched_ext) {
    EXPECT_THAT(found.missing_kfuncs, Contains("scx_bpf_create_dsq"));
    EXPECT_THAT(found.missing_kfuncs, Not(Contains("bpf_rcu_read_lock"))) << "older than sched_ext";
  }
}

}  // namespace
