#include "compiler/import/complex_pairs.h"

#include <algorithm>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <memory>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/import/op_refusals.h"
#include "compiler/import/op_schemas.h"

namespace autosp {
namespace {

using exported::Argument;
using exported::Item;
using exported::NamedArgument;
using exported::Node;
using exported::Tag;
using exported::TensorMeta;

constexpr int64_t kFloat32 = 7;
constexpr int64_t kFloat64 = 8;
constexpr int64_t kComplex64 = 10;
constexpr int64_t kComplex128 = 11;

bool IsComplex(const TensorMeta& meta) {
  return meta.scalar_type == kComplex64 || meta.scalar_type == kComplex128;
}

// What an op on complex tensors is on pairs.
enum class Form : uint8_t {
  kSame,  // itself: linear in each part, and without dimensions among its arguments
  kDim,   // itself: a dimension that counts from the end is one further from it
  kDims,  // the same, but the op is over all dimensions where it is given none
  kFlatten,
  kPermute,       // itself: a list of all dimensions, to which that of the pair is added
  kSizes,         // itself: a list of sizes, to which 2 is added
  kRepeats,       // itself: a list of factors, to which 1 is added
  kAlias,         // what it has
  kSameType,      // what it has, unless the type changes
  kProduct,       // by a pair, a real tensor or a number
  kRealQuotient,  // by a real tensor or a number
  kPolar,         // (abs, angle)
  kComplex,       // (re, im)
  kConjugate,
  kRealPart,
  kImaginaryPart,
};

struct Row {
  std::string_view op;
  Form form = Form::kSame;
  std::string_view argument = {};  // that form speaks of
};

constexpr Row kRows[] = {
    {"_conj.default", Form::kConjugate},
    {"_conj_physical.default", Form::kConjugate},
    {"_to_copy.default", Form::kSameType},
    {"_unsafe_view.default", Form::kSizes, "size"},
    {"add.Tensor", Form::kSame},
    {"alias.default", Form::kAlias},
    {"cat.default", Form::kDim, "dim"},
    {"chunk.default", Form::kDim, "dim"},
    {"clone.default", Form::kSame},
    {"complex.default", Form::kComplex},
    {"conj.default", Form::kConjugate},
    {"conj_physical.default", Form::kConjugate},
    {"contiguous.default", Form::kSame},
    {"detach.default", Form::kSame},
    {"div.Tensor", Form::kRealQuotient},
    {"expand.default", Form::kSizes, "size"},
    {"flatten.using_ints", Form::kFlatten, "start_dim"},
    {"flip.default", Form::kDims, "dims"},
    {"imag.default", Form::kImaginaryPart},
    {"index.Tensor", Form::kSame},
    {"index_select.default", Form::kDim, "dim"},
    {"mean.dim", Form::kDims, "dim"},
    {"mul.Scalar", Form::kProduct},
    {"mul.Tensor", Form::kProduct},
    {"narrow.default", Form::kDim, "dim"},
    {"neg.default", Form::kSame},
    {"permute.default", Form::kPermute, "dims"},
    {"polar.default", Form::kPolar},
    {"real.default", Form::kRealPart},
    {"repeat.default", Form::kRepeats, "repeats"},
    {"reshape.default", Form::kSizes, "shape"},
    {"resolve_conj.default", Form::kAlias},
    {"resolve_neg.default", Form::kAlias},
    {"roll.default", Form::kDims, "dims"},
    {"select.int", Form::kDim, "dim"},
    {"slice.Tensor", Form::kDim, "dim"},
    {"split.Tensor", Form::kDim, "dim"},
    {"split_with_sizes.default", Form::kDim, "dim"},
    {"squeeze.dim", Form::kDim, "dim"},
    {"stack.default", Form::kDim, "dim"},
    {"sub.Tensor", Form::kSame},
    {"sum.dim_IntList", Form::kDims, "dim"},
    {"to.device", Form::kSameType},
    {"to.dtype", Form::kSameType},
    {"to.dtype_layout", Form::kSameType},
    {"to.other", Form::kSameType},
    {"transpose.int", Form::kDim, "dim0"},
    {"type_as.default", Form::kSameType},
    {"unbind.int", Form::kDim, "dim"},
    {"unflatten.int", Form::kDim, "dim"},
    {"unsqueeze.default", Form::kDim, "dim"},
    {"view.default", Form::kSizes, "size"},
    {"view_as_complex.default", Form::kAlias},
    {"view_as_real.default", Form::kAlias},
};
static_assert(std::ranges::is_sorted(kRows, {}, &Row::op));

// The second dimension of an op that has two.
constexpr std::pair<std::string_view, std::string_view> kSecondDims[] = {{"dim0", "dim1"},
                                                                         {"start_dim", "end_dim"}};

constexpr std::string_view kAten = "torch.ops.aten.";

const Row* FindRow(std::string_view target) {
  if (!target.starts_with(kAten)) return nullptr;
  target.remove_prefix(kAten.size());
  const auto* row = std::ranges::lower_bound(kRows, target, {}, &Row::op);
  return row == std::end(kRows) || row->op != target ? nullptr : row;
}

int64_t HintOf(const exported::SymValue& value) { return value.hint.value_or(1); }

// The largest number where it does not fit: no tensor is that large, as an import checks.
int64_t Times(int64_t a, int64_t b) {
  int64_t product = 0;
  return __builtin_mul_overflow(a, b, &product) ? std::numeric_limits<int64_t>::max() : product;
}

exported::SymValue Literal(int64_t value) { return {.expr = "", .hint = value, .float_hint = {}}; }

// The meta of the pair that stands for a complex tensor.
TensorMeta PairOf(TensorMeta meta) {
  const bool is_double = meta.scalar_type == kComplex128;
  meta.scalar_type = is_double ? kFloat64 : kFloat32;
  meta.dtype = is_double ? DType::kF64 : DType::kF32;
  for (exported::SymValue& stride : meta.strides) stride = Literal(Times(2, HintOf(stride)));
  meta.storage_offset = Literal(Times(2, HintOf(meta.storage_offset)));
  meta.sizes.push_back(Literal(2));
  meta.strides.push_back(Literal(1));
  return meta;
}

void MakeContiguous(TensorMeta& meta) {
  int64_t stride = 1;
  for (size_t i = meta.sizes.size(); i-- > 0;) {
    meta.strides[i] = Literal(stride);
    stride = Times(stride, std::max<int64_t>(1, HintOf(meta.sizes[i])));
  }
}

Argument Tensor(std::string name) {
  Argument argument;
  argument.tag = Tag::kTensor;
  argument.text = std::move(name);
  return argument;
}

Argument Integer(int64_t value) {
  Argument argument;
  argument.tag = Tag::kInt;
  argument.integer = value;
  return argument;
}

Argument* FindArgument(Node& node, std::string_view name) {
  const auto found = std::ranges::find(node.inputs, name, &NamedArgument::name);
  return found == node.inputs.end() ? nullptr : &found->value;
}

void CountFromBeforeThePair(Argument& dims) {
  if (dims.tag == Tag::kInt && dims.integer < 0) --dims.integer;
  if (dims.tag != Tag::kInts) return;
  for (Item& item : dims.items) {
    if (item.integer < 0) --item.integer;
  }
}

// The names of tensors among arguments.
std::vector<std::string> TensorsOf(const Argument& argument) {
  if (argument.tag == Tag::kTensor) return {argument.text};
  std::vector<std::string> names;
  if (argument.tag != Tag::kTensors) return names;
  for (const Item& item : argument.items) {
    if (!item.name.empty()) names.push_back(item.name);
  }
  return names;
}

// Rewrites one graph; nested ones have names of their own.
class GraphSplitter {
 public:
  explicit GraphSplitter(exported::Graph& graph) : graph_(graph) {}

