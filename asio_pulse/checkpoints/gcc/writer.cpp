#include "writer.hpp"

// GCC's headers need each other in this order.
// clang-format off
#include <basic-block.h>
#include <cfganal.h>
#include <cfghooks.h>
#include <cfgloop.h>
#include <cfgloopmanip.h>
#include <context.h>
#include <ggc.h>
#include <gimple-iterator.h>
#include <gimple-ssa.h>
#include <options.h>
#include <ssa.h>
#include <stringpool.h>
#include <tree-cfg.h>
#include <tree-dfa.h>
#include <tree-eh.h>
#include <tree-into-ssa.h>
#include <tree-pass.h>
#include <tree-scalar-evolution.h>
#include <tree-ssa-loop-manip.h>
#include <tree-ssa-loop-niter.h>
#include <tree-ssa-operands.h>
#include <varasm.h>
// clang-format on

namespace asio_pulse::checkpoints {
namespace {

using gcc_loop = class ::loop;

tree fuel_decl = nullptr;

tree fuel() {
  tree& decl = fuel_decl;
  if (decl == nullptr) {
    decl = build_decl(UNKNOWN_LOCATION, VAR_DECL, get_identifier("asio_pulse_fuel"),
                      integer_type_node);
    DECL_EXTERNAL(decl) = TREE_PUBLIC(decl) = DECL_ARTIFICIAL(decl) = TREE_USED(decl) = 1;
    // One %fs-relative access in a program, two instructions in a shared library.
    set_decl_tls_model(decl, flag_pic && !flag_pie ? TLS_MODEL_INITIAL_EXEC : TLS_MODEL_LOCAL_EXEC);
  }
  return decl;
}

bool is_bulk(gcall* call, work& bytes) {
  if (!gimple_call_builtin_p(call, BUILT_IN_NORMAL)) return false;
  switch (DECL_FUNCTION_CODE(gimple_call_fndecl(call))) {
    case BUILT_IN_MEMCPY:
    case BUILT_IN_MEMMOVE:
    case BUILT_IN_MEMSET:
      break;
    default:
      return false;
  }
  const tree n = gimple_call_arg(call, 2);
  if (!tree_fits_uhwi_p(n) || tree_to_uhwi(n) > largest_bulk) return false;
  bytes = tree_to_uhwi(n);
  return true;
}

bool calls(gimple* s) {
  work bytes = 0;
  return is_gimple_call(s) && !gimple_call_internal_p(s) &&
         !gimple_inexpensive_call_p(as_a<gcall*>(s)) && !is_bulk(as_a<gcall*>(s), bytes);
}

work cost(gimple* s) {
  if (is_gimple_debug(s) || gimple_clobber_p(s) || gimple_code(s) == GIMPLE_LABEL ||
      gimple_code(s) == GIMPLE_PREDICT || gimple_nop_p(s))
    return cost_of(statement::free);
  if (is_gimple_call(s)) {
    work bytes = 0;
    if (is_bulk(as_a<gcall*>(s), bytes)) return cost_of(statement::bulk, bytes);
    return cost_of(calls(s) ? statement::call : statement::plain);
  }
  if (!is_gimple_assign(s)) return cost_of(statement::plain);
  switch (gimple_assign_rhs_code(s)) {
    case TRUNC_DIV_EXPR:
    case TRUNC_MOD_EXPR:
    case EXACT_DIV_EXPR:
    case RDIV_EXPR:
      return cost_of(TREE_CODE(gimple_assign_rhs2(s)) == INTEGER_CST ? statement::plain
                                                                     : statement::slow);
    case NOP_EXPR:
    case VIEW_CONVERT_EXPR:
    case ADDR_EXPR:
    case SSA_NAME:
    case PAREN_EXPR:
      return cost_of(statement::free);
    default:
      return cost_of(statement::plain);
  }
}

/// A loop of the form `do … while ((i += step) != end)`, or `< end`; `i` is a number or a pointer.
struct strip_plan {
  gphi* phi = nullptr;
  gcond* test = nullptr;
  tree next = NULL_TREE, end = NULL_TREE;
  bool end_is_left = false;
  tree_code stays = ERROR_MARK;  // `next stays end` keeps the loop running
  edge exit = nullptr;
  HOST_WIDE_INT step = 0;
};

bool invariant(gcc_loop* l, tree t) {
  if (TREE_CODE(t) == INTEGER_CST) return true;
  if (TREE_CODE(t) != SSA_NAME) return false;
  const basic_block b = gimple_bb(SSA_NAME_DEF_STMT(t));
  return b == nullptr || !flow_bb_inside_loop_p(l, b);
}

bool find_strip(gcc_loop* l, strip_plan& plan) {
  if (l->latch == nullptr || !single_pred_p(l->latch) || !single_succ_p(l->latch)) return false;
  const basic_block b = single_pred(l->latch);
  plan.test = safe_dyn_cast<gcond*>(last_stmt(b));
  if (plan.test == nullptr || b->loop_father != l) return false;
  edge yes, no;
  extract_true_false_edges_from_block(b, &yes, &no);
  const bool stays_on_true = yes->dest == l->latch;
  plan.exit = stays_on_true ? no : yes;
  if (flow_bb_inside_loop_p(l, plan.exit->dest) || (plan.exit->flags & EDGE_COMPLEX) != 0)
    return false;
  tree left = gimple_cond_lhs(plan.test), right = gimple_cond_rhs(plan.test);
  plan.stays = gimple_cond_code(plan.test);
  if (invariant(l, left)) {
    std::swap(left, right);
    plan.end_is_left = true;
    plan.stays = swap_tree_comparison(plan.stays);
  }
  if (!stays_on_true) plan.stays = invert_tree_comparison(plan.stays, false);
  plan.next = left;
  plan.end = right;
  if (TREE_CODE(left) != SSA_NAME || !invariant(l, right) ||
      (!INTEGRAL_TYPE_P(TREE_TYPE(left)) && !POINTER_TYPE_P(TREE_TYPE(left))) ||
      TYPE_PRECISION(TREE_TYPE(left)) > 64 || TYPE_PRECISION(TREE_TYPE(left)) < 16 ||
      !types_compatible_p(TREE_TYPE(left), TREE_TYPE(right)))
    return false;
  gimple* const def = SSA_NAME_DEF_STMT(left);
  if (!is_gimple_assign(def) || gimple_bb(def) == nullptr ||
      !flow_bb_inside_loop_p(l, gimple_bb(def)))
    return false;
  const tree_code code = gimple_assign_rhs_code(def);
  if (code != PLUS_EXPR && code != POINTER_PLUS_EXPR) return false;
  const tree base = gimple_assign_rhs1(def), by = gimple_assign_rhs2(def);
  if (TREE_CODE(base) != SSA_NAME || TREE_CODE(by) != INTEGER_CST) return false;
  plan.phi = dyn_cast<gphi*>(SSA_NAME_DEF_STMT(base));
  if (plan.phi == nullptr || gimple_bb(plan.phi) != l->header ||
      PHI_ARG_DEF_FROM_EDGE(plan.phi, loop_latch_edge(l)) != left)
    return false;
  plan.step = int_cst_value(by);  // sign-extended, for unsigned types and offsets too
  if (plan.step == 0 || plan.step > (1 << 20) || plan.step < -(1 << 20)) return false;
  const bool down = plan.step < 0;
  return plan.stays == NE_EXPR || (!down && plan.stays == LT_EXPR) ||
         (down && plan.stays == GT_EXPR);
}

/// A list walk: what the loop starts its next iteration with was loaded in this one.
bool chases(gcc_loop* l) {
  for (gphi_iterator at = gsi_start_phis(l->header); !gsi_end_p(at); gsi_next(&at)) {
    if (virtual_operand_p(gimple_phi_result(at.phi())) ||
        !POINTER_TYPE_P(TREE_TYPE(gimple_phi_result(at.phi()))))
      continue;
    const tree v = PHI_ARG_DEF_FROM_EDGE(at.phi(), loop_latch_edge(l));
    if (TREE_CODE(v) != SSA_NAME) continue;
    gimple* const def = SSA_NAME_DEF_STMT(v);
    if (gimple_assign_load_p(def) && gimple_bb(def) != nullptr &&
        flow_bb_inside_loop_p(l, gimple_bb(def)))
      return true;
  }
  return false;
}

class checks {
 public:
  explicit checks(function* f) : f_(f) {}

