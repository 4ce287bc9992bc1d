#include "compiler/import/op_refusals.h"

#include <algorithm>
#include <iterator>
#include <string_view>

#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/import/running_statistics.h"
#include "compiler/ir/random_ops.h"

namespace autosp {
namespace {

// Results whose size or python number depends on values; without "aten." and overload. Sorted.
constexpr std::string_view kDataDependent[] = {
    "_local_scalar_dense", "_unique",   "_unique2",      "argwhere", "equal",
    "is_nonzero",          "item",      "masked_select", "nonzero",  "nonzero_numpy",
    "unique_consecutive",  "unique_dim"};
static_assert(std::ranges::is_sorted(kDataDependent));

// What random_draws.h writes by numbers that are the same for any number of ranks.
constexpr std::string_view kExpandedDraws[] = {
    "aten.bernoulli.default",         "aten.bernoulli.p",        "aten.bernoulli.Tensor",
    "aten.bernoulli_.float",          "aten.bernoulli_.Tensor",  "aten.exponential.default",
    "aten.exponential_.default",      "aten.normal.float_float", "aten.normal_.default",
    "aten.normal_functional.default", "aten.rand.default",       "aten.rand_like.default",
    "aten.randint.default",           "aten.randint.low",        "aten.randint_like.default",
    "aten.randint_like.low_dtype",    "aten.randn.default",      "aten.randn_like.default",
    "aten.uniform.default",           "aten.uniform_.default"};

constexpr std::string_view kDropouts[] = {
    "alpha_dropout",   "alpha_dropout_",        "dropout",
    "dropout_",        "feature_alpha_dropout", "feature_alpha_dropout_",
    "feature_dropout", "feature_dropout_",      "native_dropout"};

// They step through tokens.
constexpr std::string_view kRecurrent[] = {"gru", "lstm", "rnn_relu", "rnn_tanh"};

const Argument* FindArgument(const OpSchema& schema, const std::vector<Argument>& args,
                             std::string_view name) {
  for (size_t i = 0; i < args.size(); ++i) {
    if (schema.parameters[i].name == name) return &args[i];
  }
  return nullptr;
}

double NumberOf(const Argument* argument) {
  if (argument == nullptr) return 0;
  if (const auto* number = std::get_if<double>(argument)) return *number;
  if (const auto* integer = std::get_if<SymInt>(argument))
    return static_cast<double>(integer->value);
  return 0;
}

bool IsDropout(const OpSchema& schema) {
  return std::ranges::find(kDropouts, OpBaseName(schema.name)) != std::end(kDropouts);
}

bool IsTrue(const Argument* argument) {
  const bool* flag = argument == nullptr ? nullptr : std::get_if<bool>(argument);
  return flag != nullptr && *flag;
}

absl::Status CheckDropout(const OpSchema& schema, const std::vector<Argument>& args) {
  if (!IsDropout(schema) || IsIdentityDropout(schema, args)) return absl::OkStatus();
  const double probability = NumberOf(FindArgument(schema, args, "p"));
  std::string_view name = OpBaseName(schema.name);
  if (name.ends_with('_')) name.remove_suffix(1);
  const bool is_known = name == "dropout" || name == "feature_dropout";
  if (is_known && probability < 1) return absl::OkStatus();
  return Unimplemented("this dropout with probability ", probability,
                       " is not supported; use nn.Dropout, or nn.Dropout1d to 3d, with a "
                       "probability below 1, or 0, and export again");
}

// Normalisation over the batch writes its running statistics without saying so in its signature
// (running_statistics.h).
absl::Status CheckBatchNorm(const OpSchema& schema, const std::vector<Argument>& args) {
  if (KeepsRunningStatistics(schema.name)) return absl::OkStatus();
  const Argument* running_mean = FindArgument(schema, args, "running_mean");
  if (running_mean == nullptr || IsNone(*running_mean)) return absl::OkStatus();
  if (!IsTrue(FindArgument(schema, args, "training")) &&
      !IsTrue(FindArgument(schema, args, "use_input_stats"))) {
    return absl::OkStatus();
  }
  return Unimplemented(
      "it writes running statistics in a form that is not supported; call nn.BatchNorm1d to 3d or "
      "F.batch_norm in the model, or freeze them with eval()");
}

// Dropouts have a check of their own.
absl::Status CheckDraws(const OpSchema& schema) {
  const bool takes_generator = std::ranges::any_of(
      schema.parameters,
      [](const SchemaParameter& each) { return each.type == SchemaType::kGenerator; });
  if (!takes_generator && !DrawsRandomNumbers(schema.name)) return absl::OkStatus();
  if (IsDropout(schema) ||
      std::ranges::find(kExpandedDraws, schema.name) != std::end(kExpandedDraws)) {
    return absl::OkStatus();
  }
  return Unimplemented(
      "it draws random numbers, which would be others on every rank; draw them "
      "outside of the model, and pass them as an input");
}

}  // namespace

absl::Status RefuseUnknownAtenOp(std::string_view op) {
  const std::string_view name = OpBaseName(op);
  const auto speaks_of = [&](std::string_view what) { return name.find(what) != name.npos; };
  if (std::ranges::find(kRecurrent, name) != std::end(kRecurrent)) {
    return Unimplemented(
        "a recurrent layer computes each token from the one before, which ranks cannot do side by "
        "side; use attention, a convolution or sums over tokens (cumsum), or a loop of few steps "
        "with its cell (nn.GRUCell, nn.LSTMCell, nn.RNNCell)");
  }
  if (name == "istft") {
    return Unimplemented(
        "the inverse of an stft is not supported; write it as torch.fft.irfft(z, dim=-2) times the "
        "window, added up where windows overlap (F.fold), and divided by what the squares of the "
        "window add up to in the same way");
  }
  if (name.starts_with("fft_") || name.ends_with("stft")) {
    return Unimplemented(
        "this function of torch.fft is not supported; write a transform with fft, rfft and their "
        "inverses (of one, two or more dimensions)");
  }
  if (speaks_of("fake_quant")) {
    return Unimplemented(
        "quantization in training is no op that plans have; write it out: with c = "
        "w.clamp((low - zero_point) * scale, (high - zero_point) * scale), "
        "c + (torch.round(c / scale) * scale - c).detach() has its values, and its gradient within "
        "that range");
  }
  if (speaks_of("sparse") || speaks_of("quant") || speaks_of("nested")) {
    return Unimplemented(
        "sparse, quantized and nested tensors are not supported; use dense ones of floating point");
  }
  return Unimplemented("the op is not in the op table; write it with other ops of PyTorch");
}

bool IsIdentityDropout(const OpSchema& schema, const std::vector<Argument>& args) {
  if (!IsDropout(schema) || OpBaseName(schema.name) == "native_dropout") return false;
  return NumberOf(FindArgument(schema, args, "p")) == 0 ||
         !IsTrue(FindArgument(schema, args, "train"));
}

absl::Status CheckSupported(const OpSchema& schema, const std::vector<Argument>& args) {
  RETURN_IF_ERROR(CheckDropout(schema, args));
  RETURN_IF_ERROR(CheckBatchNorm(schema, args));
  if (std::ranges::binary_search(kDataDependent, OpBaseName(schema.name))) {
    return Unimplemented(
        "its result depends on values in a way that a plan cannot know (a size or a "
        "python number); leave rows out by ignore_index, a weight or a mask instead of selecting "
        "them, write a loop over experts in its dense or grouped form, or compute it outside the "
        "model");
  }
  return CheckDraws(schema);
}

}  // namespace autosp
