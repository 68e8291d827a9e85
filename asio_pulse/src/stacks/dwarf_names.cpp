// SPDX-License-Identifier: BSL-1.0

#if defined(ASIO_PULSE_HAVE_LIBDW)

#include "dwarf_names.hpp"

#include "libdw_memory.hpp"

#include <cxxabi.h>
#include <dwarf.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <ranges>
#include <string>
#include <string_view>
#include <utility>

namespace asio_pulse::detail {
namespace {

// More nesting than real code has. Debug information is read from files, which may be damaged.
constexpr int max_depth = 64;
// Longer names are cut. Asio's have up to some kilobytes.
constexpr std::size_t max_name = 16384;

struct free_memory {
  // What __cxa_demangle() returns.
  void operator()(void* p) const noexcept {
    std::free(p);  // NOLINT(cppcoreguidelines-no-malloc)
  }
};

std::string cut(std::string_view name) { return std::string(name.substr(0, max_name)); }

/// The name of a coroutine without the compiler's marks: gcc's `f(f(int)::_Z1fi.Frame*) [clone
/// .actor]` and clang's `f(int) [clone .resume]` become f(int).
std::string_view without_coroutine_marks(std::string_view name) noexcept {
  constexpr std::string_view clang_mark = " [clone .resume]";
  constexpr std::string_view gcc_mark = ".Frame*) [clone .actor]";
  if (name.ends_with(clang_mark)) return name.substr(0, name.size() - clang_mark.size());
  if (!name.ends_with(gcc_mark)) return name;
  const std::string_view twice = name.substr(0, name.rfind("::_Z"));
  for (auto at = twice.find('('); at != twice.npos; at = twice.find('(', at + 1)) {
    if (twice.substr(at + 1).starts_with(twice.substr(0, at))) return twice.substr(at + 1);
  }
  return name;
}

/// The demangled name. Empty if it cannot be demangled, as some of gcc's names of lambdas in
/// generic lambdas.
std::string demangled(const char* name) {
  if (!std::string_view(name).starts_with("_Z")) return cut(name);
  int status = 0;
  const std::unique_ptr<char, free_memory> plain(
      abi::__cxa_demangle(name, nullptr, nullptr, &status));
  return plain ? cut(without_coroutine_marks(plain.get())) : std::string();
}

/// A range of addresses; empty if `begin` is 0.
struct code_range {
  Dwarf_Addr begin = 0;
  Dwarf_Addr end = 0;

