// SPDX-License-Identifier: BSL-1.0

#include "details.hpp"

#include "frame_text.hpp"
#include "tables.hpp"
#include "text/short_numbers.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <string_view>

namespace asio_pulse::top {
namespace {

using detail::short_duration;

// Lines "label      value", with the value wrapped beside the label.
class sheet {
 public:
  explicit sheet(std::size_t width) : width_(width) {}

  void title(std::string_view text) { lines_.emplace_back(std::string{text}, style::title); }
  void blank() { lines_.emplace_back(std::string{}); }
  void entry(std::string_view label, std::string_view value, style how = style::plain) {
    constexpr std::size_t label_width = 14;
    auto parts = wrap(value, width_ - std::min(width_, label_width));
    if (parts.empty()) parts.emplace_back("-");
    for (std::size_t i = 0; i != parts.size(); ++i) {
      line l;
      l.add(left(i == 0 ? label : std::string_view{}, label_width, charset::ascii), style::dim);
      l.add(std::move(parts[i]), how);
      lines_.push_back(std::move(l));
    }
  }
  void paragraph(std::string_view text, style how = style::plain) {
    for (std::string& part : wrap(text, width_)) lines_.emplace_back(std::move(part), how);
  }
  void frame(std::string_view text, bool blamed) {
    const auto parts = wrap(text, width_ - std::min<std::size_t>(width_, 6));
    for (std::size_t i = 0; i != parts.size(); ++i) {
      const char* const margin = i != 0 ? "      " : (blamed ? ">> " : "   ");
      lines_.emplace_back(margin + parts[i], blamed ? style::alarm : style::plain);
    }
  }
  std::vector<line> take() { return std::move(lines_); }