  absl::Status Split() {
    for (auto& [name, meta] : graph_.tensors) {
      if (!IsComplex(meta)) continue;
      complex_.insert(name);
      meta = PairOf(std::move(meta));
    }
    std::vector<Node> nodes = std::exchange(graph_.nodes, {});
    for (Node& node : nodes) {
      RETURN_IF_ERROR(SplitRegions(node));
      const bool touches =
          !node.outputs.empty() && (HasComplex(node.outputs) || ReadsComplex(node));
      if (!touches || IsRegion(node)) {
        graph_.nodes.push_back(std::move(node));
        continue;
      }
      RETURN_IF_ERROR(WithContext(SplitCall(std::move(node)), where_));
    }
    return absl::OkStatus();
  }

  bool IsComplexName(const std::string& name) const { return complex_.contains(name); }

 private:
  static bool IsRegion(const Node& node) {
    return std::ranges::any_of(
        node.inputs, [](const NamedArgument& input) { return input.value.tag == Tag::kGraph; });
  }

  static absl::Status SplitRegions(Node& node) {
    for (NamedArgument& input : node.inputs) {
      if (input.value.graph == nullptr) continue;
      auto body = std::make_shared<exported::Graph>(*input.value.graph);
      RETURN_IF_ERROR(GraphSplitter(*body).Split());
      input.value.graph = std::move(body);
    }
    return absl::OkStatus();
  }

