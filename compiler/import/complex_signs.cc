#include "compiler/import/complex_signs.h"

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/import/complex_math.h"

namespace autosp {

using exported::Argument;
using exported::NamedArgument;
using exported::Node;
using exported::Tag;
using exported::TensorMeta;

namespace {

// Writes the terms of one call.
class SignedArithmetic {
 public:
  SignedArithmetic(PairWriter& writer, const Node& node) : writer_(writer), node_(node) {}

  // The complex tensor that PyTorch makes of an operand, a number being as large as `like`.
  absl::StatusOr<ComplexParts> Complex(const Argument& operand, const std::string& like) {
    if (operand.tag == Tag::kTensor) {
      if (writer_.IsPair(operand.text)) return PartsOf(writer_, node_, operand.text);
      const std::string re = Floating(operand.text);
      return ComplexParts{re, ZerosLike(re)};
    }
    const bool is_complex = operand.tag == Tag::kComplex;
    if ((!is_complex && !IsRealNumber(operand)) || like.empty()) {
      return RefuseComplex("an operand that is no tensor and no number is not supported");
    }
    const auto filled = [&](const Argument& number) {
      return Emit("add.Tensor", TensorArgumentOf(ZerosLike(like)), number, writer_.TypeOf(like));
    };
    const std::string re =
        filled(is_complex ? NumberArgumentOf(ComplexNumberOf(operand).real()) : operand);
    return ComplexParts{re, is_complex ? filled(NumberArgumentOf(ComplexNumberOf(operand).imag()))
                                       : ZerosLike(like)};
  }

  // z * (factor + 0i), as large as z.
  ComplexParts Multiple(const ComplexParts& z, double factor) {
    const TensorMeta& type = writer_.TypeOf(z.re);
    const std::string re_re = Scaled(z.re, factor);
    const std::string im_im = Scaled(z.im, 0);
    const std::string re_im = Scaled(z.re, 0);
    const std::string im_re = Scaled(z.im, factor);
    const std::string re = Emit("sub.Tensor", re_re, im_im, type);
    return {re, Emit("add.Tensor", re_im, im_re, writer_.TypeOf(z.im))};
  }

  ComplexParts Sum(const ComplexParts& a, const ComplexParts& b) {
    const std::string re = writer_.Binary(node_, "add.Tensor", a.re, b.re);
    return {re, writer_.Binary(node_, "add.Tensor", a.im, b.im)};
  }

  ComplexParts Product(const ComplexParts& a, const ComplexParts& b) {
    return ProductOf(writer_, node_, a, b, /*conjugates=*/false);
  }

  // With r the smaller of the parts of b by the larger: what is added to the larger part of b is
  // not squared, so that nothing overflows.
  ComplexParts Quotient(const ComplexParts& a, const ComplexParts& b) {
    const TensorMeta type = writer_.TypeOf(b.re);
    const std::string modulus_of_re = writer_.Unary(node_, "abs.default", b.re);
    const std::string modulus_of_im = writer_.Unary(node_, "abs.default", b.im);
    turned_ = Emit("lt.Tensor", modulus_of_re, modulus_of_im, TruthOf(type));
    const std::string large = Choose(b.im, b.re, type);
    const std::string small = Choose(b.re, b.im, type);
    const std::string ratio = Emit("div.Tensor", small, large, type);
    const std::string rest = Emit("mul.Tensor", small, ratio, type);
    const std::string divisor = Emit("add.Tensor", large, rest, type);
    const std::string scale = writer_.Unary(node_, "reciprocal.default", divisor);
    const TensorMeta result = writer_.PartType(node_);
    const std::string first = Choose(a.im, a.re, result);
    const std::string second = Choose(a.re, a.im, result);
    const std::string part_of_second = writer_.Multiply(node_, second, ratio);
    const std::string re = writer_.Binary(node_, "add.Tensor", first, part_of_second);
    const std::string part_of_first = writer_.Multiply(node_, first, ratio);
    const std::string im = writer_.Binary(node_, "sub.Tensor", second, part_of_first);
    const std::string turned = writer_.Binary(node_, "sub.Tensor", part_of_first, second);
    const std::string scaled_re = writer_.Multiply(node_, re, scale);
    return {scaled_re, writer_.Multiply(node_, Choose(turned, im, result), scale)};
  }

 private:
  std::string Emit(std::string_view op, Argument self, Argument other, TensorMeta type) {
    return writer_.Emit(node_, op,
                        {{"self", std::move(self), false}, {"other", std::move(other), false}},
                        std::move(type));
  }
  std::string Emit(std::string_view op, const std::string& x, const std::string& y,
                   TensorMeta type) {
    return Emit(op, TensorArgumentOf(x), TensorArgumentOf(y), std::move(type));
  }

