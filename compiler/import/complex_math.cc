#include "compiler/import/complex_math.h"

#include <complex>
#include <string>
#include <string_view>
#include <utility>

#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/import/complex_signs.h"

namespace autosp {

using exported::Argument;
using exported::NamedArgument;
using exported::Node;
using exported::Tag;
using exported::TensorMeta;

namespace {

constexpr std::string_view kAten = "torch.ops.aten.";

std::string Operand(const Node& node, size_t i) {
  return i < node.inputs.size() ? node.inputs[i].value.text : "";
}

}  // namespace

ComplexParts PartsOf(PairWriter& writer, const Node& node, const std::string& pair) {
  std::string re = writer.Part(node, pair, 0);
  return {std::move(re), writer.Part(node, pair, 1)};
}

ComplexParts ProductOf(PairWriter& writer, const Node& node, const ComplexParts& a,
                       const ComplexParts& b, bool conjugates) {
  // One after the other: the order of arguments is the compiler's choice, and names follow it.
  const std::string re_re = writer.Multiply(node, a.re, b.re);
  const std::string im_im = writer.Multiply(node, a.im, b.im);
  const std::string re_im = writer.Multiply(node, a.re, b.im);
  const std::string im_re = writer.Multiply(node, a.im, b.re);
  ComplexParts product;
  product.re = writer.Binary(node, conjugates ? "add.Tensor" : "sub.Tensor", re_re, im_im);
  product.im = conjugates ? writer.Binary(node, "sub.Tensor", im_re, re_im)
                          : writer.Binary(node, "add.Tensor", re_im, im_re);
  return product;
}

bool IsRealNumber(const Argument& argument) {
  return argument.tag == Tag::kInt || argument.tag == Tag::kFloat || argument.tag == Tag::kSymInt ||
         argument.tag == Tag::kSymFloat;
}

std::complex<double> ComplexNumberOf(const Argument& argument) {
  return {argument.number, argument.items[0].number};
}

namespace {

// An op with a number, or a tensor that may be stretched, beside a part of the result.
std::string WithReal(PairWriter& writer, const Node& node, std::string_view op, Argument self,
                     Argument other) {
  return writer.Emit(node, op,
                     {{"self", std::move(self), false}, {"other", std::move(other), false}},
                     writer.PartType(node));
}

// The second operand is a number, or a real tensor that gets a dimension.
absl::Status ScaleByReal(PairWriter& writer, Node node) {
  Argument& factor = node.inputs[1].value;
  if (factor.tag == Tag::kTensor) {
    // A number in a tensor does not change the type as one with dimensions would.
    if (!writer.TypeOf(factor.text).sizes.empty()) {
      factor = TensorArgumentOf(writer.Unsqueezed(node, factor.text));
    }
  } else if (!IsRealNumber(factor)) {
    return RefuseComplex("a factor that is no tensor and no real number is not supported");
  }
  writer.Append(std::move(node));
  return absl::OkStatus();
}

// re * re + im * im, as large as the operand.
std::string SquaredModulus(PairWriter& writer, const Node& node, const ComplexParts& z) {
  const TensorMeta meta = writer.TypeOf(z.re);
  const std::string re = writer.Unary(node, "square.default", z.re);
  const std::string im = writer.Unary(node, "square.default", z.im);
  return writer.Emit(
      node, "add.Tensor",
      {{"self", TensorArgumentOf(re), false}, {"other", TensorArgumentOf(im), false}}, meta);
}

// A number that python writes as 2 + 1j.
bool HasComplexNumber(const Node& node) {
  return node.inputs[0].value.tag == Tag::kComplex || node.inputs[1].value.tag == Tag::kComplex;
}

// A pair or a real tensor times a complex number.
absl::Status ScaleByNumber(PairWriter& writer, Node node, size_t operand,
                           std::complex<double> number) {
  const std::string name = Operand(node, operand);
  if (node.inputs[operand].value.tag != Tag::kTensor) {
    return RefuseComplex("a product of two numbers is not supported");
  }
  const auto times = [&](const std::string& x, double factor) {
    return WithReal(writer, node, "mul.Tensor", TensorArgumentOf(x), NumberArgumentOf(factor));
  };
  if (!writer.IsPair(name)) {
    const std::string re = times(name, number.real());
    const std::string im = times(name, number.imag());
    return writer.FinishPair(std::move(node), re, im);
  }
  const ComplexParts z = PartsOf(writer, node, name);
  const std::string re_re = times(z.re, number.real());
  const std::string im_im = times(z.im, number.imag());
  const std::string re_im = times(z.re, number.imag());
  const std::string im_re = times(z.im, number.real());
  const std::string re = writer.Binary(node, "sub.Tensor", re_re, im_im);
  const std::string im = writer.Binary(node, "add.Tensor", re_im, im_re);
  return writer.FinishPair(std::move(node), re, im);
}

bool IsDifference(const Node& node) {
  return node.target == "torch.ops.aten.sub.Tensor" || node.target == "torch.ops.aten.rsub.Scalar";
}

// A part of the call's pair and what is real, which comes second if `is_first`, as the call says.
std::string SumOf(PairWriter& writer, const Node& node, const std::string& part,
                  const Argument& real, bool is_first) {
  if (!IsDifference(node)) {
    return WithReal(writer, node, "add.Tensor", TensorArgumentOf(part), real);
  }
  if (is_first) return WithReal(writer, node, "sub.Tensor", TensorArgumentOf(part), real);
  const std::string negative = writer.Unary(node, "neg.default", part);
  return WithReal(writer, node, "add.Tensor", TensorArgumentOf(negative), real);
}

// A pair or a real tensor plus or minus a complex number, or the other way round.
absl::Status SumWithNumber(PairWriter& writer, Node node) {
  const size_t operand = node.inputs[0].value.tag == Tag::kComplex ? 1 : 0;
  const std::string name = Operand(node, operand);
  const std::complex<double> number = ComplexNumberOf(node.inputs[1 - operand].value);
  if (node.inputs[operand].value.tag != Tag::kTensor || node.inputs.size() > 2) {
    return RefuseComplex("a sum of two numbers, or with a multiple, is not supported");
  }
  ComplexParts z;
  if (writer.IsPair(name)) {
    z = PartsOf(writer, node, name);
  } else {
    z = {name, writer.Unary(node, "zeros_like.default", name)};
  }
  const auto sum = [&](const std::string& part, double value) {
    return SumOf(writer, node, part, NumberArgumentOf(value), operand == 0);
  };
  const std::string re = sum(z.re, number.real());
  const std::string im = sum(z.im, number.imag());
  return writer.FinishPair(std::move(node), re, im);
}

}  // namespace

absl::Status WriteSum(PairWriter& writer, Node node) {
  if (writer.keeps_signs()) return WriteSignedSum(writer, std::move(node));
  if (HasComplexNumber(node)) return SumWithNumber(writer, std::move(node));
  const bool is_first = writer.HasPair(node.inputs[0].value);
  const bool is_second = writer.HasPair(node.inputs[1].value);
  if (is_first && is_second) {
    writer.Append(std::move(node));
    return absl::OkStatus();
  }
  const Argument& real = node.inputs[is_first ? 1 : 0].value;
  const std::string pair = Operand(node, is_first ? 0 : 1);
  if (node.inputs.size() > 2 || (real.tag != Tag::kTensor && !IsRealNumber(real))) {
    return RefuseComplex("a sum with a multiple, or with what is no real number, is not supported");
  }
  const ComplexParts z = PartsOf(writer, node, pair);
  if (!writer.HasSizesOfResult(node, z.re)) {
    return RefuseComplex("a complex tensor that is stretched to a real one is not supported");
  }
  const std::string re = SumOf(writer, node, z.re, real, is_first);
  const bool is_negated = !is_first && IsDifference(node);
  const std::string im = is_negated ? writer.Unary(node, "neg.default", z.im) : z.im;
  return writer.FinishPair(std::move(node), re, im);
}

absl::Status WriteProduct(PairWriter& writer, Node node) {
  if (writer.keeps_signs()) return WriteSignedProduct(writer, std::move(node));
  if (HasComplexNumber(node)) {
    const bool is_first = node.inputs[0].value.tag == Tag::kComplex;
    const auto number = ComplexNumberOf(node.inputs[is_first ? 0 : 1].value);
    return ScaleByNumber(writer, std::move(node), is_first ? 1 : 0, number);
  }
  const bool is_first = writer.HasPair(node.inputs[0].value);
  const bool is_second = writer.HasPair(node.inputs[1].value);
  if (!is_first) std::swap(node.inputs[0].value, node.inputs[1].value);
  if (!is_first || !is_second) return ScaleByReal(writer, std::move(node));
  const ComplexParts a = PartsOf(writer, node, Operand(node, 0));
  const ComplexParts b = PartsOf(writer, node, Operand(node, 1));
  const ComplexParts product = ProductOf(writer, node, a, b, /*conjugates=*/false);
  return writer.FinishPair(std::move(node), product.re, product.im);
}

absl::Status WriteQuotient(PairWriter& writer, Node node) {
  if (writer.keeps_signs()) return WriteSignedQuotient(writer, std::move(node));
  if (node.inputs[1].value.tag == Tag::kComplex) {
    const auto inverse = 1.0 / ComplexNumberOf(node.inputs[1].value);
    return ScaleByNumber(writer, std::move(node), 0, inverse);
  }
  if (!writer.HasPair(node.inputs[1].value)) return ScaleByReal(writer, std::move(node));
  const ComplexParts b = PartsOf(writer, node, Operand(node, 1));
  const std::string square = SquaredModulus(writer, node, b);
  ComplexParts product;
  if (writer.HasPair(node.inputs[0].value)) {
    const ComplexParts a = PartsOf(writer, node, Operand(node, 0));
    product = ProductOf(writer, node, a, b, /*conjugates=*/true);
  } else if (node.inputs[0].value.tag == Tag::kTensor || IsRealNumber(node.inputs[0].value)) {
    const Argument a = node.inputs[0].value;
    product.re = WithReal(writer, node, "mul.Tensor", TensorArgumentOf(b.re), a);
    const std::string im = WithReal(writer, node, "mul.Tensor", TensorArgumentOf(b.im), a);
    product.im = writer.Unary(node, "neg.default", im);
  } else {
    return RefuseComplex("a quotient of what is no tensor and no real number is not supported");
  }
  const std::string re = writer.Binary(node, "div.Tensor", product.re, square);
  const std::string im = writer.Binary(node, "div.Tensor", product.im, square);
  return writer.FinishPair(std::move(node), re, im);
}

absl::Status WriteReverseDifference(PairWriter& writer, Node node) {
  if (node.inputs.size() > 2) return RefuseComplex("a difference with a multiple is not supported");
  std::swap(node.inputs[0].value, node.inputs[1].value);
  return WriteSum(writer, std::move(node));
}

absl::Status WriteReciprocal(PairWriter& writer, Node node) {
  if (writer.keeps_signs()) return WriteSignedReciprocal(writer, std::move(node));
  const ComplexParts z = PartsOf(writer, node, Operand(node, 0));
  const std::string square = SquaredModulus(writer, node, z);
  const std::string negative = writer.Unary(node, "neg.default", z.im);
  const std::string re = writer.Binary(node, "div.Tensor", z.re, square);
  const std::string im = writer.Binary(node, "div.Tensor", negative, square);
  return writer.FinishPair(std::move(node), re, im);
}

absl::Status WriteSquare(PairWriter& writer, Node node) {
  if (const Argument* exponent = FindArgument(node, "exponent")) {
    const double value = exponent->tag == Tag::kInt     ? static_cast<double>(exponent->integer)
                         : exponent->tag == Tag::kFloat ? exponent->number
                                                        : 0;
    if (value != 2) return RefuseComplex("a power other than the square is not supported");
  }
  const ComplexParts z = PartsOf(writer, node, Operand(node, 0));
  const ComplexParts square = ProductOf(writer, node, z, z, /*conjugates=*/false);
  return writer.FinishPair(std::move(node), square.re, square.im);
}

absl::Status WriteMatrixProduct(PairWriter& writer, Node node) {
  const bool is_einsum = node.target.starts_with("torch.ops.aten.einsum");
  std::vector<std::string> operands;
  for (const NamedArgument& input : node.inputs) {
    for (std::string& name : TensorsOf(input.value)) operands.push_back(std::move(name));
  }
  if (operands.size() != 2) {
    return RefuseComplex("a product of other than two complex tensors is not supported");
  }
  const std::string_view op = std::string_view(node.target).substr(kAten.size());
  const auto multiply = [&](const std::string& a, const std::string& b) {
    std::vector<NamedArgument> inputs = node.inputs;
    if (is_einsum) {
      Argument list;
      list.tag = Tag::kTensors;
      list.items = {{.name = a}, {.name = b}};
      inputs[1].value = std::move(list);
    } else {
      inputs[0].value = TensorArgumentOf(a);
      inputs[1].value = TensorArgumentOf(b);
    }
    return writer.Emit(node, op, std::move(inputs), writer.PartType(node));
  };
  const auto parts_of = [&](const std::string& name) {
    return writer.IsPair(name) ? PartsOf(writer, node, name) : ComplexParts{name, ""};
  };
  const ComplexParts a = parts_of(operands[0]);
  const ComplexParts b = parts_of(operands[1]);
  const std::string re_re = multiply(a.re, b.re);
  if (a.im.empty() || b.im.empty()) {
    const std::string im = a.im.empty() ? multiply(a.re, b.im) : multiply(a.im, b.re);
    return writer.FinishPair(std::move(node), re_re, im);
  }
  const std::string im_im = multiply(a.im, b.im);
  const std::string re_im = multiply(a.re, b.im);
  const std::string im_re = multiply(a.im, b.re);
  const std::string re = writer.Binary(node, "sub.Tensor", re_re, im_im);
  const std::string im = writer.Binary(node, "add.Tensor", re_im, im_re);
  return writer.FinishPair(std::move(node), re, im);
}

absl::Status WriteLinear(PairWriter& writer, Node node) {
  const Argument* given = FindArgument(std::as_const(node), "bias");
  if (given == nullptr || given->tag != Tag::kTensor) {
    return WriteMatrixProduct(writer, std::move(node));
  }
  const std::string bias = given->text;
  std::erase_if(node.inputs, [](const NamedArgument& input) { return input.name == "bias"; });
  Node product = node;
  product.outputs[0].text = writer.NewPair(node.outputs[0].text);
  node.target = std::string(kAten) + "add.Tensor";
  node.inputs = {{"self", product.outputs[0], false}, {"other", TensorArgumentOf(bias), false}};
  RETURN_IF_ERROR(WriteMatrixProduct(writer, std::move(product)));
  return WriteSum(writer, std::move(node));
}

absl::Status WritePolar(PairWriter& writer, Node node) {
  const std::string cos = writer.Unary(node, "cos.default", Operand(node, 1));
  const std::string sin = writer.Unary(node, "sin.default", Operand(node, 1));
  const std::string re = writer.Multiply(node, Operand(node, 0), cos);
  const std::string im = writer.Multiply(node, Operand(node, 0), sin);
  return writer.FinishPair(std::move(node), re, im);
}

absl::Status WriteExponential(PairWriter& writer, Node node) {
  const ComplexParts z = PartsOf(writer, node, Operand(node, 0));
  const std::string modulus = writer.Unary(node, "exp.default", z.re);
  const std::string cos = writer.Unary(node, "cos.default", z.im);
  const std::string sin = writer.Unary(node, "sin.default", z.im);
  const std::string re = writer.Multiply(node, modulus, cos);
  const std::string im = writer.Multiply(node, modulus, sin);
  return writer.FinishPair(std::move(node), re, im);
}

absl::Status WriteComplex(PairWriter& writer, Node node) {
  const std::string re = Operand(node, 0);
  const std::string im = Operand(node, 1);
  if (!writer.HasSizesOfResult(node, re) || !writer.HasSizesOfResult(node, im)) {
    return RefuseComplex("a complex tensor of parts that are stretched is not supported");
  }
  return writer.FinishPair(std::move(node), re, im);
}

absl::Status WriteConjugate(PairWriter& writer, Node node) {
  const ComplexParts z = PartsOf(writer, node, Operand(node, 0));
  const std::string im = writer.Unary(node, "neg.default", z.im);
  return writer.FinishPair(std::move(node), z.re, im);
}

absl::Status WritePart(PairWriter& writer, Node node, int64_t index) {
  std::vector<NamedArgument> inputs = {{"self", node.inputs[0].value, false},
                                       {"dim", IntegerArgumentOf(-1), false},
                                       {"index", IntegerArgumentOf(index), false}};
  return writer.Finish(std::move(node), "select.int", std::move(inputs));
}

absl::Status WriteModulus(PairWriter& writer, Node node) {
  std::vector<NamedArgument> inputs = {{"self", node.inputs[0].value, false},
                                       {"ord", IntegerArgumentOf(2), false},
                                       {"dim", IntegersArgumentOf({-1}), false}};
  return writer.Finish(std::move(node), "linalg_vector_norm.default", std::move(inputs));
}

absl::Status WriteAngle(PairWriter& writer, Node node) {
  const ComplexParts z = PartsOf(writer, node, Operand(node, 0));
  const TensorMeta meta = writer.TypeOf(z.re);
  const auto zero_of = [&](const std::string& x) {
    return writer.Emit(
        node, "eq.Scalar",
        {{"self", TensorArgumentOf(x), false}, {"other", IntegerArgumentOf(0), false}},
        TruthOf(meta));
  };
  const std::string re_is_zero = zero_of(z.re);
  const std::string im_is_zero = zero_of(z.im);
  const std::string is_zero = writer.Emit(node, "logical_and.default",
                                          {{"self", TensorArgumentOf(re_is_zero), false},
                                           {"other", TensorArgumentOf(im_is_zero), false}},
                                          writer.TypeOf(re_is_zero));
  const auto with_gradient = [&](const std::string& x) {
    const std::string value = writer.Unary(node, "detach.default", x);
    return writer.Emit(node, "where.self",
                       {{"condition", TensorArgumentOf(is_zero), false},
                        {"self", TensorArgumentOf(value), false},
                        {"other", TensorArgumentOf(x), false}},
                       meta);
  };
  const std::string re = with_gradient(z.re);
  const std::string im = with_gradient(z.im);
  return writer.Finish(
      std::move(node), "atan2.default",
      {{"self", TensorArgumentOf(im), false}, {"other", TensorArgumentOf(re), false}});
}

absl::Status WriteWidened(PairWriter& writer, Node node) {
  const std::string real = Operand(node, 0);
  if (writer.TypeOf(real).scalar_type != writer.ResultType(node).scalar_type) {
    return RefuseComplex("a conversion between complex and other types is not supported");
  }
  const std::string zeros = writer.Unary(node, "zeros_like.default", real);
  return writer.FinishPair(std::move(node), real, zeros);
}

absl::StatusOr<std::string> WidenedPair(PairWriter& writer, const Node& node,
                                        const std::string& real) {
  if (!writer.Knows(real) || writer.TypeOf(real).dtype != writer.PartType(node).dtype) {
    return RefuseComplex("a conversion between complex and other types is not supported");
  }
  return writer.MakePair(node, real, writer.Unary(node, "zeros_like.default", real));
}

namespace {

// The operand of a choice for a part of the result, of which zero is what zero has.
absl::StatusOr<Argument> ChoiceOfPart(PairWriter& writer, const Node& node, const Argument& operand,
                                      int64_t index) {
  if (operand.tag == Tag::kTensor) {
    if (writer.IsPair(operand.text)) {
      return TensorArgumentOf(writer.Part(node, operand.text, index));
    }
    if (index == 0) return operand;
    return TensorArgumentOf(writer.Unary(node, "zeros_like.default", operand.text));
  }
  if (operand.tag == Tag::kComplex) {
    const std::complex<double> number = ComplexNumberOf(operand);
    return NumberArgumentOf(index == 0 ? number.real() : number.imag());
  }
  if (!IsRealNumber(operand))
    return RefuseComplex("a choice of what is no number is not supported");
  return index == 0 ? operand : NumberArgumentOf(0);
}

}  // namespace

absl::Status WriteChoice(PairWriter& writer, Node node, size_t mask) {
  const Argument& condition = node.inputs[mask].value;
  if (condition.tag != Tag::kTensor || writer.HasPair(condition)) {
    return RefuseComplex("a choice by what is no mask is not supported");
  }
  // The value of masked_fill has no dimensions, that of a pair too.
  bool has_pairs = !node.target.ends_with(".masked_fill.Tensor");
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    const Argument& operand = node.inputs[i].value;
    const bool is_zero = (operand.tag == Tag::kInt && operand.integer == 0) ||
                         (operand.tag == Tag::kFloat && operand.number == 0);
    has_pairs = has_pairs && (i == mask || is_zero || writer.HasPair(operand));
  }
  if (has_pairs) {
    node.inputs[mask].value = TensorArgumentOf(writer.Unsqueezed(node, condition.text));
    writer.Append(std::move(node));
    return absl::OkStatus();
  }
  std::string parts[2];
  for (int64_t index = 0; index < 2; ++index) {
    std::vector<NamedArgument> inputs = node.inputs;
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (i == mask) continue;
      ASSIGN_OR_RETURN(inputs[i].value, ChoiceOfPart(writer, node, inputs[i].value, index));
    }
    parts[index] = writer.Emit(node, std::string_view(node.target).substr(kAten.size()),
                               std::move(inputs), writer.PartType(node));
  }
  return writer.FinishPair(std::move(node), parts[0], parts[1]);
}