  [[nodiscard]] bool has(Dwarf_Addr pc) const noexcept { return pc >= begin && pc < end; }
};

/// The range of `die` that contains `pc`; an empty one if there is none.
///
/// If several files have the same function, the linker keeps one, but does not remove the debug
/// information of the others. Their ranges then begin at address 0 (or 1, in lists in which 0 means
/// the end). The range of a long function reaches from there into other code.
code_range part_with(Dwarf_Die& die, Dwarf_Addr pc) noexcept {
  constexpr Dwarf_Addr dropped = 1;
  Dwarf_Addr base = 0;
  code_range part;
  for (std::ptrdiff_t at = 0; (at = dwarf_ranges(&die, at, &base, &part.begin, &part.end)) > 0;) {
    if (part.begin > dropped && part.has(pc)) return part;
  }
  return {};
}

bool has_pc(Dwarf_Die& die, Dwarf_Addr pc) noexcept { return part_with(die, pc).begin != 0; }

// ---- finding the function

/// The out-of-line function at `pc` among the children of `scope`. gcc puts definitions beside
/// namespaces, clang into them.
bool find_function(Dwarf_Die& scope, Dwarf_Addr pc, Dwarf_Die& found, int depth = 0) noexcept {
  Dwarf_Die child;
  if (depth > max_depth || dwarf_child(&scope, &child) != 0) return false;
  do {
    switch (dwarf_tag(&child)) {
      case DW_TAG_subprogram:
        if (has_pc(child, pc)) {
          found = child;
          return true;
        }
        break;
      case DW_TAG_namespace:
      case DW_TAG_module:
        if (find_function(child, pc, found, depth + 1)) return true;
        break;
      default:
        break;
    }
  } while (dwarf_siblingof(&child, &child) == 0);
  return false;
}

/// The functions that are inlined at one address, outermost first.
struct inlined_chain {
  std::array<Dwarf_Die, max_depth> dies;
  std::size_t count = 0;
};

void find_inlined(Dwarf_Die function, Dwarf_Addr pc, inlined_chain& chain) noexcept {
  Dwarf_Die child;
  for (int depth = 0; depth < max_depth && dwarf_child(&function, &child) == 0; ++depth) {
    bool deeper = false;
    do {
      const int tag = dwarf_tag(&child);
      if ((tag == DW_TAG_inlined_subroutine || tag == DW_TAG_lexical_block ||
           tag == DW_TAG_try_block || tag == DW_TAG_catch_block) &&
          has_pc(child, pc)) {
        if (tag == DW_TAG_inlined_subroutine) chain.dies[chain.count++] = child;
        function = child;
        deeper = true;
        break;
      }
    } while (dwarf_siblingof(&child, &child) == 0);
    if (!deeper) return;
  }
}

/// The translation unit of `pc`.
Dwarf_Die* unit_at(Dwfl_Module& module, Dwarf_Addr pc, Dwarf_Addr& bias) noexcept {
  // libdwfl assigns code between two units to the first of them. It may be code that was compiled
  // without debug information.
  Dwarf_Die* const near = dwfl_module_addrdie(&module, pc, &bias);
  if (near != nullptr && has_pc(*near, pc - bias)) return near;
  // If the compiler wrote no table of addresses (clang), by the ranges of the units.
  for (Dwarf_Die* unit = dwfl_module_nextcu(&module, nullptr, &bias); unit != nullptr;
       unit = dwfl_module_nextcu(&module, unit, &bias)) {
    if (has_pc(*unit, pc - bias)) return unit;
  }
  return nullptr;
}

// ---- naming it

/// The declaration of the function, which has its name and its scope.
Dwarf_Die declaration_of(Dwarf_Die die) noexcept {
  for (int hop = 0; hop < 8; ++hop) {
    Dwarf_Attribute attribute;
    Dwarf_Die next;
    if (dwarf_attr(&die, DW_AT_abstract_origin, &attribute) == nullptr &&
        dwarf_attr(&die, DW_AT_specification, &attribute) == nullptr) {
      break;
    }
    if (dwarf_formref_die(&attribute, &next) == nullptr) break;
    die = next;
  }
  return die;
}

/// The name of a function and of the scopes around it, innermost first. The texts belong to libdw.
struct scoped_name {
  std::array<const char*, max_depth> parts;
  std::size_t count = 0;

