// SPDX-License-Identifier: BSL-1.0

// Unwinding and naming with elfutils' libdw. It was chosen because it has both an unwinder that
// works on a copy of a stack (as perf uses it) and debug information with inlined functions.
// libbacktrace and Boost.Stacktrace can unwind only the calling thread.
//
// libdw is licensed under the LGPL version 3 or later, or the GPL version 2 or later, as its user
// chooses. It is linked dynamically and only called; nothing of it is in this library.

#if defined(ASIO_PULSE_HAVE_LIBDW)

#include "symbolizer.hpp"

#include "awaiting_chain.hpp"
#include "dwarf_names.hpp"
#include "libdw_memory.hpp"
#include "mapped_code.hpp"
#include "module_image.hpp"
#include "process/errno_kept.hpp"
#include "stack_copy.hpp"
#include "system_module.hpp"

#include <dwarf.h>
#include <fcntl.h>
#include <link.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace asio_pulse::detail {
namespace {

// How many places are cached with their names. A guess: a program is stuck at few places.
constexpr std::size_t cached_places = 2048;
// How far the rest of a truncated stack may reach above the copy: the usual limit of a stack. That
// part may have changed since.
constexpr std::uintptr_t rest_of_stack = std::uintptr_t{8} << 20;

/// A number that changes whenever a library is loaded or unloaded. The loader holds the lock for
/// this only briefly, and not while it runs initialisers.
std::uint64_t loader_generation() noexcept {
  std::uint64_t generation = 0;
  ::dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* to) {
        *static_cast<std::uint64_t*>(to) = info->dlpi_adds + info->dlpi_subs;
        return 1;  // the counters are the same in each entry
      },
      &generation);
  return generation;
}

struct program_counter {
  Dwarf_Addr address;
  bool interrupted;  ///< whether it was interrupted here; otherwise it is a return address
  [[nodiscard]] Dwarf_Addr inside() const noexcept { return interrupted ? address : address - 1; }
};

/// The data for the unwinder's callbacks.
struct unwinding {
  const captured_stack* stack = nullptr;
  std::vector<program_counter> counters;
  std::size_t max_frames = 0;
};

// libdwfl's search path. Null is the default.
char* debuginfo_path = nullptr;

/// Finds separate debug information, but only on this machine and not for system libraries: reading
/// that of the C library takes a quarter of a second, and its symbols suffice. libdwfl's standard
/// search also asks the servers in DEBUGINFOD_URLS, for which a report must not wait.
int find_debuginfo(Dwfl_Module* module, void** user, const char* name, Dwarf_Addr base,
                   const char* file, const char* link, GElf_Word checksum, char** found) {
  if (module_is_system(module_name(*module))) return -1;
  // NOLINTNEXTLINE(concurrency-mt-unsafe): read only
  const char* const servers = std::getenv("DEBUGINFOD_URLS");
  const bool only_by_id = servers != nullptr && *servers != '\0';
  const int opened =
      only_by_id
          ? dwfl_build_id_find_debuginfo(module, user, name, base, file, link, checksum, found)
          : dwfl_standard_find_debuginfo(module, user, name, base, file, link, checksum, found);
  // libdw does not set this flag. A program that is started at this moment may still inherit the
  // descriptor.
  if (opened >= 0) (void)::fcntl(opened, F_SETFD, FD_CLOEXEC);
  return opened;
}

/// As dwfl_linux_proc_find_elf(), but keeps no file open, since a program may have many modules and
/// few descriptors. The image belongs to the module until take_image().
int find_elf(Dwfl_Module* module, void** user, const char* name, Dwarf_Addr base, char** file,
             Elf** elf) {
  if (name[0] != '/') return dwfl_linux_proc_find_elf(module, user, name, base, file, elf);
  module_image* const image = map_module(name);
  if (image == nullptr) return -1;
  *elf = elf_memory(static_cast<char*>(image->bytes), image->size);
  *file = *elf != nullptr ? ::strdup(name) : nullptr;
  if (*file == nullptr) {
    elf_end(std::exchange(*elf, nullptr));
    unmap_modules(image);
    return -1;
  }
  *user = image;
  return -1;
}

/// For dwfl_getmodules() and dwfl_report_end(): moves the module's image to a list, to be unmapped
/// when it is no longer read.
int take_image(Dwfl_Module*, void** user, const char*, Dwarf_Addr, void* chain) {
  if (auto* const image = static_cast<module_image*>(std::exchange(*user, nullptr))) {
    image->next = std::exchange(*static_cast<module_image**>(chain), image);
  }
  return DWARF_CB_OK;
}

const Dwfl_Callbacks module_callbacks{.find_elf = find_elf,
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
    // The part of the stack that was not copied may have changed since.
    const bool not_copied =
        stack.truncated && address >= stack.address && address < end + rest_of_stack;
    if (not_copied ||
        copy_mapped(static_cast<std::uintptr_t>(address),
                    std::as_writable_bytes(std::span{&word, 1}), chosen_memory_reader()) != size) {
      return false;
    }
  }
  *result = word;
  return true;
}

