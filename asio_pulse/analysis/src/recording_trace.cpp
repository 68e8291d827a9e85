// SPDX-License-Identifier: BSL-1.0
//
// A recording in the trace event format, which Perfetto and chrome://tracing read:
//   {"traceEvents":[{"ph":"X","pid":1,"tid":2,"ts":12.345,"dur":6.789,"name":"..","args":{..}},..]}
// Times are microseconds since the recording's beginning.

#include "frame_text.hpp"
#include "slices.hpp"
#include "text/json_text.hpp"

#include <asio_pulse/admission.hpp>
#include <asio_pulse/report.hpp>
#include <asio_pulse/trace.hpp>

#include <fmt/core.h>

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <ostream>
#include <set>
#include <span>
#include <unordered_map>
#include <utility>

namespace asio_pulse {
namespace {

using detail::fit;
using detail::slice;
using std::chrono::nanoseconds;
using namespace std::chrono_literals;

// Perfetto keeps ids of threads and processes in 32 bits. The kernel's are below 2^22.
constexpr std::uint64_t most_threads = 1'000'000'000;
constexpr std::uint64_t first_made_up_thread = 2'000'000'000;
constexpr std::uint64_t first_stall_track = 2'100'000'000;

// The kernel's ids are below that. Each recording after the first gets a made-up process.
constexpr std::uint64_t kernel_ids = std::uint64_t{1} << 22U;
// Recordings that were not made at the same time.
constexpr nanoseconds longest_apart = 24h;

const recording& nothing() {
  static const recording empty;
  return empty;
}

constexpr std::size_t flush_bytes = std::size_t{1} << 16;

// Readers add a slice's start and its length in floating point. The sum may be later than the start
// of the next slice, or the end of the outer one, by less than a nanosecond, and some readers then
// take everything that follows for a part of it. So slices that touch end a nanosecond earlier. To
// be called after fit().
constexpr nanoseconds gap = 1ns;

void keep_apart(std::vector<slice>& slices) {
  std::vector<slice*> open;
  const auto shorten = [](slice& s, nanoseconds latest) {
    s.end = std::max(s.start, std::min(s.end, latest));
  };
  for (slice& s : slices) {
    while (!open.empty() && open.back()->end <= s.start) {
      shorten(*open.back(), s.start - gap);
      open.pop_back();
    }
    open.push_back(&s);
  }
  open.clear();
  for (slice& s : slices) {  // outer slices come first, and have their final length by then
    while (!open.empty() && open.back()->end <= s.start) open.pop_back();
    if (!open.empty()) shorten(s, open.back()->end - gap);
    open.push_back(&s);
  }
}

// Where the events of a recording are put among those of others.
struct trace_place {
  std::uint64_t process = 0;
  std::size_t order = 0;
  nanoseconds later{0};  // than the trace's beginning
};

class trace_writer {
 public:
  trace_writer(const recording& r, const trace_place& at, bool& first, std::ostream& out)
      : r_(r), at_(at), out_(out), first_(first) {
    for (const recorded_task& t : r.tasks) tasks_.try_emplace(static_cast<std::uint32_t>(t.id), &t);
    for (const recorded_site& s : r.sites) names_.push_back(short_type(s.type));
  }

  void write_head() {
    // The time of day is a string, since a double cannot represent a number of this size exactly.
    put(R"({{"displayTimeUnit":"ns","otherData":{{"program":)");
    text(r_.program);
    put(R"(,"context":)");
    text(r_.context);
    put(R"(,"clock":"{}","begin_unix_ns":"{}","length_ns":"{}"}},)"
        "\n\"traceEvents\":[",
        timing::to_string(r_.clock),
        std::chrono::duration_cast<nanoseconds>(r_.begin.time_since_epoch()).count(),
        r_.length.count());
    flush();
  }

  void write() {
    metadata("process_name", 0,
             fmt::format("{}{}{}", r_.program, r_.context.empty() ? "" : ": ", r_.context));
    if (at_.order != 0) {
      open('M', 0, -at_.later);
      put(",\"name\":\"process_sort_index\",\"args\":{{\"sort_index\":{}}}", at_.order);
      close();
    }
    std::set<std::uint64_t> used;
    for (std::size_t i = 0; i < r_.workers.size(); ++i) {
      const std::uint64_t thread = r_.workers[i].thread;
      const bool usable = thread != 0 && thread < most_threads && used.insert(thread).second;
      write_worker(i, usable ? thread : first_made_up_thread + i);
    }
    write_counters();
    flush();
  }

 private:
  template <typename... Args>
  void put(fmt::format_string<Args...> format, Args&&... args) {
    buffer_ += fmt::format(format, std::forward<Args>(args)...);
  }
  void text(std::string_view value) { detail::append_json(buffer_, value); }
  void flush() {
    out_.write(buffer_.data(), static_cast<std::streamsize>(buffer_.size()));
    buffer_.clear();
  }

