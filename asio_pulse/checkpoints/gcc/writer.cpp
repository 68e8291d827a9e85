#include "writer.hpp"

#include "checks.hpp"
#include "compiler.hpp"
#include "loops.hpp"

namespace asio_pulse::checkpoints {
namespace {

bool repeat_body(gcc_loop* l, unsigned copies) {
  initialize_original_copy_tables();
  auto_sbitmap none(copies);
  bitmap_clear(none);
  auto_vec<edge> to_remove;
  const bool good = gimple_duplicate_loop_body_to_header_edge(
      l, loop_latch_edge(l), copies - 1, none, nullptr, &to_remove, DLTHE_FLAG_UPDATE_FREQ);
  free_original_copy_tables();
  if (good) {
    l->any_upper_bound = l->any_likely_upper_bound = l->any_estimate = false;
    update_ssa(TODO_update_ssa);
  }
  return good;
}

/// Where a cycle of calls is checked: before the first of its calls that all others pass.
std::string entry_check(function* f, const std::function<bool(function*, gcall*)>& leads_back) {
  basic_block common = nullptr, b;
  const auto first_in = [&](basic_block in) -> gimple* {
    for (auto at = gsi_start_nondebug_bb(in); !gsi_end_p(at); gsi_next_nondebug(&at))
      if (gcall* const call = dyn_cast<gcall*>(gsi_stmt(at));
          call != nullptr && leads_back(f, call))
        return call;
    return nullptr;
  };
  FOR_EACH_BB_FN(b, f)
  if (first_in(b) != nullptr)
    common = common == nullptr ? b : nearest_common_dominator(CDI_DOMINATORS, common, b);
  if (common == nullptr) return "";
  if (loop_outer(common->loop_father) != nullptr)
    return "in a cycle of calls: its calls are in a loop that has checks";
  if (gimple* const first = first_in(common)) {
    gimple_stmt_iterator at = gsi_for_stmt(first);
    gsi_prev_nondebug(&at);
    const edge e =
        gsi_end_p(at) ? split_block_after_labels(common) : split_block(common, gsi_stmt(at));
    subtract(e, entry_cost, DECL_SOURCE_LOCATION(f->decl));
  } else {
    subtract_before_end(common, entry_cost, DECL_SOURCE_LOCATION(f->decl));
  }
  return "in a cycle of calls: a check before its calls";
}

}  // namespace

std::string shape_of(tree function_type) {
  const auto one = [](tree t) {
    if (POINTER_TYPE_P(t)) return std::string("p");
    return std::to_string(TREE_CODE(t)) + "." + std::to_string(TYPE_MODE(t)) + " ";
  };
  std::string text = one(TREE_TYPE(function_type));
  for (tree a = TYPE_ARG_TYPES(function_type); a != NULL_TREE; a = TREE_CHAIN(a))
    text += one(TREE_VALUE(a));
  return text;
}

bool write_checks(function* f, const std::function<bool(function*, gcall*)>& leads_back,
                  const tell& tell) {
  // Without the checks of this function the red zone is the user's choice again.
  static const HOST_WIDE_INT own_flags = target_flags;
  target_flags = (target_flags & ~MASK_NO_RED_ZONE) | (own_flags & MASK_NO_RED_ZONE);
  // Abnormal edges (setjmp, computed gotos) cannot carry new values.
  bool plain_edges = !f->calls_setjmp && !f->has_nonlocal_label;
  basic_block b;
  FOR_EACH_BB_FN(b, f) {
    edge e;
    edge_iterator i;
    FOR_EACH_EDGE(e, i, b->succs) plain_edges &= (e->flags & EDGE_ABNORMAL) == 0;
  }

  loop_optimizer_init(LOOPS_NORMAL | LOOPS_HAVE_RECORDED_EXITS);
  calculate_dominance_info(CDI_DOMINATORS);
  scev_initialize();
  std::vector<gcc_loop*> order;
  for (auto l : loops_list(f, LI_FROM_INNERMOST)) order.push_back(l);
  std::vector<loop_facts> facts;
  std::vector<location_t> where;
  for (gcc_loop* l : order) {
    facts.push_back(describe(l, plain_edges));
    where.push_back(location_of(l));
  }
  for (std::size_t i = 0; i < order.size(); ++i)
    for (std::size_t k = i + 1; k < order.size(); ++k)
      if (loop_outer(order[i]) == order[k]) facts[i].parent = k;
  scev_finalize();
  std::vector<loop_decision> decisions = decide(facts);
  bool any = false;

  const std::string entry = entry_check(f, leads_back);
  if (!entry.empty()) tell(0, entry);
  any |= target_flags != own_flags;

  for (std::size_t i = 0; i < order.size(); ++i) {
    loop_decision& d = decisions[i];
    if (d.copies > 1 && !repeat_body(order[i], d.copies)) {
      d.charge /= d.copies;
      d.copies = 1;
    }
    tell(static_cast<unsigned>(LOCATION_LINE(where[i])), "loop: " + remark_on(d));
    any |= d.what != check::none;
  }

  std::vector<tree> counters(order.size(), NULL_TREE);
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (decisions[i].what != check::counter) continue;
    tree& counter = counters[nest_of(facts, i)];
    if (counter == NULL_TREE)
      counter = start_counter(loop_preheader_edge(order[nest_of(facts, i)]));
  }
  for (std::size_t i = 0; i < order.size(); ++i) {
    const loop_decision& d = decisions[i];
    gcc_loop* const l = order[i];
    strip_plan plan;
    if (d.what == check::counter)
      count(loop_latch_edge(l), counters[nest_of(facts, i)], d.charge, where[i]);
    else if (d.what == check::strip && find_strip(l, plan))
      strip(l, plan, d.chunk);
    else if (d.what != check::none)
      subtract_on(loop_latch_edge(l), d.charge, where[i]);
  }
  // Cycles that are no loops, because they can be entered at several places.
  free_dominance_info(CDI_DOMINATORS);
  calculate_dominance_info(CDI_DOMINATORS);
  mark_dfs_back_edges();
  std::vector<edge> irreducible;
  FOR_EACH_BB_FN(b, f) {
    edge e;
    edge_iterator i;
    FOR_EACH_EDGE(e, i, b->succs)
    if ((e->flags & EDGE_DFS_BACK) != 0 && !dominated_by_p(CDI_DOMINATORS, e->src, e->dest))
      irreducible.push_back(e);
  }
  for (const edge e : irreducible) {
    subtract_on(e, call_cost * 2, DECL_SOURCE_LOCATION(f->decl));
    tell(0, "a cycle with several entries: a check in each round");
    any = true;
  }

  if (any) {
    free_dominance_info(CDI_DOMINATORS);
    mark_virtual_operands_for_renaming(f);
    update_ssa(TODO_update_ssa);
    calculate_dominance_info(CDI_DOMINATORS);
    loops_state_set(f, LOOPS_NEED_FIXUP);
    fix_loop_structure(nullptr);
  }
  loop_optimizer_finalize(f, true);
  return any;
}

}  // namespace asio_pulse::checkpoints