 private:
  std::size_t width_;
  std::vector<line> lines_;
};

void place(sheet& s, const source_place& where, charset set) {
  if (!where.file.empty()) s.entry("created at", place_text(where, set));
  if (!where.function.empty()) s.entry("in", printable(where.function, set));
}

}  // namespace

std::vector<line> details_of(const task_view& task, const context_view& context, std::size_t width,
                             charset set) {
  sheet s(width);
  s.title("Task");
  s.entry("name", printable(task.now.name, set));
  s.entry("id", task.now.id == 0 ? "0 (work of no task)" : fmt::format("{}", task.now.id));
  s.entry("tier", to_string(task.now.level));
  s.entry("held back", task.now.waiting ? "yes: its operations wait until others have run" : "no",
          task.now.waiting ? style::warn : style::plain);
  s.entry("CPU", fmt::format("{} of a CPU in the last {}", load_text(task.load),
                             short_duration(context.now.recent_interval)));
  s.entry("CPU time", short_duration(task.now.cpu));
  s.entry("polls", fmt::format("{} ({}/s)", task.now.polls, rate_text(task.polls)));
  for (const worker_view& worker : context.workers) {
    if (worker.now.running.empty() || worker.now.running_task != task.now.id) continue;
    s.entry("runs now", fmt::format("on thread {} for {}: {}", worker.now.thread,
                                    short_duration(worker.now.running_for),
                                    printable(worker.now.running, set)));
  }
  return s.take();
}

std::vector<line> details_of(const group_view& group, const context_view& context,
                             std::size_t width, charset set) {
  const group_metrics& now = group.now;
  sheet s(width);
  s.title("Group");
  s.entry("path", printable(now.path, set));
  s.entry("weight", fmt::format("{}", now.weight));
  s.entry("share got",
          fmt::format("{} of what all groups used in the last {}", load_text(group.got),
                      short_duration(context.now.recent_interval)));
  s.entry("share asked",
          fmt::format("{}, by the weights of the groups that wanted some", load_text(group.asked)));
  s.entry("wants more", now.wants_more ? "yes" : "no, or it does not ask admit()");
  s.entry("CPU", load_text(group.load) + " of a CPU");
  s.entry("CPU time", short_duration(now.cpu));
  s.entry("tasks", fmt::format("{}", now.tasks));
  s.entry("admitted", fmt::format("{} requests ({}/s)", now.admitted, rate_text(group.admitted)));
  s.entry("refused",
          fmt::format("{} for its share, {} because of overload ({}/s)", now.refused_share,
                      now.refused_overload, rate_text(group.refused)),
          group.refused.value_or(0) > 0 ? style::warn : style::plain);
  s.entry("queue delay", short_duration(now.queue_delay) + " at its last request");
  return s.take();
}

std::vector<line> details_of(const context_view& shard, std::size_t width, charset set) {
  const shard_metrics& now = shard.now.shard;
  sheet s(width);
  s.title("Shard");
  s.entry("number", fmt::format("{} of {}, of sharded_context {}", now.index, now.shards, now.set));
  s.entry("context", fmt::format("{} {}", shard.now.number, printable(shard.now.name, set)));
  s.entry("CPU", fmt::format("{:.1f}% of a CPU", static_cast<double>(now.cpu_permille) / 10));
  s.entry("pinned", now.pinned ? fmt::format("to CPU {}", now.cpu) : std::string{"no"});
  s.entry("delay", short_duration(now.delay));
  s.entry("movable", fmt::format("{} connections and tasks", now.movable));
  s.entry("keeps",
          now.draining ? std::string{"nothing: it is drained"} : std::string{to_string(now.keeps)});
  const auto by_reason = [](std::uint64_t a, std::uint64_t b, std::uint64_t c, std::uint64_t d) {
    return fmt::format("{} imbalance, {} stuck, {} drain, {} ordered", a, b, c, d);
  };
  s.entry("moves in", by_reason(now.in_imbalance, now.in_stuck, now.in_drain, now.in_ordered));
  s.entry("moves out", by_reason(now.out_imbalance, now.out_stuck, now.out_drain, now.out_ordered));
  s.entry("messages", fmt::format("{}, of which {} found it asleep", now.received, now.wakes));
  for (const shard_move_metrics& m : now.moves) {
    s.entry("moved here", fmt::format("{}, {} ago, in {}", move_text(m, set), short_duration(m.ago),
                                      short_duration(m.took)));
  }
  return s.take();
}

std::vector<line> details_of(const site_view& site, std::size_t width, charset set) {
  sheet s(width);
  s.title("Handler");
  s.entry("type", printable(site.now.type, set));
  place(s, site.now.place, set);
  s.entry("CPU", load_text(site.load) + " of a CPU now");
  s.entry("CPU time", short_duration(site.now.cpu));
  s.entry("polls", fmt::format("{} ({}/s)", site.now.polls, rate_text(site.polls)));
  s.entry("a poll", fmt::format("{} on average, {} at longest", short_duration(site.mean),
                                short_duration(site.now.longest)));
  s.entry("again", fmt::format("{} polls directly after another one of the same task and handler",
                               site.now.again));
  return s.take();
}

std::vector<line> details_of(const stall_metrics& stall, std::chrono::system_clock::time_point now,
                             std::size_t width, charset set) {
  sheet s(width);
  s.title("Stall");
  s.entry("lasted",
          short_duration(stall.lasted) + (stall.ended ? "" : " so far, and has not ended"),
          stall.ended ? style::plain : style::alarm);
  s.entry("found", age_text(stall.at, now));
  s.entry("cause", to_string(stall.cause));
  if (!stall.system_call.empty()) s.entry("system call", printable(stall.system_call, set));
  s.entry("task", fmt::format("{} (id {})", printable(stall.task, set), stall.task_id));
  s.entry("handler", printable(stall.site, set));
  place(s, stall.place, set);
  s.entry("thread", fmt::format("{}", stall.thread));
  s.blank();
  if (stall.stack.empty()) {
    s.paragraph("The stack could not be taken.");
    return s.take();
  }
  s.title(stall.blamed < stall.stack.size()
              ? "Stack, innermost frame first; >> marks the frame to blame"
              : "Stack, innermost frame first");
  for (std::size_t i = 0; i != stall.stack.size(); ++i) {
    const std::string text = printable_again(detail::text_of(stall.stack[i]), set);
    s.frame(fmt::format("#{} {}", i, text), i == stall.blamed);
  }
  return s.take();
}

std::vector<line> details_of(const lint& l, std::size_t width, charset set) {
  sheet s(width);
  s.title(to_string(l.kind));
  s.paragraph(printable_again(l.text, set));
  s.blank();
  s.title("What to do");
  s.paragraph(printable_again(l.advice, set), style::good);
  s.blank();
  s.entry("more", fmt::format("asio_pulse/docs/lints.md#{}", printable(l.anchor, set)));
  if (!l.subject.empty()) s.entry("about", printable(l.subject, set));
  return s.take();
}

}  // namespace asio_pulse::top
