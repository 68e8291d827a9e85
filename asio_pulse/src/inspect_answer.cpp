// SPDX-License-Identifier: BSL-1.0
//
// What a process says to whoever looks into it.
#include <asio_pulse/metrics.hpp>
#include <asio_pulse/version.hpp>

#if defined(__linux__)

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include <fmt/format.h>

#include "inspect_server.hpp"
#include "inspect_wire.hpp"
#include "instruments.hpp"
#include "process_name.hpp"

namespace asio_pulse::detail {
namespace {

using namespace std::chrono_literals;

// For the first request to arrive, and for an answer to be taken.
constexpr std::chrono::seconds introduction = 2s;
constexpr std::chrono::seconds patience = 10s;
// A guest that has asked asks again; one that does not is let go.
constexpr std::chrono::seconds between_requests = 60s;
// What a guest's request keeps the workers collecting for.
constexpr std::chrono::milliseconds metrics_lease = 15s;
constexpr std::chrono::milliseconds longest_trace = 60s;
constexpr std::size_t most_top = 1000;
// Recordings that a process writes by itself: at a stall, at a signal.
constexpr std::uint64_t most_recordings = 16;
constexpr std::chrono::seconds between_recordings = 10s;

/// The words of a request, of which there are few.
class words {
 public:
  explicit words(std::string_view line) noexcept : left_(line) {}
  [[nodiscard]] std::string_view next() noexcept {
    const std::string_view word = left_.substr(0, left_.find(' '));
    left_.remove_prefix(std::min(left_.size(), word.size() + 1));
    return word;
  }
  /// False: not a number of at most `most`.
  [[nodiscard]] bool number(std::uint64_t& n, std::uint64_t most) noexcept {
    return parse_number(next(), n) && n <= most;
  }
  [[nodiscard]] bool empty() const noexcept { return left_.empty(); }

