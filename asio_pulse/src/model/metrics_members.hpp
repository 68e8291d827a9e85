// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/metrics.hpp>

#include <cstddef>
#include <variant>

/// \file
/// The members of metrics in their order on the wire (wire.hpp). They can be used with any object
/// that is called with all members of a type: a writer, a reader, or a test that changes them.

namespace asio_pulse {
namespace detail {

/// Converts to anything, so that an aggregate can be made of as many as it has members.
struct anything {
  template <class T>
  operator T() const;  // NOLINT(google-explicit-constructor): that is its use
};
template <class T, class... A>
consteval std::size_t member_count() {
  if constexpr (requires { T{A{}..., anything{}}; }) {
    return member_count<T, A..., anything>();
  } else {
    return sizeof...(A);
  }
}

/// The figures of an object, in the order of their table.
template <class Stream, class Of>
void figures(Stream& s, Of& of) {
  for (const figure<Of>& row : figure_table<Of>) {
    std::visit([&](auto member) { s(of.*member); }, row.member);
  }
}

}  // namespace detail

// Each member is in the table, or named by the function below.
static_assert(detail::member_count<site_metrics>() == figure_table<site_metrics>.size() + 3);
static_assert(detail::member_count<task_metrics>() == figure_table<task_metrics>.size() + 3);
static_assert(detail::member_count<group_metrics>() == figure_table<group_metrics>.size() + 2);
static_assert(detail::member_count<shard_metrics>() == figure_table<shard_metrics>.size() + 2);
static_assert(detail::member_count<worker_metrics>() == figure_table<worker_metrics>.size() + 3);

// Found by argument-dependent lookup: the streams are in detail, the types in asio_pulse.
template <class Stream>
void members(Stream& s, histogram::bucket& b) {
  s(b.upper, b.count);
}
template <class Stream>
void members(Stream& s, histogram& h) {
  s(h.buckets, h.count, h.sum);
}
template <class Stream>
void members(Stream& s, source_place& p) {
  s(p.file, p.line, p.function);
}
template <class Stream>
void members(Stream& s, site_metrics& m) {
  s(m.type, m.place, m.lock);
  detail::figures(s, m);
}
template <class Stream>
void members(Stream& s, task_metrics& m) {
  s(m.id, m.name, m.level);
  detail::figures(s, m);
}
template <class Stream>
void members(Stream& s, group_metrics& m) {
  s(m.path, m.name);
  detail::figures(s, m);
}
template <class Stream>
void members(Stream& s, shard_move_metrics& m) {
  s(m.who, m.from, m.to, m.why, m.ago, m.took);
}
template <class Stream>
void members(Stream& s, shard_metrics& m) {
  s(m.keeps, m.moves);
  detail::figures(s, m);
}
template <class Stream>
void members(Stream& s, worker_metrics& m) {
  s(m.batch_site, m.running, m.running_task);
  detail::figures(s, m);
}
template <class Stream>
void members(Stream& s, stack_frame& f) {
  s(f.address, f.function, f.file, f.line, f.module, f.offset, f.inlined, f.awaiting);
}
template <class Stream>
void members(Stream& s, stall_metrics& m) {
  s(m.at, m.task_id, m.task, m.site, m.place, m.thread, m.lasted, m.ended, m.cause, m.system_call,
    m.stack, m.blamed);
}
template <class Stream>
void members(Stream& s, statistics& t) {
  for (const statistic& row : statistic_table) {
    if (row.count != nullptr) {
      s(t.*row.count);
    } else {
      s(t.*row.time);
    }
  }
  s(t.clock);
}
template <class Stream>
void members(Stream& s, context_metrics& m) {
  s(m.number, m.name, m.enabled, m.shadow, m.collecting, m.totals, m.polls, m.cpu, m.poll_duration,
    m.queue_delay, m.workers, m.sites, m.other_sites, m.tasks, m.other_tasks, m.task_count,
    m.groups, m.other_groups, m.group_count, m.group_recent, m.shard, m.recent_interval, m.stalls,
    m.instrument_bytes, m.uncollected_workers);
}
template <class Stream>
void members(Stream& s, process_metrics& m) {
  s(m.pid, m.program, m.version, m.at, m.uptime, m.contexts);
}

}  // namespace asio_pulse
