// Automatic checkpoints for clang: a plugin for LLVM's new pass manager, built against the LLVM of the compiler that loads it.
// It runs after the loop optimisers. The algorithm is in ../decisions.hpp; this file describes loops to it and writes the checks.
#include "plugin.hpp"
#include "writer.hpp"

#include <llvm/IR/Constants.h>
#include <llvm/IR/InstIterator.h>
#include <llvm/IR/Verifier.h>
#include <llvm/Passes/PassBuilder.h>
#include <llvm/Passes/PassPlugin.h>

#include <map>

using namespace llvm;

namespace asio_pulse::checkpoints {
namespace {

constexpr char no_checkpoints[] = "asio_pulse::no_checkpoints";
constexpr char left_attribute[] = "asio-pulse-no-checkpoints";
constexpr char taken_attribute[] = "asio-pulse-checkpoints";
// In a module that waits for the link-time optimiser, the functions that are to get checks are only marked. Their loops are
// not vectorised yet.
constexpr char marked_module[] = "asio_pulse.checkpoints.marked";

/// Functions with [[clang::annotate("asio_pulse::no_checkpoints")]].
void each_annotated(Module& m, const std::function<void(Function&)>& do_it) {
  const auto* const all = m.getNamedGlobal("llvm.global.annotations");
  if (all == nullptr || !all->hasInitializer()) return;
  const auto* const list = dyn_cast<ConstantArray>(all->getInitializer());
  if (list == nullptr) return;
  for (const Use& one : list->operands()) {
    const auto* const entry = dyn_cast<ConstantStruct>(one.get());
    if (entry == nullptr || entry->getNumOperands() < 2) continue;
    auto* const function = dyn_cast<Function>(entry->getOperand(0)->stripPointerCasts());
    const auto* const text = dyn_cast<GlobalVariable>(entry->getOperand(1)->stripPointerCasts());
    if (function == nullptr || text == nullptr || !text->hasInitializer()) continue;
    const auto* const chars = dyn_cast<ConstantDataArray>(text->getInitializer());
    if (chars != nullptr && chars->isCString() && chars->getAsCString() == no_checkpoints)
      do_it(*function);
  }
}

/// Which functions may run into themselves, by calls in this module. A call through a pointer may reach any
/// function of the same type whose address is taken.
std::map<const Function*, unsigned> cycles(
    Module& m, std::map<const CallBase*, SmallVector<const Function*, 2>>& targets) {
  std::vector<Function*> functions;
  std::map<const Function*, std::size_t> index;
  std::map<const FunctionType*, SmallVector<const Function*, 2>> by_type;
  for (Function& f : m) {
    if (f.isDeclaration()) continue;
    index[&f] = functions.size();
    functions.push_back(&f);
    if (f.hasAddressTaken()) by_type[f.getFunctionType()].push_back(&f);
  }
  std::vector<std::vector<std::size_t>> calls(functions.size());
  for (std::size_t n = 0; n < functions.size(); ++n)
    for (Instruction& i : instructions(*functions[n])) {
      const auto* const call = dyn_cast<CallBase>(&i);
      if (call == nullptr || call->isInlineAsm()) continue;
      if (const auto* const f =
              dyn_cast<Function>(call->getCalledOperand()->stripPointerCastsAndAliases())) {
        if (f->isDeclaration()) continue;
        targets[call] = {f};
      } else if (const auto found = by_type.find(call->getFunctionType()); found != by_type.end()) {
        targets[call] = found->second;
      }
      if (const auto found = targets.find(call); found != targets.end())
        for (const Function* f : found->second) calls[n].push_back(index[f]);
    }
  const std::vector<unsigned> numbers = cycles_of(calls);
  std::map<const Function*, unsigned> result;
  for (std::size_t n = 0; n < functions.size(); ++n)
    if (numbers[n] != 0) result[functions[n]] = numbers[n];
  return result;
}

std::string file_of(const Function& f) {
  if (const DISubprogram* const s = f.getSubprogram()) {
    const std::string name = s->getFilename().str(), folder = s->getDirectory().str();
    return name.empty() || name[0] == '/' || folder.empty() ? name : folder + "/" + name;
  }
  return f.getParent()->getSourceFileName();
}
unsigned line_of(const Function& f) {
  return f.getSubprogram() != nullptr ? f.getSubprogram()->getLine() : 0;
}

/// Clang sets this flag where it writes bitcode for a linker, and the linker sees it too.
bool waits_for_lto(const Module& m) { return m.getModuleFlag("EnableSplitLTOUnit") != nullptr; }

/// First in the pipeline: a function that is left out is not inlined where its loops would get checks.
struct mark_left_out : PassInfoMixin<mark_left_out> {
  PreservedAnalyses run(Module& m, ModuleAnalysisManager&) {
    const auto keep_whole = [](Function& f) {
      if (!f.hasFnAttribute(Attribute::AlwaysInline)) f.addFnAttr(Attribute::NoInline);
    };
    each_annotated(m, [&](Function& f) {
      f.addFnAttr(left_attribute);
      keep_whole(f);
    });
    const selection& list = settings::get().list();
    // Where nothing gets checks, as in a file that is left out, everything may be inlined.
    if (list.empty() || (!waits_for_lto(m) && none_of(m, [&](const Function& f) {
          return !f.isDeclaration() && may_be_checked(list, file_of(f), f.getName().str());
        })))
      return PreservedAnalyses::all();
    for (Function& f : m)
      if (!f.isDeclaration() && list.left_by_rule(file_of(f), f.getName().str())) keep_whole(f);
    return PreservedAnalyses::all();
  }
  static bool isRequired() { return true; }
};

class pass : public PassInfoMixin<pass> {
 public:
  explicit pass(bool linking) : linking_(linking) {}

