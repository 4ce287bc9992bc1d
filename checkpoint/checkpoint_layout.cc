#include "checkpoint/checkpoint_layout.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/program/split_dim.h"
#include "compiler/weights/safetensors_header.h"

namespace autosp {
namespace {

// The accumulators that the section zeroes before it does anything else.
std::set<ValueId> ZeroedFirst(const Section& section) {
  std::set<ValueId> zeroed;
  for (const Instruction& instruction : section.body) {
    const bool zeroes =
        instruction.kind == InstructionKind::kUpdate && instruction.op == "aten.zero_.default";
    if (!zeroes) break;
    for (const ValueId value : OperandsOf(instruction)) zeroed.insert(value);
  }
  return zeroed;
}

int64_t CeilDiv(__int128 a, int64_t b) { return static_cast<int64_t>((a + b - 1) / b); }

// Cuts a run of `total` bytes into `num_files` parts: part i begins at byte ceil(i * total / n).
class Cutter {
 public:
  Cutter(int64_t total, int64_t num_files) : total_(total), num_files_(num_files) {}

  // The slices of the tensor that begins at byte `begin`. A row goes where its first byte is.
  std::vector<TensorSlice> Cut(const ManifestTensor& tensor, int64_t begin) const {
    const int64_t num_rows = tensor.shape.empty() ? 1 : tensor.shape[0];
    const int64_t bytes = *TensorBytes(tensor.dtype, tensor.shape);
    if (bytes == 0) return {};
    const int64_t row_bytes = bytes / num_rows;
    std::vector<TensorSlice> slices;
    for (int64_t row = 0; row < num_rows;) {
      const int64_t file = FileOf(begin + row * row_bytes);
      const int64_t next_file_begin = CeilDiv(__int128{total_} * (file + 1), num_files_);
      const int64_t end =
          std::clamp(CeilDiv(next_file_begin - begin, row_bytes), row + 1, num_rows);
      TensorSlice slice{.file = file,
                        .offset = std::vector<int64_t>(tensor.shape.size(), 0),
                        .shape = tensor.shape};
      if (!tensor.shape.empty()) {
        slice.offset[0] = row;
        slice.shape[0] = end - row;
      }
      slices.push_back(std::move(slice));
      row = end;
    }
    return slices;
  }

 private:
  int64_t FileOf(int64_t byte) const {
    return static_cast<int64_t>(__int128{byte} * num_files_ / total_);
  }

  const int64_t total_;
  const int64_t num_files_;
};

// Each rank writes the part that it holds; of ranks that hold the same part, the first.
absl::StatusOr<std::vector<TensorSlice>> PartsOfRanks(const Program& program,
                                                      const ProgramValue& value,
                                                      const AxisList& axes, int64_t num_files) {
  const int64_t num_ranks = program.mesh.world_size();
  if (num_files != num_ranks) {
    return InvalidArgument("is split over ", AxisListName(axes), ", and each of ", num_ranks,
                           " ranks writes its part into a file of its own, not into one of ",
                           num_files);
  }
  std::vector<TensorSlice> slices;
  for (int64_t rank = 0; rank < num_ranks; ++rank) {
    const MeshCoordinate place = CoordinateOf(program.mesh, rank);
    const bool is_first = std::ranges::all_of(kDeviceAxes, [&](Axis axis) {
      return std::ranges::count(axes, axis) > 0 || place.index(axis) == 0;
    });
    if (!is_first) continue;
    ASSIGN_OR_RETURN(TensorBox box, HeldBox(program, value, place));
    slices.push_back(
        {.file = rank, .offset = std::move(box.offset), .shape = std::move(box.shape)});
  }
  return slices;
}

}  // namespace

std::vector<const Persistent*> CarriedValues(const Program& program) {
  const Section* step = program.FindSection("step");
  const std::set<ValueId> zeroed = step == nullptr ? std::set<ValueId>() : ZeroedFirst(*step);
  const std::vector<const Persistent*> written = program.WrittenBuffers();
  std::vector<const Persistent*> carried;
  for (const Persistent& persistent : program.persistents) {
    const bool is_carried =
        persistent.kind == PersistentKind::kParam || std::ranges::count(written, &persistent) > 0 ||
        (persistent.kind == PersistentKind::kState && !zeroed.contains(persistent.value));
    if (is_carried) carried.push_back(&persistent);
  }
  return carried;
}

absl::StatusOr<std::vector<ManifestTensor>> LayOutCheckpoint(const Program& program,
                                                             int64_t num_files) {
  std::vector<ManifestTensor> tensors;
  int64_t total = 0;  // of what is whole on every rank
  for (const Persistent* persistent : CarriedValues(program)) {
    const ProgramValue& value = program.value(persistent->value);
    ASSIGN_OR_RETURN(const std::optional<SplitDim> split, SplitDimOf(program, value),
                     persistent->name);
    ASSIGN_OR_RETURN(std::vector<int64_t> shape, WholeShape(program, value));
    const std::optional<int64_t> bytes = TensorBytes(value.dtype, shape);
    tensors.push_back({.name = persistent->name, .dtype = value.dtype, .shape = std::move(shape)});
    if (split) {
      ASSIGN_OR_RETURN(tensors.back().slices, PartsOfRanks(program, value, split->axes, num_files),
                       persistent->name);
    } else if (!bytes.has_value() || __builtin_add_overflow(total, *bytes, &total)) {
      return InvalidArgument(persistent->name, ": the size of the checkpoint overflows");
    }
  }
  std::ranges::sort(tensors, {}, &ManifestTensor::name);
  const Cutter cutter(total, num_files);
  int64_t begin = 0;
  for (ManifestTensor& tensor : tensors) {
    if (!tensor.slices.empty()) continue;
    tensor.slices = cutter.Cut(tensor, begin);
    begin += *TensorBytes(tensor.dtype, tensor.shape);
  }
  return tensors;
}

}  // namespace autosp