 private:
  std::string_view left_;
};

}  // namespace

void inspect_server::welcome() noexcept {
  const int s = ::accept4(socket_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (s < 0) return;
  ucred who{};
  socklen_t size = sizeof who;
  const bool known = ::getsockopt(s, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0;
  try {
    guest& g = guests_.emplace_back();
    g.socket = s;
    g.deadline = clock::now() + introduction;
    if (!known || (who.uid != ::geteuid() && who.uid != 0)) {
      refuse(g, "this process belongs to another user");
    }
  } catch (const std::bad_alloc&) {
    if (guests_.empty() || guests_.back().socket != s) ::close(s);
  }
}

void inspect_server::serve(guest& g, clock::time_point now) {
  if (g.sent < g.out.size()) {
    const ssize_t n =
        ::send(g.socket, g.out.data() + g.sent, g.out.size() - g.sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0) {
      g.done = g.done || (errno != EAGAIN && errno != EINTR);
      return;
    }
    g.sent += static_cast<std::size_t>(n);
    g.deadline = now + patience;
    if (g.sent < g.out.size()) return;
    g.done = g.last;
    g.out = {};
    g.sent = 0;
    g.deadline = now + between_requests;
    return;
  }
  char bytes[longest_request];
  const ssize_t n = ::recv(g.socket, bytes, sizeof bytes, MSG_DONTWAIT);
  if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) g.done = true;
  if (n <= 0) return;
  // While it waits for a trace there is nothing to say.
  if (!g.takers.empty()) return refuse(g, "one request at a time");
  g.in.append(bytes, static_cast<std::size_t>(n));
  if (g.in.find('\n') != std::string::npos) {
    answer(g, now);
  } else if (g.in.size() >= longest_request) {
    refuse(g, fmt::format("a request has {} bytes at the most, and ends with a newline",
                          longest_request));
  }
}

void inspect_server::refuse(guest& g, std::string_view why) {
  g.takers.clear();
  g.out = fmt::format("{} error {}\n", protocol, why);
  g.sent = 0;
  g.last = true;
}

void inspect_server::give(guest& g, const std::string& body) {
  if (body.size() > longest_answer) return refuse(g, "the answer is too long");
  g.out = fmt::format("{} ok {}\n", protocol, body.size());
  g.out += body;
  g.sent = 0;
}

void inspect_server::answer(guest& g, clock::time_point now) {
  const std::string line = g.in.substr(0, g.in.find('\n'));
  g.in.clear();
  words request(line);
  if (request.next() != protocol) {
    return refuse(g, fmt::format("this process speaks {}", protocol));
  }
  const std::string_view verb = request.next();
  if (verb == "metrics") {
    std::uint64_t tasks = 0;
    std::uint64_t sites = 0;
    if (!request.number(tasks, most_top) || !request.number(sites, most_top) || !request.empty()) {
      return refuse(g, fmt::format("metrics TASKS SITES: numbers up to {}", most_top));
    }
    process_metrics m = collect_now({.top_tasks = tasks, .top_sites = sites}, metrics_lease);
    std::erase_if(m.contexts, [this](const context_metrics& c) { return !visible(c.number); });
    return give(g, encode(m));
  }
  if (verb == "trace") {
    std::uint64_t length = 0;
    std::uint64_t context = 0;
    if (!request.number(length, static_cast<std::uint64_t>(longest_trace.count())) ||
        !request.number(context, ~std::uint64_t{0}) || !request.empty()) {
      return refuse(
          g, fmt::format("trace MILLISECONDS CONTEXT: at most {} ms", longest_trace.count()));
    }
    for (const shown& s : contexts_) {
      const options& o = s.core->opts();
      if (!o.inspectable || o.trace == instrument_mode::off) continue;
      if (context != 0 && s.core->number() != context) continue;
      s.core->want_trace(std::chrono::milliseconds(length) + 1s);
      g.takers.push_back(std::make_unique<trace_taker>(
          *s.core, length == 0 ? trace_taker::from::oldest : trace_taker::from::now));
    }
    if (g.takers.empty())
      return refuse(g, "no context of that number can be traced (options::trace)");
    g.trace_until = now + std::chrono::milliseconds(length);
    return follow(g, now);
  }
  refuse(g, "known requests: metrics, trace");
}

// A trace goes on: reads what is new, before it is written over.
void inspect_server::follow(guest& g, clock::time_point now) {
  if (g.takers.empty()) return;
  for (const auto& t : g.takers) t->take();
  if (now < g.trace_until) return;
  recording best;
  std::size_t most = 0;
  for (const auto& t : g.takers) {
    recording r = t->finish();
    std::size_t events = 0;
    for (const recorded_worker& w : r.workers) events += w.events.size();
    if (&t == &g.takers.front() || events > most) {
      best = std::move(r);
      most = events;
    }
  }
  g.takers.clear();
  g.deadline = now + patience;
  give(g, encode(best));
}

bool inspect_server::visible(std::uint64_t number) const noexcept {
  return std::any_of(contexts_.begin(), contexts_.end(), [number](const shown& s) {
    return s.core->number() == number && s.core->opts().inspectable;
  });
}

void inspect_server::write_wanted(clock::time_point now) {
  for (shown& s : contexts_) {
    if (s.to_write == clock::time_point{} || now < s.to_write) continue;
    s.to_write = {};
    const options& o = s.core->opts();
    const bool soon =
        s.last_written != clock::time_point{} && now - s.last_written < between_recordings;
    if (o.trace_folder.empty() || soon || written_ == most_recordings) continue;
    s.last_written = now;
    ++written_;
    std::error_code ec;
    // A folder that is not there or is full: nobody to tell, and no reason to fail for.
    write_recording(s.core->recorded(),
                    fmt::format("{}/{}.{}.{}.pulse", o.trace_folder, this_program(),
                                this_process_number(), written_),
                    ec);
  }
}

// ---- metrics

process_metrics inspect_server::collect_now(const metrics_request& what,
                                            std::chrono::milliseconds lease) {
  process_metrics m;
  m.pid = this_process_number();
  m.program = this_program();
  m.version = ASIO_PULSE_VERSION;
  m.at = std::chrono::system_clock::now();
  m.uptime = clock::now().time_since_epoch();
  for (const shown& s : contexts_) m.contexts.push_back(s.core->snapshot(what, lease));
  return m;
}

process_metrics inspect_server::collect(const metrics_request& what) {
  const std::lock_guard lock(mutex_);
  process_metrics m = collect_now(what, looks_again);
  start();
  wake();
  return m;
}

}  // namespace asio_pulse::detail

namespace asio_pulse {

process_metrics collect(const metrics_request& what) {
  return detail::inspect_server::get().collect(what);
}

}  // namespace asio_pulse

#else

namespace asio_pulse {

process_metrics collect(const metrics_request&) { return {}; }

}  // namespace asio_pulse

#endif