  std::string Scaled(const std::string& x, double factor) {
    return Emit("mul.Tensor", TensorArgumentOf(x), NumberArgumentOf(factor), writer_.TypeOf(x));
  }

  std::string ZerosLike(const std::string& x) {
    return writer_.Unary(node_, "zeros_like.default", x);
  }

  // `yes` where the quotient is turned.
  std::string Choose(const std::string& yes, const std::string& no, TensorMeta type) {
    return writer_.Emit(node_, "where.self",
                        {{"condition", TensorArgumentOf(turned_), false},
                         {"self", TensorArgumentOf(yes), false},
                         {"other", TensorArgumentOf(no), false}},
                        std::move(type));
  }

  // Integers and truth values are numbers of the result's type.
  std::string Floating(const std::string& x) {
    const std::optional<DType> dtype = writer_.TypeOf(x).dtype;
    return dtype && IsFloating(*dtype) ? x : writer_.Cast(node_, x, writer_.PartType(node_));
  }

  PairWriter& writer_;
  const Node& node_;
  std::string turned_;
};

struct Operands {
  ComplexParts first, second;
};

// Of two operands at least one is a tensor.
absl::StatusOr<Operands> OperandsOf(SignedArithmetic& arithmetic, const Node& node) {
  const Argument& first = node.inputs[0].value;
  const Argument& second = node.inputs[1].value;
  Operands operands;
  if (first.tag == Tag::kTensor) {
    ASSIGN_OR_RETURN(operands.first, arithmetic.Complex(first, ""));
    ASSIGN_OR_RETURN(operands.second, arithmetic.Complex(second, operands.first.re));
  } else {
    ASSIGN_OR_RETURN(operands.second, arithmetic.Complex(second, ""));
    ASSIGN_OR_RETURN(operands.first, arithmetic.Complex(first, operands.second.re));
  }
  return operands;
}

}  // namespace

bool ReadsSigns(const exported::Graph& graph) {
  return std::ranges::any_of(graph.nodes, [](const Node& node) {
    for (const std::string_view op : {"angle", "atan2", "arctan2", "copysign", "signbit"}) {
      if (node.target.find(op) != std::string::npos) return true;
    }
    return std::ranges::any_of(node.inputs, [](const NamedArgument& input) {
      return input.value.graph != nullptr && ReadsSigns(*input.value.graph);
    });
  });
}

absl::Status WriteSignedSum(PairWriter& writer, Node node) {
  const bool is_difference = node.target.find(".sub.") != std::string::npos ||
                             node.target.find(".rsub.") != std::string::npos;
  double factor = is_difference ? -1 : 1;
  if (const Argument* alpha = FindArgument(std::as_const(node), "alpha")) {
    if (alpha->tag != Tag::kInt && alpha->tag != Tag::kFloat) {
      return RefuseComplex("a sum with such a multiple is not supported");
    }
    factor *= alpha->tag == Tag::kInt ? static_cast<double>(alpha->integer) : alpha->number;
  }
  SignedArithmetic arithmetic(writer, node);
  ASSIGN_OR_RETURN(const Operands operands, OperandsOf(arithmetic, node));
  const ComplexParts sum =
      arithmetic.Sum(operands.first, arithmetic.Multiple(operands.second, factor));
  return writer.FinishPair(std::move(node), sum.re, sum.im);
}

absl::Status WriteSignedProduct(PairWriter& writer, Node node) {
  SignedArithmetic arithmetic(writer, node);
  ASSIGN_OR_RETURN(const Operands operands, OperandsOf(arithmetic, node));
  const ComplexParts product = arithmetic.Product(operands.first, operands.second);
  return writer.FinishPair(std::move(node), product.re, product.im);
}

absl::Status WriteSignedQuotient(PairWriter& writer, Node node) {
  SignedArithmetic arithmetic(writer, node);
  ASSIGN_OR_RETURN(const Operands operands, OperandsOf(arithmetic, node));
  const ComplexParts quotient = arithmetic.Quotient(operands.first, operands.second);
  return writer.FinishPair(std::move(node), quotient.re, quotient.im);
}

absl::Status WriteSignedReciprocal(PairWriter& writer, Node node) {
  SignedArithmetic arithmetic(writer, node);
  ASSIGN_OR_RETURN(const ComplexParts z, arithmetic.Complex(node.inputs[0].value, ""));
  ASSIGN_OR_RETURN(const ComplexParts one, arithmetic.Complex(NumberArgumentOf(1), z.re));
  const ComplexParts quotient = arithmetic.Quotient(one, z);
  return writer.FinishPair(std::move(node), quotient.re, quotient.im);
}

}  // namespace autosp
