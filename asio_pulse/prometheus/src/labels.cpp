// SPDX-License-Identifier: BSL-1.0

#include "families.hpp"

#include <asio_pulse/report.hpp>

#include <boost/crc.hpp>

#include <fmt/core.h>

#include <algorithm>

namespace asio_pulse::detail {

std::string label_value(std::string_view text, std::size_t max_bytes) {
  // Escaping never makes a text shorter, so a text that is too long already need not be tried.
  if (text.size() <= max_bytes) {
    std::string whole = escape(text, text.size() * 10);
    if (whole.size() <= max_bytes) return whole;
  }
  boost::crc_32_type checksum;
  checksum.process_bytes(text.data(), text.size());
  return fmt::format("{}#{:08x}", escape(text, max_bytes), checksum.checksum());
}

void context_labels::entry::see(const context_metrics& c) {
  const std::uint64_t known = c.totals.stalls_spinning + c.totals.stalls_blocked;
  polls = std::max(polls, c.polls);
  cpu = std::max(cpu, c.cpu);
  unknown_stalls = std::max(unknown_stalls, c.totals.stalls > known ? c.totals.stalls - known : 0);
}

void context_labels::update(const process_metrics& m) {
  if (pid_ != m.pid) entries_.clear();  // in another process the numbers mean other contexts
  pid_ = m.pid;
  std::erase_if(entries_, [&m](const auto& known) {
    return std::none_of(m.contexts.begin(), m.contexts.end(), [&known](const context_metrics& c) {
      return c.number == known.first && c.name == known.second.name;
    });
  });
  for (const context_metrics& c : m.contexts) {
    if (entries_.contains(c.number)) continue;
    const std::string base = c.name.empty() ? "unnamed" : label_value(c.name, name_bytes);
    std::string label = base;
    for (unsigned n = 2; taken(label); ++n) label = fmt::format("{}#{}", base, n);
    entries_.emplace(c.number, entry{.name = c.name, .label = std::move(label)});
  }
}

bool context_labels::taken(const std::string& label) const {
  return std::any_of(entries_.begin(), entries_.end(),
                     [&label](const auto& known) { return known.second.label == label; });
}

}  // namespace asio_pulse::detail
