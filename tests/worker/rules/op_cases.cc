#include "tests/worker/rules/op_cases.h"

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>

#include "compiler/ir/random_ops.h"
#include "compiler/rules/expert_products.h"
#include "compiler/rules/op_rule.h"

namespace autosp {
namespace {

// Cannot be tried on shards that know nothing of their place, or takes offsets that random operands
// are not.
bool IsTriedElsewhere(std::string_view op) {
  // tests/equality/dropout_equality_test.cc; the case ordered_experts
  return op == kDropout || op == kUniform || op == kGroupedMm;
}

// Only what the line's operands make different from the case before.
bool IsVariant(const ArgumentSet& set, const CaseVariant& variant) {
  bool has_f32 = false;
  bool has_matrix = false;
  for (const OperandSpec& operand : set.operands) {
    has_f32 = has_f32 || operand.type.dtype == DType::kF32;
    has_matrix = has_matrix || operand.type.rank() > 1;
  }
  return (has_f32 || variant.dtype == DType::kF32) &&
         (has_matrix || variant.memory == OperandMemory::kContiguous);
}

ArgumentSets ReadFile(const char* name) {
  const std::string path = std::string(AUTOSP_SOURCE_DIR "/tests/worker/rules/") + name;
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  auto read = ReadArgumentSets(text.str());
  if (!read.ok()) ADD_FAILURE() << path << ": " << read.status();
  return read.ok() ? *std::move(read) : ArgumentSets();
}

}  // namespace

const ArgumentSets& AllArguments() {
  static const auto& sets = *new ArgumentSets(ReadFile("op_arguments.txt"));
  return sets;
}

const ArgumentSets& OpaqueArguments() {
  static const auto& sets = *new ArgumentSets(ReadFile("opaque_arguments.txt"));
  return sets;
}

namespace {

// Of which PyTorch has no kernel for half types, at least on CPUs.
bool HasNoHalf(std::string_view op) {
  return op == "aten.quantile.scalar" || op == "aten.nanquantile.scalar" ||
         op == "aten.special_erfcx.default" || op == "aten.special_log_ndtr.default" ||
         op == "aten.special_ndtri.default";
}

}  // namespace

std::vector<OpCase> CasesOf(const std::string& op) {
  std::vector<OpCase> cases;
  const auto sets = AllArguments().find(op);
  if (sets == AllArguments().end()) return cases;
  for (const ArgumentSet& set : sets->second) {
    for (DType dtype : {DType::kF32, DType::kBF16, DType::kI64, DType::kBool}) {
      for (OperandMemory memory :
           {OperandMemory::kContiguous, OperandMemory::kTransposed, OperandMemory::kExpanded}) {
        if (!IsVariant(set, {dtype, memory})) continue;
        auto made = OpCase::Make(set, {dtype, memory});
        const bool may_refuse = !IsFloating(dtype) || memory != OperandMemory::kContiguous ||
                                (dtype == DType::kBF16 && HasNoHalf(op));
        if (made.ok()) {
          cases.push_back(*std::move(made));
        } else if (!may_refuse || made.status().code() != absl::StatusCode::kUnimplemented) {
          ADD_FAILURE() << op << "(" << set.text << ") as " << DTypeName(dtype) << ": "
                        << made.status();
        }
      }
    }
  }
  return cases;
}

bool IsComposite(std::string_view op) {
  static const auto& ops = *new std::set<std::string_view>{
      "aten._upsample_nearest_exact1d.vec",
      "aten._upsample_nearest_exact2d.vec",
      "aten._weight_norm.default",
      "aten.adaptive_avg_pool1d.default",
      "aten.baddbmm.default",
      "aten.binary_cross_entropy_with_logits.default",
      "aten.broadcast_tensors.default",
      "aten.conv1d.default",
      "aten.conv1d.padding",
      "aten.conv2d.default",
      "aten.conv2d.padding",
      "aten.conv3d.default",
      "aten.conv3d.padding",
      "aten.conv_transpose1d.default",
      "aten.conv_transpose2d.input",
      "aten.conv_transpose3d.input",
      "aten.cosine_embedding_loss.default",
      "aten.cosine_similarity.default",
      "aten.cross_entropy_loss.default",
      "aten.einsum.default",
      "aten.expand_as.default",
      "aten.group_norm.default",
      "aten.gru_cell.default",
      "aten.instance_norm.default",
      "aten.kl_div.default",
      "aten.l1_loss.default",
      "aten.layer_norm.default",
      "aten.log_sigmoid.default",
      "aten.log_softmax.int",
      "aten.lstm_cell.default",
      "aten.max_pool1d.default",
      "aten.max_pool2d.default",
      "aten.nanquantile.scalar",
      "aten.nll_loss.default",
      "aten.nll_loss_nd.default",
      "aten.pairwise_distance.default",
      "aten.pixel_shuffle.default",
      "aten.pixel_unshuffle.default",
      "aten.quantile.scalar",
      "aten.repeat.default",
      "aten.rms_norm.default",
      "aten.rnn_relu_cell.default",
      "aten.rnn_tanh_cell.default",
      "aten.softmax.int",
      "aten.tile.default",
      "aten.triplet_margin_loss.default",
      "aten.unfold.default",
      "aten.upsample_bicubic2d.vec",
      "aten.upsample_bilinear2d.vec",
      "aten.upsample_linear1d.vec",
      "aten.upsample_nearest1d.vec",
      "aten.upsample_nearest2d.vec",
      "autosp.token_conv",
  };
  return ops.contains(op);
}

std::vector<std::string> AllOps() {
  std::vector<std::string> ops;
  for (const OpRule& rule : AllOpRules()) {
    if (!IsTriedElsewhere(rule.op)) ops.emplace_back(rule.op);
  }
  return ops;
}

std::string OpTestName(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  std::ranges::replace(name, '.', '_');
  return name;
}

}  // namespace autosp