  /// Subtracts from the fuel on this edge; calls the slow path when it is used up.
  void subtract(edge e, work charge, location_t where) {
    gimple_seq s = nullptr;
    const tree less = subtraction(s, charge);
    call(branch(e, s, less), "call asio_pulse_out_of_fuel", where);
  }
  /// The same before the last statement of a block, whose ways out cannot be split.
  void subtract_before_end(basic_block b, work charge, location_t where) {
    gimple_stmt_iterator at = gsi_last_nondebug_bb(b);
    if (gsi_end_p(at)) return;
    gsi_prev(&at);
    subtract(gsi_end_p(at) ? split_block_after_labels(b) : split_block(b, gsi_stmt(at)), charge,
             where);
  }
  void subtract_on(edge e, work charge, location_t where) {
    if ((e->flags & EDGE_COMPLEX) != 0)
      subtract_before_end(e->src, charge, where);
    else
      subtract(e, charge, where);
  }
  /// Starts a counter for a nest: an SSA name of which all others are new definitions. update_ssa() adds the phis.
  tree start_counter(edge e) {
    const tree first = make_ssa_name(integer_type_node);
    gimple_seq s = nullptr;
    gimple_seq_add_stmt(&s,
                        gimple_build_assign(first, build_int_cst(integer_type_node, chunk_work)));
    gimple_stmt_iterator at = gsi_start_bb(split_edge(e));
    gsi_insert_seq_after(&at, s, GSI_NEW_STMT);
    return first;
  }
  void count(edge e, tree counter, work charge, location_t where) {
    gimple_seq s = nullptr;
    const tree less = make_ssa_name(integer_type_node);
    gimple_seq_add_stmt(
        &s, gimple_build_assign(
                less, PLUS_EXPR, counter,
                build_int_cst(integer_type_node,
                              -static_cast<HOST_WIDE_INT>(std::min(charge, chunk_work)))));
    const basic_block body = branch(e, s, less);
    call(body, "call asio_pulse_chunk_done", where);
    // New definitions stand in blocks without a use: update_ssa() takes a use beside a definition for one after it.
    define(body, counter, build_int_cst(integer_type_node, chunk_work));
    edge past;
    edge_iterator i;
    FOR_EACH_EDGE(past, i, single_pred(body)->succs)
    if (past->dest != body) break;
    define(split_edge(past), counter, less);
  }
  void strip(gcc_loop* l, const strip_plan& plan, work chunk);

