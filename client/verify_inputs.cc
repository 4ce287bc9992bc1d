#include "client/verify_inputs.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/errors.h"
#include "common/file.h"
#include "common/status_macros.h"
#include "compiler/weights/safetensors_reader.h"

namespace autosp {
namespace {

bool IsTokens(InputSource source) {
  return source == InputSource::kTokens || source == InputSource::kNextTokens ||
         source == InputSource::kMlmTokens || source == InputSource::kMlmLabels;
}

absl::Status SetSize(const std::string& what, int64_t size, std::optional<int64_t>& known) {
  if (known.value_or(size) != size) {
    return InvalidArgument(what, " has size ", size, ", where other inputs have ", *known);
  }
  known = size;
  return absl::OkStatus();
}

// Values that are token ids, from the inputs through ops on integers: views, shifts, masking.
std::set<ValueId> TokenValues(const Graph& graph, const DataSpec& data) {
  std::set<ValueId> tokens;
  for (const GraphInput& input : graph.inputs) {
    if (input.kind != InputKind::kUser) continue;
    const std::optional<InputFeed> feed = InputFeedFor(data, input.name);
    if (feed && IsTokens(feed->source)) tokens.insert(input.value);
  }
  for (const Node& node : graph.nodes) {
    const std::vector<ValueId> operands = OperandsOf(node);
    if (operands.empty() || !tokens.contains(operands[0])) continue;
    for (const ValueId output : node.outputs) {
      if (graph.type(output).dtype == DType::kI64) tokens.insert(output);
    }
  }
  return tokens;
}

}  // namespace

absl::StatusOr<BatchSizes> SizesOfBatch(const Graph& graph, const DataSpec& data,
                                        const std::string& path) {
  ASSIGN_OR_RETURN(const SafetensorsReader reader, SafetensorsReader::Open(path));
  std::optional<int64_t> batch_size;
  std::optional<int64_t> seq_len;
  for (const GraphInput& input : graph.inputs) {
    if (input.kind != InputKind::kUser) continue;
    ASSIGN_OR_RETURN(const SafetensorsReader::Tensor tensor, reader.Find(input.name));
    const std::optional<InputFeed> feed = InputFeedFor(data, input.name);
    if (!feed) continue;  // The compiler asks for it.
    const std::vector<int64_t>& shape = tensor.entry->shape;
    if (shape.size() != feed->dims.size()) {
      return InvalidArgument(path, ": ", input.name, " is [", absl::StrJoin(shape, ", "),
                             "], but the job gives it ", feed->dims.size(), " dimensions");
    }
    for (size_t dim = 0; dim < shape.size(); ++dim) {
      if (feed->dims[dim] == DimRole::kOther) continue;
      const std::string what = absl::StrCat(path, ": dimension ", dim, " of ", input.name);
      RETURN_IF_ERROR(
          SetSize(what, shape[dim], feed->dims[dim] == DimRole::kBatch ? batch_size : seq_len));
    }
  }
  if (batch_size) return BatchSizes{.batch_size = *batch_size, .seq_len = seq_len};
  return InvalidArgument(path, ": no input has a batch dimension; name it in data.inputs");
}

absl::StatusOr<int64_t> VocabularyOf(const Graph& graph, const DataSpec& data) {
  const std::set<ValueId> tokens = TokenValues(graph, data);
  std::optional<int64_t> vocabulary;
  const auto bound_by = [&vocabulary](int64_t size) {
    vocabulary = std::min(vocabulary.value_or(size), size);
  };
  for (const Node& node : graph.nodes) {
    const std::vector<ValueId> operands = OperandsOf(node);
    if (operands.size() < 2 || !tokens.contains(operands[1])) continue;
    const TensorType& first = graph.type(operands[0]);  // table, or logits
    if (first.sizes.empty()) continue;
    if (node.op == "aten.embedding.default") {
      bound_by(first.sizes[0].value);
    } else if (node.op == "aten.cross_entropy_loss.default" ||
               node.op == "aten.nll_loss_nd.default") {
      bound_by(first.sizes[std::min<size_t>(1, first.sizes.size() - 1)].value);
    }
  }
  if (vocabulary) return *vocabulary;
  return FailedPrecondition(
      "the model looks its tokens up in no table, so that there is no vocabulary to draw random "
      "ones from; give the inputs with --batch, or data that can be read");
}

absl::Status UseRandomTokens(int64_t vocabulary, const std::string& path, JobSpec& job) {
  const TrainingSpec& training = job.training;
  // One more sequence than the batch has, for labels that look ahead.
  std::vector<uint32_t> tokens((training.global_batch_size + 1) * training.seq_len + 1);
  std::mt19937_64 random(static_cast<uint64_t>(training.seed));
  for (uint32_t& token : tokens) {
    token = static_cast<uint32_t>(random() % static_cast<uint64_t>(vocabulary));
  }
  std::string bytes(tokens.size() * sizeof(uint32_t), '\0');
  std::memcpy(bytes.data(), tokens.data(), bytes.size());
  RETURN_IF_ERROR(WriteFileAtomically(path, bytes));
  job.data.format = DataFormat::kTokens;
  job.data.dtype = TokenDtype::kUint32;
  job.data.files = {path};
  return absl::OkStatus();
}

}  // namespace autosp
