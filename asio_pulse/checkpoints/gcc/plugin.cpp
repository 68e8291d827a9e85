// Automatic checkpoints for GCC: a plugin built against the headers of the compiler that loads it (gcc-N-plugin-dev). It runs between the
// last pass on GIMPLE and the expansion to RTL. The algorithm is in ../decisions.hpp; loops.cpp
// describes loops to it, and writer.cpp writes the checks.
#include "writer.hpp"

#include <map>
#include <set>

// GCC's headers need each other in this order.
// clang-format off
#include <plugin-version.h>

#include <stringpool.h>

#include <attribs.h>
#include <cgraph.h>
#include <context.h>
#include <diagnostic-core.h>
#include <gimple-iterator.h>
#include <options.h>
#include <output.h>
#include <tree-pass.h>
// clang-format on

__attribute__((visibility("default"))) int plugin_is_GPL_compatible;

namespace asio_pulse::checkpoints {
namespace {

constexpr char attribute_name[] = "asio_pulse_no_checkpoints";

selection the_list;
remarks the_report{""};
bool any_check = false;

tree handle_attribute(tree* node, tree name, tree, int, bool* no_add) {
  if (TREE_CODE(*node) != FUNCTION_DECL) {
    warning(OPT_Wattributes, "%qE is for functions", name);
    *no_add = true;
  }
  return NULL_TREE;
}
attribute_spec attribute{attribute_name,   0,      0, true, false, false, false,
                         handle_attribute, nullptr};

void register_attributes(void*, void*) { register_attribute(&attribute); }

/// What is known of the call graph, in numbers: the compiler frees its nodes and types as it goes.
struct call_graph {
  std::map<unsigned, unsigned> cycle;                         // by DECL_UID
  std::map<std::string, std::set<unsigned>> cycles_by_shape;  // of functions whose address is taken
  bool done = false;
};
call_graph graph;

/// Which functions may run into themselves, by calls in this unit; looked up once, before the first body is released. A call through
/// a pointer may reach any function of a compatible type whose address is taken.
void find_cycles(function* first) {
  if (graph.done) return;
  graph.done = true;
  std::vector<cgraph_node*> nodes;
  std::map<cgraph_node*, std::size_t> index;
  std::map<std::string, std::vector<std::size_t>> by_shape;
  cgraph_node* n;
  FOR_EACH_DEFINED_FUNCTION(n) {
    if (n->address_taken || DECL_VIRTUAL_P(n->decl))
      by_shape[shape_of(TREE_TYPE(n->decl))].push_back(nodes.size());
    index[n] = nodes.size();
    nodes.push_back(n);
  }
  std::vector<std::vector<std::size_t>> calls(nodes.size());
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    for (cgraph_edge* e = nodes[i]->callees; e != nullptr; e = e->next_callee)
      if (const auto to = index.find(e->callee->ultimate_alias_target()); to != index.end())
        calls[i].push_back(to->second);
    for (cgraph_edge* e = nodes[i]->indirect_calls; e != nullptr; e = e->next_callee) {
      const tree type = e->call_stmt != nullptr ? gimple_call_fntype(e->call_stmt) : NULL_TREE;
      if (type == NULL_TREE) continue;
      const std::vector<std::size_t>& to = by_shape[shape_of(type)];
      calls[i].insert(calls[i].end(), to.begin(), to.end());
    }
  }
  // The function that is compiled first has lost its edges by now: its calls are in its body.
  basic_block b;
  if (const auto own = index.find(cgraph_node::get(first->decl)); own != index.end()) {
    FOR_EACH_BB_FN(b, first) {
      for (gimple_stmt_iterator at = gsi_start_bb(b); !gsi_end_p(at); gsi_next(&at)) {
        if (!is_gimple_call(gsi_stmt(at)) || gimple_call_internal_p(gsi_stmt(at))) continue;
        const tree to = gimple_call_fndecl(gsi_stmt(at)), type = gimple_call_fntype(gsi_stmt(at));
        cgraph_node* const node = to != NULL_TREE ? cgraph_node::get(to) : nullptr;
        if (node != nullptr) {
          if (const auto found = index.find(node->ultimate_alias_target()); found != index.end())
            calls[own->second].push_back(found->second);
        } else if (to == NULL_TREE && type != NULL_TREE) {
          const std::vector<std::size_t>& all = by_shape[shape_of(type)];
          calls[own->second].insert(calls[own->second].end(), all.begin(), all.end());
        }
      }
    }
  }
  const std::vector<unsigned> numbers = cycles_of(calls);
  for (std::size_t i = 0; i < nodes.size(); ++i)
    if (numbers[i] != 0) graph.cycle[DECL_UID(nodes[i]->decl)] = numbers[i];
  for (const auto& [shape, all] : by_shape)
    for (const std::size_t i : all)
      if (numbers[i] != 0) graph.cycles_by_shape[shape].insert(numbers[i]);
}

/// May this call lead back to the function that it is in?
bool leads_back(function* f, gcall* call) {
  const auto own = graph.cycle.find(DECL_UID(f->decl));
  if (own == graph.cycle.end() || gimple_call_internal_p(call)) return false;
  if (const tree to = gimple_call_fndecl(call)) {
    cgraph_node* const n = cgraph_node::get(to);
    const auto its =
        graph.cycle.find(DECL_UID(n != nullptr ? n->ultimate_alias_target()->decl : to));
    return its != graph.cycle.end() && its->second == own->second;
  }
  if (gimple_call_fntype(call) == NULL_TREE) return false;
  const auto at = graph.cycles_by_shape.find(shape_of(gimple_call_fntype(call)));
  return at != graph.cycles_by_shape.end() && at->second.count(own->second) != 0;
}

const pass_data data{
    GIMPLE_PASS, "asio_pulse_checkpoints", OPTGROUP_NONE, TV_NONE, PROP_cfg | PROP_ssa, 0, 0, 0, 0};

class checkpoint_pass final : public gimple_opt_pass {
 public:
  explicit checkpoint_pass(gcc::context* c) : gimple_opt_pass(data, c) {}

