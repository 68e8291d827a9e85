// SPDX-License-Identifier: BSL-1.0

// Unwinding and naming by elfutils' libdw. Chosen because one library has both: an unwinder that
// works on a copy of a stack (perf uses it so), and debug information with inlined functions.
// libbacktrace and Boost.Stacktrace unwind only the thread that calls them.
//
// libdw is licensed under the LGPL version 3 or later, or the GPL version 2 or later, as its user
// chooses. It is linked dynamically and only called; nothing of it is in this library.

#if defined(ASIO_PULSE_HAVE_LIBDW)

#include <asio_pulse/detail/awaiting.hpp>
#include <asio_pulse/detail/stack_copy.hpp>
#include <asio_pulse/detail/symbolizer.hpp>

#include "dwarf_names.hpp"
#include "mapped_code.hpp"
#include "system_module.hpp"

#include <dwarf.h>
#include <link.h>
#include <sys/auxv.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace asio_pulse::detail {
namespace {

// Places kept with their names. A guess: a program has few places to be stuck at.
constexpr std::size_t cached_places = 2048;
// Above a copied stack that goes on: the rest of it, which may have changed since. A usual limit.
constexpr std::uintptr_t rest_of_stack = std::uintptr_t{8} << 20;

/// Changes whenever a library is loaded or unloaded. The loader's lock for this is one that it
/// holds for moments only, not while it runs initialisers.
std::uint64_t loader_generation() noexcept {
  std::uint64_t generation = 0;
  ::dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* to) {
        *static_cast<std::uint64_t*>(to) = info->dlpi_adds + info->dlpi_subs;
        return 1;  // each entry says the same
      },
      &generation);
  return generation;
}

struct program_counter {
  Dwarf_Addr address;
  bool interrupted;  ///< at this instruction; else it is where a call returns to
  [[nodiscard]] Dwarf_Addr inside() const noexcept { return interrupted ? address : address - 1; }
};

/// What the unwinder's callbacks work on.
struct unwinding {
  const captured_stack* stack = nullptr;
  std::vector<program_counter> counters;
  std::size_t max_frames = 0;
};

// libdwfl's search path; its default.
char* debuginfo_path = nullptr;

/// Separate debug information, of this machine only, and not of what nobody blames: the C library's
/// takes a quarter of a second to read, and the name of the function called is its symbol.
/// libdwfl's standard search goes on to ask servers where DEBUGINFOD_URLS names some, and a report
/// must not wait for them.
int find_debuginfo(Dwfl_Module* module, void** user, const char* name, Dwarf_Addr base,
                   const char* file, const char* link, GElf_Word checksum, char** found) {
  if (module_is_system(module_name(*module))) return -1;
  // NOLINTNEXTLINE(concurrency-mt-unsafe): read only
  const char* const servers = std::getenv("DEBUGINFOD_URLS");
  if (servers != nullptr && *servers != '\0') {
    return dwfl_build_id_find_debuginfo(module, user, name, base, file, link, checksum, found);
  }
  return dwfl_standard_find_debuginfo(module, user, name, base, file, link, checksum, found);
}

const Dwfl_Callbacks module_callbacks{.find_elf = dwfl_linux_proc_find_elf,
                                      .find_debuginfo = find_debuginfo,
                                      .section_address = dwfl_offline_section_address,
                                      .debuginfo_path = &debuginfo_path};

pid_t next_thread(Dwfl*, void* of, void** thread) {
  if (*thread != nullptr) return 0;
  *thread = of;
  return 1;
}

bool get_thread(Dwfl*, pid_t, void* of, void** thread) {
  *thread = of;
  return true;
}

bool read_memory(Dwfl*, Dwarf_Addr address, Dwarf_Word* result, void* of) {
  const captured_stack& stack = *static_cast<const unwinding*>(of)->stack;
  constexpr std::size_t size = sizeof(std::uint64_t);
  std::uint64_t word = 0;
  const std::uintptr_t end = stack.address + stack.bytes.size();
  if (address >= stack.address && address <= end && end - address >= size) {
    std::memcpy(&word, stack.bytes.data() + (address - stack.address), size);
  } else {
    // What of the stack was not copied has changed since.
    const bool not_copied =
        stack.truncated && address >= stack.address && address < end + rest_of_stack;
    if (not_copied ||
        copy_mapped(static_cast<std::uintptr_t>(address),
                    std::as_writable_bytes(std::span{&word, 1}), best_memory_reader()) != size) {
      return false;
    }
  }
  *result = word;
  return true;
}

