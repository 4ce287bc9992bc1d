#include "compiler/analysis/exchange_buffers.h"

#include <optional>
#include <string_view>
#include <vector>

#include "compiler/program/exchange_buffer.h"

namespace autosp {
namespace {

// The attribute with the dimensions that are cut into a block for each peer; none: one block.
std::optional<std::string_view> CutOfOperands(CollectiveKind kind) {
  if (kind == CollectiveKind::kAllToAll) return "split";
  if (kind == CollectiveKind::kReduceScatter) return "dim";
  return std::nullopt;
}
std::optional<std::string_view> CutOfResults(CollectiveKind kind) {
  if (kind == CollectiveKind::kAllToAll) return "concat";
  if (kind == CollectiveKind::kAllGather) return "dim";
  return std::nullopt;
}

bool IsInPlace(const Program& program, const Instruction& start, const std::vector<ValueId>& values,
               std::optional<std::string_view> cut) {
  if (values.size() != 1) return false;
  const std::vector<int64_t> dims = cut ? IntsAttribute(start, *cut) : std::vector<int64_t>{};
  const ProgramValue& value = program.value(values[0]);
  return IsExchangeBuffer(program.LocalSizes(value), program.LocalStrides(value),
                          dims.empty() ? 0 : dims[0]);
}

int64_t BytesOf(const Program& program, const std::vector<ValueId>& values) {
  int64_t bytes = 0;
  for (ValueId id : values) bytes += program.LocalBytes(program.value(id));
  return bytes;
}

}  // namespace

ExchangeBuffers BuffersOf(const Program& program, const Instruction& start, CollectiveKind kind,
                          int64_t group_size) {
  ExchangeBuffers buffers;
  if (group_size == 1) return {.receives_in_place = true};
  const std::vector<ValueId> operands = OperandsOf(start);
  buffers.receives_in_place = IsInPlace(program, start, start.results, CutOfResults(kind));
  if (!buffers.receives_in_place) buffers.recv_bytes = BytesOf(program, start.results);
  if (kind == CollectiveKind::kBroadcast) return buffers;  // one buffer serves both ways
  buffers.sends_in_place = IsInPlace(program, start, operands, CutOfOperands(kind));
  if (!buffers.sends_in_place) buffers.send_bytes = BytesOf(program, operands);
  return buffers;
}

}  // namespace autosp
