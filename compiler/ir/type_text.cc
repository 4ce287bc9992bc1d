#include "compiler/ir/type_text.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status_macros.h"
#include "compiler/ir/argument_text.h"

namespace autosp {
namespace {

constexpr size_t kMaxRank = 64;  // ATen's own limit

}  // namespace

std::vector<int64_t> SizeValues(const TensorType& type) {
  std::vector<int64_t> sizes;
  sizes.reserve(type.sizes.size());
  for (const SymInt& size : type.sizes) sizes.push_back(size.value);
  return sizes;
}

bool FitsMemory(DType dtype, const std::vector<int64_t>& sizes) {
  int64_t bytes = SizeOf(dtype);
  for (const int64_t size : sizes) {
    if (size < 0 || __builtin_mul_overflow(bytes, std::max<int64_t>(size, 1), &bytes)) return false;
  }
  return true;
}

std::string PrintTensorType(const TensorType& type) {
  std::string text(DTypeName(type.dtype));
  text += '[';
  for (size_t i = 0; i < type.sizes.size(); ++i) {
    if (i > 0) text += ", ";
    PrintSymInt(type.sizes[i], &text);
  }
  text += ']';
  if (type.strides != ContiguousStrides(SizeValues(type))) {
    absl::StrAppend(&text, "{strides=", absl::StrJoin(type.strides, ","), "}");
  }
  return text;
}

absl::StatusOr<TensorType> ParseTensorType(TextCursor& cursor) {
  TensorType type;
  const size_t start = cursor.position();
  ASSIGN_OR_RETURN(const std::string_view name, cursor.Identifier());
  const std::optional<DType> dtype = DTypeFromName(name);
  if (!dtype.has_value()) {
    return cursor.ErrorAt(start, absl::StrCat("'", Absl(name), "' is not an element type"));
  }
  type.dtype = *dtype;
  RETURN_IF_ERROR(cursor.Expect('['));
  while (!cursor.Consume(']')) {
    if (!type.sizes.empty()) RETURN_IF_ERROR(cursor.Expect(','));
    ASSIGN_OR_RETURN(SymInt size, ParseSymInt(cursor));
    if (size.value < 0) return cursor.Error(absl::StrCat("size ", size.value, " is negative"));
    if (type.sizes.size() == kMaxRank) return cursor.Error("a tensor has at most 64 dimensions");
    type.sizes.push_back(std::move(size));
  }
  if (!FitsMemory(type.dtype, SizeValues(type))) {
    return cursor.ErrorAt(start, "the size of the tensor does not fit 64 bits");
  }
  type.strides = ContiguousStrides(SizeValues(type));
  if (!cursor.ConsumeText("{strides=")) return type;
  type.strides.clear();
  do {
    ASSIGN_OR_RETURN(const int64_t stride, cursor.Integer());
    type.strides.push_back(stride);
  } while (cursor.Consume(','));
  if (type.strides.size() != type.sizes.size()) {
    return cursor.Error(
        absl::StrCat(type.strides.size(), " strides for ", type.sizes.size(), " dimensions"));
  }
  RETURN_IF_ERROR(cursor.Expect('}'));
  return type;
}

}  // namespace autosp
