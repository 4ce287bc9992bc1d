#include "compiler/import/op_refusals.h"

#include <algorithm>
#include <iterator>
#include <string_view>

#include "common/errors.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

enum class Reason : uint8_t { kDataDependent, kRandom };

struct Refusal {
  std::string_view name;  // without "aten." and overload
  Reason reason;
};

// Sorted by name.
constexpr Refusal kRefusals[] = {
    {"_local_scalar_dense", Reason::kDataDependent},
    {"_unique", Reason::kDataDependent},
    {"_unique2", Reason::kDataDependent},
    {"argwhere", Reason::kDataDependent},
    {"binomial", Reason::kRandom},
    {"cauchy_", Reason::kRandom},
    {"equal", Reason::kDataDependent},
    {"exponential_", Reason::kRandom},
    {"geometric_", Reason::kRandom},
    {"is_nonzero", Reason::kDataDependent},
    {"item", Reason::kDataDependent},
    {"log_normal_", Reason::kRandom},
    {"masked_select", Reason::kDataDependent},
    {"multinomial", Reason::kRandom},
    {"nonzero", Reason::kDataDependent},
    {"nonzero_numpy", Reason::kDataDependent},
    {"normal", Reason::kRandom},
    {"normal_", Reason::kRandom},
    {"poisson", Reason::kRandom},
    {"randint", Reason::kRandom},
    {"randint_like", Reason::kRandom},
    {"randn", Reason::kRandom},
    {"randn_like", Reason::kRandom},
    {"random_", Reason::kRandom},
    {"randperm", Reason::kRandom},
    {"rrelu", Reason::kRandom},
    {"rrelu_", Reason::kRandom},
    {"rrelu_with_noise", Reason::kRandom},
    {"uniform_", Reason::kRandom},
    {"unique_consecutive", Reason::kDataDependent},
    {"unique_dim", Reason::kDataDependent},
};
static_assert(std::ranges::is_sorted(kRefusals, {}, &Refusal::name));

constexpr std::string_view kDropouts[] = {
    "alpha_dropout",   "alpha_dropout_",        "dropout",
    "dropout_",        "feature_alpha_dropout", "feature_alpha_dropout_",
    "feature_dropout", "feature_dropout_",      "native_dropout"};

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
  if (OpBaseName(schema.name) == "dropout" && probability < 1) return absl::OkStatus();
  return Unimplemented("this dropout with probability ", probability,
                       " is not supported; use nn.Dropout with a probability below 1, or 0, and "
                       "export again");
}

// Normalisation over the batch writes its running statistics without saying so in its signature.
absl::Status CheckBatchNorm(const OpSchema& schema, const std::vector<Argument>& args) {
  const Argument* running_mean = FindArgument(schema, args, "running_mean");
  if (running_mean == nullptr || IsNone(*running_mean)) return absl::OkStatus();
  if (!IsTrue(FindArgument(schema, args, "training")) &&
      !IsTrue(FindArgument(schema, args, "use_input_stats"))) {
    return absl::OkStatus();
  }
  return Unimplemented(
      "it writes running statistics while training, which is not supported; use a "
      "norm without them (layer norm, group norm) or freeze them with eval()");
}

}  // namespace

bool IsIdentityDropout(const OpSchema& schema, const std::vector<Argument>& args) {
  if (!IsDropout(schema) || OpBaseName(schema.name) == "native_dropout") return false;
  return NumberOf(FindArgument(schema, args, "p")) == 0 ||
         !IsTrue(FindArgument(schema, args, "train"));
}

absl::Status CheckSupported(const OpSchema& schema, const std::vector<Argument>& args) {
  RETURN_IF_ERROR(CheckDropout(schema, args));
  RETURN_IF_ERROR(CheckBatchNorm(schema, args));
  const std::string_view name = OpBaseName(schema.name);
  const auto* row = std::ranges::lower_bound(kRefusals, name, {}, &Refusal::name);
  if (row == std::end(kRefusals) || row->name != name) return absl::OkStatus();
  if (row->reason == Reason::kDataDependent) {
    return Unimplemented(
        "its result depends on values in a way that a plan cannot know (a size or a "
        "python number); compute it outside the model");
  }
  return Unimplemented("random numbers in the model are not supported yet; pass them as an input");
}

}  // namespace autosp
