// The code of the checks.
#include "checks.hpp"

namespace asio_pulse::checkpoints {
namespace {

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

void define(basic_block b, tree counter, tree value) {
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

}  // namespace

const ggc_root_tab* roots() {
  static const ggc_root_tab all[] = {
      {&fuel_decl, 1, sizeof(fuel_decl), &gt_ggc_mx_tree_node, &gt_pch_nx_tree_node},
      LAST_GGC_ROOT_TAB};
  return all;
}

void subtract(edge e, work charge, location_t where) {
  gimple_seq s = nullptr;
  const tree less = subtraction(s, charge);
  call(branch(e, s, less), "call asio_pulse_out_of_fuel", where);
}

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

tree start_counter(edge e) {
  const tree first = make_ssa_name(integer_type_node);
  gimple_seq s = nullptr;
  gimple_seq_add_stmt(&s, gimple_build_assign(first, build_int_cst(integer_type_node, chunk_work)));
  gimple_stmt_iterator at = gsi_start_bb(split_edge(e));
  gsi_insert_seq_after(&at, s, GSI_NEW_STMT);
  return first;
}

void count(edge e, tree counter, work charge, location_t where) {
  gimple_seq s = nullptr;
  const tree less = make_ssa_name(integer_type_node);
  gimple_seq_add_stmt(
      &s, gimple_build_assign(less, PLUS_EXPR, counter,
                              build_int_cst(integer_type_node, -static_cast<HOST_WIDE_INT>(
                                                                   std::min(charge, chunk_work)))));
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

// Runs to the end, or to i + chunk * step if that is before it; then checks, then goes on. It becomes a loop around the loop.
void strip(gcc_loop* l, const strip_plan& plan, work chunk) {
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

}  // namespace asio_pulse::checkpoints
