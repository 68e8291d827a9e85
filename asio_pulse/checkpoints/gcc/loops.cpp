// What a statement costs, and what a loop looks like.
#include "loops.hpp"

namespace asio_pulse::checkpoints {
namespace {

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

bool invariant(gcc_loop* l, tree t) {
  if (TREE_CODE(t) == INTEGER_CST) return true;
  if (TREE_CODE(t) != SSA_NAME) return false;
  const basic_block b = gimple_bb(SSA_NAME_DEF_STMT(t));
  return b == nullptr || !flow_bb_inside_loop_p(l, b);
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

}  // namespace

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

}  // namespace asio_pulse::checkpoints