  bool HasComplex(const Argument& argument) const {
    return std::ranges::any_of(TensorsOf(argument),
                               [&](const std::string& name) { return IsComplexName(name); });
  }
  bool HasComplex(const std::vector<Argument>& arguments) const {
    return std::ranges::any_of(arguments, [&](const Argument& each) { return HasComplex(each); });
  }
  bool ReadsComplex(const Node& node) const {
    return std::ranges::any_of(node.inputs,
                               [&](const NamedArgument& input) { return HasComplex(input.value); });
  }

  absl::Status Refuse(std::string_view why) const {
    return Unimplemented(std::string(why),
                         "; write it with real numbers (torch.view_as_real, or cos and sin)");
  }

  // An op may be unknown whatever its tensors are: a Fourier transform of a real one.
  absl::Status RefuseOp(const std::string& target) const {
    constexpr std::string_view kTorchOps = "torch.ops.";
    if (target.starts_with(kAten)) {
      const std::string op = target.substr(kTorchOps.size());
      if (FindOpSchema(op) == nullptr) return RefuseUnknownAtenOp(op);
    }
    return Refuse("the op is not supported on complex tensors");
  }

  absl::Status SplitCall(Node node) {
    where_ = exported::Describe(node);
    const Row* row = FindRow(node.target);
    if (row == nullptr) return RefuseOp(node.target);
    RETURN_IF_ERROR(CheckCall(*row, node));
    switch (row->form) {
      case Form::kSame:
        return Same(std::move(node));
      case Form::kDim:
      case Form::kDims:
      case Form::kFlatten:
      case Form::kPermute:
      case Form::kSizes:
      case Form::kRepeats:
        return Reshape(*row, std::move(node));
      case Form::kSameType:
      case Form::kAlias:
        return Alias(*row, std::move(node));
      case Form::kProduct:
        return Product(std::move(node));
      case Form::kRealQuotient:
        return RealFactor(std::move(node));
      case Form::kPolar: {
        const std::string cos = Unary(node, "cos.default", Operand(node, 1));
        const std::string sin = Unary(node, "sin.default", Operand(node, 1));
        const std::string re = Multiply(node, Operand(node, 0), cos);
        const std::string im = Multiply(node, Operand(node, 0), sin);
        return Stack(node, re, im);
      }
      case Form::kComplex:
        if (!HasSizesOfResult(node, 0) || !HasSizesOfResult(node, 1)) {
          return Refuse("a complex tensor of parts that are stretched is not supported");
        }
        return Stack(node, Operand(node, 0), Operand(node, 1));
      case Form::kConjugate: {
        const std::string re = Part(node, Operand(node, 0), 0);
        const std::string im = Part(node, Operand(node, 0), 1);
        return Stack(node, re, Unary(node, "neg.default", im));
      }
      case Form::kRealPart:
      case Form::kImaginaryPart:
        node.target = absl::StrCat(std::string(kAten), "select.int");
        node.inputs = {{"self", node.inputs[0].value, false},
                       {"dim", Integer(-1), false},
                       {"index", Integer(row->form == Form::kImaginaryPart ? 1 : 0), false}};
        graph_.nodes.push_back(std::move(node));
        return absl::OkStatus();
    }
    return Internal("a form of complex op is missing");
  }