  PreservedAnalyses run(Module& m, ModuleAnalysisManager& mam) {
    if (!Triple(m.getTargetTriple()).isArch64Bit() ||
        Triple(m.getTargetTriple()).getArch() != Triple::x86_64)
      report_fatal_error("asio-pulse: automatic checkpoints are for x86-64, and this is " +
                             Twine(m.getTargetTriple()),
                         false);
    NamedMDNode* const marked = m.getNamedMetadata(marked_module);
    const settings& s = settings::get();
    remarks report(marked != nullptr && marked->getNumOperands() != 0 ? noted(*marked)
                                                                      : s.remarks_to());
    if (marked == nullptr) {
      mark(m, s, report);
      if (waits_for_lto(m) && !linking_) {
        note(m, s.remarks_to());
        done(report);
        return PreservedAnalyses::all();
      }
    }
    std::map<const CallBase*, SmallVector<const Function*, 2>> targets;
    const auto cycle = cycles(m, targets);
    auto& fam = mam.getResult<FunctionAnalysisManagerModuleProxy>(m).getManager();
    writer w(m);
    bool any = false;
    for (Function& f : m) {
      if (f.isDeclaration() || f.getFnAttribute(taken_attribute).getValueAsString() != "wanted")
        continue;
      f.addFnAttr(taken_attribute, "done");
      const auto own = cycle.find(&f);
      SmallVector<Instruction*, 8> recursive;
      if (own != cycle.end())
        for (const auto& [call, to] : targets)
          if (call->getFunction() == &f && any_of(to, [&](const Function* t) {
                const auto its = cycle.find(t);
                return its != cycle.end() && its->second == own->second;
              }))
            recursive.push_back(const_cast<CallBase*>(call));
      if (w.function(f, fam, recursive, [&](unsigned line, const std::string& text) {
            report.add(file_of(f), line != 0 ? line : line_of(f), f.getName().str(), text);
          })) {
        any = true;
        fam.invalidate(f, PreservedAnalyses::none());
      }
    }
    if (any) w.refer_to_stub();
    done(report);
    return any ? PreservedAnalyses::none() : PreservedAnalyses::all();
  }
  static bool isRequired() { return true; }

 private:
  static void mark(Module& m, const settings& s, remarks& report) {
    each_annotated(m, [](Function& f) { f.addFnAttr(left_attribute); });
    for (Function& f : m) {
      if (f.isDeclaration() || f.hasAvailableExternallyLinkage()) continue;
      const std::string name = f.getName().str();
      const bool by_attribute = f.hasFnAttribute(left_attribute);
      std::string why = s.list().left_out(file_of(f), name);
      if (by_attribute) {
        if (const unsigned line = s.list().line_that_leaves(name); line != 0)
          errs() << "warning: asio-pulse: " << readable(name)
                 << " is left out twice: by its attribute, and by " << s.list().path() << ":"
                 << line << "\n";
        why = "its attribute leaves it out";
      }
      if (const char* const reason = never(name)) why = reason;
      if (f.hasFnAttribute(Attribute::Naked)) why = "it is naked";
      if (f.getCallingConv() == CallingConv::X86_INTR) why = "it is an interrupt handler";
      if (f.hasFnAttribute("no_caller_saved_registers")) why = "it preserves all registers";
      if (f.hasSection() && f.getSection().starts_with(".text.asan"))
        why = "it belongs to a sanitizer";
      if (why.empty())
        f.addFnAttr(taken_attribute, "wanted");
      else
        report.add(file_of(f), line_of(f), name, "left out: " + why);
    }
  }
  static void note(Module& m, const std::string& remarks_to) {
    LLVMContext& c = m.getContext();
    m.getOrInsertNamedMetadata(marked_module)
        ->addOperand(MDNode::get(c, MDString::get(c, remarks_to)));
  }
  static std::string noted(NamedMDNode& node) {
    return cast<MDString>(node.getOperand(0)->getOperand(0))->getString().str();
  }
  static void done(remarks& report) {
    if (!report.flush())
      report_fatal_error(
          "asio-pulse: the remarks cannot be written to '" + Twine(report.path()) + "'", false);
  }

  bool linking_;
};

void add_passes(PassBuilder& pb) {
  settings::get().check();
  pb.registerPipelineStartEPCallback(
      [](ModulePassManager& pm, OptimizationLevel) { pm.addPass(mark_left_out()); });
  pb.registerOptimizerLastEPCallback(
      [](ModulePassManager& pm, OptimizationLevel) { pm.addPass(pass(false)); });
  pb.registerFullLinkTimeOptimizationLastEPCallback(
      [](ModulePassManager& pm, OptimizationLevel) { pm.addPass(pass(true)); });
}

}  // namespace
}  // namespace asio_pulse::checkpoints

extern "C" __attribute__((visibility("default"))) PassPluginLibraryInfo llvmGetPassPluginInfo() {
  return {LLVM_PLUGIN_API_VERSION, "asio_pulse_checkpoints", "1",
          asio_pulse::checkpoints::add_passes};
}
