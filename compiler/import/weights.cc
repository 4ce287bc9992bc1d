#include "compiler/import/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <set>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/import/import_limits.h"
#include "compiler/ir/type_text.h"

namespace autosp {
namespace {

using exported::Payload;

struct Layout {
  DType dtype = DType::kF32;
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;
  int64_t storage_offset = 0;
  friend bool operator==(const Layout&, const Layout&) = default;
};

absl::StatusOr<int64_t> LiteralOf(const exported::SymValue& value) {
  if (value.hint.has_value() && *value.hint >= 0) return *value.hint;
  return DataLoss("a size or stride is no number of at least 0");
}

absl::StatusOr<Layout> LayoutOf(const Payload& payload) {
  if (payload.is_pickled) {
    return Unimplemented(
        "it is pickled (a tensor subclass), which is not read; convert it to a "
        "plain tensor before export");
  }
  if (!payload.meta.has_value()) {
    return Unimplemented("it is no tensor (a custom object), which is not supported");
  }
  if (!payload.meta->dtype.has_value()) {
    return Unimplemented("element type ",
                         std::string(exported::ScalarTypeName(payload.meta->scalar_type)),
                         " is not supported");
  }
  Layout layout;
  layout.dtype = *payload.meta->dtype;
  for (const exported::SymValue& size : payload.meta->sizes) {
    ASSIGN_OR_RETURN(layout.sizes.emplace_back(), LiteralOf(size));
  }
  for (const exported::SymValue& stride : payload.meta->strides) {
    ASSIGN_OR_RETURN(layout.strides.emplace_back(), LiteralOf(stride));
  }
  ASSIGN_OR_RETURN(layout.storage_offset, LiteralOf(payload.meta->storage_offset));
  return layout;
}

// Bytes from the start of the storage to the end of the tensor's last element.
absl::StatusOr<int64_t> ExtentBytes(const Layout& layout) {
  int64_t last = layout.storage_offset;
  for (size_t i = 0; i < layout.sizes.size(); ++i) {
    if (layout.sizes[i] == 0) return 0;
    int64_t reach = 0;
    if (__builtin_mul_overflow(layout.sizes[i] - 1, layout.strides[i], &reach) ||
        __builtin_add_overflow(last, reach, &last)) {
      return DataLoss("its size does not fit 64 bits");
    }
  }
  int64_t bytes = 0;
  if (__builtin_add_overflow(last, 1, &last) ||
      __builtin_mul_overflow(last, SizeOf(layout.dtype), &bytes)) {
    return DataLoss("its size does not fit 64 bits");
  }
  return bytes;
}

std::string DescribeLayout(DType dtype, const std::vector<int64_t>& sizes) {
  return absl::StrCat(std::string(DTypeName(dtype)), "[", absl::StrJoin(sizes, ", "), "]");
}

absl::Status ReadPayloadsOf(const ZipArchive& archive, const std::string& folder,
                            const std::string& config_name,
                            std::map<std::string, Payload>* payloads) {
  const ZipEntry* entry = archive.Find(folder + config_name);
  if (entry == nullptr) return absl::OkStatus();  // an input that needs it says so by name
  ASSIGN_OR_RETURN(const std::string json, archive.Read(*entry, kMaxJsonBytes));
  ASSIGN_OR_RETURN(auto config, exported::ReadPayloadConfig(json, config_name));
  for (auto& [name, payload] : config) {
    payload.path = folder + payload.path;
    payloads->insert_or_assign(name, std::move(payload));
  }
  return absl::OkStatus();
}

absl::Status CheckType(const TensorType& type, const Layout& layout) {
  if (type.dtype == layout.dtype && SizeValues(type) == layout.sizes) return absl::OkStatus();
  return InvalidArgument("the archive holds ", DescribeLayout(layout.dtype, layout.sizes),
                         ", but the graph expects ", DescribeLayout(type.dtype, SizeValues(type)));
}

absl::StatusOr<WeightRef> LocateWeight(const ZipArchive& archive, const TensorType& type,
                                       const Payload& payload) {
  ASSIGN_OR_RETURN(Layout layout, LayoutOf(payload));
  RETURN_IF_ERROR(CheckType(type, layout));
  const ZipEntry* entry = archive.Find(payload.path);
  if (entry == nullptr) {
    return NotFound("entry ", payload.path, " is missing from the archive; save it again");
  }
  if (!entry->is_stored) {
    return Unimplemented("entry ", payload.path,
                         " is compressed, so it cannot be mapped; save the ",
                         "archive again with torch.export.save");
  }
  WeightRef ref;
  ASSIGN_OR_RETURN(const int64_t needed, ExtentBytes(layout));
  ref.is_empty = entry->size_bytes == 0 && needed > 0;
  // A view shows a part of its storage, which export saves whole: w[:, :8], w[::2], w[:4].
  const bool fits = entry->size_bytes >= needed && entry->size_bytes % SizeOf(layout.dtype) == 0;
  if (!ref.is_empty && !fits) {
    return InvalidArgument("entry ", payload.path, " has ", entry->size_bytes, " bytes, but ",
                           DescribeLayout(layout.dtype, layout.sizes), " takes ", needed,
                           ", or more in whole elements; save the archive again with "
                           "torch.export.save");
  }
  ref.entry = entry->name;
  ref.file_offset = entry->data_offset;
  ref.size_bytes = entry->size_bytes;
  ref.dtype = layout.dtype;
  ref.sizes = std::move(layout.sizes);
  ref.strides = std::move(layout.strides);
  ref.storage_offset = needed == 0 ? 0 : layout.storage_offset;  // checked where it is read
  return ref;
}

bool HasPayload(const exported::InputSpec& spec) {
  return spec.role == exported::InputRole::kParameter ||
         spec.role == exported::InputRole::kBuffer ||
         spec.role == exported::InputRole::kTensorConstant;
}

// Values of inputs that the graph computes with or gives back.
std::set<std::string> UsedNames(const exported::Graph& graph) {
  std::set<std::string> used;
  const auto add = [&](const exported::Argument& argument) {
    used.insert(argument.text);
    for (const exported::Item& item : argument.items) used.insert(item.name);
  };
  for (const exported::Node& node : graph.nodes) {
    for (const exported::NamedArgument& input : node.inputs) add(input.value);
  }
  for (const exported::Argument& output : graph.outputs) add(output);
  return used;
}

// torch.export has one input for all uses of a parameter, whatever its names. Where two inputs of
// one storage are used, they are two parameters (nn.Parameter(other.data)), each with a gradient
// and an optimizer state of its own, whose updates meet in one memory.
absl::Status CheckOneIsUsed(const exported::InputSpec& first, const exported::InputSpec& second,
                            const std::set<std::string>& used) {
  if (!used.contains(first.value_name) || !used.contains(second.value_name)) {
    return absl::OkStatus();
  }
  return Unimplemented(
      "weights ", first.name, " and ", second.name,
      " are two parameters that share memory, as nn.Parameter(other.data) makes them: each would "
      "have a gradient of its own, and a plan trains one; tie them by the parameter itself "
      "(module.weight = other.weight), or make one a copy (.clone()) before export");
}

}  // namespace

absl::StatusOr<std::map<std::string, Payload>> ReadPayloads(const ZipArchive& archive,
                                                            const std::string& root) {
  std::map<std::string, Payload> payloads;
  RETURN_IF_ERROR(
      ReadPayloadsOf(archive, root + "data/weights/", "model_weights_config.json", &payloads));
  RETURN_IF_ERROR(
      ReadPayloadsOf(archive, root + "data/constants/", "model_constants_config.json", &payloads));
  return payloads;
}

absl::StatusOr<std::map<std::string, InputFacts>> FindTies(
    const ZipArchive& archive, const exported::Program& program,
    const std::map<std::string, Payload>& payloads) {
  struct First {
    const exported::InputSpec* spec;
    Layout layout;
    const exported::InputSpec* used = nullptr;  // the name that the graph computes with
    bool needs_grad = false;
  };
  const std::set<std::string> used = UsedNames(program.graph);
  std::map<std::string, First> first_by_path;
  std::map<std::string, InputFacts> facts;
  for (const exported::InputSpec& spec : program.inputs) {
    const auto found = payloads.find(spec.name);
    if (!HasPayload(spec) || found == payloads.end()) continue;
    const Payload& payload = found->second;
    ASSIGN_OR_RETURN(Layout layout, LayoutOf(payload), "weight ", spec.name);
    InputFacts& fact = facts[spec.name];
    fact.requires_grad = payload.meta->requires_grad;
    // Without bytes, all weights of a type share one empty entry, which says nothing.
    const ZipEntry* entry = archive.Find(payload.path);
    if (entry != nullptr && entry->size_bytes == 0) continue;
    const auto [first, is_first] = first_by_path.emplace(payload.path, First{&spec, layout});
    First& other = first->second;
    other.needs_grad = other.needs_grad || fact.requires_grad;
    if (other.used != nullptr && other.needs_grad && other.layout == layout) {
      RETURN_IF_ERROR(CheckOneIsUsed(*other.used, spec, used));
    }
    if (used.contains(spec.value_name)) other.used = &spec;
    if (is_first) continue;
    if (other.layout == layout && other.spec->role == spec.role) {
      fact.tied_to = other.spec->name;
    } else if (spec.role == exported::InputRole::kParameter ||
               other.spec->role == exported::InputRole::kParameter) {
      return Unimplemented(
          "weights ", other.spec->name, " and ", spec.name,
          " share memory but differ in shape or kind, which is not supported; make "
          "one a copy before export");
    }
  }
  return facts;
}

absl::StatusOr<std::vector<WeightRef>> LocateWeights(
    const ZipArchive& archive, const Graph& graph, const std::map<std::string, Payload>& payloads) {
  std::vector<WeightRef> refs;
  for (const GraphInput& input : graph.inputs) {
    if (input.kind == InputKind::kUser) continue;
    const auto payload = payloads.find(input.name);
    if (payload == payloads.end()) {
      return NotFound("weight ", input.name,
                      " is missing from the archive; save it again with "
                      "torch.export.save");
    }
    ASSIGN_OR_RETURN(WeightRef ref, LocateWeight(archive, graph.type(input.value), payload->second),
                     "weight ", input.name);
    ref.input_name = input.name;
    refs.push_back(std::move(ref));
  }
  return refs;
}

namespace {

using Range = std::pair<int64_t, int64_t>;

template <typename T>
std::optional<Range> RangeOf(absl::Span<const std::byte> bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  if constexpr (std::is_floating_point_v<T>) {
    constexpr T kMost = 1 << 24;  // of fp32, of which larger numbers are all whole
    const bool are_whole = std::ranges::all_of(
        values, [](T value) { return std::abs(value) <= kMost && value == std::floor(value); });
    if (!are_whole) return std::nullopt;
  }
  const auto [low, high] = std::ranges::minmax(values);
  return Range{static_cast<int64_t>(low), static_cast<int64_t>(high)};
}

// Floating numbers count where all are whole: torch.tensor(float(S)).
std::optional<Range> RangeOf(absl::Span<const std::byte> bytes, DType dtype) {
  if (dtype == DType::kF32) return RangeOf<float>(bytes);
  if (dtype == DType::kF64) return RangeOf<double>(bytes);
  return dtype == DType::kI64 ? RangeOf<int64_t>(bytes) : std::nullopt;
}

}  // namespace

std::map<std::string, std::pair<int64_t, int64_t>> ConstantRanges(
    absl::Span<const std::byte> bytes, const std::vector<WeightRef>& weights) {
  constexpr int64_t kMaxBytes = int64_t{1} << 24;  // a table of places is small
  std::map<std::string, std::pair<int64_t, int64_t>> ranges;
  for (const WeightRef& weight : weights) {
    const bool is_constant = weight.entry.find("/data/constants/") != std::string::npos;
    if (!is_constant || weight.is_empty) continue;
    // What shares its storage with others is left out.
    const int64_t count = weight.size_bytes / SizeOf(weight.dtype);
    int64_t numel = 1;
    for (const int64_t size : weight.sizes) numel *= size;
    if (count == 0 || count != numel || weight.size_bytes > kMaxBytes) continue;
    const auto own = bytes.subspan(weight.file_offset, weight.size_bytes);
    if (const auto range = RangeOf(own, weight.dtype)) ranges[weight.input_name] = *range;
  }
  return ranges;
}

}  // namespace autosp