  unsigned execute(function* f) final {
    find_cycles(f);
    const std::string name = IDENTIFIER_POINTER(DECL_ASSEMBLER_NAME(f->decl));
    const char* const file = DECL_SOURCE_FILE(f->decl);
    const auto tell = [&](unsigned line, const std::string& text) {
      the_report.add(file != nullptr ? file : "?",
                     line != 0 ? line : static_cast<unsigned>(DECL_SOURCE_LINE(f->decl)), name,
                     text);
    };
    const std::string why = left_out(f->decl, name, file != nullptr ? file : "");
    if (!why.empty()) {
      tell(0, "left out: " + why);
      return 0;
    }
    if (write_checks(f, leads_back, tell)) any_check = true;
    return 0;
  }

 private:
  static std::string left_out(tree decl, const std::string& name, const std::string& file) {
    std::string why = the_list.left_out(file, name);
    if (lookup_attribute(attribute_name, DECL_ATTRIBUTES(decl)) != NULL_TREE) {
      if (const unsigned line = the_list.line_that_leaves(name); line != 0)
        warning_at(DECL_SOURCE_LOCATION(decl), 0,
                   "asio-pulse: %qD is left out twice: by its attribute, and by %s:%u", decl,
                   the_list.path().c_str(), line);
      why = "its attribute leaves it out";
    }
    if (const char* const reason = never(name)) why = reason;
    for (const char* const a : {"naked", "interrupt", "no_caller_saved_registers", "ms_abi"})
      if (lookup_attribute(a, DECL_ATTRIBUTES(decl)) != NULL_TREE ||
          lookup_attribute(a, TYPE_ATTRIBUTES(TREE_TYPE(decl))) != NULL_TREE)
        why = std::string("it has the attribute ") + a;
    if (DECL_STATIC_CONSTRUCTOR(decl) || DECL_STATIC_DESTRUCTOR(decl))
      why = "it initialises static objects";
    return why;
  }
};

/// Before anything is inlined: a function that the list leaves out stays whole, because the loops of its caller's copy would get
/// checks. Nor is another one with the same body put in its place.
void keep_left_out_whole(void*, void*) {
  if (the_list.empty()) return;
  const auto file_of = [](tree decl) {
    return std::string(DECL_SOURCE_FILE(decl) != nullptr ? DECL_SOURCE_FILE(decl) : "");
  };
  const auto name_of = [](tree decl) {
    return std::string(IDENTIFIER_POINTER(DECL_ASSEMBLER_NAME(decl)));
  };
  // Where nothing gets checks, as in a file that is left out, everything may be inlined.
  bool any_taken = flag_generate_lto || in_lto_p;
  cgraph_node* n;
  FOR_EACH_DEFINED_FUNCTION(n) {
    any_taken = any_taken || may_be_checked(the_list, file_of(n->decl), name_of(n->decl));
  }
  if (!any_taken) return;
  FOR_EACH_DEFINED_FUNCTION(n) {
    const tree decl = n->decl;
    if (lookup_attribute("always_inline", DECL_ATTRIBUTES(decl)) != NULL_TREE ||
        !the_list.left_by_rule(file_of(decl), name_of(decl)))
      continue;
    DECL_UNINLINABLE(decl) = 1;
    for (const char* const a : {"noinline", "no_icf"})
      if (lookup_attribute(a, DECL_ATTRIBUTES(decl)) == NULL_TREE)
        DECL_ATTRIBUTES(decl) = tree_cons(get_identifier(a), NULL_TREE, DECL_ATTRIBUTES(decl));
  }
}

/// Lets the linker ask for the stub by a sentence, and says that what is called is in this module. Four bytes an object: a
/// distance, which needs no relocation at run time.
void at_end(void*, void*) {
  if (any_check && asm_out_file != nullptr)
    fprintf(asm_out_file,
            "\t.section .asio_pulse.checked,\"aR\",@progbits\n\t.hidden %s\n\t.long %s - "
            ".\n\t.hidden %s\n\t.hidden %s\n\t.text\n",
            missing_stub, missing_stub, "asio_pulse_out_of_fuel", "asio_pulse_chunk_done");
  if (!the_report.flush())
    error("asio-pulse: the remarks cannot be written to %qs", the_report.path().c_str());
}

bool read_arguments(plugin_name_args* info) {
  for (int i = 0; i < info->argc; ++i) {
    const std::string key = info->argv[i].key;
    const char* const value = info->argv[i].value;
    if (key != "list" && key != "remarks") {
      error(
          "asio-pulse: the checkpoint plugin has no argument %qs; it has %<list=FILE%> and "
          "%<remarks=FILE%>",
          key.c_str());
      return false;
    }
    if (value == nullptr || *value == 0) {
      error("asio-pulse: the checkpoint plugin%'s argument %qs needs a file", key.c_str());
      return false;
    }
    if (key == "remarks") {
      the_report = remarks(value);
    } else if (const std::string wrong = the_list.read(value); !wrong.empty()) {
      error("asio-pulse: %s", wrong.c_str());
      return false;
    }
  }
  return true;
}

}  // namespace
}  // namespace asio_pulse::checkpoints

