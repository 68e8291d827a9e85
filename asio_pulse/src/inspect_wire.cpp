// SPDX-License-Identifier: BSL-1.0
#include "inspect_wire.hpp"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <system_error>

#include "wire.hpp"

namespace asio_pulse {

// Found by argument-dependent look-up: the streams are detail's, the types asio_pulse's.
template <class Stream>
static void members(Stream& s, histogram::bucket& b) {
  s(b.upper, b.count);
}
template <class Stream>
static void members(Stream& s, histogram& h) {
  s(h.buckets, h.count, h.sum);
}
template <class Stream>
static void members(Stream& s, source_place& p) {
  s(p.file, p.line, p.function);
}
template <class Stream>
static void members(Stream& s, site_metrics& m) {
  s(m.type, m.place, m.polls, m.again, m.cpu, m.longest);
}
template <class Stream>
static void members(Stream& s, task_metrics& m) {
  s(m.id, m.name, m.level, m.polls, m.cpu, m.recent, m.waiting);
}
template <class Stream>
static void members(Stream& s, worker_metrics& m) {
  s(m.thread, m.polls, m.cpu, m.longest_batch, m.batch_site, m.running, m.running_task,
    m.running_for);
}
template <class Stream>
static void members(Stream& s, stall_metrics& m) {
  s(m.at, m.task_id, m.task, m.site, m.place, m.thread, m.lasted, m.ended, m.cause, m.system_call,
    m.stack, m.blamed);
}
template <class Stream>
static void members(Stream& s, statistics& t) {
  s(t.warns, t.yields, t.strand_breaks, t.checkpoint_yields, t.isolated, t.isolations_refused,
    t.promotions, t.demotions, t.reports, t.reports_suppressed, t.callback_errors, t.stalls,
    t.stalls_spinning, t.stalls_blocked, t.stall_reports, t.spares_started, t.spares, t.hints,
    t.hints_lost, t.deferrals, t.parked, t.tasks, t.shadow_saved, t.clock);
}
template <class Stream>
static void members(Stream& s, context_metrics& m) {
  s(m.number, m.name, m.enabled, m.shadow, m.collecting, m.totals, m.polls, m.cpu, m.poll_duration,
    m.queue_delay, m.workers, m.sites, m.other_sites, m.tasks, m.other_tasks, m.task_count,
    m.recent_interval, m.stalls, m.instrument_bytes, m.uncollected_workers);
}
template <class Stream>
static void members(Stream& s, process_metrics& m) {
  s(m.pid, m.program, m.version, m.at, m.uptime, m.contexts);
}

namespace detail {

#if defined(__linux__)
inspect_address::inspect_address(std::uint64_t pid) noexcept {
  name.sun_family = AF_UNIX;
  char* const begin = name.sun_path + 1;
  char* const digits = std::copy(socket_prefix.begin(), socket_prefix.end(), begin);
  const char* const end = std::to_chars(digits, std::end(name.sun_path), pid).ptr;
  length = static_cast<socklen_t>(end - reinterpret_cast<const char*>(&name));
}
#endif

bool parse_number(std::string_view text, std::uint64_t& n) noexcept {
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), n);
  return ec == std::errc{} && end == text.data() + text.size();
}

std::string encode(const process_metrics& m) {
  process_metrics copy = m;  // one function serves both directions
  wire_out out;
  out(copy);
  return out.take();
}

bool decode(std::string_view bytes, process_metrics& to) {
  wire_in in(bytes);
  in(to);
  return in.complete();
}

}  // namespace detail
}  // namespace asio_pulse
