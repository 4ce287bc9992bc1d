#include "compiler/import/complex_pairs.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <numeric>
#include <string_view>
#include <utility>
#include <vector>

#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/import/complex_fourier.h"
#include "compiler/import/complex_math.h"
#include "compiler/import/complex_signs.h"
#include "compiler/import/op_refusals.h"
#include "compiler/import/op_schemas.h"
#include "compiler/import/pair_writer.h"

namespace autosp {
namespace {

using exported::Argument;
using exported::Item;
using exported::NamedArgument;
using exported::Node;
using exported::Tag;

// What an op on complex tensors is on pairs.
enum class Form : uint8_t {
  kSame,  // itself: linear in each part, and without dimensions among its arguments
  kDim,   // itself: a dimension that counts from the end is one further from it
  kDims,  // the same, but the op is over all dimensions where it is given none
  kFlatten,
  kPermute,    // itself: a list of all dimensions, to which that of the pair is added
  kSizes,      // itself: a list of sizes, to which 2 is added
  kRepeats,    // itself: a list of factors, to which 1 is added
  kReduceAll,  // over all dimensions
  kZeros,      // zeros of a list of sizes, or of those of a pair
  kAlias,      // what it has
  kSameType,   // what it has, unless the type changes
  kRealPart,
  kImaginaryPart,
  kChoice,   // by a mask, which the row names
  kWritten,  // by a function of complex_math.h
};

using WriteFn = absl::Status (*)(PairWriter& writer, Node node);

struct Row {
  std::string_view op;
  Form form = Form::kSame;
  std::string_view argument = {};  // that form speaks of
  WriteFn write = nullptr;
  size_t num_inputs = 1;            // at least
  size_t num_tensors = 0;           // of inputs that must be tensors, from the first on
  bool gives_real = false;          // results are no pairs
  bool starts_with_number = false;  // the first input may be a number, or an equation
  size_t mask = 0;
};

constexpr Row Written(std::string_view op, WriteFn write, size_t num_inputs = 1,
                      size_t num_tensors = 1, bool gives_real = false) {
  return {.op = op,
          .form = Form::kWritten,
          .write = write,
          .num_inputs = num_inputs,
          .num_tensors = num_tensors,
          .gives_real = gives_real};
}

// Of two, of which one may be a number.
constexpr Row OfTwo(std::string_view op, WriteFn write) {
  return {.op = op,
          .form = Form::kWritten,
          .write = write,
          .num_inputs = 2,
          .starts_with_number = true};
}

constexpr Row Real(std::string_view op, Form form) {
  return {.op = op, .form = form, .gives_real = true};
}

constexpr Row Choice(std::string_view op, size_t mask) {
  return {
      .op = op, .form = Form::kChoice, .num_inputs = 3, .starts_with_number = true, .mask = mask};
}

constexpr Row kRows[] = {
    Written("_conj.default", WriteConjugate),
    Written("_conj_physical.default", WriteConjugate),
    {"_to_copy.default", Form::kSameType},
    {"_unsafe_view.default", Form::kSizes, "size"},
    Written("abs.default", WriteModulus, 1, 1, /*gives_real=*/true),
    OfTwo("add.Tensor", WriteSum),
    {"alias.default", Form::kAlias},
    Written("angle.default", WriteAngle, 1, 1, /*gives_real=*/true),
    Written("bmm.default", WriteMatrixProduct, 2, 2),
    {"cat.default", Form::kDim, "dim"},
    {"chunk.default", Form::kDim, "dim"},
    {"clone.default", Form::kSame},
    Written("complex.default", WriteComplex, 2, 2),
    Written("conj.default", WriteConjugate),
    Written("conj_physical.default", WriteConjugate),
    Written("constant_pad_nd.default", WritePad, 2, 1),
    {"contiguous.default", Form::kSame},
    {"copy_.default", Form::kSame},
    {"cumsum.default", Form::kDim, "dim"},
    {"detach.default", Form::kSame},
    OfTwo("div.Tensor", WriteQuotient),
    OfTwo("einsum.default", WriteMatrixProduct),
    Written("exp.default", WriteExponential),
    {"expand.default", Form::kSizes, "size"},
    {"expand_as.default", Form::kSame},
    Written("fill.Scalar", WriteFilled, 2, 1),
    {"flatten.using_ints", Form::kFlatten, "start_dim"},
    {"flip.default", Form::kDims, "dims"},
    Written("gather.default", WriteGather, 3, 1),
    Real("imag.default", Form::kImaginaryPart),
    {"index.Tensor", Form::kSame},
    {"index_select.default", Form::kDim, "dim"},
    {"lift_fresh.default", Form::kSame},
    {"lift_fresh_copy.default", Form::kSame},
    Written("linear.default", WriteLinear, 2, 2),
    Choice("masked_fill.Scalar", 1),
    Choice("masked_fill.Tensor", 1),
    Written("matmul.default", WriteMatrixProduct, 2, 2),
    {"mean.default", Form::kReduceAll},
    {"mean.dim", Form::kDims, "dim"},
    Written("mm.default", WriteMatrixProduct, 2, 2),
    {"movedim.int", Form::kDim, "source"},
    {"movedim.intlist", Form::kDim, "source"},
    OfTwo("mul.Scalar", WriteProduct),
    OfTwo("mul.Tensor", WriteProduct),
    {"narrow.default", Form::kDim, "dim"},
    {"neg.default", Form::kSame},
    {"new_zeros.default", Form::kZeros, "size"},
    Written("pad.default", WritePad, 2, 1),
    {"permute.default", Form::kPermute, "dims"},
    Written("polar.default", WritePolar, 2, 2),
    Written("pow.Tensor_Scalar", WriteSquare, 2, 1),
    Real("real.default", Form::kRealPart),
    Written("reciprocal.default", WriteReciprocal),
    {"repeat.default", Form::kRepeats, "repeats"},
    {"reshape.default", Form::kSizes, "shape"},
    {"resolve_conj.default", Form::kAlias},
    {"resolve_neg.default", Form::kAlias},
    {"roll.default", Form::kDims, "dims"},
    OfTwo("rsub.Scalar", WriteReverseDifference),
    {"select.int", Form::kDim, "dim"},
    {"select_scatter.default", Form::kDim, "dim"},
    {"slice.Tensor", Form::kDim, "dim"},
    {"slice_scatter.default", Form::kDim, "dim"},
    {"split.Tensor", Form::kDim, "dim"},
    {"split_with_sizes.default", Form::kDim, "dim"},
    Written("square.default", WriteSquare),
    {"squeeze.dim", Form::kDim, "dim"},
    {"squeeze.dims", Form::kDims, "dim"},
    {"stack.default", Form::kDim, "dim"},
    OfTwo("sub.Tensor", WriteSum),
    {"sum.default", Form::kReduceAll},
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
    Choice("where.ScalarOther", 0),
    Choice("where.ScalarSelf", 0),
    Choice("where.self", 0),
    {"zeros.default", Form::kZeros, "size"},
    {"zeros_like.default", Form::kZeros},
};
static_assert(std::ranges::is_sorted(kRows, {}, &Row::op));

// The second dimension of an op that has two.
constexpr std::pair<std::string_view, std::string_view> kSecondDims[] = {
    {"dim0", "dim1"}, {"source", "destination"}, {"start_dim", "end_dim"}};

constexpr std::string_view kAten = "torch.ops.aten.";

const Row* FindRow(std::string_view target) {
  if (!target.starts_with(kAten)) return nullptr;
  target.remove_prefix(kAten.size());
  const auto* row = std::ranges::lower_bound(kRows, target, {}, &Row::op);
  return row == std::end(kRows) || row->op != target ? nullptr : row;
}

void CountFromBeforeThePair(Argument& dims) {
  if (dims.tag == Tag::kInt && dims.integer < 0) --dims.integer;
  if (dims.tag != Tag::kInts) return;
  for (Item& item : dims.items) {
    if (item.integer < 0) --item.integer;
  }
}

// Rewrites one graph; nested ones have names of their own.
class GraphSplitter {
 public:
  GraphSplitter(exported::Graph& graph, bool keeps_signs)
      : graph_(graph), writer_(graph, keeps_signs) {}

