#include "compiler/passes/size_literals.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string_view>

#include "compiler/ir/argument_access.h"
#include "compiler/passes/number_arguments.h"
#include "compiler/passes/size_forms.h"
#include "compiler/rules/op_context.h"

namespace autosp {
namespace {

constexpr size_t kMaxCarried = 8;  // literals of one constant that are kept

// Where arithmetic has its numbers: alpha of a sum is none of them.
std::vector<size_t> NumberArguments(const Node& node) {
  if (node.op == "aten.clamp.default") return {1, 2};
  if (node.op == "aten.masked_fill.Scalar" || node.op == "aten.where.ScalarOther") return {2};
  return {1};
}

bool IsSmall(double number) { return !std::isfinite(number) || std::abs(number) <= 1; }

bool ScalesBy(const Node& node) {
  return node.op == "aten.mul.Tensor" || node.op.starts_with("aten.div.") ||
         node.op == "aten.floor_divide.default";
}

// Of two, only what wraps around says that it counts them. A whole number is no root of a size.
std::optional<std::string> PlaceForm(const Node& node, double value, int64_t size) {
  const bool wraps = node.op.starts_with("aten.remainder.");
  const auto n = static_cast<double>(size);
  const bool is_half = 2 * value == n && node.op == "aten.roll.default";
  const bool is_size = is_half || (value == n && (size > 2 || wraps));
  if (IsPlain(value) && !is_size) return std::nullopt;
  std::optional<std::string> form = WideFormOf(value, size);
  const bool is_whole = value == std::floor(value);
  if (form && is_whole && form->find('(') != std::string::npos) return std::nullopt;
  return form;
}

// The number that a value is filled with.
std::optional<double> FillOf(const Node& node) {
  const std::optional<size_t> arg = FillArgument(node);
  return arg ? LiteralArgument(node, *arg) : std::nullopt;
}

}  // namespace

SizeLiterals::SizeLiterals(const Graph& graph, const GraphFactors& factors,
                           const SizeDependence& dependence, const PassContext& context)
    : graph_(graph), factors_(factors), dependence_(dependence), limits_(graph, context) {
  for (const GraphInput& input : graph.inputs) {
    const auto range = context.constant_ranges.find(input.name);
    if (range == context.constant_ranges.end()) continue;
    const auto [low, high] = range->second;
    if (low == high) carried_[input.value] = {static_cast<double>(low)};
    reached_[input.value] = {static_cast<double>(high)};
  }
}

std::vector<SizeLiteral> SizeLiterals::Find() {
  for (const Node& node : graph_.nodes) Visit(node);
  return std::move(found_);
}

void SizeLiterals::Visit(const Node& node) {
  limits_.Visit(node);
  if (GrowsWithOperands(node) || IsComparison(node)) VisitArithmetic(node);
  VisitPlaces(node);
  Carry(node);
  Reach(node);
}

void SizeLiterals::VisitArithmetic(const Node& node) {
  const Dependence dependence = dependence_.OfOperands(node);
  if (dependence.empty()) return;
  const bool reduces = node.op.starts_with("aten.sum.") || node.op.ends_with(".dim") ||
                       node.op == "aten.cumsum.default" || node.op == "aten.diff.default" ||
                       node.op == "aten.cat.default" || node.op == "aten.stack.default" ||
                       node.op.starts_with("aten.am");
  for (const size_t arg : NumberArguments(node)) {
    const std::optional<double> number = LiteralArgument(node, arg);
    if (number && !reduces) Meet(node, *number, dependence);
  }
  for (const ValueId operand : OperandsOf(node)) {
    const auto carried = carried_.find(operand);
    if (carried == carried_.end()) continue;
    for (const double number : carried->second) Meet(node, number, dependence);
  }
}

void SizeLiterals::Meet(const Node& node, double number, const Dependence& dependence) {
  if (!std::isfinite(number) || number == 0 || std::abs(number) == 1) return;
  const double value = std::abs(number);
  std::optional<SizeLiteral> best;
  const auto note = [&](int64_t size, std::string form) {
    const bool is_better = !best || (best->form.empty() && !form.empty());
    if (is_better) {
      best = {.node = &node, .number = number, .size = size, .form = std::move(form)};
    }
  };
  for (const int64_t size : dependence.places) {
    const std::optional<std::string> form = PlaceForm(node, value, size);
    if (form) note(size, *form);
    // Places are multiplied by many numbers: only a size itself makes others of them.
    const bool may_be_any = node.op != "aten.mul.Tensor";
    if (!form && may_be_any && IsOfOrder(value, size)) note(size, "");
  }
  for (const int64_t size : dependence.sums) {
    if (!ScalesBy(node) || IsPlain(value)) continue;
    if (const std::optional<std::string> form = WideFormOf(value, size)) note(size, *form);
  }
  if (best) found_.push_back(*std::move(best));
}

void SizeLiterals::MeetPlaces(const Node& node, double number, ValueId value, int64_t dim) {
  const std::optional<int64_t> size = dependence_.ChangedSize(value, dim);
  if (!size || IsSmall(number)) return;
  Dependence places;
  places.places = {*size};
  Meet(node, number, places);
}

void SizeLiterals::VisitPlaces(const Node& node) {
  if (node.op == "aten.slice.Tensor") return VisitSlice(node);
  if (node.op == "aten.arange.start" || node.op == "aten.linspace.default") {
    return VisitRange(node);
  }
  if (node.op == "aten.tril.default" || node.op == "aten.triu.default" ||
      node.op == "aten.diagonal.default") {
    return VisitTriangle(node);
  }
  const OpContext context(graph_, node);
  const ValueId self = context.Tensor(0);
  if (!self.valid()) return;
  const int64_t rank = graph_.type(self).rank();
  if (node.op == "aten.topk.default") {
    const int64_t dim = context.Dim(2, rank, rank - 1);
    const auto number = LiteralArgument(node, 1);
    // A number that is as many as the dimension of the result becomes what that has.
    const bool follows = dependence_.ChangedSize(node.outputs[0], dim).has_value();
    if (number && !follows) MeetPlaces(node, *number, self, dim);
  } else if (node.op == "aten.chunk.default") {
    VisitChunks(node);
  } else if (node.op == "aten.select.int") {
    if (const auto number = LiteralArgument(node, 2)) {
      MeetPlaces(node, *number, self, context.Dim(1, rank));
    }
  }
  VisitMoves(node);
  VisitLookup(node);
}

// x.chunk(S // C), whose parts have C tokens each. Two parts are halves, or the two of a pair.
void SizeLiterals::VisitChunks(const Node& node) {
  const OpContext context(graph_, node);
  const ValueId self = context.Tensor(0);
  const std::optional<double> count = LiteralArgument(node, 1);
  const std::optional<int64_t> size =
      dependence_.ChangedSize(self, context.Dim(2, graph_.type(self).rank()));
  if (count && size && *count > 2) {
    found_.push_back({.node = &node, .number = *count, .size = *size, .form = ""});
  }
}

// How far tokens are moved, how many are left, and how many are put beside them: the width of a
// kernel, unless it is a form of the size.
void SizeLiterals::VisitMoves(const Node& node) {
  const OpContext context(graph_, node);
  const ValueId self = context.Tensor(0);
  const int64_t rank = graph_.type(self).rank();
  if (node.op == "aten.roll.default") {
    const IntList shifts = context.Ints(1);
    if (context.Ints(2).empty()) return VisitFlatRoll(node);
    const std::vector<int64_t> dims = context.DimList(2, rank);
    for (size_t i = 0; i < std::min(shifts.size(), dims.size()); ++i) {
      if (!shifts[i].expr.empty()) continue;
      MeetPlaces(node, static_cast<double>(shifts[i].value), self, dims[i]);
    }
  }
  if (node.op.starts_with("aten.adaptive_")) {
    const IntList sizes = context.Ints(1);
    for (size_t i = 0; i < sizes.size(); ++i) {
      const int64_t dim = rank - static_cast<int64_t>(sizes.size() - i);
      if (!sizes[i].expr.empty() || dependence_.ChangedSize(node.outputs[0], dim)) continue;
      MeetPlaces(node, static_cast<double>(sizes[i].value), self, dim);
    }
  }
  if (node.op != "aten.constant_pad_nd.default" && node.op != "aten.pad.default") return;
  const IntList pads = context.Ints(1);
  for (size_t i = 0; i < pads.size(); ++i) {
    const int64_t dim = rank - 1 - static_cast<int64_t>(i / 2);
    const std::optional<int64_t> size = dependence_.ChangedSize(self, dim);
    if (!size || !pads[i].expr.empty()) continue;
    if (!WideFormOf(std::abs(static_cast<double>(pads[i].value)), *size)) continue;
    MeetPlaces(node, static_cast<double>(pads[i].value), self, dim);
  }
}

// A roll without dimensions moves all elements as one row: by so many of its last dimensions.
void SizeLiterals::VisitFlatRoll(const Node& node) {
  const OpContext context(graph_, node);
  const ValueId self = context.Tensor(0);
  const IntList shifts = context.Ints(1);
  if (shifts.empty() || !shifts[0].expr.empty()) return;
  Dependence places;
  int64_t product = 1;
  bool is_changed = false;
  for (int64_t dim = graph_.type(self).rank() - 1; dim >= 0; --dim) {
    const std::optional<int64_t> size = dependence_.ChangedSize(self, dim);
    is_changed = is_changed || size.has_value();
    product *= size.value_or(graph_.type(self).sizes[dim].value);
    if (is_changed) places.places.insert(product);
  }
  Meet(node, static_cast<double>(shifts[0].value), places);
}

// The places of constants, x.gather(1, full(47)), and as far as literals let places go:
// x.gather(1, ids % 12).
void SizeLiterals::VisitLookup(const Node& node) {
  for (const LookUp& look_up : LookUpsOf(graph_, node)) {
    const bool makes_table = look_up.table == node.outputs[0];
    for (const auto* numbers : {&carried_, &reached_}) {
      const auto found = numbers->find(look_up.index);
      if (found == numbers->end() || makes_table) continue;
      for (const double number : found->second) {
        MeetPlaces(node, number, look_up.table, look_up.dim);
      }
    }
    const std::optional<IndexLimit> limit = limits_.Of(look_up.index);
    if (!limit) continue;
    const auto count = static_cast<double>(limit->greatest + 1);
    MeetPlaces(*limit->node, count, look_up.table, look_up.dim);
  }
}

void SizeLiterals::VisitTriangle(const Node& node) {
  const OpContext context(graph_, node);
  const ValueId self = context.Tensor(0);
  const int64_t rank = graph_.type(self).rank();
  const bool is_diagonal = node.op == "aten.diagonal.default";
  const int64_t columns = is_diagonal ? context.Dim(3, rank, 1) : rank - 1;
  const std::optional<double> diagonal = LiteralArgument(node, 1);
  if (diagonal) MeetPlaces(node, *diagonal, self, columns);
}

// A place far from both ends. Parts that were put there, and are cut off again, leave the tokens.
void SizeLiterals::VisitSlice(const Node& node) {
  const OpContext context(graph_, node);
  const ValueId self = context.Tensor(0);
  const int64_t dim = context.Dim(1, graph_.type(self).rank());
  const ValueId result = node.outputs[0];
  const FactorDim& whole = factors_.values[self.index][dim];
  // A half that says so is resized.
  if (factors_.table.PartsOf(factors_.values[result.index][dim], whole) > 0) return;
  const std::vector<FactorVar> left = factors_.table.Resolve(factors_.values[result.index][dim]);
  const bool is_root = !left.empty() && std::ranges::all_of(left, [&](FactorVar factor) {
    return factors_.table.IsPartOfRoot(factor);
  });
  if (const std::optional<int64_t> size = dependence_.ChangedSize(self, dim); size && !is_root) {
    for (const size_t arg : {2, 3}) {
      const std::optional<double> place = LiteralArgument(node, arg);
      if (!place || *place >= static_cast<double>(*size)) continue;
      const bool is_near_end = arg == 3 && *place > 0;
      const double distance = is_near_end ? static_cast<double>(*size) - *place : std::abs(*place);
      if (distance > 1 && 8 * distance > static_cast<double>(*size)) {
        MeetPlaces(node, *place, self, dim);
      }
    }
  } else if (const auto start = LiteralArgument(node, 2); !size && start && *start > 0) {
    // Where a table is read from: its length less the tokens, or an offset.
    MeetPlaces(node, *start, result, dim);
  }
}

// The numbers from a start on, and of linspace up to an end.
void SizeLiterals::VisitRange(const Node& node) {
  const bool has_end = node.op == "aten.linspace.default";
  for (size_t arg = 0; arg < (has_end ? 2 : 1); ++arg) {
    const std::optional<double> number = LiteralArgument(node, arg);
    if (number) MeetPlaces(node, *number, node.outputs[0], 0);
  }
}

// Constants that no input has a part in keep the literals that they were made of, until they meet.
void SizeLiterals::Carry(const Node& node) {
  if (node.outputs.size() != 1) return;
  const ValueId output = node.outputs[0];
  std::vector<double> numbers;
  if (const std::optional<double> fill = FillOf(node)) {
    numbers.push_back(*fill);
  } else if (MovesElements(node)) {
    const auto carried = carried_.find(TensorArgument(node.args, 0));
    if (carried != carried_.end()) numbers = carried->second;
  } else if (dependence_.IsGenerated(output) && dependence_.Of(output).empty()) {
    if (node.op == "aten.arange.start") {
      if (const auto start = LiteralArgument(node, 0)) numbers.push_back(*start);
    } else if (GrowsWithOperands(node)) {
      for (const ValueId operand : OperandsOf(node)) {
        const auto carried = carried_.find(operand);
        if (carried == carried_.end()) continue;
        numbers.insert(numbers.end(), carried->second.begin(), carried->second.end());
      }
      for (const size_t arg : NumberArguments(node)) {
        if (const auto number = LiteralArgument(node, arg)) numbers.push_back(*number);
      }
    }
  }
  std::erase_if(numbers, IsSmall);
  if (numbers.size() > kMaxCarried) numbers.resize(kMaxCarried);
  if (!numbers.empty()) carried_[output] = std::move(numbers);
}

// How far constants reach that may say places: the end of a range, rows of pairs of places.
void SizeLiterals::Reach(const Node& node) {
  const bool is_constant = std::ranges::all_of(node.outputs, [&](ValueId output) {
    return dependence_.IsGenerated(output) && dependence_.Of(output).empty();
  });
  if (!is_constant) return;
  std::vector<double> numbers;
  const std::vector<ValueId> operands = OperandsOf(node);
  for (const ValueId operand : operands) {
    const auto reached = reached_.find(operand);
    if (reached == reached_.end()) continue;
    numbers.insert(numbers.end(), reached->second.begin(), reached->second.end());
  }
  const bool makes_places =
      node.op.starts_with("aten.arange.") || node.op.ends_with("_indices.default");
  for (size_t arg = 0; makes_places && arg < 2; ++arg) {
    if (const auto number = LiteralArgument(node, arg)) numbers.push_back(*number);
  }
  std::erase_if(numbers, IsSmall);
  if (numbers.size() > kMaxCarried) numbers.resize(kMaxCarried);
  if (numbers.empty()) return;
  for (const ValueId output : node.outputs) reached_[output] = numbers;
}

std::vector<double> SizeLiterals::NumbersIn(ValueId constant) const {
  const auto carried = carried_.find(constant);
  return carried == carried_.end() ? std::vector<double>{} : carried->second;
}

}  // namespace autosp