__attribute__((visibility("default"))) int plugin_init(plugin_name_args* info,
                                                       plugin_gcc_version* version) {
  using namespace asio_pulse::checkpoints;
  if (!plugin_default_version_check(version, &gcc_version)) {
    error(
        "asio-pulse: this checkpoint plugin was built for GCC %s (%s), and the compiler that loads "
        "it is GCC %s (%s); build it with the compiler "
        "that uses it (in CMake: %<asio_pulse_add_checkpoints%>)",
        gcc_version.basever, gcc_version.datestamp, version->basever, version->datestamp);
    return 1;
  }
  if (!read_arguments(info)) return 1;
  static register_pass_info where{new checkpoint_pass(g), "optimized", 1, PASS_POS_INSERT_AFTER};
  register_callback(info->base_name, PLUGIN_PASS_MANAGER_SETUP, nullptr, &where);
  register_callback(info->base_name, PLUGIN_ATTRIBUTES, register_attributes, nullptr);
  register_callback(info->base_name, PLUGIN_REGISTER_GGC_ROOTS, nullptr,
                    const_cast<ggc_root_tab*>(roots()));
  register_callback(info->base_name, PLUGIN_ALL_IPA_PASSES_START, keep_left_out_whole, nullptr);
  register_callback(info->base_name, PLUGIN_FINISH_UNIT, at_end, nullptr);
  return 0;
}