  absl::Status Split() {
    std::vector<Node> nodes = std::exchange(graph_.nodes, {});
    for (Node& node : nodes) {
      RETURN_IF_ERROR(SplitRegions(node));
      const bool touches =
          !node.outputs.empty() &&
          (HasComplex(node.outputs) || ReadsComplex(node) || IsExportedFourier(node.target));
      if (!touches || IsRegion(node)) {
        graph_.nodes.push_back(std::move(node));
        continue;
      }
      const std::string where = exported::Describe(node);
      RETURN_IF_ERROR(WithContext(SplitCall(std::move(node)), where));
    }
    return absl::OkStatus();
  }

  bool IsComplexName(const std::string& name) const { return writer_.IsPair(name); }

 private:
  static bool IsRegion(const Node& node) {
    return std::ranges::any_of(
        node.inputs, [](const NamedArgument& input) { return input.value.tag == Tag::kGraph; });
  }

  absl::Status SplitRegions(Node& node) const {
    for (NamedArgument& input : node.inputs) {
      if (input.value.graph == nullptr) continue;
      auto body = std::make_shared<exported::Graph>(*input.value.graph);
      RETURN_IF_ERROR(GraphSplitter(*body, writer_.keeps_signs()).Split());
      input.value.graph = std::move(body);
    }
    return absl::OkStatus();
  }

