#include "compiler/import/pair_writer.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"

namespace autosp {

using exported::Argument;
using exported::Item;
using exported::NamedArgument;
using exported::Node;
using exported::Tag;
using exported::TensorMeta;

namespace {

constexpr int64_t kFloat32 = 7;
constexpr int64_t kFloat64 = 8;
constexpr int64_t kComplex64 = 10;
constexpr int64_t kComplex128 = 11;

bool IsComplex(const TensorMeta& meta) {
  return meta.scalar_type == kComplex64 || meta.scalar_type == kComplex128;
}

// The largest number where it does not fit: no tensor is that large, as an import checks.
int64_t Times(int64_t a, int64_t b) {
  int64_t product = 0;
  return __builtin_mul_overflow(a, b, &product) ? std::numeric_limits<int64_t>::max() : product;
}

// The meta of the pair that stands for a complex tensor.
TensorMeta PairOf(TensorMeta meta) {
  const bool is_double = meta.scalar_type == kComplex128;
  meta.scalar_type = is_double ? kFloat64 : kFloat32;
  meta.dtype = is_double ? DType::kF64 : DType::kF32;
  for (exported::SymValue& stride : meta.strides) stride = LiteralSize(Times(2, HintOf(stride)));
  meta.storage_offset = LiteralSize(Times(2, HintOf(meta.storage_offset)));
  meta.sizes.push_back(LiteralSize(2));
  meta.strides.push_back(LiteralSize(1));
  return meta;
}

}  // namespace

bool MakePairType(TensorMeta& meta) {
  if (!IsComplex(meta)) return false;
  meta = PairOf(std::move(meta));
  return true;
}

int64_t HintOf(const exported::SymValue& value) { return value.hint.value_or(1); }

exported::SymValue LiteralSize(int64_t value) {
  return {.expr = "", .hint = value, .float_hint = {}};
}

void MakeContiguous(TensorMeta& meta) {
  int64_t stride = 1;
  for (size_t i = meta.sizes.size(); i-- > 0;) {
    meta.strides[i] = LiteralSize(stride);
    stride = Times(stride, std::max<int64_t>(1, HintOf(meta.sizes[i])));
  }
}

Argument TensorArgumentOf(std::string name) {
  Argument argument;
  argument.tag = Tag::kTensor;
  argument.text = std::move(name);
  return argument;
}

Argument IntegerArgumentOf(int64_t value) {
  Argument argument;
  argument.tag = Tag::kInt;
  argument.integer = value;
  return argument;
}

Argument NumberArgumentOf(double value) {
  Argument argument;
  argument.tag = Tag::kFloat;
  argument.number = value;
  return argument;
}

Argument TypeArgumentOf(const TensorMeta& meta) {
  Argument argument;
  argument.tag = Tag::kScalarType;
  argument.integer = meta.scalar_type;
  return argument;
}

TensorMeta TruthOf(TensorMeta meta) {
  constexpr int64_t kBool = 12;  // the archive's number of the type
  meta.dtype = DType::kBool;
  meta.scalar_type = kBool;
  return meta;
}

Argument IntegersArgumentOf(const std::vector<int64_t>& values) {
  Argument argument;
  argument.tag = Tag::kInts;
  for (const int64_t value : values) argument.items.push_back({.name = "", .integer = value});
  return argument;
}

Argument* FindArgument(Node& node, std::string_view name) {
  const auto found = std::ranges::find(node.inputs, name, &NamedArgument::name);
  return found == node.inputs.end() ? nullptr : &found->value;
}
const Argument* FindArgument(const Node& node, std::string_view name) {
  const auto found = std::ranges::find(node.inputs, name, &NamedArgument::name);
  return found == node.inputs.end() ? nullptr : &found->value;
}

std::vector<std::string> TensorsOf(const Argument& argument) {
  if (argument.tag == Tag::kTensor) return {argument.text};
  std::vector<std::string> names;
  if (argument.tag != Tag::kTensors) return names;
  for (const Item& item : argument.items) {
    if (!item.name.empty()) names.push_back(item.name);
  }
  return names;
}

absl::Status RefuseComplex(std::string_view why) {
  return Unimplemented(std::string(why),
                       "; write it with real numbers (torch.view_as_real, or cos and sin)");
}

PairWriter::PairWriter(exported::Graph& graph, bool keeps_signs)
    : graph_(graph), keeps_signs_(keeps_signs) {
  for (auto& [name, meta] : graph_.tensors) {
    if (MakePairType(meta)) pairs_.insert(name);
  }
}

bool PairWriter::HasPair(const Argument& argument) const {
  return std::ranges::any_of(TensorsOf(argument),
                             [&](const std::string& name) { return IsPair(name); });
}

Argument PairWriter::SizeArgument(const exported::SymValue& size) {
  if (size.expr.empty()) return IntegerArgumentOf(HintOf(size));
  std::string name;
  do {
    name = absl::StrCat("size_of_pairs_", num_parts_++);
  } while (graph_.sym_ints.contains(name));
  graph_.sym_ints.emplace(name, size);
  Argument argument;
  argument.tag = Tag::kSymInt;
  argument.items = {{.name = std::move(name)}};
  return argument;
}

TensorMeta PairWriter::PartType(const Node& node) const {
  TensorMeta meta = graph_.tensors.at(node.outputs[0].text);
  meta.sizes.pop_back();
  meta.strides.pop_back();
  MakeContiguous(meta);
  return meta;
}

bool PairWriter::HasSizesOfResult(const Node& node, const std::string& name) const {
  const TensorMeta& part = graph_.tensors.at(name);
  const TensorMeta& pair = graph_.tensors.at(node.outputs[0].text);
  if (part.sizes.size() + 1 != pair.sizes.size()) return false;
  for (size_t i = 0; i < part.sizes.size(); ++i) {
    if (HintOf(part.sizes[i]) != HintOf(pair.sizes[i])) return false;
  }
  return true;
}

namespace {

std::string TargetOf(std::string_view op) {
  constexpr std::string_view kOwn = "autosp.";
  return absl::StrCat(op.starts_with(kOwn) ? "torch.ops." : "torch.ops.aten.", std::string(op));
}

}  // namespace

std::string PairWriter::NewName(const std::string& base) {
  std::string name;
  do {
    name = absl::StrCat(base, "_part", num_parts_++);
  } while (graph_.tensors.contains(name));
  return name;
}

std::string PairWriter::NewPair(const std::string& like) {
  std::string name = NewName(like);
  TensorMeta meta = graph_.tensors.at(like);
  MakeContiguous(meta);
  meta.storage_offset = LiteralSize(0);
  graph_.tensors.emplace(name, std::move(meta));
  pairs_.insert(name);
  return name;
}

std::string PairWriter::Emit(const Node& from, std::string_view op,
                             std::vector<NamedArgument> inputs, TensorMeta meta) {
  const std::string name = NewName(from.outputs[0].text);
  meta.storage_offset = LiteralSize(0);
  graph_.tensors.emplace(name, std::move(meta));
  graph_.nodes.push_back(
      {TargetOf(op), std::move(inputs), {TensorArgumentOf(name)}, from.module, from.location, {}});
  return name;
}

std::string PairWriter::Part(const Node& from, const std::string& pair, int64_t index) {
  TensorMeta meta = graph_.tensors.at(pair);
  meta.sizes.pop_back();
  meta.strides.pop_back();
  return Emit(from, "select.int",
              {{"self", TensorArgumentOf(pair), false},
               {"dim", IntegerArgumentOf(-1), false},
               {"index", IntegerArgumentOf(index), false}},
              std::move(meta));
}

std::string PairWriter::Unary(const Node& from, std::string_view op, const std::string& x) {
  return Emit(from, op, {{"self", TensorArgumentOf(x), false}}, graph_.tensors.at(x));
}

std::string PairWriter::Cast(const Node& from, const std::string& x, const TensorMeta& like) {
  TensorMeta meta = TypeOf(x);
  if (meta.dtype == like.dtype) return x;
  meta.dtype = like.dtype;
  meta.scalar_type = like.scalar_type;
  return Emit(from, "to.dtype",
              {{"self", TensorArgumentOf(x), false}, {"dtype", TypeArgumentOf(like), false}},
              std::move(meta));
}

std::string PairWriter::Binary(const Node& from, std::string_view op, const std::string& x,
                               const std::string& y) {
  return Emit(from, op,
              {{"self", TensorArgumentOf(x), false}, {"other", TensorArgumentOf(y), false}},
              PartType(from));
}

std::string PairWriter::Multiply(const Node& from, const std::string& x, const std::string& y) {
  return Binary(from, "mul.Tensor", x, y);
}

std::string PairWriter::Unsqueezed(const Node& from, const std::string& x) {
  TensorMeta meta = graph_.tensors.at(x);
  meta.sizes.push_back(LiteralSize(1));
  meta.strides.push_back(LiteralSize(1));
  return Emit(from, "unsqueeze.default",
              {{"self", TensorArgumentOf(x), false}, {"dim", IntegerArgumentOf(-1), false}},
              std::move(meta));
}

namespace {

std::vector<NamedArgument> PartsArguments(const std::string& re, const std::string& im) {
  Argument parts;
  parts.tag = Tag::kTensors;
  parts.items = {{.name = re}, {.name = im}};
  return {{"tensors", std::move(parts), false}, {"dim", IntegerArgumentOf(-1), false}};
}

}  // namespace

std::string PairWriter::MakePair(const Node& from, const std::string& re, const std::string& im) {
  TensorMeta meta = graph_.tensors.at(re);
  meta.sizes.push_back(LiteralSize(2));
  meta.strides.push_back(LiteralSize(1));
  MakeContiguous(meta);
  return Emit(from, "stack.default", PartsArguments(re, im), std::move(meta));
}

absl::Status PairWriter::Finish(Node node, std::string_view op, std::vector<NamedArgument> inputs) {
  node.target = TargetOf(op);
  node.inputs = std::move(inputs);
  graph_.nodes.push_back(std::move(node));
  return absl::OkStatus();
}

absl::Status PairWriter::FinishPair(Node node, const std::string& re, const std::string& im) {
  MakeContiguous(ResultType(node));
  return Finish(std::move(node), "stack.default", PartsArguments(re, im));
}

}  // namespace autosp
