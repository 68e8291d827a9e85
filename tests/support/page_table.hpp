// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>

namespace pulse_test {

/// Expects that the page has this table: the one that begins with the same line. If
/// ASIO_PULSE_UPDATE_DOCS is set in the environment, the page gets it.
inline void expect_table(const std::string& file, const std::string& table) {
  std::ostringstream read;
  read << std::ifstream(file).rdbuf();
  std::string page = read.str();
  const std::size_t begin = page.find(table.substr(0, table.find('\n') + 1));
  ASSERT_NE(begin, std::string::npos) << file << " has no such table";
  const std::size_t end = page.find("\n\n", begin);
  ASSERT_NE(end, std::string::npos) << "nothing follows the table";
  const bool same = page.compare(begin, end + 1 - begin, table) == 0;
  if (!same && std::getenv("ASIO_PULSE_UPDATE_DOCS") != nullptr) {
    page.replace(begin, end + 1 - begin, table);
    ASSERT_TRUE(std::ofstream(file) << page);
    return;
  }
  EXPECT_TRUE(same) << "run this test with ASIO_PULSE_UPDATE_DOCS=1: the table in " << file
                    << " must be\n\n"
                    << table;
}

}  // namespace pulse_test
