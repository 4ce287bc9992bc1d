// What the metadata of an exported node says of the user's Python: traces as
// `  File "/home/me/model.py", line 12, in forward\n    return self.head(x)\n`, outermost first,
// and stacks of modules as `L__self__,,package.Model;L__self___head,head,package.Head`.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace autosp::exported {

// "model.layers.0", the innermost module; empty for the root and where none is known.
std::string InnermostModule(std::string_view modules);

// A call of the forward of a torch.autograd.Function.
struct FunctionCall {
  std::string forward;  // "ops.py:12", the place in it
  std::string caller;   // "model.py:40"
  std::string name;     // "Reverse.apply", as the caller has it; empty where it has another name
  bool is_certain = false;  // else it may be a module that no other one has registered
};

struct StackFrame {
  std::string_view path;
  std::string_view line;
  std::string_view function;
  std::string_view code;
};

class StackTrace {
 public:
  // Requires: `text` outlives this. It may be cut at its start.
  explicit StackTrace(std::string_view text);

  // "name.py:12" of the innermost frame of the user's model; of PyTorch's own, if all are. Empty:
  // none is known.
  std::string InnermostFrame() const;

  // The innermost such call, outside of PyTorch. Archives name no functions: it is known by a
  // `forward` that is of none of the modules.
  std::optional<FunctionCall> FindFunctionCall(std::string_view modules) const;

 private:
  std::vector<StackFrame> frames_;
};

}  // namespace autosp::exported
