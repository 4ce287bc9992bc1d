#include "compiler/import/size_guards.h"

#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"

namespace autosp {
namespace {

// What the inputs of a forward(*args) are called, by their number.
constexpr char kFlatArgs[] = "flat_args";

// The name that torch.export gives to the input at a path: batch_ids of L['batch']['ids'].
std::string PlaceholderName(const std::vector<std::string>& path) {
  std::string name;
  for (const std::string& part : path) {
    if (!name.empty()) name += '_';
    for (const char c : part) name += absl::ascii_isalnum(c) ? absl::ascii_tolower(c) : '_';
  }
  return name;
}

const GraphInput* FindInput(const Graph& graph, const std::vector<std::string>& path) {
  int64_t number = -1;
  if (path.size() == 2 && path[0] == kFlatArgs && !absl::SimpleAtoi(path[1], &number)) {
    return nullptr;
  }
  const std::string name = PlaceholderName(path);
  for (const GraphInput& input : graph.inputs) {
    if (input.kind != InputKind::kUser) continue;
    if (number >= 0 ? number-- == 0 : input.name == name) return &input;
  }
  return nullptr;
}

}  // namespace

std::vector<SizeGuard> ReadGuards(absl::Span<const std::string> texts, const Graph& graph) {
  const auto size_of = [&graph](const std::vector<std::string>& path,
                                int64_t dim) -> std::optional<SymInt> {
    const GraphInput* input = FindInput(graph, path);
    if (input == nullptr) return std::nullopt;
    const std::vector<SymInt>& sizes = graph.type(input->value).sizes;
    if (dim < 0 || dim >= static_cast<int64_t>(sizes.size())) return std::nullopt;
    return sizes[static_cast<size_t>(dim)];
  };
  std::vector<SizeGuard> guards;
  guards.reserve(texts.size());
  for (const std::string& text : texts) guards.push_back(SizeGuard::Parse(text, size_of));
  return guards;
}

}  // namespace autosp