  // What the rewrites below take for granted, as archives may be damaged.
  absl::Status CheckCall(const Row& row, const Node& node) const {
    const bool has_two = row.form == Form::kProduct || row.form == Form::kRealQuotient ||
                         row.form == Form::kPolar || row.form == Form::kComplex;
    const bool is_made = row.form == Form::kPolar || row.form == Form::kComplex;
    const bool is_complete = node.outputs.size() == 1 && node.inputs.size() >= (has_two ? 2 : 1) &&
                             !TensorsOf(node.inputs[0].value).empty() &&
                             (!is_made || node.inputs[1].value.tag == Tag::kTensor) &&
                             (row.form == Form::kDim || node.outputs[0].tag == Tag::kTensor);
    if (!is_complete) return DataLoss("the call is damaged");
    std::vector<std::string> names = TensorsOf(node.outputs[0]);
    const bool has_pair =
        std::ranges::all_of(names, [&](const std::string& name) { return IsComplexName(name); });
    const bool is_part = row.form == Form::kRealPart || row.form == Form::kImaginaryPart;
    if (row.form != Form::kAlias && row.form != Form::kSameType && has_pair == is_part) {
      return Refuse("a result of this type is not supported");
    }
    for (const NamedArgument& input : node.inputs) {
      for (std::string& name : TensorsOf(input.value)) names.push_back(std::move(name));
    }
    for (const std::string& name : names) {
      if (!graph_.tensors.contains(name)) return DataLoss("the archive has no type for %", name);
    }
    return absl::OkStatus();
  }

  // A real tensor or a number in a sum would be added to both parts.
  absl::Status Same(Node node) {
    const bool is_sum = node.target.ends_with("add.Tensor") || node.target.ends_with("sub.Tensor");
    if (is_sum && (node.inputs.size() < 2 || !HasComplex(node.inputs[0].value) ||
                   !HasComplex(node.inputs[1].value))) {
      return Refuse("a sum of a complex and a real number is not supported");
    }
    graph_.nodes.push_back(std::move(node));
    return absl::OkStatus();
  }

  absl::Status Reshape(const Row& row, Node node) {
    for (const std::string& name : TensorsOf(node.inputs[0].value)) {
      if (!IsComplexName(name))
        return Refuse("a list of complex and real tensors is not supported");
    }
    if (row.form == Form::kFlatten) {
      GiveDim(node, "start_dim", 0);
      GiveDim(node, "end_dim", -1);
    }
    Argument* argument = FindArgument(node, row.argument);
    const bool is_given = argument != nullptr && argument->tag != Tag::kNone &&
                          (row.form != Form::kDims || !argument->items.empty());
    if (!is_given && row.form != Form::kDim) {
      return Refuse("the op over all dimensions is not supported on complex tensors");
    }
    // Without a dimension it is the first.
    if (is_given) ExtendByThePair(row, node, *argument);
    graph_.nodes.push_back(std::move(node));
    return absl::OkStatus();
  }

  static void GiveDim(Node& node, std::string_view name, int64_t dim) {
    if (FindArgument(node, name) != nullptr) return;
    node.inputs.push_back({std::string(name), Integer(dim), true});
  }

  static void ExtendByThePair(const Row& row, Node& node, Argument& argument) {
    const auto append = [&](int64_t last) {
      argument.items.push_back({.name = "", .integer = last});
    };
    if (row.form == Form::kSizes) return append(2);
    if (row.form == Form::kRepeats) return append(1);
    CountFromBeforeThePair(argument);
    if (row.form == Form::kPermute) return append(-1);
    for (const auto& [first, second] : kSecondDims) {
      Argument* other = row.argument == first ? FindArgument(node, second) : nullptr;
      if (other != nullptr) CountFromBeforeThePair(*other);
    }
  }