  // Writes {"ph":"X","pid":1,"ts":12.345; the caller adds more, and calls close().
  void open(char phase, nanoseconds at) {
    if (buffer_.size() > flush_bytes) flush();
    put("{}\n{{\"ph\":\"{}\",\"pid\":{},\"ts\":", first_ ? "" : ",", phase,
        at_.process % most_threads);
    first_ = false;
    time(at < nanoseconds::max() - at_.later ? at_.later + at : nanoseconds::max());
  }
  void open(char phase, std::uint64_t thread, nanoseconds at) {
    open(phase, at);
    put(",\"tid\":{}", thread);
  }
  void close() { put("}}"); }
  void time(nanoseconds value) {
    const auto ns = static_cast<std::uint64_t>(std::max(value, 0ns).count());
    put("{}.{:03}", ns / 1000, ns % 1000);
  }

  void metadata(std::string_view what, std::uint64_t thread, std::string_view name) {
    open('M', thread, -at_.later);
    put(",\"name\":\"{}\",\"args\":{{\"name\":", what);
    text(name);
    put("}}");
    close();
  }

  // Writes ,"args":{"task":"..","id":7,"place":"file:line","function":".."; the caller adds more.
  void open_args(const recorded_event& e) {
    const auto found = tasks_.find(e.task());
    put(",\"args\":{{\"id\":{}", found != tasks_.end() ? found->second->id : e.task());
    if (found != tasks_.end() && !found->second->name.empty()) {
      put(",\"task\":");
      text(found->second->name);
    }
    if (e.site() < r_.sites.size()) place(r_.sites[e.site()].place);
  }
  void place(const source_place& where) {
    if (!where.file.empty()) {
      put(",\"place\":");
      text(fmt::format("{}:{}", where.file, where.line));
    }
    if (!where.function.empty()) {
      put(",\"function\":");
      text(where.function);
    }
  }

  std::string_view name_of(const recorded_event& e) const {
    if (e.site() < names_.size() && !names_[e.site()].empty()) return names_[e.site()];
    const auto found = tasks_.find(e.task());
    if (found != tasks_.end() && !found->second->name.empty()) return found->second->name;
    return "poll";
  }

  void write_worker(std::size_t index, std::uint64_t thread) {
    const recorded_worker& w = r_.workers[index];
    const std::string label =
        w.thread != 0 ? fmt::format("worker {}", w.thread) : fmt::format("worker {}, gone", index);
    metadata("thread_name", thread,
             w.lost == 0 ? label : fmt::format("{} ({} events lost)", label, w.lost));
    std::vector<recorded_event> sorted;
    const auto by_start = [](const recorded_event& a, const recorded_event& b) {
      return a.start() < b.start();
    };
    const bool in_order = std::is_sorted(w.events.begin(), w.events.end(), by_start);
    if (!in_order) {
      sorted = w.events;
      std::stable_sort(sorted.begin(), sorted.end(), by_start);
    }
    const std::vector<recorded_event>& events = in_order ? w.events : sorted;

    std::vector<slice> polls;
    for (const recorded_event& e : events) {
      if (e.kind() == event_kind::poll)
        polls.push_back({.start = e.start(), .end = e.start() + e.duration()});
    }
    fit(polls, true);
    keep_apart(polls);
    std::size_t poll = 0;
    for (const recorded_event& e : events) {
      if (e.kind() == event_kind::poll) {
        write_poll(e, polls[poll++], thread);
      } else {
        write_instant(e, thread);
      }
    }
    write_stalls(events, first_stall_track + index, label);
  }

  void write_poll(const recorded_event& e, const slice& s, std::uint64_t thread) {
    open('X', thread, s.start);
    put(",\"dur\":");
    time(s.end - s.start);
    put(",\"cat\":\"poll\",\"name\":");
    text(name_of(e));
    open_args(e);
    const nanoseconds shown = s.end - s.start;
    if (shown > e.duration() || shown + 2 * gap < e.duration()) {
      put(",\"cpu_us\":");
      time(e.duration());
    }
    put("}}");
    close();
  }

  void write_instant(const recorded_event& e, std::uint64_t thread) {
    if (e.kind() == event_kind::queue_delay || e.kind() == event_kind::stall) return;
    open('i', thread, e.start());
    put(",\"s\":\"t\",\"cat\":\"{}\",\"name\":\"{}", to_string(e.kind()), to_string(e.kind()));
    if (e.kind() == event_kind::tier) {
      put(": {} to {}", to_string(e.tier_before()), to_string(e.tier_after()));
    } else if (e.kind() == event_kind::refused) {
      put(": {}", to_string(static_cast<refusal>(e.value())));
    }
    put("\"");
    open_args(e);
    put("}}");
    close();
  }

