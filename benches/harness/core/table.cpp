// SPDX-License-Identifier: BSL-1.0
#include "table.hpp"

#include "document.hpp"
#include "statistics.hpp"

#include <boost/json.hpp>

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace pulse_bench {

namespace {

namespace json = boost::json;

constexpr std::size_t width = 79;  // of the narrowest terminals in use
constexpr std::size_t name_width = 30;

double median_of(const json::value& in) { return in.at("median").to_number<double>(); }

/// Cut to \p most columns. What is cut is ASCII here, but for the units' few characters.
std::string cut(const std::string& t, std::size_t most) {
  return t.size() <= most ? t : t.substr(0, most - 1) + "~";
}

/// Broken at spaces to lines of at most \p width columns; the first begins with \p first, the
/// others with as many spaces.
std::string wrap(const std::string& t, const std::string& first) {
  std::string result;
  std::string line = first;
  std::size_t at = 0;
  while (at < t.size()) {
    const std::size_t space = std::min(t.find(' ', at), t.size());
    const std::string word = t.substr(at, space - at);
    at = space + 1;
    if (line.size() > first.size() && line.size() + 1 + word.size() > width) {
      result += line + "\n";
      line = std::string(first.size(), ' ');
    }
    if (line.size() > first.size()) line += ' ';
    line += word;
  }
  return result + line + "\n";
}

std::string row(const std::string& name, const std::vector<std::string>& cells) {
  // A longer name has a line of its own.
  std::string line;
  if (name.size() > name_width) line = "  " + cut(name, width - 2) + "\n";
  line += fmt::format("  {:<{}}", name.size() > name_width ? "" : name, name_width);
  constexpr std::size_t widths[] = {8, 8, 18, 9};
  for (std::size_t n = 0; n < cells.size(); ++n)
    line += fmt::format(" {:>{}}", cells[n], widths[n]);
  line.erase(line.find_last_not_of(' ') + 1);
  return line + "\n";
}

void add_metric(std::string& out, const json::value& metric, const json::array& arms) {
  const json::object& values = metric.at("arms").as_object();
  const json::object& ratios = metric.at("ratio_to_stock").as_object();
  const std::string unit = shown_text(metric, "unit");
  std::string name = shown_text(metric, "label");
  if (!unit.empty()) name += ", " + unit;
  for (const json::value& arm : arms) {
    const json::value* const value = values.if_contains(arm.at("name").as_string());
    if (value == nullptr) continue;
    const auto range = fmt::format("{} .. {}", number(value->at("low").to_number<double>()),
                                   number(value->at("high").to_number<double>()));
    const json::value* const ratio = ratios.if_contains(arm.at("name").as_string());
    out += row(name, {cut(shown_text(arm, "name"), 8), number(median_of(*value)), range,
                      ratio != nullptr ? "x " + number(median_of(*ratio)) : ""});
    name.clear();
  }
}

/// Whether there were enough repetitions for a confidence interval; otherwise the range is shown.
bool has_intervals(const json::value& variant) {
  for (const json::value& metric : variant.at("metrics").as_array()) {
    for (const auto& [name, arm] : metric.at("arms").as_object()) {
      if (coverage(arm.at("samples").as_array().size()) < 0.95) return false;
    }
  }
  return true;
}

std::string target_line(const json::value& target) {
  const json::value* const value = target.as_object().if_contains("value");
  const json::value* const limit = target.as_object().if_contains("limit");
  const json::value* const better = target.as_object().if_contains("better");
  const json::value* const met = target.as_object().if_contains("met");
  const bool known = value != nullptr && value->is_number() && limit != nullptr &&
                     limit->is_number() && met != nullptr && met->is_bool();
  if (!known) return shown_text(target, "text") + ": not measured";
  const bool lower = better == nullptr || *better == "lower";
  return fmt::format("{}: {:.4g} ({} {:.4g}): {}", shown_text(target, "text"),
                     value->to_number<double>(), lower ? "at most" : "at least",
                     limit->to_number<double>(), met->as_bool() ? "met" : "NOT MET");
}

}  // namespace

std::string number(double value) {
  if (!std::isfinite(value)) return std::isnan(value) ? "-" : value > 0 ? "inf" : "-inf";
  const double size = std::abs(value);
  if (size == 0) return "0";
  if (size < 0.0001) return fmt::format("{:.1e}", value);
  const int digits =
      size >= 100 ? 0 : std::min(5, 2 - static_cast<int>(std::floor(std::log10(size))));
  std::string t = fmt::format("{:.{}f}", value, digits);
  if (digits > 0) return t;
  const std::size_t sign = value < 0 ? 1 : 0;
  for (std::size_t at = t.size(); at > sign + 3;) t.insert(at -= 3, 1, ' ');
  return t;
}

std::string tables(const json::object& result) {
  std::string out;
  for (const json::value& scenario : result.at("scenarios").as_array()) {
    out += "\n" + cut(shown_text(scenario, "name") + ": " + shown_text(scenario, "title"), width) +
           "\n";
    out += wrap(shown_text(scenario, "question"), "  ");
    for (const json::value& variant : scenario.at("variants").as_array()) {
      const bool verified = variant.at("verified").as_bool();
      out += "\n" +
             row(shown_text(variant, "title"),
                 {"", "median", has_intervals(variant) ? "95 % interval" : "range", "to stock"});
      for (const json::value& metric : variant.at("metrics").as_array()) {
        // Counts of events without a unit are for the report.
        if (metric.at("better") == "none" && metric.at("unit") == "") continue;
        add_metric(out, metric, variant.at("arms").as_array());
      }
      if (!verified) out += wrap(shown_text(variant, "verification"), "  NOT VERIFIED: ");
    }
    if (!scenario.at("targets").as_array().empty()) out += "\n";
    for (const json::value& target : scenario.at("targets").as_array()) {
      out += wrap(target_line(target), "  target: ");
    }
  }
  const json::value& machine = result.at("machine");
  out +=
      "\n" + wrap(fmt::format("{}, {} CPUs, Linux {}, {}, Boost {}, commit {}{}; {:.0f} s",
                              shown_text(machine, "cpu"), machine.at("cpus").to_number<double>(),
                              shown_text(machine, "kernel"), shown_text(machine, "compiler"),
                              shown_text(machine, "boost"), shown_text(machine, "commit"),
                              machine.as_object().contains("dirty") &&
                                      machine.at("dirty").is_bool() && machine.at("dirty").as_bool()
                                  ? " with changes"
                                  : "",
                              result.at("duration_s").to_number<double>()),
                  "machine: ");
  for (const json::value& reason : machine.at("noise").as_array()) {
    if (reason.is_string()) out += wrap(for_terminal(reason.as_string()), "NOISY: ");
  }
  return out;
}

std::string table(const comparison& c, double limit) {
  std::string out;
  for (const std::string& warning : c.warnings) out += wrap(warning, "note: ");
  std::vector<difference> shown;
  std::size_t undecided = 0;
  for (const difference& d : c.differences) {
    if (d.is == verdict::worse || d.is == verdict::better) shown.push_back(d);
    undecided += d.is == verdict::undecided;
  }
  std::sort(shown.begin(), shown.end(), [](const difference& a, const difference& b) {
    return std::tuple(a.is == verdict::better, !a.ours, -std::abs(a.change)) <
           std::tuple(b.is == verdict::better, !b.ours, -std::abs(b.change));
  });
  if (!shown.empty()) {
    out += fmt::format("{:<7} {:>15}    {:<15} {:>9}   p\n", "what", "before", "after", "change");
  }
  for (const difference& d : shown) {
    const char* const word = d.is == verdict::better ? "better" : d.ours ? "WORSE" : "drift";
    const auto name = fmt::format("{} {}, {}, {}{}{}", d.scenario, d.variant, d.arm, d.metric,
                                  d.unit.empty() ? "" : ", ", d.unit);
    out += fmt::format("{:<7} {}\n", word, cut(name, width - 8));
    out += fmt::format("{:<7} {:>15} -> {:<15} {:>8}%   {}\n", "", number(d.before),
                       number(d.after), (d.change > 0 ? "+" : "") + number(d.change),
                       d.p_value < 0.0001 ? "< 0.0001" : fmt::format("{:.4f}", d.p_value));
  }
  if (undecided > 0) {
    out += wrap(fmt::format("{} figures differ by more than {} %, but there are too few "
                            "repetitions to exclude chance; use --repetitions 6 or more.",
                            undecided, number(limit)),
                "note: ");
  }
  const std::size_t same = c.differences.size() - shown.size() - undecided;
  out += wrap(fmt::format("{} figures compared, {} without a significant difference above {} % "
                          "(Mann-Whitney U, p < 0.01). {}",
                          c.differences.size(), same, number(limit),
                          c.regression ? "asio-pulse got worse." : "No regression."),
              "");
  return out;
}

}  // namespace pulse_bench
