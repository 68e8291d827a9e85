// SPDX-License-Identifier: BSL-1.0

#include "text/escaped.hpp"

#include <asio_pulse/report.hpp>

#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <limits>

namespace asio_pulse {
namespace {

using timing::ticks;

// How much is kept of a name. With the fixed words the line then stays below PIPE_BUF (4096 on
// Linux), up to which a write to a pipe is atomic.
constexpr std::size_t name_bytes = 128;
constexpr std::size_t site_bytes = 512;  // demangled handler types are long
constexpr std::size_t file_bytes = 256;
constexpr std::size_t function_bytes = 512;
constexpr std::size_t detail_bytes = 512;
constexpr std::size_t call_bytes = 64;
constexpr std::size_t remedy_bytes = 128;
// PIPE_BUF on Linux, less what report_writer may add.
constexpr std::size_t written_bytes = 4096 - 32;

// A duration from 0 ns to 292 years in a suitable unit, with three exact decimals.
std::string in_words(std::chrono::nanoseconds value) {
  const auto count = value.count();
  const std::uint64_t magnitude =
      count < 0 ? 0 - static_cast<std::uint64_t>(count) : static_cast<std::uint64_t>(count);
  const char* const sign = count < 0 ? "-" : "";
  if (magnitude < 1'000) {
    return fmt::format("{}{}ns", sign, magnitude);
  }
  if (magnitude < 1'000'000) {
    return fmt::format("{}{}.{:03}us", sign, magnitude / 1'000, magnitude % 1'000);
  }
  if (magnitude < 1'000'000'000) {
    return fmt::format("{}{}.{:03}ms", sign, magnitude / 1'000'000, magnitude / 1'000 % 1'000);
  }
  return fmt::format("{}{}.{:03}s", sign, magnitude / 1'000'000'000, magnitude / 1'000'000 % 1'000);
}

void append_quoted(std::string& line, std::string_view key, std::string_view text,
                   std::size_t max_bytes) {
  if (!text.empty()) {
    line += fmt::format(" {}=\"{}\"", key, escape(text, max_bytes));
  }
}

// A string from a macro of Asio may be null or very long, so no more than needed is read.
std::string_view bounded(const char* text, std::size_t max_bytes) noexcept {
  if (text == nullptr) {
    return {};
  }
  const void* const end = std::memchr(text, '\0', max_bytes + 1);
  return {text, end == nullptr ? max_bytes + 1
                               : static_cast<std::size_t>(static_cast<const char*>(end) - text)};
}

void append_stall(std::string& line, const report& r) {
  line += fmt::format(" {}={} blamed={} thread={} cause={}",
                      r.kind == report_kind::stall ? "so_far" : "lasted", in_words(r.poll),
                      in_words(r.cpu_or_occupancy), r.thread, to_string(r.cause));
  append_quoted(line, "call", r.system_call, call_bytes);
  append_quoted(line, "no_stack", to_string(r.why_no_stack), detail_bytes);
  const std::size_t blamed = blamed_frame(r.stack);
  if (blamed == no_frame) {
    return;
  }
  const stack_frame& f = r.stack[blamed];
  if (f.function.empty()) {
    line += fmt::format(" function=\"{}+0x{:x}\"", escape(f.module, file_bytes), f.offset);
  } else {
    append_quoted(line, "function", f.function, function_bytes);
  }
  if (!f.file.empty()) {
    line += fmt::format(" source=\"{}:{}\"", escape(f.file, file_bytes), f.line);
  }
}

constexpr ticks saturating_add(ticks a, ticks b) noexcept {
  constexpr ticks most = std::numeric_limits<ticks>::max();
  return b > most - a ? most : a + b;
}

constexpr ticks increment_for(std::uint64_t per_second, ticks ticks_per_second) noexcept {
  if (per_second == 0) {
    return 0;
  }
  const ticks whole = ticks_per_second / per_second;
  return std::max<ticks>(whole + (ticks_per_second % per_second != 0 ? 1 : 0), 1);
}

}  // namespace

std::string_view to_string(report_kind kind) noexcept {
  switch (kind) {
    case report_kind::slow_poll:
      return "slow_poll";
    case report_kind::over_budget:
      return "over_budget";
    case report_kind::isolation_refused:
      return "isolation_refused";
    case report_kind::critical_overstay:
      return "critical_overstay";
    case report_kind::stall:
      return "stall";
    case report_kind::stall_ended:
      return "stall_ended";
    case report_kind::yield_refused:
      return "yield_refused";
    case report_kind::compensation_refused:
      return "compensation_refused";
    case report_kind::misuse:
      return "misuse";
  }
  return "unknown";
}

std::string escape(std::string_view text, std::size_t max_bytes) {
  return detail::escaped(text, max_bytes);
}

std::string format(const report& r) {
  const bool stalls = r.kind == report_kind::stall || r.kind == report_kind::stall_ended;
  std::string line = fmt::format("asio-pulse: {}", to_string(r.kind));
  append_quoted(line, "task", r.task, name_bytes);
  line += fmt::format(" id={}", r.task_id);
  append_quoted(line, "site", r.site, site_bytes);
  if (r.location.file != nullptr && *r.location.file != '\0') {
    line += fmt::format(" at=\"{}:{}\"", escape(bounded(r.location.file, file_bytes), file_bytes),
                        r.location.line);
  }
  append_quoted(line, "in", bounded(r.location.function, function_bytes), function_bytes);
  if (stalls) {
    append_stall(line, r);
  } else {
    line += fmt::format(" poll={} {}={} clock={}", in_words(r.poll), r.exact ? "cpu" : "occupancy",
                        in_words(r.cpu_or_occupancy), timing::to_string(r.clock));
  }
  if (r.before == r.after) {
    line += fmt::format(" tier={}", to_string(r.after));
  } else {
    line += fmt::format(" tier={}->{}", to_string(r.before), to_string(r.after));
  }
  if (!stalls || r.why != reason::none) {
    line += fmt::format(" why={}", to_string(r.why));
  }
  if (r.suppressed != 0) {
    line += fmt::format(" suppressed={}", r.suppressed);
  }
  append_quoted(line, "detail", r.detail, detail_bytes);
  if (!r.remedy.empty()) line += fmt::format(" see={}", escape(r.remedy, remedy_bytes));
  return line;
}

std::string format_with_stack(const report& r) {
  std::string text = format(r);
  text += '\n';
  for (std::size_t n = 0; n < r.stack.size(); ++n) {
    const std::string left = fmt::format("  ... and {} more\n", r.stack.size() - n);
    // A frame has one line for itself and one for each inlined function. format() numbers from 0,
    // so the number is written here.
    std::string frame = format(r.stack.subspan(n, 1));
    constexpr std::string_view number = "  #0";
    if (frame.starts_with(number)) frame.replace(0, number.size(), fmt::format("  #{}", n));
    if (text.size() + frame.size() + left.size() >= written_bytes) {
      return text += left;
    }
    text += frame;
  }
  return text;
}

report_limiter::report_limiter(ticks interval, std::uint64_t per_second,
                               ticks ticks_per_second) noexcept {
  configure(interval, per_second, ticks_per_second);
}

void report_limiter::configure(ticks interval, std::uint64_t per_second,
                               ticks ticks_per_second) noexcept {
  constexpr auto relaxed = std::memory_order_relaxed;
  interval_.store(interval, relaxed);
  const ticks increment = increment_for(per_second, ticks_per_second);
  const ticks span = per_second != 0 && increment > std::numeric_limits<ticks>::max() / per_second
                         ? std::numeric_limits<ticks>::max()
                         : increment * per_second;
  if (increment == increment_.load(relaxed) && span == span_.load(relaxed)) return;
  span_.store(span, relaxed);
  increment_.store(increment, relaxed);
  full_at_.store(0, relaxed);
}

report_limiter::verdict report_limiter::admit(report_slot& slot, ticks now) noexcept {
  const verdict v = try_admit(slot, now);
  if (!v.send) {
    hold_back(slot);
  }
  return v;
}

void report_limiter::hold_back(report_slot& slot) noexcept {
  slot.suppressed.fetch_add(1, std::memory_order_relaxed);
  suppressed_.fetch_add(1, std::memory_order_relaxed);
}

report_limiter::verdict report_limiter::admit_more(report_slot& slot, ticks now) noexcept {
  if (!take_token(now)) {
    hold_back(slot);
    return {};
  }
  sent_.fetch_add(1, std::memory_order_relaxed);
  return {true, slot.suppressed.exchange(0, std::memory_order_relaxed)};
}

report_limiter::verdict report_limiter::try_admit(report_slot& slot, ticks now) noexcept {
  constexpr auto relaxed = std::memory_order_relaxed;
  const ticks interval = interval_.load(relaxed);
  ticks before = slot.sent_at.load(relaxed);
  if (interval != 0 && before != report_slot::never) {
    // If the last report was sent more than an interval from now, the clock ran backwards, and the
    // slot must not stay closed for long. One interval is tolerated, because workers have slightly
    // different times.
    const bool lost = before > now && before - now > interval;
    if (!lost && (before > now || now - before < interval)) {
      return {};
    }
  }
  // The thread that changes the slot may report. For the others, a report is being sent already.
  if (!slot.sent_at.compare_exchange_strong(before, now, relaxed) && interval != 0) {
    return {};
  }
  if (!take_token(now)) {
    ticks mine = now;  // undo it, because this task's report was not sent
    slot.sent_at.compare_exchange_strong(mine, before, relaxed);
    return {};
  }
  sent_.fetch_add(1, relaxed);
  return {true, slot.suppressed.exchange(0, relaxed)};
}

bool report_limiter::take_token(ticks now) noexcept {
  const ticks increment = increment_.load(std::memory_order_relaxed);
  if (increment == 0) {
    return true;
  }
  const ticks span = span_.load(std::memory_order_relaxed);
  const ticks end = saturating_add(now, span);
  ticks full_at = full_at_.load(std::memory_order_relaxed);
  ticks next = 0;
  do {
    // If it is full only after more than two buckets from now, time ran backwards, as in admit().
    const bool lost = full_at > saturating_add(end, span);
    const ticks from = lost ? now : std::clamp(full_at, now, end);
    if (increment > end - from) {
      return false;
    }
    next = from + increment;
  } while (!full_at_.compare_exchange_weak(full_at, next, std::memory_order_relaxed));
  return true;
}

std::string short_type(std::string_view type) {
  static constexpr std::string_view noise[] = {
      "boost::asio::experimental::detail::",
      "boost::asio::detail::",
      "boost::asio::",
      ", scheduler_operation_tracked_by_asio_pulse",
      ", std::allocator<void>",
      ", recycling_allocator<void>",
      ", io_context::basic_executor_type<std::allocator<void>, 0>",
      ", io_context::basic_executor_type<std::allocator<void>, 0ul>",
      ", any_io_executor",
  };
  std::string text(type);
  for (const std::string_view part : noise) {
    for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at)) {
      text.erase(at, part.size());
    }
  }
  // `executor_op<binder0<Handler> >` becomes `Handler`.
  static constexpr std::string_view wrappers[] = {"executor_op<", "completion_handler<", "binder0<",
                                                  "wait_handler<"};
  for (bool again = true; again;) {
    again = false;
    for (const std::string_view wrapper : wrappers) {
      if (text.starts_with(wrapper) && text.ends_with('>')) {
        text = text.substr(wrapper.size(), text.size() - wrapper.size() - 1);
        while (text.ends_with(' ')) text.pop_back();
        again = true;
      }
    }
  }
  return text;
}

}  // namespace asio_pulse