#if defined(__x86_64__)
/// The frame pointer, where it was not captured and some function on the stack keeps one: it points
/// at the nearest pair of the next one's, higher up, and a return address. 0: there is none near.
Dwarf_Word nearest_frame(const captured_stack& stack, Dwfl* session) noexcept {
  constexpr std::size_t near = 32768;
  constexpr std::size_t word = sizeof(std::uint64_t);
  const std::size_t bytes = std::min(stack.bytes.size(), near);
  for (std::size_t at = 0; at + 2 * word <= bytes; at += word) {
    std::uint64_t pair[2];
    std::memcpy(pair, stack.bytes.data() + at, sizeof pair);
    const std::uintptr_t here = stack.address + at;
    const bool next_is_above =
        pair[0] > here && pair[0] - here < rest_of_stack && pair[0] % word == 0;
    if (next_is_above && dwfl_addrmodule(session, pair[1]) != nullptr) return here;
  }
  return 0;
}
#endif

bool set_registers(Dwfl_Thread* thread, void* of) {
  const captured_stack& stack = *static_cast<const unwinding*>(of)->stack;
  if (stack.only_position) {
    // What a frame needs of the others its callees may have saved; else the trace ends there.
    const Dwarf_Word pointer = stack.stack_pointer();
    if (!dwfl_thread_state_registers(thread, captured_stack::stack_register, 1, &pointer)) {
      return false;
    }
#if defined(__x86_64__)
    const Dwarf_Word frame = nearest_frame(stack, dwfl_thread_dwfl(thread));
    constexpr int frame_register = 6;  // rbp
    if (frame != 0 && !dwfl_thread_state_registers(thread, frame_register, 1, &frame)) return false;
    const Dwarf_Word counter = stack.pc();
    return dwfl_thread_state_registers(thread, captured_stack::program_counter, 1, &counter);
#else
    dwfl_thread_state_register_pc(thread, stack.pc());
    return true;
#endif
  }
#if defined(__x86_64__)
  constexpr unsigned count = captured_stack::register_count;  // the program counter is one of them
#else
  constexpr unsigned count = captured_stack::program_counter;
  dwfl_thread_state_register_pc(thread, stack.pc());
#endif
  std::array<Dwarf_Word, count> values{};
  for (unsigned i = 0; i != count; ++i) values[i] = stack.registers[i];
  return dwfl_thread_state_registers(thread, 0, count, values.data());
}

const Dwfl_Thread_Callbacks thread_callbacks{.next_thread = next_thread,
                                             .get_thread = get_thread,
                                             .memory_read = read_memory,
                                             .set_initial_registers = set_registers,
                                             .detach = nullptr,
                                             .thread_detach = nullptr};

int add_frame(Dwfl_Frame* frame, void* of) {
  auto& to = *static_cast<unwinding*>(of);
  program_counter counter{};
  // Never beyond what was reserved: an exception must not pass through C.
  if (to.counters.size() == to.max_frames ||
      !dwfl_frame_pc(frame, &counter.address, &counter.interrupted) || counter.address == 0) {
    return DWARF_CB_ABORT;
  }
  to.counters.push_back(counter);
  return DWARF_CB_OK;
}

std::string vdso_name(pid_t process) { return "[vdso: " + std::to_string(process) + "]"; }

struct end_session {
  void operator()(Dwfl* session) const noexcept { dwfl_end(session); }
};

}  // namespace

struct symbolizer::state {
  std::unique_ptr<Dwfl, end_session> session;
  pid_t process = 0;
  bool attached = false;
  std::uint64_t generation = 0;  ///< of the loader, when the modules were read
  unwinding current;
  std::unordered_map<Dwarf_Addr, stack_trace> named;

  void read_modules() {
    if (const pid_t self = ::getpid(); process != self) {  // a forked child starts anew
      session.reset(dwfl_begin(&module_callbacks));
      process = self;
      attached = false;
      named.clear();
    }
    if (!session) return;
    generation = loader_generation();  // before: a change meanwhile shows at the next trace
    // Not dwfl_linux_proc_report(): it takes a file that this session has mapped to read for a part
    // of the same file as it is loaded, when the one lies right below the other.
    const std::vector<mapped_code> code = read_mapped_code();
    dwfl_report_begin(session.get());
    for (const mapped_code& c : code) {
      // The name by which dwfl_linux_proc_find_elf() knows to read it from memory.
      const std::string name = c.path == "[vdso]" ? vdso_name(process) : c.path;
      dwfl_report_module(session.get(), name.c_str(), c.begin, c.end);
    }
    bool gone = false;
    dwfl_report_end(
        session.get(),
        [](Dwfl_Module*, void*, const char*, Dwarf_Addr, void* flag) {
          *static_cast<bool*>(flag) = true;
          return static_cast<int>(DWARF_CB_OK);
        },
        &gone);
    if (gone) named.clear();
    if (!attached) {
      attached = dwfl_attach_state(session.get(), nullptr, process, &thread_callbacks, &current);
    }
  }

  [[nodiscard]] Dwfl_Module* module_at(Dwarf_Addr pc) const noexcept {
    return session ? dwfl_addrmodule(session.get(), pc) : nullptr;
  }

  void unwind() {
    current.counters.clear();
    if (attached) dwfl_getthread_frames(session.get(), 1, add_frame, &current);
    if (current.counters.empty()) {
      current.counters.push_back({.address = current.stack->pc(), .interrupted = true});
    }
  }