  // Stalls have tracks of their own, because they are timed by the wall clock and polls by CPU
  // time.
  void write_stalls(const std::vector<recorded_event>& events, std::uint64_t thread,
                    std::string_view label) {
    struct found {
      slice when;
      const recorded_event* event;
      const stall_metrics* what;
    };
    std::vector<found> stalls;
    std::unordered_map<std::uint32_t, nanoseconds> last_poll;  // start of each task's last poll
    for (const recorded_event& e : events) {
      if (e.kind() == event_kind::poll) last_poll[e.task()] = e.start();
      if (e.kind() != event_kind::stall || e.value() >= r_.stalls.size()) continue;
      // It began with its poll. If that is not in the recording, it is shown from where it was
      // found.
      const stall_metrics& s = r_.stalls[e.value()];
      const auto poll = last_poll.find(e.task());
      const nanoseconds lasted = std::clamp(s.lasted, 0ns, nanoseconds{24h});
      nanoseconds start = e.start();
      if (poll != last_poll.end() && e.start() - poll->second <= lasted) start = poll->second;
      stalls.push_back({{.start = start, .end = start + lasted}, &e, &s});
    }
    if (stalls.empty()) return;
    std::stable_sort(stalls.begin(), stalls.end(),
                     [](const found& a, const found& b) { return a.when.start < b.when.start; });
    std::vector<slice> slices;
    slices.reserve(stalls.size());
    for (const found& s : stalls) slices.push_back(s.when);
    fit(slices, false);
    keep_apart(slices);
    metadata("thread_name", thread, fmt::format("{}: stalls", label));
    for (std::size_t i = 0; i < stalls.size(); ++i) {
      write_stall(*stalls[i].event, *stalls[i].what, slices[i], thread);
    }
  }

  void write_stall(const recorded_event& e, const stall_metrics& s, const slice& when,
                   std::uint64_t thread) {
    open('X', thread, when.start);
    put(",\"dur\":");
    time(when.end - when.start);
    put(",\"cat\":\"stall\",\"name\":");
    text(fmt::format("{}: {}", to_string(s.cause), s.site.empty() ? name_of(e) : s.site));
    put(",\"args\":{{\"id\":{},\"task\":", s.task_id);
    text(s.task);
    place(s.place);
    put(",\"cause\":\"{}\",\"ended\":{},\"lasted_us\":", to_string(s.cause), s.ended);
    time(s.lasted);
    if (!s.system_call.empty()) {
      put(",\"call\":");
      text(s.system_call);
    }
    if (s.blamed < s.stack.size()) {
      put(",\"blamed\":");
      text(detail::text_of(s.stack[s.blamed]));
    }
    put(",\"stack\":[");
    for (std::size_t i = 0; i < s.stack.size(); ++i) {
      put("{}", i == 0 ? "" : ",");
      text(detail::text_of(s.stack[i]));
    }
    put("]}}");
    close();
  }

  // Counters belong to the process, so those of all workers are sorted together.
  void write_counters() {
    std::vector<recorded_event> events;
    for (const recorded_worker& w : r_.workers) {
      for (const recorded_event& e : w.events) {
        if (e.kind() == event_kind::queue_delay || e.kind() == event_kind::parked ||
            e.kind() == event_kind::refused) {
          events.push_back(e);
        }
      }
    }
    std::stable_sort(
        events.begin(), events.end(),
        [](const recorded_event& a, const recorded_event& b) { return a.start() < b.start(); });
    std::uint64_t parked = 0;
    std::uint64_t refused = 0;
    for (const recorded_event& e : events) {
      open('C', e.start());
      if (e.kind() == event_kind::parked) {
        put(",\"name\":\"put back, in all\",\"args\":{{\"operations\":{}}}", ++parked);
      } else if (e.kind() == event_kind::refused) {
        put(",\"name\":\"refused, in all\",\"args\":{{\"requests\":{}}}", ++refused);
      } else {
        put(",\"name\":\"queue delay\",\"args\":{{\"us\":");
        time(e.duration());
        put("}}");
      }
      close();
    }
  }

  const recording& r_;
  const trace_place at_;
  std::ostream& out_;
  std::unordered_map<std::uint32_t, const recorded_task*> tasks_;  // by the low bits of the id
  std::vector<std::string> names_;                                 // shortened names of sites
  std::string buffer_;
  bool& first_;
};

}  // namespace

void write_trace(std::span<const recording> all, std::ostream& out) {
  if (all.empty()) all = std::span<const recording>(&nothing(), 1);
  const auto begin =
      std::min_element(all.begin(), all.end(), [](const recording& a, const recording& b) {
        return a.begin < b.begin;
      })->begin;
  bool first = true;
  trace_writer(all.front(), {}, first, out).write_head();
  for (std::size_t i = 0; i != all.size(); ++i) {
    const recording& r = all[i];
    // A recording may say anything about its time.
    const bool near = static_cast<double>(r.begin.time_since_epoch().count()) -
                          static_cast<double>(begin.time_since_epoch().count()) <
                      static_cast<double>(nanoseconds(longest_apart).count());
    const trace_place at{.process = i == 0 ? r.pid : r.pid % kernel_ids + i * kernel_ids,
                         .order = i,
                         .later = near ? nanoseconds(r.begin - begin) : longest_apart};
    trace_writer(r, at, first, out).write();
  }
  out << "\n]}\n";
}

void write_trace(const recording& r, std::ostream& out) {
  write_trace(std::span<const recording>(&r, 1), out);
}

}  // namespace asio_pulse
