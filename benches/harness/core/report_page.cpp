// SPDX-License-Identifier: BSL-1.0
#include "report_page.hpp"

#include <boost/json/serialize.hpp>

#include <stdexcept>
#include <string_view>

// The template as it is, however long: a string literal has limits.
asm(".section .rodata\n"
    ".global pulse_bench_template_begin\n"
    ".global pulse_bench_template_end\n"
    "pulse_bench_template_begin:\n"
    ".incbin \"" PULSE_BENCH_TEMPLATE
    "\"\n"
    "pulse_bench_template_end:\n"
    ".byte 0\n"
    ".previous\n");

extern "C" const char pulse_bench_template_begin[];
extern "C" const char pulse_bench_template_end[];

namespace pulse_bench {

std::string report_page(const boost::json::object& result) {
  constexpr std::string_view marker = "/*RESULT*/";
  const std::string_view page{
      pulse_bench_template_begin,
      static_cast<std::size_t>(pulse_bench_template_end - pulse_bench_template_begin)};
  const std::size_t place = page.find(marker);
  if (place == std::string_view::npos)
    throw std::logic_error("the report's template has no marker");
  std::string data = boost::json::serialize(result);
  // A script element must not contain its own end tag or the beginning of a comment. Both escapes
  // are part of JSON.
  for (std::size_t at = 0; (at = data.find("</", at)) != std::string::npos;) {
    data.replace(at, 2, "<\\/");
  }
  for (std::size_t at = 0; (at = data.find("<!--", at)) != std::string::npos;) {
    data.replace(at, 1, "\\u003c");
  }
  std::string text{page.substr(0, place)};
  text += data;
  text += page.substr(place + marker.size());
  return text;
}

}  // namespace pulse_bench
