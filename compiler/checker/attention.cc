// The meaning of attention: one function of queries, keys, values, documents, a scale and a rule of
// indices, whether a kernel of ATen computes it at once or ours in blocks (block_attention.cc).
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "compiler/checker/interpreter.h"

namespace autosp::checker {

// [b, heads, t, e] with each head as often as query heads share it.
Tensor Interpreter::RepeatHeads(const Tensor& tensor, int64_t num_heads) {
  const Shape& shape = tensor.shape;
  const int64_t copies = num_heads / shape[1];
  Tensor grouped = table_.Reshape(tensor, {shape[0], shape[1], 1, shape[2], shape[3]});
  grouped = table_.Expand(grouped, {shape[0], shape[1], copies, shape[2], shape[3]});
  return table_.Reshape(grouped, {shape[0], num_heads, shape[2], shape[3]});
}

std::string Interpreter::AttentionRule(bool causal, double scale, int64_t window) {
  // Ten digits, as coefficients are compared.
  return absl::StrFormat("causal=%d scale=%.10g window=%d", causal ? 1 : 0, scale, window);
}

// (gradient,) query, key, value, (out, logsumexp,) then mask or documents, which `rule` names ->
// out and logsumexp, or the gradients of query, key and value. Attention of grouped heads is
// attention with each key head repeated; the gradient of a key head is the sum over its group.
std::vector<Tensor> Interpreter::AttentionMeaning(bool is_backward, const std::string& rule,
                                                  const std::vector<Tensor>& operands) {
  const std::string key = absl::StrCat(is_backward ? "attention backward " : "attention ", rule);
  if (last_attention_.rule != key || last_attention_.operands != operands) {
    last_attention_ = {key, operands, NewAttention(is_backward, key, operands)};
  }
  return last_attention_.results;
}

std::vector<Tensor> Interpreter::MeaningsOf(const std::vector<const ValueState*>& operands) {
  std::vector<Tensor> meanings;
  for (const ValueState* operand : operands) meanings.push_back(operand->meaning);
  return meanings;
}

std::vector<Tensor> Interpreter::NewAttention(bool is_backward, const std::string& key,
                                              const std::vector<Tensor>& operands) {
  const size_t query = is_backward ? 1 : 0;
  const Shape heads = operands[query].shape;
  std::vector<NodeId> nodes;
  for (size_t i = 0; i < operands.size(); ++i) {
    const bool is_key = i == query + 1 || i == query + 2;
    nodes.push_back(table_.Intern(is_key ? RepeatHeads(operands[i], heads[1]) : operands[i]));
  }
  if (!is_backward) {
    const int64_t value_dim = operands[query + 2].shape[3];
    return {table_.Node(key, nodes, {heads[0], heads[1], heads[2], value_dim}),
            table_.Node(absl::StrCat(key, " #1"), nodes, {heads[0], heads[1], heads[2]})};
  }
  std::vector<Tensor> results = {table_.Node(key, nodes, heads)};
  for (size_t i : {1, 2}) {
    const Shape shape = operands[query + i].shape;
    const Tensor repeated =
        table_.Node(absl::StrCat(key, " #", i), nodes, {shape[0], heads[1], shape[2], shape[3]});
    const Tensor grouped =
        table_.Reshape(repeated, {shape[0], shape[1], heads[1] / shape[1], shape[2], shape[3]});
    results.push_back(table_.SumOver(grouped, 2));
  }
  return results;
}

// ATen's kernel rounds to the type of its operands what ours leaves in fp32.
std::vector<Tensor> Interpreter::FlashMeaning(const OpCall& call,
                                              const std::vector<const ValueState*>& operands) {
  const bool is_backward = call.instruction.op.ends_with("_backward.default");
  const size_t causal_arg = is_backward ? 7 : 4;
  const auto head_dim = static_cast<double>(operands[is_backward ? 1 : 0]->meaning.shape.back());
  const double scale = call.Number(causal_arg + 2).value_or(1 / std::sqrt(head_dim));
  std::string rule = AttentionRule(call.Flag(causal_arg), scale, /*window=*/0);
  if (call.HasTensor(causal_arg + 1)) rule += " mask";
  return RoundedAttention(call, is_backward, rule, operands);
}

// The same of an op that names one of several kernels: which one is no part of the meaning.
std::vector<Tensor> Interpreter::SdpaMeaning(const OpCall& call,
                                             const std::vector<const ValueState*>& operands) {
  const AttributeMap& attributes = call.instruction.attributes;
  const auto causal = attributes.find("causal");
  const auto scale = attributes.find("scale");
  const bool is_backward = call.instruction.op == "autosp.sdpa_backward";
  // What is missing is as wrong as what is different.
  const bool* is_causal = causal == attributes.end() ? nullptr : std::get_if<bool>(&causal->second);
  const double* factor = scale == attributes.end() ? nullptr : std::get_if<double>(&scale->second);
  std::string rule = is_causal == nullptr || factor == nullptr
                         ? std::string("unknown")
                         : AttentionRule(*is_causal, *factor, /*window=*/0);
  if (call.HasTensor(is_backward ? 6 : 3)) rule += " mask";
  return RoundedAttention(call, is_backward, rule, operands);
}

// Takes away the zeros that all of some operands have behind their features.
void Interpreter::CutZeros(const std::vector<size_t>& which, std::vector<Tensor>* operands) {
  int64_t size = 0;
  for (size_t i : which) size = std::max(size, table_.SizeBeforeZeros((*operands)[i], 3));
  for (size_t i : which) {
    Tensor& operand = (*operands)[i];
    if (size < operand.shape[3]) operand = table_.Slice(operand, 3, 0, size, 1);
  }
}

// Kernels that know one size of heads are given zeros behind shorter ones. Zeros behind queries and
// keys change no product of the two, and their gradients have them too; zeros behind values are
// zeros behind the result, and so on the way back.
std::vector<Tensor> Interpreter::RoundedAttention(const OpCall& call, bool is_backward,
                                                  const std::string& rule,
                                                  const std::vector<const ValueState*>& operands) {
  std::vector<Tensor> cut = MeaningsOf(operands);
  const size_t query = is_backward ? 1 : 0;
  const int64_t key_size = cut[query].shape[3];
  const int64_t value_size = cut[query + 2].shape[3];
  CutZeros({query, query + 1}, &cut);
  CutZeros(is_backward ? std::vector<size_t>{0, 3, 4} : std::vector<size_t>{2}, &cut);
  std::vector<Tensor> results = AttentionMeaning(is_backward, rule, cut);
  results.resize(call.results.size());
  for (size_t i = 0; i < results.size(); ++i) {
    const DType dtype = program_.value(call.instruction.results[i]).dtype;
    results[i] = Cast(results[i], DType::kF32, dtype);
    if (results[i].shape.size() != 4) continue;  // the logsumexp
    const bool is_of_keys = is_backward && i < 2;
    results[i] = table_.Embed(results[i], 3, 0, 1, is_of_keys ? key_size : value_size);
  }
  return results;
}

}  // namespace autosp::checker