  void add(const char* part) noexcept {
    if (count != parts.size()) parts[count++] = part;
  }
};

/// The qualified name of a function without a linkage name, which other files cannot see.
void find_scopes(Dwarf_Die die, scoped_name& to) noexcept {
  for (bool in_function = true; in_function && to.count != to.parts.size();) {
    in_function = false;
    Dwarf_Die declared = declaration_of(die);
    const char* const own = dwarf_diename(&declared);
    to.add(own != nullptr ? own : "");
    const bool call = std::string_view(to.parts[to.count - 1]).starts_with("operator()");
    // Copied, because nothing may be owned while libdw is called (see libdw_memory.hpp).
    std::array<Dwarf_Die, max_depth> scopes;
    Dwarf_Die* found = nullptr;
    const int all = dwarf_getscopes_die(&declared, &found);
    const int count = std::min(all, max_depth);
    if (count > 0) std::copy_n(found, count, scopes.begin());
    std::free(found);  // NOLINT(cppcoreguidelines-no-malloc): libdw's
    for (int i = 1; i < count && !in_function; ++i) {
      Dwarf_Die& scope = scopes[static_cast<std::size_t>(i)];
      const char* const name = dwarf_diename(&scope);
      switch (dwarf_tag(&scope)) {
        case DW_TAG_namespace:
          to.add(name != nullptr ? name : "(anonymous namespace)");
          break;
        case DW_TAG_class_type:
        case DW_TAG_structure_type:
        case DW_TAG_union_type:
          to.add(name != nullptr ? name : call ? "{lambda}" : "{unnamed type}");
          break;
        case DW_TAG_subprogram:
          die = scope;  // continue with the scopes of its declaration
          in_function = true;
          break;
        default:
          break;
      }
    }
  }
}

/// What the debug information has about an address. All texts belong to libdw.
struct description {
  const char* symbol = nullptr;  ///< the name in the ELF file's symbol table
  bool described = false;        ///< whether there is debug information for the function
  Dwarf_Die function;
  const char* linkage = nullptr;
  const char* file = nullptr;
  int line = 0;
  inlined_chain inlined;
  struct call {
    const char* linkage = nullptr;
    const char* file = nullptr;  ///< where it was called
    Dwarf_Word line = 0;
  };
  std::array<call, max_depth> calls;  ///< the calls of the functions in `inlined`
};

const char* linkage_name(Dwarf_Die& die) noexcept {
  Dwarf_Attribute attribute;
  for (const unsigned which : {DW_AT_linkage_name, DW_AT_MIPS_linkage_name}) {
    if (dwarf_attr_integrate(&die, which, &attribute) == nullptr) continue;
    return dwarf_formstring(&attribute);
  }
  return nullptr;
}

description::call call_of(Dwarf_Die& inlined, Dwarf_Files* files) noexcept {
  description::call made{.linkage = linkage_name(inlined)};
  Dwarf_Attribute attribute;
  Dwarf_Word value = 0;
  if (files != nullptr &&
      dwarf_formudata(dwarf_attr(&inlined, DW_AT_call_file, &attribute), &value) == 0) {
    made.file = dwarf_filesrc(files, value, nullptr, nullptr);
  }
  if (dwarf_formudata(dwarf_attr(&inlined, DW_AT_call_line, &attribute), &value) == 0) {
    made.line = value;
  }
  return made;
}

/// Takes the place of a row of the line table, unless the row has none.
bool take_place(Dwarf_Line* row, description& to) noexcept {
  int line = 0;
  if (dwarf_lineno(row, &line) != 0 || line == 0) return false;
  to.file = dwarf_linesrc(row, nullptr, nullptr);
  to.line = line;
  return true;
}

/// For code with line 0, which clang gives to what it has made of several lines: the place of the
/// nearest row in the same `part`, before the code if there is one.
void find_nearest_place(Dwarf_Die& unit, Dwarf_Addr pc, code_range part, description& to) noexcept {
  Dwarf_Lines* rows = nullptr;
  std::size_t count = 0;
  if (dwarf_getsrclines(&unit, &rows, &count) != 0) return;
  const auto address = [rows](std::size_t n) {
    Dwarf_Addr found = 0;
    return dwarf_lineaddr(dwarf_onesrcline(rows, n), &found) == 0 ? found : 0;
  };
  const auto all = std::views::iota(std::size_t{0}, count);
  const auto first_behind =
      std::ranges::partition_point(all, [&](std::size_t n) { return address(n) <= pc; });
  const auto behind = static_cast<std::size_t>(first_behind - all.begin());
  for (std::size_t n = behind; n != 0 && part.has(address(n - 1)); --n) {
    if (take_place(dwarf_onesrcline(rows, n - 1), to)) return;
  }
  for (std::size_t n = behind; n != count && part.has(address(n)); ++n) {
    if (take_place(dwarf_onesrcline(rows, n), to)) return;
  }
}

/// `function`: the code of the out-of-line function, as far as it is known. `innermost`: that of the
/// function that is inlined there.
void find_place(Dwarf_Die& unit, Dwarf_Addr pc, code_range function, code_range innermost,
                description& to) noexcept {
  Dwarf_Line* const row = dwarf_getsrc_die(&unit, pc);
  // Code with line information has a line for its beginning, so a line before it belongs to other
  // code.
  Dwarf_Addr from = 0;
  if (row == nullptr || dwarf_lineaddr(row, &from) != 0 || from < function.begin) return;
  if (!take_place(row, to)) find_nearest_place(unit, pc, innermost, to);
}

void describe(Dwfl_Module& module, Dwarf_Addr pc, description& to) noexcept {
  GElf_Off into = 0;
  GElf_Sym symbol{};
  to.symbol = dwfl_module_addrinfo(&module, pc, &into, &symbol, nullptr, nullptr, nullptr);
  Dwarf_Addr bias = 0;
  leave_when_out_of_memory(dwfl_module_getdwarf(&module, &bias));
  Dwarf_Die* const unit = unit_at(module, pc, bias);
  if (unit == nullptr) return;
  const Dwarf_Addr at = pc - bias;
  if (!find_function(*unit, at, to.function)) {
    const code_range part = part_with(*unit, at);
    find_place(*unit, at, part, part, to);
    return;
  }
  // If the function does not contain the symbol's beginning, its debug information is not about this
  // code.
  const bool sized = to.symbol != nullptr && into < symbol.st_size;
  if (sized && !has_pc(to.function, at - into)) return;
  to.described = true;
  to.linkage = linkage_name(to.function);
  find_inlined(to.function, at, to.inlined);
  const code_range part = part_with(to.function, at);
  const std::size_t inlined = to.inlined.count;
  find_place(*unit, at, part, inlined == 0 ? part : part_with(to.inlined.dies[inlined - 1], at),
             to);
  Dwarf_Files* files = nullptr;
  std::size_t file_count = 0;
  if (dwarf_getsrcfiles(unit, &files, &file_count) != 0) files = nullptr;
  for (std::size_t i = 0; i != inlined; ++i) {
    to.calls[i] = call_of(to.inlined.dies[i], files);
  }
}

/// `mangled` may be null.
std::string function_name(const Dwarf_Die& die, const char* mangled) {
  std::string name = mangled != nullptr ? demangled(mangled) : std::string();
  if (!name.empty()) return name;
  scoped_name scopes;
  if (!call_libdw([&die, &scopes] { find_scopes(die, scopes); })) throw std::bad_alloc();
  for (std::size_t i = scopes.count; i != 0; --i) {
    if (!name.empty()) name += "::";
    name += scopes.parts[i - 1];
  }
  return cut(name);
}

void set_place(stack_frame& frame, const char* file, std::uint32_t line) {
  frame.file = file != nullptr ? file : "";
  frame.line = line;
}

}  // namespace

std::string_view module_name(Dwfl_Module& module) noexcept {
  const char* main_file = nullptr;
  const char* const name =
      dwfl_module_info(&module, nullptr, nullptr, nullptr, nullptr, nullptr, &main_file, nullptr);
  std::string_view text = name != nullptr ? name : "";
  if (text.starts_with("[vdso")) return "[vdso]";
  if (main_file != nullptr && *main_file == '/') text = main_file;
  if (const auto slash = text.rfind('/'); slash != text.npos) text.remove_prefix(slash + 1);
  return text;
}

std::uintptr_t module_offset(Dwfl_Module& module, Dwarf_Addr address) noexcept {
  GElf_Addr bias = 0;
  if (dwfl_module_getelf(&module, &bias) != nullptr) {
    return static_cast<std::uintptr_t>(address - bias);
  }
  Dwarf_Addr start = 0;
  dwfl_module_info(&module, nullptr, &start, nullptr, nullptr, nullptr, nullptr, nullptr);
  return static_cast<std::uintptr_t>(address - start);
}

Dwarf_Addr coroutine_body(Dwfl_Module& module, Dwarf_Addr pc) noexcept {
  GElf_Off into = 0;
  GElf_Sym symbol_info;
  const char* const found =
      dwfl_module_addrinfo(&module, pc, &into, &symbol_info, nullptr, nullptr, nullptr);
  const std::string_view symbol = found != nullptr ? found : "";
  // The suffixes of gcc and of clang for the body of a coroutine.
  return symbol.ends_with(".actor") || symbol.ends_with(".resume") ? pc - into : 0;
}

stack_trace names_at(Dwfl_Module& module, Dwarf_Addr pc) {
  description found;
  if (!call_libdw([&] { describe(module, pc, found); })) throw std::bad_alloc();
  stack_trace frames;
  stack_frame frame;
  set_place(frame, found.file, static_cast<std::uint32_t>(found.line));
  frame.inlined = true;
  for (std::size_t i = found.inlined.count; i != 0; --i) {
    const description::call& call = found.calls[i - 1];
    frame.function = function_name(found.inlined.dies[i - 1], call.linkage);
    frames.push_back(frame);
    set_place(frame, call.file, static_cast<std::uint32_t>(call.line));
  }
  frame.inlined = false;
  if (found.described) {
    frame.function =
        function_name(found.function, found.linkage != nullptr ? found.linkage : found.symbol);
  } else if (found.symbol != nullptr) {
    frame.function = demangled(found.symbol);
    if (frame.function.empty()) frame.function = cut(found.symbol);
  }
  frames.push_back(std::move(frame));
  return frames;
}

}  // namespace asio_pulse::detail

#endif