absl::Status WriteFilled(PairWriter& writer, Node node) {
  const ComplexParts z = PartsOf(writer, node, Operand(node, 0));
  const auto filled = [&](const std::string& part, int64_t index) -> absl::StatusOr<std::string> {
    const std::string zeros = writer.Unary(node, "zeros_like.default", part);
    ASSIGN_OR_RETURN(Argument number, ChoiceOfPart(writer, node, node.inputs[1].value, index));
    return WithReal(writer, node, "add.Tensor", TensorArgumentOf(zeros), std::move(number));
  };
  ASSIGN_OR_RETURN(const std::string re, filled(z.re, 0));
  ASSIGN_OR_RETURN(const std::string im, filled(z.im, 1));
  return writer.FinishPair(std::move(node), re, im);
}

absl::Status WriteGather(PairWriter& writer, Node node) {
  Argument& dim = node.inputs[1].value;
  Argument& index = node.inputs[2].value;
  if (dim.tag != Tag::kInt || index.tag != Tag::kTensor || writer.HasPair(index)) {
    return DataLoss("the call is damaged");
  }
  if (dim.integer < 0) --dim.integer;
  const std::string wide = writer.Unsqueezed(node, index.text);
  TensorMeta meta = writer.TypeOf(wide);
  meta.sizes.back() = LiteralSize(2);
  MakeContiguous(meta);
  std::vector<int64_t> sizes(meta.sizes.size(), -1);
  sizes.back() = 2;
  index = TensorArgumentOf(writer.Emit(
      node, "expand.default",
      {{"self", TensorArgumentOf(wide), false}, {"size", IntegersArgumentOf(sizes), false}}, meta));
  writer.Append(std::move(node));
  return absl::OkStatus();
}

absl::Status WritePad(PairWriter& writer, Node node) {
  const Argument* mode = FindArgument(std::as_const(node), "mode");
  const Argument* value = FindArgument(std::as_const(node), "value");
  const bool is_constant = mode == nullptr || mode->tag != Tag::kString || mode->text == "constant";
  const bool is_zero = value == nullptr || value->tag == Tag::kNone ||
                       (value->tag == Tag::kInt && value->integer == 0) ||
                       (value->tag == Tag::kFloat && value->number == 0);
  if (!is_constant || !is_zero) {
    return RefuseComplex("padding of complex numbers with others than zeros is not supported");
  }
  Argument& places = node.inputs[1].value;
  if (places.tag != Tag::kInts && places.tag != Tag::kSymInts) {
    return DataLoss("the call is damaged");
  }
  places.items.insert(places.items.begin(), 2, {.name = "", .integer = 0});  // of the pair none
  writer.Append(std::move(node));
  return absl::OkStatus();
}

}  // namespace autosp