  [[nodiscard]] bool all_known() const noexcept {
    for (const program_counter& c : current.counters) {
      if (module_at(c.inside()) == nullptr) return false;
    }
    return true;
  }

  const stack_trace& names(Dwarf_Addr pc) {
    if (const auto known = named.find(pc); known != named.end()) return known->second;
    if (named.size() >= cached_places) named.clear();
    stack_trace found;
    if (Dwfl_Module* const module = module_at(pc)) {
      found = names_at(*module, pc);
      for (stack_frame& f : found) f.module = module_name(*module);
    } else {
      found.emplace_back();
    }
    return named.emplace(pc, std::move(found)).first->second;
  }

  stack_trace trace(const captured_stack& stack, std::size_t max_frames) {
    current.stack = &stack;
    current.max_frames = max_frames;
    current.counters.reserve(max_frames + 1);
    const bool fresh = process != ::getpid() || generation != loader_generation();
    if (fresh) read_modules();
    unwind();
    if (!fresh && !all_known()) {
      read_modules();
      unwind();
    }
    const auto [coroutine, awaiting] = find_awaiting_frames(stack);
    stack_trace result;
    for (std::size_t i = 0; i != current.counters.size(); ++i) {
      const program_counter& c = current.counters[i];
      add(result, names(c.inside()), c.inside(), c.address, false);
      if (i == coroutine) {
        for (const std::uintptr_t body : awaiting) {
          const stack_trace& named_body = names(body);
          add(result, std::span(named_body).last(1), body, body, true);
        }
      }
      if (result.size() >= max_frames) break;
    }
    if (result.size() > max_frames) result.resize(max_frames);
    return result;
  }

  void add(stack_trace& to, std::span<const stack_frame> frames, Dwarf_Addr inside,
           Dwarf_Addr address, bool awaiting) {
    Dwfl_Module* const module = module_at(inside);
    for (const stack_frame& named_frame : frames) {
      stack_frame& frame = to.emplace_back(named_frame);
      frame.address = static_cast<std::uintptr_t>(address);
      if (module != nullptr) frame.offset = module_offset(*module, address);
      frame.awaiting = awaiting;
    }
  }

  /// The index of the program counter that lies in the innermost coroutine, and what awaits it.
  std::pair<std::size_t, std::vector<std::uintptr_t>> find_awaiting_frames(
      const captured_stack& stack) {
    std::vector<std::uintptr_t> bodies;
    std::vector<std::size_t> at;
    for (std::size_t i = 0; i != current.counters.size(); ++i) {
      const Dwarf_Addr pc = current.counters[i].inside();
      Dwfl_Module* const module = module_at(pc);
      const Dwarf_Addr body = module != nullptr ? coroutine_body(*module, pc) : 0;
      if (body == 0) continue;
      bodies.push_back(static_cast<std::uintptr_t>(body));
      at.push_back(i);
    }
    awaited_coroutine found = find_awaiting(stack, bodies);
    // Of no module: not a chain of coroutines, however much it looks like one. Asio's own bodies
    // begin them all.
    std::erase_if(found.awaiting, [this](std::uintptr_t body) {
      return module_at(body) == nullptr ||
             names(body).back().function.find("boost::asio::detail::co_spawn_entry_point") !=
                 std::string::npos;
    });
    return {at.empty() ? no_frame : at[found.body], std::move(found.awaiting)};
  }

  /// Opens what a trace will need, so that the first one does not have to.
  void warm_up() {
    read_modules();
    best_memory_reader();
    if (!session) return;
    dwfl_getmodules(
        session.get(),
        [](Dwfl_Module* module, void**, const char*, Dwarf_Addr, void*) {
          Dwarf_Addr bias = 0;
          dwfl_module_eh_cfi(module, &bias);
          return static_cast<int>(DWARF_CB_OK);
        },
        nullptr, 0);
    if (Dwfl_Module* const program = module_at(::getauxval(AT_PHDR))) {
      Dwarf_Addr bias = 0;
      dwfl_module_getdwarf(program, &bias);
      dwfl_module_addrdie(program, ::getauxval(AT_ENTRY), &bias);  // reads the table of addresses
    }
  }
};

symbolizer::symbolizer() noexcept {
  const int saved = errno;
  try {
    state_ = std::make_unique<state>();
    state_->warm_up();
  } catch (...) {  // out of memory: traces stay empty, or are shorter
  }
  errno = saved;
}

symbolizer::~symbolizer() = default;

stack_trace symbolizer::trace(const captured_stack& stack, std::size_t max_frames) noexcept {
  const int saved = errno;
  stack_trace result;
  try {
    if (state_ && max_frames != 0 && stack.pc() != 0) result = state_->trace(stack, max_frames);
  } catch (...) {
    result.clear();
  }
  errno = saved;
  return result;
}

}  // namespace asio_pulse::detail

#endif
