// SPDX-License-Identifier: BSL-1.0
//
// A recording as bytes. asio_pulse/docs/recording.md describes the format field by field.

#include "text/byte_io.hpp"

#include <asio_pulse/recording.hpp>

#include <fmt/core.h>

#include <bit>
#include <cstring>
#include <new>
#include <stdexcept>
#include <type_traits>
#include <utility>

namespace asio_pulse {
namespace {

using detail::byte_reader;
using detail::byte_writer;

// Like that of PNG, it is damaged by a copy in text mode or with seven bits, which is then noticed.
constexpr std::string_view magic = "\x89pulse\r\n";
constexpr std::uint32_t version = 2;
constexpr std::size_t event_bytes = sizeof(recorded_event);

// The least size of an element, which limits the memory that a wrong count can cause to be
// allocated. No element is more than eight times as large in memory.
constexpr std::size_t least_site = 16;
constexpr std::size_t least_task = 36;
constexpr std::size_t least_worker = 24;
constexpr std::size_t least_stall = 66;
constexpr std::size_t least_frame = 34;
constexpr std::uint64_t most_of_anything = 0xffffffff;

constexpr std::string_view section_names[] = {"head", "sets", "site", "task", "work", "stal"};

void put_place(byte_writer& out, const source_place& place) {
  out.text(place.file);
  out.number(place.line);
  out.text(place.function);
}

source_place get_place(byte_reader& in) {
  source_place place;
  place.file = in.text("place.file");
  place.line = in.number<std::uint32_t>("place.line");
  place.function = in.text("place.function");
  return place;
}

void put_frame(byte_writer& out, const stack_frame& f) {
  out.number(std::uint64_t{f.address});
  out.text(f.function);
  out.text(f.file);
  out.number(f.line);
  out.text(f.module);
  out.number(std::uint64_t{f.offset});
  out.number(static_cast<std::uint8_t>(f.inlined));
  out.number(static_cast<std::uint8_t>(f.awaiting));
}

// A recording may be of a program with wider addresses than this one's.
std::uintptr_t get_address(byte_reader& in, std::string_view field) {
  const auto value = in.number<std::uint64_t>(field);
  if (!std::in_range<std::uintptr_t>(value)) in.fail(field, "is too large");
  return static_cast<std::uintptr_t>(value);
}

stack_frame get_frame(byte_reader& in) {
  stack_frame f;
  f.address = get_address(in, "stack.address");
  f.function = in.text("stack.function");
  f.file = in.text("stack.file");
  f.line = in.number<std::uint32_t>("stack.line");
  f.module = in.text("stack.module");
  f.offset = get_address(in, "stack.offset");
  f.inlined = in.flag("stack.inlined");
  f.awaiting = in.flag("stack.awaiting");
  return f;
}

std::chrono::nanoseconds since_epoch(std::chrono::system_clock::time_point at) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(at.time_since_epoch());
}

std::chrono::system_clock::time_point time_from(std::chrono::nanoseconds since_epoch) {
  return std::chrono::system_clock::time_point{
      std::chrono::duration_cast<std::chrono::system_clock::duration>(since_epoch)};
}

void put_events(byte_writer& out, const std::vector<recorded_event>& events) {
  out.number(std::uint64_t{events.size()});
  if constexpr (std::endian::native == std::endian::little) {
    if (!events.empty()) {
      // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): bytes of a trivial type
      out.raw({reinterpret_cast<const char*>(events.data()), events.size() * event_bytes});
    }
  } else {
    for (const recorded_event& e : events) {
      out.number(e.first);
      out.number(e.second);
    }
  }
}

std::vector<recorded_event> get_events(byte_reader& in) {
  static_assert(std::is_trivially_copyable_v<recorded_event>);
  std::vector<recorded_event> events(
      in.count<std::uint64_t>("events", "events", event_bytes, ~std::uint64_t{0}));
  if constexpr (std::endian::native == std::endian::little) {
    const std::string_view bytes = in.take(events.size() * event_bytes, "events");
    if (!bytes.empty()) std::memcpy(events.data(), bytes.data(), bytes.size());
  } else {
    for (recorded_event& e : events) {
      e.first = in.number<std::uint64_t>("events");
      e.second = in.number<std::uint64_t>("events");
    }
  }
  return events;
}

// ---- sections, in the order of section_names

void put_head(byte_writer& out, const recording& r) {
  out.number(r.pid);
  out.text(r.program);
  out.text(r.context);
  out.time(since_epoch(r.begin));
  out.duration(r.length);
  out.number(static_cast<std::uint8_t>(r.clock));
}

void get_head(byte_reader& in, recording& r) {
  r.pid = in.number<std::uint64_t>("pid");
  r.program = in.text("program");
  r.context = in.text("context");
  r.begin = time_from(in.time("begin"));
  r.length = in.duration("length");
  r.clock = static_cast<timing::clock_kind>(
      in.choice("clock", static_cast<std::uint8_t>(timing::clock_kind::manual)));
}

void put_settings(byte_writer& out, const recording& r) {
  const recorded_settings& s = r.settings;
  out.duration(s.stall_threshold);
  out.duration(s.yield_threshold);
  out.duration(s.isolate_threshold);
  out.number(std::uint32_t{s.tiers.yield_after});
  out.number(std::uint32_t{s.tiers.isolate_after});
  out.duration(s.tiers.clean_window);
  out.duration(s.tiers.isolate_clean_window);
  out.number(static_cast<std::uint8_t>(s.shadow));
}

void get_settings(byte_reader& in, recording& r) {
  recorded_settings& s = r.settings;
  s.stall_threshold = in.duration("settings.stall_threshold");
  s.yield_threshold = in.duration("settings.yield_threshold");
  s.isolate_threshold = in.duration("settings.isolate_threshold");
  s.tiers.yield_after = in.number<std::uint32_t>("settings.tiers.yield_after");
  s.tiers.isolate_after = in.number<std::uint32_t>("settings.tiers.isolate_after");
  s.tiers.clean_window = in.duration("settings.tiers.clean_window");
  s.tiers.isolate_clean_window = in.duration("settings.tiers.isolate_clean_window");
  s.shadow = in.flag("settings.shadow");
}

void put_sites(byte_writer& out, const recording& r) {
  // An event cannot refer to more sites.
  const std::size_t count = std::min<std::size_t>(r.sites.size(), recorded_event::no_site);
  out.number(static_cast<std::uint32_t>(count));
  for (std::size_t i = 0; i < count; ++i) {
    out.text(r.sites[i].type);
    put_place(out, r.sites[i].place);
  }
}

void get_sites(byte_reader& in, recording& r) {
  r.sites.resize(in.count<std::uint32_t>("sites", "sites", least_site, recorded_event::no_site));
  for (std::size_t i = 0; i < r.sites.size() && in.ok(); ++i) {
    in.element("sites", i);
    r.sites[i].type = in.text("type");
    r.sites[i].place = get_place(in);
  }
}

void put_tasks(byte_writer& out, const recording& r) {
  out.number(static_cast<std::uint32_t>(r.tasks.size()));
  for (const recorded_task& t : r.tasks) {
    out.number(t.id);
    out.text(t.name);
    out.duration(t.budget);
    out.duration(t.per);
    out.duration(t.burst);
  }
}

void get_tasks(byte_reader& in, recording& r) {
  r.tasks.resize(in.count<std::uint32_t>("tasks", "tasks", least_task, most_of_anything));
  for (std::size_t i = 0; i < r.tasks.size() && in.ok(); ++i) {
    in.element("tasks", i);
    recorded_task& t = r.tasks[i];
    t.id = in.number<std::uint64_t>("id");
    t.name = in.text("name");
    t.budget = in.duration("budget");
    t.per = in.duration("per");
    t.burst = in.duration("burst");
  }
}

void put_workers(byte_writer& out, const recording& r) {
  out.number(static_cast<std::uint32_t>(r.workers.size()));
  for (const recorded_worker& w : r.workers) {
    out.number(w.thread);
    out.number(w.lost);
    put_events(out, w.events);
  }
}

void get_workers(byte_reader& in, recording& r) {
  r.workers.resize(in.count<std::uint32_t>("workers", "workers", least_worker, most_of_anything));
  for (std::size_t i = 0; i < r.workers.size() && in.ok(); ++i) {
    in.element("workers", i);
    r.workers[i].thread = in.number<std::uint64_t>("thread");
    r.workers[i].lost = in.number<std::uint64_t>("lost");
    r.workers[i].events = get_events(in);
  }
}

void put_stalls(byte_writer& out, const recording& r) {
  out.number(static_cast<std::uint32_t>(r.stalls.size()));
  for (const stall_metrics& s : r.stalls) {
    out.time(since_epoch(s.at));
    out.number(s.task_id);
    out.text(s.task);
    out.text(s.site);
    put_place(out, s.place);
    out.number(s.thread);
    out.duration(s.lasted);
    out.number(static_cast<std::uint8_t>(s.ended));
    out.number(static_cast<std::uint8_t>(s.cause));
    out.text(s.system_call);
    out.number(static_cast<std::uint32_t>(s.stack.size()));
    for (const stack_frame& frame : s.stack) put_frame(out, frame);
    const bool blames = s.blamed < s.stack.size();
    out.number(static_cast<std::uint32_t>(blames ? s.blamed + 1 : 0));
  }
}

void get_stalls(byte_reader& in, recording& r) {
  r.stalls.resize(in.count<std::uint32_t>("stalls", "stalls", least_stall, most_of_anything));
  for (std::size_t i = 0; i < r.stalls.size() && in.ok(); ++i) {
    in.element("stalls", i);
    stall_metrics& s = r.stalls[i];
    s.at = time_from(in.time("at"));
    s.task_id = in.number<std::uint64_t>("task_id");
    s.task = in.text("task");
    s.site = in.text("site");
    s.place = get_place(in);
    s.thread = in.number<std::uint64_t>("thread");
    s.lasted = in.duration("lasted");
    s.ended = in.flag("ended");
    s.cause = static_cast<stall_cause>(
        in.choice("cause", static_cast<std::uint8_t>(stall_cause::stopped)));
    s.system_call = in.text("system_call");
    s.stack.resize(in.count<std::uint32_t>("stack", "frames", least_frame, most_of_anything));
    for (stack_frame& frame : s.stack) frame = get_frame(in);
    const std::size_t blamed = in.number<std::uint32_t>("blamed");
    if (blamed > s.stack.size()) in.fail("blamed", "must be a frame of the stack, or none");
    s.blamed = blamed == 0 ? no_frame : blamed - 1;
  }
}

using put_function = void (*)(byte_writer&, const recording&);
using get_function = void (*)(byte_reader&, recording&);
constexpr put_function put_section[] = {put_head,  put_settings, put_sites,
                                        put_tasks, put_workers,  put_stalls};
constexpr get_function get_section[] = {get_head,  get_settings, get_sites,
                                        get_tasks, get_workers,  get_stalls};

std::string decode_file(std::string_view bytes, recording& r) {
  byte_reader in(bytes, "recording");
  if (in.take(std::min(bytes.size(), magic.size()), "magic") != magic) {
    in.fail("magic", "this is not a recording of asio-pulse");
  }
  const auto made_by = in.number<std::uint32_t>("version");
  if (in.ok() && made_by != version) {
    in.fail("version", fmt::format("must be {} (got {})", version, made_by));
  }
  for (std::size_t i = 0; i < std::size(section_names) && in.ok(); ++i) {
    const std::string field = fmt::format("section {}", section_names[i]);
    if (in.take(section_names[i].size(), field) != section_names[i]) {
      in.fail(field, "is missing, or something else is in its place");
    }
    const auto length = in.number<std::uint64_t>(field);
    byte_reader section(in.take(length, field), "recording");
    if (!in.ok()) break;
    get_section[i](section, r);
    section.element({});
    if (section.left() != 0) section.fail(field, "has bytes that do not belong to any field");
    if (!section.ok()) return section.fault();
  }
  if (in.left() != 0) in.fail("the end", fmt::format("{} bytes follow it", in.left()));
  return in.fault();
}

}  // namespace