  bool HasComplex(const std::vector<Argument>& arguments) const {
    return std::ranges::any_of(arguments,
                               [&](const Argument& each) { return writer_.HasPair(each); });
  }
  bool ReadsComplex(const Node& node) const {
    return std::ranges::any_of(
        node.inputs, [&](const NamedArgument& input) { return writer_.HasPair(input.value); });
  }

  // An op may be unknown whatever its tensors are.
  static absl::Status RefuseOp(const std::string& target) {
    constexpr std::string_view kTorchOps = "torch.ops.";
    if (target.starts_with(kAten)) {
      const std::string op = target.substr(kTorchOps.size());
      if (FindOpSchema(op) == nullptr) return RefuseUnknownAtenOp(op);
    }
    return RefuseComplex("the op is not supported on complex tensors");
  }

  // "torch.ops.aten.mul_.Tensor"
  static bool WritesToOperand(std::string_view target) {
    return target.starts_with(kAten) && target.find("_.") != std::string_view::npos;
  }

  // An op that writes to its operand is the op that does not, and a copy of what that gives.
  //
  //   before  %b = aten.mul_.Tensor(%a, %c)       after  %t = aten.mul.Tensor(%a, %c)
  //                                                      %b = aten.copy_(%a, %t)
  absl::Status SplitWrite(Node node) {
    Node call = node;
    const bool is_zero = node.target == "torch.ops.aten.zero_.default";
    call.target.erase(call.target.find("_."), 1);
    if (is_zero) call.target = "torch.ops.aten.zeros_like.default";
    const bool is_known = FindRow(call.target) != nullptr && node.outputs.size() == 1 &&
                          node.outputs[0].tag == Tag::kTensor && !node.inputs.empty() &&
                          node.inputs[0].value.tag == Tag::kTensor &&
                          IsComplexName(node.inputs[0].value.text) &&
                          IsComplexName(node.outputs[0].text);
    if (!is_known) return RefuseOp(node.target);
    call.outputs[0].text = writer_.NewPair(node.outputs[0].text);
    std::vector<NamedArgument> inputs = {{"self", node.inputs[0].value, false},
                                         {"src", call.outputs[0], false}};
    RETURN_IF_ERROR(SplitCall(std::move(call)));
    return writer_.Finish(std::move(node), "copy_.default", std::move(inputs));
  }

  absl::Status SplitCall(Node node) {
    if (IsExportedFourier(node.target)) return WriteFourier(writer_, std::move(node));
    const Row* row = FindRow(node.target);
    if (row == nullptr && WritesToOperand(node.target)) return SplitWrite(std::move(node));
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
      case Form::kReduceAll:
        return ReduceAll(std::move(node));
      case Form::kZeros:
        return Zeros(*row, std::move(node));
      case Form::kSameType:
      case Form::kAlias:
        return Alias(*row, std::move(node));
      case Form::kRealPart:
      case Form::kImaginaryPart:
        return WritePart(writer_, std::move(node), row->form == Form::kImaginaryPart ? 1 : 0);
      case Form::kChoice:
        return WriteChoice(writer_, std::move(node), row->mask);
      case Form::kWritten:
        return row->write(writer_, std::move(node));
    }
    return Internal("a form of complex op is missing");
  }

  // What the rewrites below take for granted, as archives may be damaged.
  absl::Status CheckCall(const Row& row, const Node& node) const {
    const bool is_made = row.form == Form::kZeros;
    const bool is_list = row.form == Form::kDim;
    const bool is_complete =
        node.outputs.size() == 1 && node.inputs.size() >= std::max<size_t>(1, row.num_inputs) &&
        (is_made || row.starts_with_number || !TensorsOf(node.inputs[0].value).empty()) &&
        (is_list || node.outputs[0].tag == Tag::kTensor);
    if (!is_complete) return DataLoss("the call is damaged");
    for (size_t i = 0; i < row.num_tensors; ++i) {
      if (node.inputs[i].value.tag != Tag::kTensor) return DataLoss("the call is damaged");
    }
    std::vector<std::string> names = TensorsOf(node.outputs[0]);
    const bool has_pair =
        std::ranges::all_of(names, [&](const std::string& name) { return IsComplexName(name); });
    if (row.form != Form::kAlias && row.form != Form::kSameType && has_pair == row.gives_real) {
      return RefuseComplex("a result of this type is not supported");
    }
    for (const NamedArgument& input : node.inputs) {
      for (std::string& name : TensorsOf(input.value)) names.push_back(std::move(name));
    }
    for (const std::string& name : names) {
      if (!writer_.Knows(name)) return DataLoss("the archive has no type for %", name);
    }
    return absl::OkStatus();
  }

