// SPDX-License-Identifier: BSL-1.0
#include "checkpoints_work.hpp"

#include <boost/json/src.hpp>

#include <algorithm>
#include <cstdint>
#include <regex>
#include <vector>

namespace legacy {

std::size_t regex(std::size_t lines) {
  static const std::regex address("([a-z]+)@([a-z]+)\\.(com|org)");
  std::string line;
  for (int k = 0; k < 150; ++k)
    line += static_cast<char>(k * 7 % 11 != 0 ? 'a' + k * 13 % 26 : ' ');
  line += " someone@example.org";
  std::size_t found = 0;
  for (std::size_t i = 0; i < lines; ++i) {
    std::smatch m;
    found += std::regex_search(line, m, address) ? 1U : 0U;
  }
  return found;
}

std::size_t sort(std::size_t count) {
  std::vector<std::uint32_t> v(count);
  std::uint32_t x = 1;
  for (auto& e : v) e = x = x * 1664525 + 1013904223;
  std::sort(v.begin(), v.end());
  return v[count / 2];
}

std::size_t json(std::size_t elements) {
  std::string text = "[";
  for (std::size_t i = 0; i < elements; ++i) {
    if (i != 0) text += ',';
    text += R"({"id":12345,"name":"item","price":17.25,"tags":["a","bb",null,true]})";
  }
  text += "]";
  return boost::json::parse(text).as_array().size();
}

std::size_t matmul(std::size_t rows) {
  const std::size_t n = rows;
  std::vector<double> a(n * n, 1.5), b(n * n, 2.5), c(n * n);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t k = 0; k < n; ++k)
      for (std::size_t j = 0; j < n; ++j) c[i * n + j] += a[i * n + k] * b[k * n + j];
  return static_cast<std::size_t>(c[n + 1]);
}

}  // namespace legacy