 private:
  static void define(basic_block b, tree counter, tree value) {
    gassign* const s = gimple_build_assign(make_ssa_name(integer_type_node), value);
    gimple_stmt_iterator at = gsi_last_bb(b);
    gsi_insert_after(&at, s, GSI_NEW_STMT);
    const tree unused = gimple_assign_lhs(s);
    create_new_def_for(counter, s, SINGLE_SSA_DEF_OPERAND(s, SSA_OP_DEF));
    release_ssa_name(unused);
  }
  tree subtraction(gimple_seq& s, work charge) {
    const tree before = make_ssa_name(integer_type_node), after = make_ssa_name(integer_type_node);
    gimple_seq_add_stmt(&s, gimple_build_assign(before, fuel()));
    gimple_seq_add_stmt(
        &s, gimple_build_assign(
                after, PLUS_EXPR, before,
                build_int_cst(integer_type_node,
                              -static_cast<HOST_WIDE_INT>(std::min<work>(charge, 1 << 20)))));
    gimple_seq_add_stmt(&s, gimple_build_assign(fuel(), after));
    return after;
  }
  /// On the way of `e`: an `if (left < 0)`, unlikely. Returns its body.
  basic_block branch(edge e, gimple_seq before, tree left) {
    const basic_block b = split_edge(e);
    const basic_block join = split_edge(single_succ_edge(b));
    gimple_stmt_iterator at = gsi_start_bb(b);
    gsi_insert_seq_after(&at, before, GSI_NEW_STMT);
    at = gsi_last_bb(b);
    gsi_insert_after(
        &at,
        gimple_build_cond(LT_EXPR, left, build_int_cst(TREE_TYPE(left), 0), NULL_TREE, NULL_TREE),
        GSI_NEW_STMT);
    const basic_block body = create_empty_bb(b);
    add_bb_to_loop(body, b->loop_father);
    const edge past = single_succ_edge(b);
    past->flags = (past->flags & ~EDGE_FALLTHRU) | EDGE_FALSE_VALUE;
    const edge into = make_edge(b, body, EDGE_TRUE_VALUE);
    into->probability = profile_probability::very_unlikely();
    past->probability = into->probability.invert();
    body->count = into->count();
    make_single_succ_edge(body, join, EDGE_FALLTHRU);
    set_immediate_dominator(CDI_DOMINATORS, body, b);
    set_immediate_dominator(CDI_DOMINATORS, join, b);
    return body;
  }
  /// A call that keeps all registers. The compiler does not see a call, so the function must not use the red zone.
  void call(basic_block b, const char* text, location_t where) {
    vec<tree, va_gc>* clobbers = nullptr;
    for (const char* c : {"cc", "memory"})
      vec_safe_push(clobbers, build_tree_list(NULL_TREE, build_string(strlen(c) + 1, c)));
    gasm* const a = gimple_build_asm_vec(text, nullptr, nullptr, clobbers, nullptr);
    gimple_asm_set_volatile(a, true);
    gimple_set_location(a, where);
    gimple_stmt_iterator at = gsi_last_bb(b);
    gsi_insert_after(&at, a, GSI_NEW_STMT);
    target_flags |= MASK_NO_RED_ZONE;
  }