  absl::Status Same(Node node) {
    if (node.target.find(".copy_.") != std::string::npos && node.inputs.size() > 1) {
      Argument& source = node.inputs[1].value;
      if (!IsComplexName(node.inputs[0].value.text) || source.tag != Tag::kTensor) {
        return RefuseComplex("writing complex numbers to real ones is not supported");
      }
      if (!IsComplexName(source.text)) {
        ASSIGN_OR_RETURN(source.text, WidenedPair(writer_, node, source.text));
      }
    }
    graph_.nodes.push_back(std::move(node));
    return absl::OkStatus();
  }

  // sum(), mean(): over all dimensions but that of the pair.
  absl::Status ReduceAll(Node node) {
    const size_t rank = writer_.TypeOf(node.inputs[0].value.text).sizes.size() - 1;
    std::vector<int64_t> dims(rank);
    std::iota(dims.begin(), dims.end(), 0);
    if (node.inputs.size() > 1) return RefuseComplex("a sum in another type is not supported");
    if (rank == 0) {
      return writer_.Finish(std::move(node), "alias.default",
                            {{"self", node.inputs[0].value, false}});
    }
    const bool is_mean = node.target.find(".mean.") != std::string::npos;
    std::vector<NamedArgument> inputs = {{"self", node.inputs[0].value, false},
                                         {"dim", IntegersArgumentOf(dims), false}};
    return writer_.Finish(std::move(node), is_mean ? "mean.dim" : "sum.dim_IntList",
                          std::move(inputs));
  }

  // zeros(size), zeros_like(self): in the type of the parts.
  absl::Status Zeros(const Row& row, Node node) {
    if (Argument* dtype = FindArgument(node, "dtype")) {
      if (dtype->tag != Tag::kNone) dtype->integer = writer_.ResultType(node).scalar_type;
    }
    Argument* size = row.argument.empty() ? nullptr : FindArgument(node, row.argument);
    if (!row.argument.empty() && size == nullptr) return DataLoss("the call is damaged");
    const bool is_like = size == nullptr;
    if (is_like && !writer_.HasPair(node.inputs[0].value)) {
      return RefuseComplex("complex zeros like a real tensor are not supported");
    }
    if (!is_like) ExtendByThePair({.op = row.op, .form = Form::kSizes}, node, *size);
    graph_.nodes.push_back(std::move(node));
    return absl::OkStatus();
  }

  absl::Status Reshape(const Row& row, Node node) {
    for (const std::string& name : TensorsOf(node.inputs[0].value)) {
      if (!IsComplexName(name))
        return RefuseComplex("a list of complex and real tensors is not supported");
    }
    if (row.form == Form::kFlatten) {
      GiveDim(node, "start_dim", 0);
      GiveDim(node, "end_dim", -1);
    }
    Argument* argument = FindArgument(node, row.argument);
    const bool is_given = argument != nullptr && argument->tag != Tag::kNone &&
                          (row.form != Form::kDims || !argument->items.empty());
    if (!is_given && row.form != Form::kDim) {
      return RefuseComplex("the op over all dimensions is not supported on complex tensors");
    }
    // Without a dimension it is the first.
    if (is_given) ExtendByThePair(row, node, *argument);
    graph_.nodes.push_back(std::move(node));
    return absl::OkStatus();
  }

  static void GiveDim(Node& node, std::string_view name, int64_t dim) {
    if (FindArgument(node, name) != nullptr) return;
    node.inputs.push_back({std::string(name), IntegerArgumentOf(dim), true});
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
    const std::string from = node.inputs[0].value.text;
    const std::string to = node.outputs[0].text;
    const bool changes_type = writer_.TypeOf(from).scalar_type != writer_.TypeOf(to).scalar_type ||
                              IsComplexName(from) != IsComplexName(to);
    if (row.form == Form::kSameType && changes_type) {
      if (!IsComplexName(from) && IsComplexName(to)) return WriteWidened(writer_, std::move(node));
      return RefuseComplex("a conversion between complex and other types is not supported");
    }
    return writer_.Finish(std::move(node), "alias.default",
                          {{"self", TensorArgumentOf(from), false}});
  }

  exported::Graph& graph_;
  PairWriter writer_;
};

absl::Status RefuseAtBorder(std::string_view what, const std::string& name,
                            std::string_view remedy) {
  return Unimplemented(std::string(what), " ", name, " is complex, which is not supported; ",
                       std::string(remedy));
}

}  // namespace

absl::Status SplitComplex(exported::Program& program,
                          std::map<std::string, exported::Payload>& payloads, bool keeps_signs) {
  GraphSplitter splitter(program.graph, keeps_signs);
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
    if (payload.meta) MakePairType(*payload.meta);
  }
  return absl::OkStatus();
}

}  // namespace autosp
