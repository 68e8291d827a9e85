// SPDX-License-Identifier: BSL-1.0
#include "status.hpp"

#include "printable.hpp"
#include "settings.hpp"

#include <asio_pulse/bpf/protocol.h>

#include <boost/json.hpp>

#include <fmt/core.h>
#include <unistd.h>

#include <array>
#include <iterator>
#include <stdexcept>

namespace asio_pulse::scx {
namespace {

namespace json = boost::json;

// The name of a count, and its member.
struct count_field {
  const char* name;
  std::uint64_t scx_pulse_counts::*member;
};

constexpr std::array count_fields{
    count_field{"dispatched", &scx_pulse_counts::dispatched},
    count_field{"enqueued", &scx_pulse_counts::enqueued},
    count_field{"direct", &scx_pulse_counts::direct},
    count_field{"pulled", &scx_pulse_counts::pulled},
    count_field{"hints", &scx_pulse_counts::hints},
    count_field{"lost_hints", &scx_pulse_counts::lost_hints},
    count_field{"acknowledged", &scx_pulse_counts::acknowledged},
    count_field{"kicks", &scx_pulse_counts::kicks},
    count_field{"throttles", &scx_pulse_counts::throttles},
    count_field{"released", &scx_pulse_counts::released},
    count_field{"protected_ticks", &scx_pulse_counts::protected_ticks},
    count_field{"violations", &scx_pulse_counts::violations},
    count_field{"hostile", &scx_pulse_counts::hostile},
    count_field{"stale", &scx_pulse_counts::stale},
    count_field{"registered", &scx_pulse_counts::registered},
    count_field{"ended", &scx_pulse_counts::ended},
};
static_assert(sizeof(scx_pulse_counts) == count_fields.size() * sizeof(std::uint64_t),
              "a count is missing here");

json::object pressure_json(const pressure& values) {
  json::object result;
  result["known"] = values.known;
  result["cpu_percent"] = values.cpu;
  result["io_percent"] = values.io;
  result["memory_percent"] = values.memory;
  return result;
}

json::object settings_json(const scx_pulse_settings& settings) {
  json::object result;
  result["slice_ns"] = settings.slice_ns;
  result["grace_ns"] = settings.grace_ns;
  result["max_critical_ns"] = settings.max_critical_ns;
  result["throttle_ns"] = settings.throttle_ns;
  result["throttle_percent"] = settings.throttle_percent;
  return result;
}

std::string_view kind_name(std::uint8_t kind) noexcept {
  switch (kind) {
    case ASIO_PULSE_HINT:
      return "hint";
    case ASIO_PULSE_KICKED:
      return "kicked";
    case ASIO_PULSE_THROTTLED:
      return "throttled";
    case ASIO_PULSE_RELEASED:
      return "released";
    case ASIO_PULSE_VIOLATION:
      return "violation";
    default:
      return "unknown";
  }
}

double milliseconds(std::uint64_t ns) noexcept { return static_cast<double>(ns) / 1e6; }

// A member that an answer of another release may lack.
const json::value* find(const json::object& in, std::string_view name) {
  return in.if_contains(json::string_view(name.data(), name.size()));
}

void print_object(std::string& out, const char* title, const json::object& in) {
  out += fmt::format("{}:", title);
  for (const auto& entry : in) {
    const std::string name = printable({entry.key().data(), entry.key().size()});
    if (name.ends_with("_ns") && entry.value().is_number()) {
      out += fmt::format(" {}={:g}ms", name.substr(0, name.size() - 3),
                         entry.value().to_number<double>() / 1e6);
    } else {
      const std::string value(json::serialize(entry.value()));
      out += fmt::format(" {}={}", name, printable(value));
    }
  }
  out += '\n';
}

}  // namespace

json::object counts_json(const scx_pulse_counts& counts) {
  json::object result;
  for (const count_field& field : count_fields) result[field.name] = counts.*field.member;
  return result;
}

std::string status_json(const system_state& state, const user_quotas& quotas,
                        const std::function<void(json::object&)>& describe) {
  json::object status;
  status["abi_version"] = ASIO_PULSE_ABI_VERSION;
  status["pid"] = ::getpid();
  const std::string_view mode = mode_name(state.settings.mode);
  status["mode"] = json::string(mode.data(), mode.size());
  status["settings"] = settings_json(state.settings);
  status["pressure"] = pressure_json(state.pressure);
  status["cpus"] = state.cpus;
  status["queued"] = state.queued;
  status["connections"] = quotas.connection_count();
  status["processes"] = quotas.process_count();
  status["workers"] = quotas.worker_count();
  if (describe) describe(status);

  // The list comes last, and is cut to what fits.
  constexpr std::size_t for_the_rest = 64;
  std::size_t room = ASIO_PULSE_REPLY_TEXT - for_the_rest;
  const std::size_t used = json::serialize(status).size();
  room = used < room ? room - used : 0;
  json::array list;
  for (const user_quotas::process& process : quotas.processes()) {
    json::object entry;
    entry["pid"] = process.tgid;
    entry["uid"] = process.uid;
    entry["workers"] = process.workers;
    const std::size_t size = json::serialize(entry).size() + 1;
    if (size > room) break;
    room -= size;
    list.push_back(std::move(entry));
  }
  status["processes_not_listed"] = quotas.process_count() - list.size();
  status["process_list"] = std::move(list);
  return std::string(json::serialize(status));
}

std::string status_text(std::string_view text) {
  boost::system::error_code wrong;
  const json::value parsed = json::parse(json::string_view(text.data(), text.size()), wrong);
  if (wrong || !parsed.is_object()) throw std::runtime_error("the answer is not a JSON object");
  std::string out;
  for (const auto& entry : parsed.as_object()) {
    const std::string name = printable({entry.key().data(), entry.key().size()});
    if (entry.value().is_object()) {
      print_object(out, name.c_str(), entry.value().as_object());
    } else if (entry.value().is_array()) {
      for (const json::value& element : entry.value().as_array()) {
        if (element.is_object()) print_object(out, "process", element.as_object());
      }
    } else if (entry.value().is_string()) {
      const json::string& value = entry.value().as_string();
      out += fmt::format("{}: {}\n", name, printable({value.data(), value.size()}));
    } else {
      const std::string value(json::serialize(entry.value()));
      out += fmt::format("{}: {}\n", name, printable(value));
    }
  }
  if (const json::value* known = [&]() -> const json::value* {
        const json::value* pressure = find(parsed.as_object(), "pressure");
        return pressure != nullptr && pressure->is_object() ? find(pressure->as_object(), "known")
                                                            : nullptr;
      }();
      known != nullptr && known->is_bool() && !known->as_bool()) {
    out += "(this kernel reports no pressure: these zeros are not measured)\n";
  }
  return out;
}

std::string statistics_line(const scx_pulse_counts& before, const scx_pulse_counts& now,
                            double seconds, const system_state& state, std::size_t processes,
                            std::size_t workers, bool as_json) {
  scx_pulse_counts delta{};
  for (const count_field& field : count_fields) {
    delta.*field.member = now.*field.member - before.*field.member;
  }
  const std::string_view mode = mode_name(state.settings.mode);
  if (as_json) {
    json::object line;
    line["event"] = "statistics";
    line["seconds"] = seconds;
    line["mode"] = json::string(mode.data(), mode.size());
    line["processes"] = processes;
    line["workers"] = workers;
    line["queued"] = state.queued;
    line["pressure"] = pressure_json(state.pressure);
    line["since_last"] = counts_json(delta);
    line["total"] = counts_json(now);
    return std::string(json::serialize(line));
  }
  std::string line =
      fmt::format("scx_pulse: {:.1f}s mode={} processes={} workers={} queued={} cpu_pressure={}%",
                  seconds, mode, processes, workers, state.queued, state.pressure.cpu);
  for (const count_field& field : count_fields) {
    // Zeros are left out, except for these two.
    const bool wanted =
        field.member == &scx_pulse_counts::dispatched || field.member == &scx_pulse_counts::hints;
    if (wanted || delta.*field.member != 0) {
      line += fmt::format(" {}=+{}", field.name, delta.*field.member);
    }
  }
  return line;
}

std::string hint_line(const asio_pulse_hint& hint, bool as_json) {
  const std::string_view kind = kind_name(hint.kind);
  if (as_json) {
    json::object line;
    line["event"] = json::string(kind.data(), kind.size());
    line["time_ns"] = hint.time_ns;
    line["seq"] = hint.seq;
    line["ran_ns"] = hint.ran_ns;
    line["pid"] = hint.tgid;
    line["tid"] = hint.tid;
    line["slot"] = hint.slot;
    line["cpu"] = hint.cpu;
    return std::string(json::serialize(line));
  }
  return fmt::format("scx_pulse: {} pid={} tid={} slot={} seq={} ran={:.3f}ms cpu={}", kind,
                     hint.tgid, hint.tid, hint.slot, hint.seq, milliseconds(hint.ran_ns), hint.cpu);
}

}  // namespace asio_pulse::scx
