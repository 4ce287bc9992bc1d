#include "compiler/ir/random_ops.h"

#include <algorithm>
#include <iterator>

namespace autosp {
namespace {

// Without "aten." and overload, and without the underscore of writes in place. Sorted.
constexpr std::string_view kRandom[] = {
    "_fused_dropout",
    "_sample_dirichlet",
    "_standard_gamma",
    "alpha_dropout",
    "bernoulli",
    "binomial",
    "cauchy",
    "dropout",
    "exponential",
    "feature_alpha_dropout",
    "feature_dropout",
    "geometric",
    "log_normal",
    "multinomial",
    "native_dropout",
    "normal",
    "normal_functional",
    "poisson",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "random",
    "randperm",
    "rrelu",
    "rrelu_with_noise",
    "rrelu_with_noise_functional",
    "uniform",
};
static_assert(std::ranges::is_sorted(kRandom));

}  // namespace

bool DrawsRandomNumbers(std::string_view op) {
  constexpr std::string_view kNamespace = "aten.";
  if (!op.starts_with(kNamespace)) return false;
  op.remove_prefix(kNamespace.size());
  std::string_view base = op.substr(0, op.find('.'));
  if (base.ends_with('_')) base.remove_suffix(1);
  return std::ranges::binary_search(kRandom, base);
}

std::optional<size_t> DrawNumberArgument(std::string_view op) {
  if (op == kUniform) return 1;
  if (op == "aten.dropout.default") return 3;
  if (op == "aten.scaled_dot_product_attention.default") return 8;
  return std::nullopt;
}

}  // namespace autosp
