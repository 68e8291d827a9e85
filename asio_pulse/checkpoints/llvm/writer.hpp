#ifndef ASIO_PULSE_CHECKPOINTS_LLVM_WRITER_HPP
#define ASIO_PULSE_CHECKPOINTS_LLVM_WRITER_HPP

#include "../decisions.hpp"

#include <llvm/ADT/SmallVector.h>
#include <llvm/Analysis/LoopInfo.h>
#include <llvm/IR/IRBuilder.h>
#include <llvm/IR/Module.h>
#include <llvm/IR/PassManager.h>

#include <functional>
#include <string>

namespace asio_pulse::checkpoints {

/// Writes the checks into the functions of one module.
class writer {
 public:
  using tell = std::function<void(unsigned line, const std::string& text)>;

  explicit writer(llvm::Module& m);

  /// Writes the checks of a function. `recursive`: its calls that may lead back to it. Returns whether it was changed.
  bool function(llvm::Function& f, llvm::FunctionAnalysisManager& fam,
                llvm::ArrayRef<llvm::Instruction*> recursive, const tell& tell);

  /// Lets the linker ask for the stub by a sentence.
  void refer_to_stub();

 private:
  struct strip_plan;
  struct loop_plan;

  loop_facts describe(llvm::Loop& l, llvm::Function& f, llvm::FunctionAnalysisManager& fam,
                      bool may_carry) const;
  static bool find_strip(llvm::Loop& l, strip_plan& plan);
  void strip(const strip_plan& plan, work chunk);
  void on_latches(llvm::Loop& l, const std::function<void(llvm::Instruction*)>& write);
  void count(llvm::Instruction* before, llvm::AllocaInst* counter, work charge);
  void subtract(llvm::Instruction* before, work charge);
  void call(llvm::Instruction* before, const char* stub);
  unsigned irreducible(llvm::Function& f, llvm::FunctionAnalysisManager& fam, const tell& tell);
  llvm::MDNode* unlikely() const;

  llvm::Module& m_;
  llvm::LLVMContext& ctx_;
  llvm::IntegerType* i32_;
  llvm::GlobalVariable* fuel_ = nullptr;
};

}  // namespace asio_pulse::checkpoints

#endif