#if defined(__x86_64__)
/// Finds a frame pointer if it was not captured: the nearest pair of a higher frame pointer and a
/// return address on the stack. 0 if there is none nearby.
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
    // Other registers that a frame needs may have been saved by its callees. Otherwise the trace
    // ends there.
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
  // Never more than was reserved, because an exception must not pass through C functions.
  if (to.counters.size() == to.max_frames ||
      !dwfl_frame_pc(frame, &counter.address, &counter.interrupted) || counter.address == 0) {
    return DWARF_CB_ABORT;
  }
  to.counters.push_back(counter);
  return DWARF_CB_OK;
}

std::string vdso_name(pid_t process) { return "[vdso: " + std::to_string(process) + "]"; }

struct end_session {
  void operator()(Dwfl* session) const noexcept {
    module_image* images = nullptr;
    dwfl_getmodules(session, take_image, &images, 0);
    dwfl_end(session);
    unmap_modules(images);
  }
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
    // Read first, so that a change meanwhile is noticed at the next trace.
    const std::uint64_t now = loader_generation();
    if (const pid_t self = ::getpid(); !session || process != self) {
      // A forked child starts a new session. Cached names stay valid while the modules are the
      // same.
      if (process != self || generation != now) named.clear();
      attached = false;
      session.reset(dwfl_begin(&module_callbacks));
      process = self;
    }
    if (!session) return;
    generation = now;
    // Not dwfl_linux_proc_report(): if a file that this session has mapped to be read is directly
    // below the place where the same file is loaded, it takes the two for one.
    const std::vector<mapped_code> code = read_mapped_code();
    dwfl_report_begin(session.get());
    for (const mapped_code& c : code) {
      // With this name dwfl_linux_proc_find_elf() reads it from memory.
      const std::string name = c.path == "[vdso]" ? vdso_name(process) : c.path;
      dwfl_report_module(session.get(), name.c_str(), c.begin, c.end);
    }
    struct removed {
      bool any = false;
      module_image* images = nullptr;
    } gone;
    dwfl_report_end(
        session.get(),
        [](Dwfl_Module* module, void* image, const char* name, Dwarf_Addr base, void* to) {
          auto& all = *static_cast<removed*>(to);
          all.any = true;
          return take_image(module, &image, name, base, &all.images);
        },
        &gone);
    unmap_modules(gone.images);
    if (gone.any) named.clear();
    if (!attached) {
      attached = dwfl_attach_state(session.get(), nullptr, process, &thread_callbacks, &current);
    }
  }

  /// Whether the session keeps files open: those with separate debug information.
  [[nodiscard]] bool holds_files() const noexcept {
    bool any = false;
    dwfl_getmodules(
        session.get(),
        [](Dwfl_Module* module, void**, const char*, Dwarf_Addr, void* to) {
          const char* separate = nullptr;
          dwfl_module_info(module, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, &separate);
          *static_cast<bool*>(to) |= separate != nullptr;
          return static_cast<int>(DWARF_CB_OK);
        },
        &any, 0);
    return any;
  }

  /// Ends the session; the next trace begins another one. See names_at() and holds_files().
  void end() noexcept {
    session.reset();
    attached = false;
  }

  [[nodiscard]] Dwfl_Module* module_at(Dwarf_Addr pc) const noexcept {
    return session ? dwfl_addrmodule(session.get(), pc) : nullptr;
  }

  void unwind() {
    current.counters.clear();
    if (attached &&
        !call_libdw([this] { dwfl_getthread_frames(session.get(), 1, add_frame, &current); })) {
      throw std::bad_alloc();
    }
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
    if (const auto entry = named.find(pc); entry != named.end()) return entry->second;
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
    const bool fresh = !session || process != ::getpid() || generation != loader_generation();
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
    // A body that is in no module cannot be right. Asio's own bodies are at the beginning of all
    // chains.
    std::erase_if(found.awaiting, [this](std::uintptr_t body) {
      return module_at(body) == nullptr ||
             names(body).back().function.find("boost::asio::detail::co_spawn_entry_point") !=
                 std::string::npos;
    });
    return {at.empty() ? no_frame : at[found.body], std::move(found.awaiting)};
  }
};

symbolizer::symbolizer() noexcept = default;
symbolizer::~symbolizer() = default;

stack_trace symbolizer::trace(const captured_stack& stack, std::size_t max_frames) noexcept {
  const errno_kept keep;
  stack_trace result;
  if (max_frames == 0 || stack.pc() == 0) return result;
  try {
    need_memory();
    if (!state_) state_ = std::make_unique<state>();
    result = state_->trace(stack, max_frames);
    if (state_->session && state_->holds_files()) state_->end();
  } catch (...) {  // no memory; libdw may have been interrupted at any point
    result.clear();
    if (state_) state_->end();
  }
  return result;
}

}  // namespace asio_pulse::detail

#endif
