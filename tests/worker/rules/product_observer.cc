#include "tests/worker/rules/product_observer.h"

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string_view>
#include <vector>

namespace autosp {
namespace {

double flops = 0;
bool has_fused_attention = false;

using Values = std::vector<c10::IValue>;

double Numel(const c10::IValue& value) { return static_cast<double>(value.toTensor().numel()); }
double Columns(const c10::IValue& value) {
  return static_cast<double>(value.toTensor().sizes().back());
}

// Of matrices a and b, or of batches of them.
double Product(const c10::IValue& a, const c10::IValue& b) { return 2 * Numel(a) * Columns(b); }

// What one element of each result channel costs, for as many elements as `places` has.
double Convolution(const c10::IValue& places, const c10::IValue& weight) {
  return 2 * Numel(places) * Numel(weight) / static_cast<double>(weight.toTensor().size(0));
}

// Every query with every key, so many products over their columns and over those of the values.
double Attention(const c10::IValue& q, const c10::IValue& k, const c10::IValue& v, double of_keys,
                 double of_values) {
  has_fused_attention = true;
  const auto k_len = static_cast<double>(k.toTensor().size(-2));
  return 2 * Numel(q) / Columns(q) * k_len * (of_keys * Columns(q) + of_values * Columns(v));
}

using CountFn = double (*)(const Values& in, const Values& out);
const std::map<std::string_view, CountFn>& Kernels() {
  static const auto& kernels = *new std::map<std::string_view, CountFn>{
      {"aten::mm", [](const Values& in, const Values& /*out*/) { return Product(in[0], in[1]); }},
      {"aten::bmm", [](const Values& in, const Values& /*out*/) { return Product(in[0], in[1]); }},
      {"aten::addmm",
       [](const Values& in, const Values& /*out*/) { return Product(in[1], in[2]); }},
      {"aten::addbmm",
       [](const Values& in, const Values& /*out*/) { return Product(in[1], in[2]); }},
      {"aten::baddbmm",
       [](const Values& in, const Values& /*out*/) { return Product(in[1], in[2]); }},
      {"aten::convolution",
       [](const Values& in, const Values& out) {
         const bool is_transposed = in[6].toBool();
         return Convolution(is_transposed ? in[0] : out[0], in[1]);
       }},
      {"aten::convolution_backward",
       [](const Values& in, const Values& /*out*/) {
         const c10::List<bool> wanted = in[10].toBoolList();  // gradients of input, weight, bias
         const bool is_transposed = in[7].toBool();
         return (wanted.get(0) + wanted.get(1)) * Convolution(in[is_transposed ? 1 : 0], in[2]);
       }},
      {"aten::_scaled_dot_product_flash_attention_for_cpu",
       [](const Values& in, const Values& /*out*/) {
         return Attention(in[0], in[1], in[2], 1, 1);
       }},
      {"aten::_scaled_dot_product_flash_attention_for_cpu_backward",
       [](const Values& in, const Values& /*out*/) {
         return Attention(in[1], in[2], in[3], 3, 2);
       }},
  };
  return kernels;
}

// The operands, which a boxed call takes off its stack before it ends.
struct Operands : at::ObserverContext {
  CountFn count = nullptr;
  Values values;
};

std::unique_ptr<at::ObserverContext> Begin(const at::RecordFunction& call) {
  const auto kernel = Kernels().find(call.name());
  if (kernel == Kernels().end()) return nullptr;
  auto operands = std::make_unique<Operands>();
  operands->count = kernel->second;
  operands->values.assign(call.inputs().begin(), call.inputs().end());
  return operands;
}

void End(const at::RecordFunction& call, at::ObserverContext* context) {
  const auto* operands = static_cast<const Operands*>(context);
  if (operands != nullptr) flops += operands->count(operands->values, call.outputs());
}

}  // namespace

ProductObserver::ProductObserver()
    : handle_(at::addGlobalCallback(at::RecordFunctionCallback(Begin, End)
                                        .needsInputs(true)
                                        .needsOutputs(true)
                                        .scopes({at::RecordScope::FUNCTION}))) {
  autosp::flops = 0;
  autosp::has_fused_attention = false;
}

ProductObserver::~ProductObserver() { at::removeCallback(handle_); }

double ProductObserver::flops() const { return autosp::flops; }
bool ProductObserver::has_fused_attention() const { return autosp::has_fused_attention; }

}  // namespace autosp
