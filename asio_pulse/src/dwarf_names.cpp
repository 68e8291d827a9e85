// SPDX-License-Identifier: BSL-1.0

#if defined(ASIO_PULSE_HAVE_LIBDW)

#include "dwarf_names.hpp"

#include <cxxabi.h>
#include <dwarf.h>

#include <cstdlib>
#include <memory>
#include <ranges>
#include <string>
#include <string_view>
#include <vector>

namespace asio_pulse::detail {
namespace {

// Deeper nesting than code has. Debug information comes from files: it may be damaged.
constexpr int max_depth = 64;
// Asio's names reach some kilobytes; beyond this they are cut.
constexpr std::size_t max_name = 16384;

struct free_memory {
  // What __cxa_demangle() returns.
  void operator()(void* p) const noexcept {
    std::free(p);  // NOLINT(cppcoreguidelines-no-malloc)
  }
};

std::string cut(std::string_view name) { return std::string(name.substr(0, max_name)); }

/// What the programmer called a coroutine's body: gcc's `f(f(int)::_Z1fi.Frame*) [clone .actor]`
/// and clang's `f(int) [clone .resume]` are f(int).
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

/// Empty where it cannot be: gcc writes names, of lambdas in generic lambdas, that its own library
/// does not read.
std::string demangled(const char* name) {
  if (!std::string_view(name).starts_with("_Z")) return cut(name);
  int status = 0;
  const std::unique_ptr<char, free_memory> plain(
      abi::__cxa_demangle(name, nullptr, nullptr, &status));
  return plain ? cut(without_coroutine_marks(plain.get())) : std::string();
}

bool has_pc(Dwarf_Die& die, Dwarf_Addr pc) noexcept { return dwarf_haspc(&die, pc) > 0; }

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

/// Appends what is inlined at `pc` into `function`, outermost first.
void find_inlined(Dwarf_Die function, Dwarf_Addr pc, std::vector<Dwarf_Die>& chain) {
  Dwarf_Die child;
  for (int depth = 0; depth < max_depth && dwarf_child(&function, &child) == 0; ++depth) {
    bool deeper = false;
    do {
      const int tag = dwarf_tag(&child);
      if ((tag == DW_TAG_inlined_subroutine || tag == DW_TAG_lexical_block ||
           tag == DW_TAG_try_block || tag == DW_TAG_catch_block) &&
          has_pc(child, pc)) {
        if (tag == DW_TAG_inlined_subroutine) chain.push_back(child);
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
  if (Dwarf_Die* const unit = dwfl_module_addrdie(&module, pc, &bias)) return unit;
  // By the units' own ranges, where the compiler wrote no table of addresses (clang).
  for (Dwarf_Die* unit = dwfl_module_nextcu(&module, nullptr, &bias); unit != nullptr;
       unit = dwfl_module_nextcu(&module, unit, &bias)) {
    if (has_pc(*unit, pc - bias)) return unit;
  }
  return nullptr;
}

// ---- naming it

/// Where the function was declared: the place that has its name and its scope.
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

/// For functions without a linkage name, which are those that no other file can see.
std::string qualified_name(Dwarf_Die die, int depth = 0) {
  Dwarf_Die declared = declaration_of(die);
  const char* const own = dwarf_diename(&declared);
  std::string name = own != nullptr ? own : "";
  const char* const unnamed = name.starts_with("operator()") ? "{lambda}" : "{unnamed type}";
  Dwarf_Die* scopes = nullptr;
  const int count = dwarf_getscopes_die(&declared, &scopes);
  const std::unique_ptr<Dwarf_Die, free_memory> owner(scopes);
  for (int i = 1; i < count; ++i) {
    Dwarf_Die& scope = scopes[i];
    const char* const scope_name = dwarf_diename(&scope);
    switch (dwarf_tag(&scope)) {
      case DW_TAG_namespace:
        name.insert(0, "::").insert(0,
                                    scope_name != nullptr ? scope_name : "(anonymous namespace)");
        break;
      case DW_TAG_class_type:
      case DW_TAG_structure_type:
      case DW_TAG_union_type:
        name.insert(0, "::").insert(0, scope_name != nullptr ? scope_name : unnamed);
        break;
      case DW_TAG_subprogram:
        // Its own scopes are those of its declaration, wherever that is.
        return depth < max_depth ? qualified_name(scope, depth + 1) + "::" + name : name;
      default:
        break;
    }
  }
  return name;
}

/// `symbol`: of the ELF file, for a function that is not inlined.
std::string function_name(Dwarf_Die& die, const char* symbol) {
  Dwarf_Attribute attribute;
  for (const unsigned which : {DW_AT_linkage_name, DW_AT_MIPS_linkage_name}) {
    if (dwarf_attr_integrate(&die, which, &attribute) == nullptr) continue;
    if (const char* const linkage = dwarf_formstring(&attribute)) symbol = linkage;
    break;
  }
  std::string name = symbol != nullptr ? demangled(symbol) : std::string();
  return name.empty() ? cut(qualified_name(die)) : name;
}

void place_of_call(Dwarf_Die& inlined, Dwarf_Files* files, stack_frame& to) {
  Dwarf_Attribute attribute;
  Dwarf_Word value = 0;
  to.file.clear();
  to.line = 0;
  if (dwarf_formudata(dwarf_attr(&inlined, DW_AT_call_file, &attribute), &value) == 0 &&
      files != nullptr) {
    if (const char* const file = dwarf_filesrc(files, value, nullptr, nullptr)) to.file = file;
  }
  if (dwarf_formudata(dwarf_attr(&inlined, DW_AT_call_line, &attribute), &value) == 0) {
    to.line = static_cast<std::uint32_t>(value);
  }
}

}  // namespace

std::string module_name(Dwfl_Module& module) {
  const char* main_file = nullptr;
  const char* const name =
      dwfl_module_info(&module, nullptr, nullptr, nullptr, nullptr, nullptr, &main_file, nullptr);
  std::string_view text = name != nullptr ? name : "";
  if (text.starts_with("[vdso")) return "[vdso]";
  if (main_file != nullptr && *main_file == '/') text = main_file;
  if (const auto slash = text.rfind('/'); slash != text.npos) text.remove_prefix(slash + 1);
  return std::string(text);
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
  // gcc's name for what a coroutine's function becomes, and clang's.
  return symbol.ends_with(".actor") || symbol.ends_with(".resume") ? pc - into : 0;
}

stack_trace names_at(Dwfl_Module& module, Dwarf_Addr pc) {
  stack_trace frames;
  GElf_Off into = 0;
  GElf_Sym symbol_info;
  const char* const symbol =
      dwfl_module_addrinfo(&module, pc, &into, &symbol_info, nullptr, nullptr, nullptr);

  stack_frame frame;
  Dwarf_Addr bias = 0;
  Dwarf_Die* const unit = unit_at(module, pc, bias);
  Dwarf_Die function;
  const bool described = unit != nullptr && find_function(*unit, pc - bias, function);
  if (!described && symbol != nullptr) {
    frame.function = demangled(symbol);
    if (frame.function.empty()) frame.function = cut(symbol);
  }
  if (unit != nullptr) {
    if (Dwarf_Line* const line = dwarf_getsrc_die(unit, pc - bias)) {
      int number = 0;
      if (const char* const file = dwarf_linesrc(line, nullptr, nullptr)) frame.file = file;
      if (dwarf_lineno(line, &number) == 0) frame.line = static_cast<std::uint32_t>(number);
    }
  }
  if (described) {
    Dwarf_Files* files = nullptr;
    std::size_t file_count = 0;
    if (dwarf_getsrcfiles(unit, &files, &file_count) != 0) files = nullptr;
    std::vector<Dwarf_Die> inlined;
    find_inlined(function, pc - bias, inlined);
    for (Dwarf_Die& die : std::views::reverse(inlined)) {
      frame.function = function_name(die, nullptr);
      frame.inlined = true;
      frames.push_back(frame);
      place_of_call(die, files, frame);
    }
    frame.inlined = false;
    frame.function = function_name(function, symbol);
  }
  frames.push_back(std::move(frame));
  return frames;
}

}  // namespace asio_pulse::detail

#endif