  absl::Status Alias(const Row& row, Node node) {
    const std::string from = Operand(node, 0);
    const bool changes_type = graph_.tensors.at(from).scalar_type !=
                                  graph_.tensors.at(node.outputs[0].text).scalar_type ||
                              IsComplexName(from) != IsComplexName(node.outputs[0].text);
    if (row.form == Form::kSameType && changes_type) {
      return Refuse("a conversion between complex and other types is not supported");
    }
    node.target = absl::StrCat(std::string(kAten), "alias.default");
    node.inputs = {{"self", Tensor(from), false}};
    graph_.nodes.push_back(std::move(node));
    return absl::OkStatus();
  }

  // By a pair; by what is real as RealFactor.
  absl::Status Product(Node node) {
    const bool is_pair_first = HasComplex(node.inputs[0].value);
    const bool is_pair_second = HasComplex(node.inputs[1].value);
    if (!is_pair_first) std::swap(node.inputs[0].value, node.inputs[1].value);
    if (!is_pair_first || !is_pair_second) return RealFactor(std::move(node));
    const std::string a = Operand(node, 0);
    const std::string b = Operand(node, 1);
    const std::string re_a = Part(node, a, 0);
    const std::string im_a = Part(node, a, 1);
    const std::string re_b = Part(node, b, 0);
    const std::string im_b = Part(node, b, 1);
    // One after the other: the order of arguments is the compiler's choice, and names follow it.
    const std::string re_re = Multiply(node, re_a, re_b);
    const std::string im_im = Multiply(node, im_a, im_b);
    const std::string re_im = Multiply(node, re_a, im_b);
    const std::string im_re = Multiply(node, im_a, re_b);
    const std::string re = Binary(node, "sub.Tensor", re_re, im_im);
    const std::string im = Binary(node, "add.Tensor", re_im, im_re);
    return Stack(node, re, im);
  }

  // The first operand is a pair; the second is a number, or a real tensor that gets a dimension.
  absl::Status RealFactor(Node node) {
    if (HasComplex(node.inputs[1].value)) {
      return Refuse("a quotient by a complex tensor is not supported");
    }
    if (node.inputs[1].value.tag == Tag::kTensor) {
      const std::string real = node.inputs[1].value.text;
      TensorMeta meta = graph_.tensors.at(real);
      if (meta.sizes.empty()) {
        // A number, which does not change the type as a tensor with dimensions would.
        graph_.nodes.push_back(std::move(node));
        return absl::OkStatus();
      }
      meta.sizes.push_back(Literal(1));
      meta.strides.push_back(Literal(1));
      node.inputs[1].value = Tensor(
          Emit(node, "unsqueeze.default",
               {{"self", Tensor(real), false}, {"dim", Integer(-1), false}}, std::move(meta)));
    } else if (node.inputs[1].value.tag != Tag::kInt && node.inputs[1].value.tag != Tag::kFloat) {
      return Refuse("a factor that is no tensor and no real number is not supported");
    }
    graph_.nodes.push_back(std::move(node));
    return absl::OkStatus();
  }

  bool HasSizesOfResult(const Node& node, size_t operand) const {
    const TensorMeta& part = graph_.tensors.at(Operand(node, operand));
    const TensorMeta& pair = graph_.tensors.at(node.outputs[0].text);
    if (part.sizes.size() + 1 != pair.sizes.size()) return false;
    for (size_t i = 0; i < part.sizes.size(); ++i) {
      if (HintOf(part.sizes[i]) != HintOf(pair.sizes[i])) return false;
    }
    return true;
  }

  static std::string Operand(const Node& node, size_t i) {
    return i < node.inputs.size() ? node.inputs[i].value.text : "";
  }

