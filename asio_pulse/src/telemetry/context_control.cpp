// SPDX-License-Identifier: BSL-1.0
#include "context_control.hpp"

#include "groups/task_groups.hpp"
#include "text/escaped.hpp"

#include <fmt/core.h>

#include <utility>

namespace asio_pulse::detail {
namespace {

constexpr std::size_t most_steps = 16;
constexpr std::size_t most_name = 200;

std::string name_of(const context_core& core) {
  const std::string& name = core.opts().name;
  return name.empty() ? fmt::format("context {}", core.number())
                      : fmt::format("context \"{}\"", escaped(name, most_name));
}

std::string_view mode(bool shadow) { return shadow ? "is in shadow mode" : "enforces"; }

std::string quoted(std::string_view path) {
  return fmt::format("group \"{}\"", escaped(path, most_name));
}

context_control::answer refuse(std::string why) {
  return {.refused = true, .text = std::move(why)};
}

/// The group, or an answer that says why there is none.
std::variant<group_ref, context_control::answer> find(context_core& core, std::string_view path) {
  task_groups::found there = core.groups().find(path);
  if (!there.group) return refuse(fmt::format("{} has no {}", name_of(core), quoted(path)));
  if (there.several) {
    return refuse(
        fmt::format("{} has several groups with the path of {}; give them different names",
                    name_of(core), quoted(path)));
  }
  return std::move(there.group);
}

}  // namespace

// So that remember() needs no memory.
void context_control::reserve() { steps_.reserve(most_steps); }

void context_control::remember(step s) noexcept {
  if (steps_.size() == most_steps) steps_.erase(steps_.begin());
  steps_.push_back(std::move(s));
}

context_control::answer context_control::set_shadow(context_core& core, bool shadow) {
  reserve();
  answer a{.text = fmt::format("{} {} now", name_of(core), mode(shadow))};
  std::string already = fmt::format("{} {} already", name_of(core), mode(shadow));
  const context_core::refusal why = core.update({.shadow = shadow}, a.made);
  if (!why.text.empty()) return refuse(why.text);
  if (a.made.number == 0) {
    a.text = std::move(already);
  } else {
    remember(shadow_step{.set = shadow});
  }
  return a;
}

context_control::answer context_control::set_weight(context_core& core, std::string_view path,
                                                    unsigned weight) {
  if (std::string fault = invalid_reason(group_options{.weight = weight}); !fault.empty()) {
    return refuse(std::move(fault));
  }
  auto there = find(core, path);
  if (auto* const none = std::get_if<answer>(&there)) return std::move(*none);
  group_state& g = *std::get<group_ref>(there).get();
  const unsigned before = weight_of(g);
  if (before == weight) {
    return {.text = fmt::format("{} has a weight of {} already", quoted(path), weight)};
  }
  reserve();
  weight_step s{.path = std::string(path), .id = g.id, .before = before, .set = weight};
  answer a{.text =
               fmt::format("{} has a weight of {} now; it was {}", quoted(path), weight, before)};
  a.made = core.set_weight(g, weight);
  remember(std::move(s));
  return a;
}

context_control::answer context_control::undo(context_core& core) {
  if (steps_.empty()) {
    return refuse(fmt::format("there is nothing to undo in {}", name_of(core)));
  }
  answer a = std::visit([&core](const auto& s) { return take_back(core, s); }, steps_.back());
  steps_.pop_back();
  return a;
}

context_control::answer context_control::take_back(context_core& core, const shadow_step& s) {
  if (core.shadow() != s.set) {
    return refuse(fmt::format("{} {}: that was changed since, and is left as it is", name_of(core),
                              mode(core.shadow())));
  }
  answer a{.text = fmt::format("{} {} again", name_of(core), mode(!s.set))};
  const context_core::refusal why = core.update({.shadow = !s.set}, a.made);
  return why.text.empty() ? a : refuse(why.text);
}

context_control::answer context_control::take_back(context_core& core, const weight_step& s) {
  auto there = find(core, s.path);
  if (auto* const none = std::get_if<answer>(&there)) return std::move(*none);
  group_state& g = *std::get<group_ref>(there).get();
  if (g.id != s.id) {
    return refuse(
        fmt::format("{} is another group than the one whose weight was changed, and is left "
                    "as it is",
                    quoted(s.path)));
  }
  if (const unsigned now = weight_of(g); now != s.set) {
    return refuse(fmt::format("{} has a weight of {}: that was changed since, and is left as it is",
                              quoted(s.path), now));
  }
  answer a{.text = fmt::format("{} has a weight of {} again", quoted(s.path), s.before)};
  a.made = core.set_weight(g, s.before);
  return a;
}

}  // namespace asio_pulse::detail
