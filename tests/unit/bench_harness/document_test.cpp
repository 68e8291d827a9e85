// SPDX-License-Identifier: BSL-1.0
#include "document.hpp"

#include "documents.hpp"
#include "report_page.hpp"
#include "table.hpp"

#include <gmock/gmock.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <sstream>

namespace pulse_bench {
namespace {

namespace json = boost::json;
using ::testing::HasSubstr;
using ::testing::Not;

std::string complaint(std::string_view text) {
  try {
    parse_document(text, "a.json");
  } catch (const bad_document& e) {
    return e.what();
  }
  return "none";
}

const std::vector<double> one_to_six{1, 2, 3, 4, 5, 6};

TEST(bench_document, a_result_is_taken) {
  const auto all = sample_document(one_to_six, one_to_six);
  EXPECT_EQ(parse_document(json::serialize(all), "a.json"), all);
}

TEST(bench_document, what_is_none_is_refused_by_its_name) {
  EXPECT_THAT(complaint(""), HasSubstr("is empty"));
  EXPECT_THAT(complaint("hello"), HasSubstr("not JSON"));
  EXPECT_THAT(complaint("{\"name\":\"package\"}"), HasSubstr("not a result of pulse_bench"));
  EXPECT_THAT(complaint("[1,2]"), HasSubstr("not a result of pulse_bench"));
  EXPECT_THAT(complaint(R"({"schema":"asio-pulse-bench/2"})"),
              HasSubstr("schema must be \"asio-pulse-bench/1\""));
  EXPECT_THAT(complaint(R"({"schema":"asio-pulse-bench/1"})"), HasSubstr("created is missing"));
}

TEST(bench_document, a_truncated_one_is_called_so_wherever_it_ends) {
  const std::string whole = json::serialize(sample_document(one_to_six, one_to_six));
  for (std::size_t size = 1; size < whole.size(); size += 7) {
    EXPECT_THAT(complaint(whole.substr(0, size)), HasSubstr("truncated"));
  }
}

TEST(bench_document, a_field_of_another_kind_is_named) {
  auto all = sample_document(one_to_six, one_to_six);
  json::value& metric = all.at("scenarios").at(0).at("variants").at(0).at("metrics").at(0);
  metric.at("better") = "sometimes";
  EXPECT_THAT(complaint(json::serialize(all)),
              HasSubstr("scenarios[0].variants[0].metrics[0].better must be"));
  metric.at("better") = "lower";
  metric.at("arms").at("pulse").at("samples") = json::array{};
  EXPECT_THAT(complaint(json::serialize(all)), HasSubstr("arms.pulse.samples must not be empty"));
  metric.at("arms").at("pulse").at("samples") = json::array{1, "two"};
  EXPECT_THAT(complaint(json::serialize(all)), HasSubstr("numbers only"));
}

TEST(bench_document, deep_nesting_is_refused) {
  EXPECT_THAT(complaint(std::string(100'000, '[')), HasSubstr("not JSON"));
}

TEST(bench_document, nothing_of_a_file_steers_the_terminal) {
  auto all = sample_document(one_to_six, one_to_six);
  all.at("scenarios").at(0).at("title") = "red \x1b[31m \xc2\x9b 31m \r\n\a";
  all.at("scenarios").at(0).at("variants").at(0).at("arms").at(0).at("name") = "stock\x1b";
  const std::string text = tables(all);
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
  EXPECT_THAT(text, Not(HasSubstr("\xc2\x9b")));
  EXPECT_THAT(text, Not(HasSubstr("\r")));
  EXPECT_THAT(complaint("{\"schema\":\"\\u001b[31m\"}"), Not(HasSubstr("\x1b")));
}

TEST(bench_document, tables_fit_a_narrow_terminal_and_keep_their_labels) {
  const std::string label = "clock: end of one poll, begin of the next one, long";
  auto all = sample_document(one_to_six, one_to_six);
  all.at("scenarios").at(0).at("title") = std::string(10'000, 't');
  auto& metric = all.at("scenarios").at(0).at("variants").at(0).at("metrics").at(0);
  metric.at("label") = label;
  std::istringstream text(tables(all));
  bool whole = false;
  for (std::string line; std::getline(text, line);) {
    EXPECT_LT(line.size(), 80U) << line;
    whole = whole || line.find(label) != line.npos;
  }
  EXPECT_TRUE(whole);
}

TEST(bench_document, the_page_holds_the_result_and_no_way_out_of_its_script) {
  auto all = sample_document(one_to_six, one_to_six);
  all.at("scenarios").at(0).at("title") = "</script><script>alert(1)</script><!--";
  const std::string page = report_page(all);
  EXPECT_THAT(page, Not(HasSubstr("</script><script>alert")));
  EXPECT_THAT(page, Not(HasSubstr("/*RESULT*/")));
  const std::string begin = R"(<script id="result" type="application/json">)";
  const std::size_t first = page.find(begin) + begin.size();
  const std::string data = page.substr(first, page.find("</script>", first) - first);
  EXPECT_EQ(json::parse(data), all);
}

class written_file : public ::testing::Test {
 protected:
  written_file() { std::filesystem::create_directories(folder_); }
  ~written_file() override {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  std::string content() const {
    std::ifstream file(path_);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::filesystem::path folder_ = std::filesystem::path(::testing::TempDir()) /
                                  ("unit_bench_files_" + std::to_string(::getpid()));
  std::filesystem::path path_ = folder_ / "result.json";
};

TEST_F(written_file, is_there_as_a_whole_and_alone) {
  write_file(path_, "one");
  write_file(path_, std::string(1'000'000, 'x'));
  EXPECT_EQ(content().size(), 1'000'000U);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

TEST_F(written_file, a_link_stays_a_link) {
  write_file(path_, "old");
  const auto link = folder_ / "link.json";
  std::filesystem::create_symlink("result.json", link);
  write_file(link, "new");
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  EXPECT_EQ(content(), "new");
}

TEST_F(written_file, what_was_there_stays_when_the_new_one_cannot_be_written) {
  write_file(path_, "old");
  EXPECT_THROW(write_file(folder_, "new"), std::runtime_error);
  EXPECT_THROW(write_file(folder_ / "none" / "result.json", "new"), std::runtime_error);
  EXPECT_THROW(write_file("/dev/null", "new"), std::runtime_error);
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/null"));
  EXPECT_EQ(content(), "old");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

}  // namespace
}  // namespace pulse_bench