  // The sizes of a call's result without the pair, in the type of its parts.
  TensorMeta PartType(const Node& node) const {
    TensorMeta meta = graph_.tensors.at(node.outputs[0].text);
    meta.sizes.pop_back();
    meta.strides.pop_back();
    MakeContiguous(meta);
    return meta;
  }

  std::string Emit(const Node& from, std::string_view op, std::vector<NamedArgument> inputs,
                   TensorMeta meta) {
    const std::string base = from.outputs[0].text;
    std::string name;
    do {
      name = absl::StrCat(base, "_part", num_parts_++);
    } while (graph_.tensors.contains(name));
    meta.storage_offset = Literal(0);
    graph_.tensors.emplace(name, std::move(meta));
    graph_.nodes.push_back({absl::StrCat(std::string(kAten), std::string(op)),
                            std::move(inputs),
                            {Tensor(name)},
                            from.module,
                            from.location});
    return name;
  }

  // The real or the imaginary part of a pair.
  std::string Part(const Node& node, const std::string& pair, int64_t index) {
    TensorMeta meta = graph_.tensors.at(pair);
    meta.sizes.pop_back();
    meta.strides.pop_back();
    return Emit(node, "select.int",
                {{"self", Tensor(pair), false},
                 {"dim", Integer(-1), false},
                 {"index", Integer(index), false}},
                std::move(meta));
  }

  std::string Unary(const Node& node, std::string_view op, const std::string& x) {
    return Emit(node, op, {{"self", Tensor(x), false}}, graph_.tensors.at(x));
  }

  // Of operands that may be broadcast to the sizes of the call's result.
  std::string Binary(const Node& node, std::string_view op, const std::string& x,
                     const std::string& y) {
    return Emit(node, op, {{"self", Tensor(x), false}, {"other", Tensor(y), false}},
                PartType(node));
  }
  std::string Multiply(const Node& node, const std::string& x, const std::string& y) {
    return Binary(node, "mul.Tensor", x, y);
  }

  // Makes the call's result the pair of two parts.
  absl::Status Stack(Node node, const std::string& re, const std::string& im) {
    Argument parts;
    parts.tag = Tag::kTensors;
    parts.items = {{.name = re}, {.name = im}};
    node.target = absl::StrCat(std::string(kAten), "stack.default");
    node.inputs = {{"tensors", std::move(parts), false}, {"dim", Integer(-1), false}};
    MakeContiguous(graph_.tensors.at(node.outputs[0].text));
    graph_.nodes.push_back(std::move(node));
    return absl::OkStatus();
  }

  exported::Graph& graph_;
  std::set<std::string> complex_;
  std::string where_;
  int64_t num_parts_ = 0;
};

absl::Status RefuseAtBorder(std::string_view what, const std::string& name,
                            std::string_view remedy) {
  return Unimplemented(std::string(what), " ", name, " is complex, which is not supported; ",
                       std::string(remedy));
}

}  // namespace

absl::Status SplitComplex(exported::Program& program,
                          std::map<std::string, exported::Payload>& payloads) {
  GraphSplitter splitter(program.graph);
  RETURN_IF_ERROR(splitter.Split());
  for (const exported::InputSpec& spec : program.inputs) {
    if (!splitter.IsComplexName(spec.value_name)) continue;
    if (spec.role == exported::InputRole::kUser) {
      return RefuseAtBorder("input", spec.name, "make it a buffer of the model");
    }
    if (spec.role == exported::InputRole::kParameter) {
      return RefuseAtBorder("parameter", spec.name,
                            "keep torch.view_as_real of it and call view_as_complex in forward");
    }
  }
  for (const exported::OutputSpec& spec : program.outputs) {
    if (spec.value.tag == Tag::kTensor && splitter.IsComplexName(spec.value.text)) {
      return RefuseAtBorder("output", spec.value.text, "return torch.view_as_real of it");
    }
  }
  for (auto& [name, payload] : payloads) {
    if (payload.meta && IsComplex(*payload.meta)) payload.meta = PairOf(*std::move(payload.meta));
  }
  return absl::OkStatus();
}

}  // namespace autosp