std::string encode(const recording& r) {
  std::size_t events = 0;
  for (const recorded_worker& w : r.workers) events += w.events.size();
  byte_writer out;
  out.bytes().reserve(events * event_bytes + 4096);
  out.raw(magic);
  out.number(version);
  for (std::size_t i = 0; i < std::size(section_names); ++i) {
    out.raw(section_names[i]);
    const std::size_t length_at = out.bytes().size();
    out.number(std::uint64_t{0});
    const std::size_t begin = out.bytes().size();
    put_section[i](out, r);
    byte_writer length;
    length.number(std::uint64_t{out.bytes().size() - begin});
    out.bytes().replace(length_at, length.bytes().size(), length.bytes());
  }
  return std::move(out.bytes());
}

recording decode_recording(std::string_view bytes, std::error_code& ec, std::string* why) {
  ec.clear();
  std::string fault;
  recording r;
  try {
    fault = decode_file(bytes, r);
    if (!fault.empty()) ec = std::make_error_code(std::errc::bad_message);
  } catch (const std::bad_alloc&) {
    fault = "recording: there is not enough memory for it";
    ec = std::make_error_code(std::errc::not_enough_memory);
  }
  if (why != nullptr) *why = fault;
  if (ec) return {};
  return r;
}

}  // namespace asio_pulse
