#include "writer.hpp"

#include "../selection.hpp"

#include <llvm/ADT/PostOrderIterator.h>
#include <llvm/Analysis/AssumptionCache.h>
#include <llvm/Analysis/OptimizationRemarkEmitter.h>
#include <llvm/Analysis/ScalarEvolution.h>
#include <llvm/Analysis/TargetTransformInfo.h>
#include <llvm/Analysis/ValueTracking.h>
#include <llvm/IR/Dominators.h>
#include <llvm/IR/InlineAsm.h>
#include <llvm/IR/InstIterator.h>
#include <llvm/IR/IntrinsicInst.h>
#include <llvm/IR/MDBuilder.h>
#include <llvm/IR/Verifier.h>
#include <llvm/Transforms/Utils/BasicBlockUtils.h>
#include <llvm/Transforms/Utils/LoopSimplify.h>
#include <llvm/Transforms/Utils/LoopUtils.h>
#include <llvm/Transforms/Utils/PromoteMemToReg.h>
#include <llvm/Transforms/Utils/UnrollLoop.h>

#include <map>
#include <vector>

using namespace llvm;

namespace asio_pulse::checkpoints {
namespace {

work cost(const Instruction& i) {
  if (isa<PHINode>(i) || i.isDebugOrPseudoInst() || isa<GetElementPtrInst>(i) ||
      isa<BitCastInst>(i) || isa<FreezeInst>(i) || i.isLifetimeStartOrEnd())
    return cost_of(statement::free);
  switch (i.getOpcode()) {
    case Instruction::UDiv:
    case Instruction::SDiv:
    case Instruction::URem:
    case Instruction::SRem:
    case Instruction::FDiv:
    case Instruction::FRem:
      return cost_of(statement::slow);
    default:
      break;
  }
  const auto* const call = dyn_cast<CallBase>(&i);
  if (call == nullptr || call->isInlineAsm()) return cost_of(statement::plain);
  if (const auto* const m = dyn_cast<AnyMemIntrinsic>(&i)) {
    const auto* const n = dyn_cast<ConstantInt>(m->getLength());
    if (n == nullptr || n->getZExtValue() > largest_bulk) return cost_of(statement::call);
    return cost_of(statement::bulk, n->getZExtValue());
  }
  const Function* const f = call->getCalledFunction();
  if (f == nullptr || !f->isIntrinsic()) return cost_of(statement::call);
  return cost_of(f->getIntrinsicID() == Intrinsic::sqrt ? statement::slow : statement::plain);
}

bool calls(const Instruction& i) {
  const auto* const call = dyn_cast<CallBase>(&i);
  if (call == nullptr || call->isInlineAsm()) return false;
  if (const auto* const m = dyn_cast<AnyMemIntrinsic>(&i)) {
    const auto* const n = dyn_cast<ConstantInt>(m->getLength());
    return n == nullptr || n->getZExtValue() > largest_bulk;
  }
  const Function* const f = call->getCalledFunction();
  return f == nullptr || !f->isIntrinsic();
}

/// A list walk: what the loop starts its next iteration with was loaded in this one, from where the last one pointed.
bool chases(const Loop& l) {
  const BasicBlock* const latch = l.getLoopLatch();
  if (latch == nullptr) return false;
  for (const PHINode& p : l.getHeader()->phis()) {
    if (!p.getType()->isPointerTy()) continue;
    const Value* v = p.getIncomingValueForBlock(latch);
    while (const auto* const g = dyn_cast<GetElementPtrInst>(v)) v = g->getPointerOperand();
    if (const auto* const load = dyn_cast<LoadInst>(v); load != nullptr && l.contains(load))
      return true;
  }
  return false;
}

unsigned line_of(const Loop& l) { return l.getStartLoc() ? l.getStartLoc().getLine() : 0; }

}  // namespace

/// A loop of the form `do … while ((i += step) != end)`, or `< end`; `i` is a number or a pointer.
struct writer::strip_plan {
  PHINode* phi = nullptr;
  Instruction* next = nullptr;
  Value* end = nullptr;
  ICmpInst* test = nullptr;
  BranchInst* branch = nullptr;
  BasicBlock *header = nullptr, *before = nullptr, *latch = nullptr;
  unsigned leaves = 0;  ///< the branch's successor outside
  APInt step;
};

struct writer::loop_plan {
  Loop* loop = nullptr;
  loop_decision decision;
  std::size_t nest = no_loop;
};

writer::writer(Module& m) : m_(m), ctx_(m.getContext()), i32_(Type::getInt32Ty(ctx_)) {}

MDNode* writer::unlikely() const { return MDBuilder(ctx_).createBranchWeights(1, 1 << 20); }

void writer::refer_to_stub() {
  // Four bytes an object: a distance, which needs no relocation at run time. lld reports nothing that only unloaded sections lack.
  m_.appendModuleInlineAsm(
      std::string(".pushsection .asio_pulse.checked,\"aR\",@progbits\n.hidden ") + missing_stub +
      "\n.long " + missing_stub + " - .\n.popsection");
}

bool writer::find_strip(Loop& l, strip_plan& plan) {
  plan.header = l.getHeader();
  plan.before = l.getLoopPreheader();
  plan.latch = l.getLoopLatch();
  if (plan.before == nullptr || plan.latch == nullptr) return false;
  plan.branch = dyn_cast<BranchInst>(plan.latch->getTerminator());
  if (plan.branch == nullptr || !plan.branch->isConditional()) return false;
  plan.leaves = plan.branch->getSuccessor(0) == plan.header ? 1 : 0;
  if (plan.branch->getSuccessor(1 - plan.leaves) != plan.header ||
      plan.branch->getSuccessor(plan.leaves) == plan.header)
    return false;
  plan.test = dyn_cast<ICmpInst>(plan.branch->getCondition());
  if (plan.test == nullptr || !plan.test->hasOneUse()) return false;
  plan.next = dyn_cast<Instruction>(plan.test->getOperand(0));
  plan.end = plan.test->getOperand(1);
  if (plan.next == nullptr || !l.contains(plan.next) || !l.isLoopInvariant(plan.end)) return false;
  for (PHINode& p : plan.header->phis())
    if (p.getIncomingValueForBlock(plan.latch) == plan.next) plan.phi = &p;
  if (plan.phi == nullptr) return false;
  if (plan.next->getType()->isPointerTy()) {
    const auto* const g = dyn_cast<GetElementPtrInst>(plan.next);
    const DataLayout& layout = plan.header->getModule()->getDataLayout();
    plan.step = APInt(64, 0);
    if (g == nullptr || g->getPointerOperand() != plan.phi || g->getPointerAddressSpace() != 0 ||
        !g->accumulateConstantOffset(layout, plan.step))
      return false;
  } else {
    if (!plan.next->getType()->isIntegerTy() || plan.next->getOpcode() != Instruction::Add ||
        plan.next->getOperand(0) != plan.phi)
      return false;
    const auto* const step = dyn_cast<ConstantInt>(plan.next->getOperand(1));
    if (step == nullptr) return false;
    plan.step = step->getValue();
  }
  if (plan.step.isZero() || plan.step.isMinSignedValue()) return false;
  // The condition to stay.
  const CmpInst::Predicate stays =
      plan.leaves == 1 ? plan.test->getPredicate() : plan.test->getInversePredicate();
  const bool down = plan.step.isNegative();
  return stays == CmpInst::ICMP_NE ||
         (!down && (stays == CmpInst::ICMP_SLT || stays == CmpInst::ICMP_ULT)) ||
         (down && (stays == CmpInst::ICMP_SGT || stays == CmpInst::ICMP_UGT));
}

// Runs to the end, or to i + chunk * step if that is before it; then checks, then goes on.
void writer::strip(const strip_plan& plan, work chunk) {
  Type* const type = plan.next->getType();
  const bool pointer = type->isPointerTy();
  const unsigned bits = plan.step.getBitWidth();
  // In narrow types the whole range is less than a chunk: the chunk is then a power of two that fits.
  while (bits < 64 &&
         chunk * plan.step.abs().getLimitedValue() >= (std::uint64_t{1} << (bits - 1)) && chunk > 1)
    chunk /= 2;
  const APInt span = plan.step * APInt(bits, chunk);
  IntegerType* const number = IntegerType::get(ctx_, bits);
  const CmpInst::Predicate stays =
      plan.leaves == 1 ? plan.test->getPredicate() : plan.test->getInversePredicate();
  // `i | 1` for an even i: what the optimisers made of i + 1. That i is even can no longer be told from its phi.
  const DataLayout& layout = plan.header->getModule()->getDataLayout();
  for (PHINode& p : plan.header->phis())
    for (User* u : make_early_inc_range(p.users())) {
      auto* const both = dyn_cast<BinaryOperator>(u);
      if (both == nullptr || both->getOpcode() != Instruction::Or || both->getOperand(0) != &p ||
          !isa<ConstantInt>(both->getOperand(1)) ||
          !MaskedValueIsZero(&p, cast<ConstantInt>(both->getOperand(1))->getValue(), layout))
        continue;
      auto* const sum =
          BinaryOperator::CreateAdd(both->getOperand(0), both->getOperand(1), "", both);
      sum->setDebugLoc(both->getDebugLoc());
      both->replaceAllUsesWith(sum);
      both->eraseFromParent();
    }
  const auto limit_from = [&](IRBuilder<>& b, Value* from) -> Value* {
    Value* const at = pointer ? b.CreatePtrToInt(from, number) : from;
    Value* const e = pointer ? b.CreatePtrToInt(plan.end, number) : plan.end;
    // What is left, as a distance in the direction of the step: it cannot overflow. With `!=` the loop passes i + span exactly
    // when that is nearer than the end. With `<` an end that is behind means: this was the last iteration.
    Value* const left = plan.step.isNegative() ? b.CreateSub(at, e) : b.CreateSub(e, at);
    Value* far = b.CreateICmpUGT(left, ConstantInt::get(number, span.abs()));
    if (stays != CmpInst::ICMP_NE) far = b.CreateAnd(far, b.CreateICmp(stays, at, e));
    Value* const there = pointer ? b.CreateGEP(b.getInt8Ty(), from, ConstantInt::get(number, span))
                                 : b.CreateAdd(from, ConstantInt::get(type, span));
    return b.CreateSelect(far, there, plan.end, "asio_pulse.limit");
  };
  // A loop around the loop, which then still starts from one place: the code generator knows its induction variables.
  Function* const f = plan.header->getParent();
  BasicBlock* const exit = plan.branch->getSuccessor(plan.leaves);
  auto* const start = BasicBlock::Create(ctx_, "asio_pulse.chunk", f, plan.header);
  auto* const pause = BasicBlock::Create(ctx_, "asio_pulse.pause", f, exit);
  auto* const again = BasicBlock::Create(ctx_, "asio_pulse.again", f, exit);
  IRBuilder<> b(start);
  Value* from = nullptr;
  for (PHINode& p : plan.header->phis()) {
    PHINode* const outer = b.CreatePHI(p.getType(), 2);
    outer->addIncoming(p.getIncomingValueForBlock(plan.before), plan.before);
    outer->addIncoming(p.getIncomingValueForBlock(plan.latch), again);
    const int at = p.getBasicBlockIndex(plan.before);
    p.setIncomingValue(static_cast<unsigned>(at), outer);
    p.setIncomingBlock(static_cast<unsigned>(at), start);
    if (&p == plan.phi) from = outer;
  }
  b.SetCurrentDebugLocation(plan.branch->getDebugLoc());
  Value* const limit = limit_from(b, from);
  b.CreateBr(plan.header);
  plan.before->getTerminator()->replaceSuccessorWith(plan.header, start);
  plan.test->setOperand(1, limit);
  plan.branch->setSuccessor(plan.leaves, pause);
  b.SetInsertPoint(pause);
  b.CreateCondBr(b.CreateICmpEQ(limit, plan.end), exit, again);
  b.SetInsertPoint(again);
  b.CreateBr(start);
  for (PHINode& p : exit->phis()) p.replaceIncomingBlockWith(plan.latch, pause);
  again->getTerminator()->setDebugLoc(plan.branch->getDebugLoc());
  call(again->getTerminator(), "asio_pulse_chunk_done");
}

void writer::subtract(Instruction* before, work charge) {
  if (fuel_ == nullptr) {
    fuel_ = m_.getNamedGlobal("asio_pulse_fuel");
    if (fuel_ == nullptr) {
      // One %fs-relative access in a program, two instructions in a shared library.
      const bool program =
          m_.getPICLevel() == PICLevel::NotPIC || m_.getPIELevel() != PIELevel::Default;
      fuel_ = new GlobalVariable(
          m_, i32_, false, GlobalValue::ExternalLinkage, nullptr, "asio_pulse_fuel", nullptr,
          program ? GlobalValue::LocalExecTLSModel : GlobalValue::InitialExecTLSModel);
      fuel_->setDSOLocal(program);
    }
  }
  IRBuilder<> b(before);
  Value* const address = b.CreateThreadLocalAddress(fuel_);
  LoadInst* const load = b.CreateLoad(i32_, address);
  Value* const less = b.CreateSub(load, ConstantInt::get(i32_, std::min<work>(charge, 1 << 20)));
  StoreInst* const store = b.CreateStore(less, address);
  for (Instruction* const i : {static_cast<Instruction*>(load), static_cast<Instruction*>(store)})
    i->setMetadata(LLVMContext::MD_nosanitize, MDNode::get(ctx_, {}));
  Instruction* const then = SplitBlockAndInsertIfThen(
      b.CreateICmpSLT(less, ConstantInt::get(i32_, 0)), before, false, unlikely());
  then->setDebugLoc(before->getDebugLoc());
  call(then, "asio_pulse_out_of_fuel");
}

void writer::call(Instruction* before, const char* stub) {
  FunctionCallee callee = m_.getOrInsertFunction(stub, Type::getVoidTy(ctx_));
  if (auto* const f = dyn_cast<Function>(callee.getCallee())) {
    f->setCallingConv(CallingConv::PreserveAll);
    f->setVisibility(GlobalValue::HiddenVisibility);
    f->setDSOLocal(true);
    f->addFnAttr(Attribute::Cold);
    f->addFnAttr(Attribute::NoUnwind);
  }
  CallInst* const call = IRBuilder<>(before).CreateCall(callee);
  call->setCallingConv(CallingConv::PreserveAll);
  call->setDoesNotThrow();
  // A debugger and a stall's report shall name the loop's line.
  const DISubprogram* const scope = before->getFunction()->getSubprogram();
  if (before->getDebugLoc())
    call->setDebugLoc(before->getDebugLoc());
  else if (scope != nullptr)
    call->setDebugLoc(DILocation::get(ctx_, scope->getLine(), 0, const_cast<DISubprogram*>(scope)));
}

void writer::count(Instruction* before, AllocaInst* counter, work charge) {
  IRBuilder<> b(before);
  Value* const less = b.CreateSub(b.CreateLoad(i32_, counter),
                                  ConstantInt::get(i32_, std::min<work>(charge, chunk_work)));
  b.CreateStore(less, counter);
  Instruction* const then = SplitBlockAndInsertIfThen(
      b.CreateICmpSLT(less, ConstantInt::get(i32_, 0)), before, false, unlikely());
  then->setDebugLoc(before->getDebugLoc());
  b.SetInsertPoint(then);
  b.CreateStore(ConstantInt::get(i32_, chunk_work), counter);
  call(then, "asio_pulse_chunk_done");
}

// On the ways back to the header. A way that cannot be split (a computed goto, one that unwinds) has the check before it.
void writer::on_latches(Loop& l, const std::function<void(Instruction*)>& write) {
  SmallVector<BasicBlock*, 4> latches;
  l.getLoopLatches(latches);
  BasicBlock* const header = l.getHeader();
  for (BasicBlock* latch : latches) {
    Instruction* const end = latch->getTerminator();
    if (end->getNumSuccessors() == 1 || isa<IndirectBrInst>(end) || isa<CallBrInst>(end) ||
        header->isEHPad()) {
      write(end);
      continue;
    }
    BasicBlock* const edge = SplitEdge(latch, header);
    write(edge != nullptr ? edge->getTerminator() : end);
  }
}

loop_facts writer::describe(Loop& l, Function& f, FunctionAnalysisManager&, bool may_carry) const {
  loop_facts facts;
  SmallPtrSet<const BasicBlock*, 16> inner;
  for (const Loop* i : l) inner.insert(i->block_begin(), i->block_end());
  bool may_repeat = l.isInnermost() && l.isSafeToClone() && l.getLoopPreheader() != nullptr &&
                    l.hasDedicatedExits() && may_carry;
  for (const BasicBlock* b : l.blocks()) {
    if (inner.contains(b)) continue;
    if (b->hasAddressTaken() || b->isEHPad()) may_repeat = false;
    for (const Instruction& i : *b) {
      facts.own += cost(i);
      facts.size += cost(i) != 0 ? 1 : 0;
      facts.calls |= checkpoints::calls(i);
      if (const auto* const c = dyn_cast<CallBase>(&i); c != nullptr && c->isInlineAsm())
        may_repeat = false;
    }
  }
  if (chases(l)) facts.own += cost_of(statement::scattered);
  strip_plan plan;
  facts.counted = find_strip(l, plan);
  facts.may_carry = may_carry && l.getLoopPreheader() != nullptr;
  facts.may_repeat = may_repeat && !f.hasOptSize() && !f.hasFnAttribute(Attribute::Cold) &&
                     l.getLoopLatch() != nullptr &&
                     isa<BranchInst>(l.getLoopLatch()->getTerminator());
  return facts;
}

/// Cycles that are no loops, because they can be entered at several places: the way back to an earlier block has a check.
unsigned writer::irreducible(Function& f, FunctionAnalysisManager&, const tell& tell) {
  DominatorTree tree(f);
  ReversePostOrderTraversal<Function*> order(&f);
  std::map<const BasicBlock*, unsigned> number;
  for (const BasicBlock* b : order) number[b] = static_cast<unsigned>(number.size());
  SmallVector<BasicBlock*, 4> found;
  for (BasicBlock* b : order)
    for (const BasicBlock* to : successors(b))
      if (number[to] <= number[b] && !tree.dominates(to, b)) {
        found.push_back(b);
        break;
      }
  for (BasicBlock* b : found) {
    const DebugLoc at = b->getTerminator()->getDebugLoc();
    subtract(b->getTerminator(), static_cast<work>(b->size()) + call_cost);
    tell(at ? at.getLine() : 0, "a cycle with several entries: a check in each round");
  }
  return static_cast<unsigned>(found.size());
}

bool writer::function(Function& f, FunctionAnalysisManager& fam, ArrayRef<Instruction*> recursive,
                      const tell& tell) {
  auto& loops = fam.getResult<LoopAnalysis>(f);
  auto& tree = fam.getResult<DominatorTreeAnalysis>(f);
  auto& evolution = fam.getResult<ScalarEvolutionAnalysis>(f);
  auto& assumptions = fam.getResult<AssumptionAnalysis>(f);
  auto& target = fam.getResult<TargetIRAnalysis>(f);
  // A second return may find a register's old value, and an indirect branch has no edge to put a restart on.
  bool may_carry = !f.callsFunctionThatReturnsTwice();
  for (const BasicBlock& b : f) may_carry &= !isa<IndirectBrInst>(b.getTerminator());

  // One latch, a preheader and exits of its own for each loop: changing one then leaves the others alone.
  for (Loop* l : loops) simplifyLoop(l, &tree, &loops, &evolution, &assumptions, nullptr, false);
  std::vector<Loop*> order;
  for (Loop* l : loops.getLoopsInPreorder()) order.push_back(l);
  std::reverse(order.begin(), order.end());
  std::map<const Loop*, std::size_t> index;
  for (std::size_t i = 0; i < order.size(); ++i) index[order[i]] = i;
  std::vector<loop_facts> facts;
  for (Loop* l : order) {
    facts.push_back(describe(*l, f, fam, may_carry));
    facts.back().most_trips = evolution.getSmallConstantMaxTripCount(l);
    if (l->getParentLoop() != nullptr) facts.back().parent = index.at(l->getParentLoop());
  }
  std::vector<loop_decision> decisions = decide(facts);
  std::vector<unsigned> lines;
  for (const Loop* l : order) lines.push_back(line_of(*l));

  // Where a cycle of calls is checked: before the first of its calls that all others pass. What returns without
  // such a call does no work that counts.
  Instruction* entry = nullptr;
  std::string entry_text;
  if (!recursive.empty()) {
    BasicBlock* common = nullptr;
    for (Instruction* i : recursive)
      if (tree.isReachableFromEntry(i->getParent()))
        common = common == nullptr ? i->getParent()
                                   : tree.findNearestCommonDominator(common, i->getParent());
    if (common == nullptr) {
    } else if (loops.getLoopFor(common) != nullptr) {
      entry_text = "in a cycle of calls: its calls are in a loop that has checks";
    } else {
      entry = common->getTerminator();
      for (Instruction& i : *common)
        if (is_contained(recursive, &i)) {
          entry = &i;
          break;
        }
      entry_text = "in a cycle of calls: a check before its calls";
    }
  }

  bool changed = entry != nullptr;
  std::map<std::size_t, AllocaInst*> counters;
  for (std::size_t i = 0; i < order.size(); ++i) {
    loop_decision& d = decisions[i];
    if (d.copies > 1) {
      formLCSSA(*order[i], tree, &loops, &evolution);
      OptimizationRemarkEmitter emitter(&f);
      UnrollLoopOptions options{};
      options.Count = d.copies;
      options.Force = true;
      const LoopUnrollResult result = UnrollLoop(order[i], options, &loops, &evolution, &tree,
                                                 &assumptions, &target, &emitter, true);
      if (result == LoopUnrollResult::Unmodified) {
        d.charge /= d.copies;
        d.copies = 1;
      }
    }
    tell(lines[i], "loop: " + remark_on(d));
    if (d.what == check::counter) {
      const std::size_t nest = nest_of(facts, i);
      AllocaInst*& counter = counters[nest];
      if (counter == nullptr) {
        counter = IRBuilder<>(&f.getEntryBlock(), f.getEntryBlock().getFirstInsertionPt())
                      .CreateAlloca(i32_, nullptr, "asio_pulse.count");
        IRBuilder<>(order[nest]->getLoopPreheader()->getTerminator())
            .CreateStore(ConstantInt::get(i32_, chunk_work), counter);
      }
    }
    changed |= d.what != check::none;
  }
  // The changes come after the unrolling, which keeps the analyses right: these do not.
  std::vector<strip_plan> plans(order.size());
  for (std::size_t i = 0; i < order.size(); ++i)
    if (decisions[i].what == check::strip && !find_strip(*order[i], plans[i]))
      decisions[i].what = check::each_time;
  for (std::size_t i = 0; i < order.size(); ++i) {
    const loop_decision& d = decisions[i];
    if (d.what == check::strip) strip(plans[i], d.chunk);
    if (d.what == check::counter)
      on_latches(*order[i],
                 [&](Instruction* at) { count(at, counters.at(nest_of(facts, i)), d.charge); });
    if (d.what == check::each_time)
      on_latches(*order[i], [&](Instruction* at) { subtract(at, d.charge); });
  }
  if (entry != nullptr) subtract(entry, entry_cost);
  if (!entry_text.empty()) tell(0, entry_text);
  changed |= irreducible(f, fam, tell) != 0;
  if (!counters.empty()) {
    DominatorTree now(f);
    std::vector<AllocaInst*> all;
    for (const auto& [nest, counter] : counters) all.push_back(counter);
    PromoteMemToReg(all, now);
  }
  if (changed && verifyFunction(f, &errs()))
    report_fatal_error(
        "asio-pulse: the checks broke a function; please report this, and leave it out "
        "meanwhile: " +
            Twine(f.getName()),
        false);
  return true;  // simplifyLoop may have changed it
}

}  // namespace asio_pulse::checkpoints
