#ifndef ASIO_PULSE_CHECKPOINTS_LLVM_PLUGIN_HPP
#define ASIO_PULSE_CHECKPOINTS_LLVM_PLUGIN_HPP

#include "../selection.hpp"

#include <string>

namespace asio_pulse::checkpoints {

/// The plugin's arguments: -mllvm -asio-pulse-checkpoint-list=FILE and -mllvm -asio-pulse-checkpoint-remarks=FILE.
class settings {
 public:
  static const settings& get();
  /// Stops the compiler with a sentence if the list cannot be used.
  void check() const;
  const selection& list() const { return list_; }
  const std::string& remarks_to() const { return remarks_to_; }

 private:
  settings();
  selection list_;
  std::string remarks_to_, wrong_;
};

}  // namespace asio_pulse::checkpoints

#endif