  function* f_;
};

// Runs to the end, or to i + chunk * step if that is before it; then checks, then goes on. It becomes a loop around the loop.
void checks::strip(gcc_loop* l, const strip_plan& plan, work chunk) {
  const location_t where = gimple_location(plan.test);
  const tree type = TREE_TYPE(plan.next),
             number = POINTER_TYPE_P(type) ? size_type_node : unsigned_type_for(type);
  const unsigned bits = TYPE_PRECISION(type);
  const work step = static_cast<work>(std::abs(plan.step));
  while (bits < 64 && chunk * step >= work{1} << (bits - 1) && chunk > 1) chunk /= 2;
  const HOST_WIDE_INT span = plan.step * static_cast<HOST_WIDE_INT>(chunk);

  const edge back = loop_latch_edge(l);
  const edge before = loop_preheader_edge(l);
  const basic_block start = split_edge(before);
  const basic_block pause = split_edge(plan.exit);
  const basic_block again = create_empty_bb(pause);
  add_bb_to_loop(again, pause->loop_father);
  again->count = pause->count;
  const edge into = single_succ_edge(start), leave = single_succ_edge(pause);
  const edge more = make_edge(pause, again, EDGE_FALSE_VALUE);
  const edge around = make_single_succ_edge(again, start, EDGE_FALLTHRU);
  leave->flags = (leave->flags & ~EDGE_FALLTHRU) | EDGE_TRUE_VALUE;
  more->probability = profile_probability::likely();
  leave->probability = more->probability.invert();

  tree from = NULL_TREE;
  for (gphi_iterator at = gsi_start_phis(l->header); !gsi_end_p(at); gsi_next(&at)) {
    gphi* const p = at.phi();
    const tree result = gimple_phi_result(p);
    if (virtual_operand_p(result)) continue;
    const tree outer = copy_ssa_name(result);
    gphi* const o = create_phi_node(outer, start);
    edge in;
    edge_iterator i;
    FOR_EACH_EDGE(in, i, start->preds)
    add_phi_arg(o, in == around ? PHI_ARG_DEF_FROM_EDGE(p, back) : PHI_ARG_DEF_FROM_EDGE(p, into),
                in, UNKNOWN_LOCATION);
    SET_USE(PHI_ARG_DEF_PTR_FROM_EDGE(p, into), outer);
    if (p == plan.phi) from = outer;
  }

  // What is left, as a distance in the direction of the step: it cannot overflow. With `!=` the loop passes i + span exactly
  // when that is nearer than the end. With `<` an end that is behind means: this was the last iteration.
  gimple_seq s = nullptr;
  const auto assign = [&](tree t, tree_code code, tree one, tree other) {
    const tree v = make_ssa_name(t);
    gimple_seq_add_stmt(&s, other != NULL_TREE ? gimple_build_assign(v, code, one, other)
                                               : gimple_build_assign(v, code, one));
    return v;
  };
  const auto as_number = [&](tree v) {
    if (TREE_CODE(v) == INTEGER_CST) return fold_convert(number, v);
    return assign(number, NOP_EXPR, v, NULL_TREE);
  };
  const tree a = as_number(from), e = as_number(plan.end);
  const tree left =
      plan.step < 0 ? assign(number, MINUS_EXPR, a, e) : assign(number, MINUS_EXPR, e, a);
  const tree size = build_int_cst(number, std::abs(span));
  tree room = assign(boolean_type_node, GT_EXPR, left, size);
  if (plan.stays != NE_EXPR)
    room = assign(boolean_type_node, BIT_AND_EXPR, room,
                  assign(boolean_type_node, plan.stays, from, plan.end));
  const tree there_number = assign(number, PLUS_EXPR, a, build_int_cst(number, span));
  const tree there = assign(type, NOP_EXPR, there_number, NULL_TREE);
  const tree limit = make_ssa_name(type);
  gimple_seq_add_stmt(&s, gimple_build_assign(limit, COND_EXPR, room, there, plan.end));
  gimple_stmt_iterator at = gsi_start_bb(start);
  gsi_insert_seq_before(&at, s, GSI_NEW_STMT);

  if (plan.end_is_left)
    gimple_cond_set_lhs(plan.test, limit);
  else
    gimple_cond_set_rhs(plan.test, limit);
  update_stmt(plan.test);
  at = gsi_last_bb(pause);
  gsi_insert_after(&at, gimple_build_cond(EQ_EXPR, limit, plan.end, NULL_TREE, NULL_TREE),
                   GSI_NEW_STMT);
  call(again, "call asio_pulse_chunk_done", where);
}

location_t location_of(gcc_loop* l) {
  gimple* const last =
      l->latch != nullptr && single_pred_p(l->latch) ? last_stmt(single_pred(l->latch)) : nullptr;
  if (last != nullptr && gimple_has_location(last)) return gimple_location(last);
  for (auto at = gsi_start_nondebug_bb(l->header); !gsi_end_p(at); gsi_next_nondebug(&at))
    if (gimple_has_location(gsi_stmt(at))) return gimple_location(gsi_stmt(at));
  return DECL_SOURCE_LOCATION(current_function_decl);
}

loop_facts describe(gcc_loop* l, bool plain_edges) {
  loop_facts facts;
  bool may_repeat = plain_edges && l->inner == nullptr && optimize > 1 && !optimize_size &&
                    can_duplicate_loop_p(l);
  basic_block* const body = get_loop_body(l);
  for (unsigned b = 0; b < l->num_nodes; ++b) {
    if (body[b]->loop_father != l) continue;
    for (auto at = gsi_start_nondebug_bb(body[b]); !gsi_end_p(at); gsi_next_nondebug(&at)) {
      gimple* const s = gsi_stmt(at);
      facts.own += cost(s);
      facts.size += cost(s) != 0 ? 1 : 0;
      facts.calls |= calls(s);
      if (gimple_code(s) == GIMPLE_ASM) may_repeat = false;
    }
  }
  free(body);
  if (chases(l)) facts.own += cost_of(statement::scattered);
  strip_plan plan;
  facts.counted = plain_edges && find_strip(l, plan);
  facts.may_carry = plain_edges;
  facts.may_repeat = may_repeat;
  const HOST_WIDE_INT most = get_max_loop_iterations_int(l);
  if (most >= 0) facts.most_trips = static_cast<std::uint64_t>(most) + 1;
  return facts;
}

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

/// Where a circle of calls is checked: before the first of its calls that all others pass.
std::string entry_check(function* f, checks& c,
                        const std::function<bool(function*, gcall*)>& leads_back) {
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
    return "in a circle of calls: its calls are in a loop that has checks";
  if (gimple* const first = first_in(common)) {
    gimple_stmt_iterator at = gsi_for_stmt(first);
    gsi_prev_nondebug(&at);
    const edge e =
        gsi_end_p(at) ? split_block_after_labels(common) : split_block(common, gsi_stmt(at));
    c.subtract(e, entry_cost, DECL_SOURCE_LOCATION(f->decl));
  } else {
    c.subtract_before_end(common, entry_cost, DECL_SOURCE_LOCATION(f->decl));
  }
  return "in a circle of calls: a check before it calls on";
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

const ggc_root_tab* roots() {
  static const ggc_root_tab all[] = {
      {&fuel_decl, 1, sizeof(fuel_decl), &gt_ggc_mx_tree_node, &gt_pch_nx_tree_node},
      LAST_GGC_ROOT_TAB};
  return all;
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
  checks c(f);
  bool any = false;

  const std::string entry = entry_check(f, c, leads_back);
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
      counter = c.start_counter(loop_preheader_edge(order[nest_of(facts, i)]));
  }
  for (std::size_t i = 0; i < order.size(); ++i) {
    const loop_decision& d = decisions[i];
    gcc_loop* const l = order[i];
    strip_plan plan;
    if (d.what == check::counter)
      c.count(loop_latch_edge(l), counters[nest_of(facts, i)], d.charge, where[i]);
    else if (d.what == check::strip && find_strip(l, plan))
      c.strip(l, plan, d.chunk);
    else if (d.what != check::none)
      c.subtract_on(loop_latch_edge(l), d.charge, where[i]);
  }
  // Circles that are no loops, because they can be entered at several places.
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
    c.subtract_on(e, call_cost * 2, DECL_SOURCE_LOCATION(f->decl));
    tell(0, "a circle with several entries: a check each time");
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
