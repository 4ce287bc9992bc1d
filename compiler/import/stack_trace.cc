#include "compiler/import/stack_trace.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "compiler/import/import_limits.h"

namespace autosp::exported {
namespace {

constexpr std::string_view kFrameMark = "\", line ";  // behind the path of each frame of a trace

// `File "torch/nn/modules/linear.py", line 134`: PyTorch's own code, which no user can change.
bool IsOfTorch(const StackFrame& frame) {
  return frame.path.starts_with("torch/") ||
         frame.path.find("-packages/torch/") != std::string_view::npos;
}

std::string Place(const StackFrame& frame) {
  const std::string_view file = frame.path.substr(frame.path.find_last_of("/\\\"") + 1);
  if (file.empty() || file.size() > kMaxNameBytes || frame.line.size() > 9) return "";
  return absl::StrCat(std::string(file), ":", std::string(frame.line));
}

constexpr std::string_view kApply = ".apply(";

// `x = Reverse.apply(x, 0.5)` -> "Reverse.apply".
std::string NameOfApply(std::string_view code) {
  const size_t dot = code.find(kApply);
  if (dot == std::string_view::npos) return "";
  size_t start = dot;
  const auto is_of_name = [](char each) {
    return absl::ascii_isalnum(static_cast<unsigned char>(each)) || each == '_' || each == '.';
  };
  while (start > 0 && is_of_name(code[start - 1])) --start;
  return std::string(code.substr(start, dot + kApply.size() - 1 - start));
}

// Whether a line calls apply() and nothing else, so that what it enters is in there.
bool CallsApplyAlone(std::string_view code) {
  const size_t dot = code.find(kApply);
  return dot != std::string_view::npos && code.find('(') == dot + kApply.size() - 1 &&
         code.find('(', dot + kApply.size()) == std::string_view::npos;
}

// Modules that may have a forward of the user's.
int64_t CountModules(std::string_view modules) {
  int64_t count = 0;
  while (!modules.empty()) {
    const size_t end = std::min(modules.find(';'), modules.size());
    const std::string_view entry = modules.substr(0, end);
    const size_t comma = entry.rfind(',');
    const std::string_view name = entry.substr(comma == std::string_view::npos ? 0 : comma + 1);
    count += name.starts_with("torch.nn.modules.") ? 0 : 1;
    modules.remove_prefix(std::min(end + 1, modules.size()));
  }
  return count;
}

FunctionCall CallOf(const StackFrame& caller, const StackFrame& forward) {
  return {.forward = Place(forward),
          .caller = Place(caller),
          .name = NameOfApply(caller.code),
          .is_certain = false};
}

// Of a trace by Dynamo (strict=True), which goes through PyTorch's own code for functions.
std::optional<FunctionCall> FindTracedCall(const std::vector<StackFrame>& frames) {
  std::optional<FunctionCall> found;
  const StackFrame* caller = nullptr;
  bool is_entered = false;
  for (const StackFrame& frame : frames) {
    if (frame.path.ends_with("torch/_functorch/autograd_function.py")) {
      is_entered = caller != nullptr;
    } else if (!IsOfTorch(frame)) {
      if (is_entered) {
        found = CallOf(*caller, frame);
        found->is_certain = true;
      }
      is_entered = false;
      caller = &frame;
    }
  }
  return found;
}

}  // namespace

StackTrace::StackTrace(std::string_view text) {
  for (size_t mark = text.find(kFrameMark); mark != std::string_view::npos;) {
    const size_t quote = mark == 0 ? std::string_view::npos : text.rfind('"', mark - 1);
    const size_t start = quote == std::string_view::npos ? 0 : quote + 1;
    const size_t next = text.find(kFrameMark, mark + 1);
    const size_t number = mark + kFrameMark.size();
    const std::string_view rest =
        text.substr(number, next == std::string_view::npos ? next : next - number);
    const std::string_view head = rest.substr(0, rest.find('\n'));
    StackFrame frame;
    frame.path = text.substr(start, mark - start);
    frame.line = head.substr(0, head.find_first_not_of("0123456789"));
    constexpr std::string_view kIn = ", in ";
    const size_t in = head.find(kIn);
    if (in != std::string_view::npos) frame.function = head.substr(in + kIn.size());
    const std::string_view code = rest.substr(std::min(head.size() + 1, rest.size()));
    frame.code = code.substr(0, code.find('\n'));
    frames_.push_back(frame);
    mark = next;
  }
}

std::string StackTrace::InnermostFrame() const {
  for (auto frame = frames_.rbegin(); frame != frames_.rend(); ++frame) {
    if (!IsOfTorch(*frame)) return Place(*frame);
  }
  return frames_.empty() ? "" : Place(frames_.back());
}

std::string InnermostModule(std::string_view modules) {
  const size_t entry = modules.rfind(';') + 1;  // npos + 1 is 0
  const size_t first = modules.find(',', entry);
  if (first == std::string_view::npos) return "";
  std::string_view module = modules.substr(first + 1, modules.find(',', first + 1) - first - 1);
  constexpr std::string_view kTraced = "_export_root";  // what Dynamo (strict=True) calls the root
  if (module.starts_with("_empty_nn_module_stack") || module == kTraced) return "";
  if (module.starts_with(kTraced) && module[kTraced.size()] == '.') {
    module.remove_prefix(kTraced.size() + 1);
  }
  return std::string(module);
}

std::optional<FunctionCall> StackTrace::FindFunctionCall(std::string_view modules) const {
  if (std::optional<FunctionCall> call = FindTracedCall(frames_)) return call;
  std::vector<StackFrame> users;
  for (const StackFrame& frame : frames_) {
    if (frame.path.find("torch/_dynamo/") != std::string_view::npos) return std::nullopt;
    if (!IsOfTorch(frame)) users.push_back(frame);
  }
  int64_t num_forwards = 0;
  std::optional<FunctionCall> likely;  // innermost
  for (size_t i = 0; i < users.size(); ++i) {
    if (users[i].function != "forward") continue;
    const std::string_view code = i == 0 ? std::string_view() : users[i - 1].code;
    if (code.find("forward(") != std::string_view::npos) continue;  // super().forward(x)
    ++num_forwards;
    if (i == 0) continue;
    FunctionCall call = CallOf(users[i - 1], users[i]);
    call.is_certain = CallsApplyAlone(code);
    const bool is_better = call.is_certain || !call.name.empty() || !likely || likely->name.empty();
    if (is_better) likely = std::move(call);
  }
  if (!likely) return std::nullopt;
  if (num_forwards > CountModules(modules)) {
    likely->is_certain |= !likely->name.empty();
    return likely;
  }
  return likely->is_certain ? likely : std::nullopt;
}

}  // namespace autosp::exported
