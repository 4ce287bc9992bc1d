#include <algorithm>
#include <array>

#include "compiler/import/exported_program.h"

namespace autosp::exported {
namespace {

struct ScalarTypeRow {
  int64_t number;
  std::string_view name;  // as users of PyTorch know it
  std::optional<DType> dtype;
};

constexpr std::array kScalarTypes = {
    ScalarTypeRow{1, "torch.uint8", DType::kU8},
    ScalarTypeRow{2, "torch.int8", DType::kI8},
    ScalarTypeRow{3, "torch.int16", DType::kI16},
    ScalarTypeRow{4, "torch.int32", DType::kI32},
    ScalarTypeRow{5, "torch.int64", DType::kI64},
    ScalarTypeRow{6, "torch.float16", DType::kF16},
    ScalarTypeRow{7, "torch.float32", DType::kF32},
    ScalarTypeRow{8, "torch.float64", DType::kF64},
    ScalarTypeRow{9, "torch.complex32", std::nullopt},
    ScalarTypeRow{10, "torch.complex64", std::nullopt},
    ScalarTypeRow{11, "torch.complex128", std::nullopt},
    ScalarTypeRow{12, "torch.bool", DType::kBool},
    ScalarTypeRow{13, "torch.bfloat16", DType::kBF16},
    ScalarTypeRow{28, "torch.uint16", std::nullopt},
    ScalarTypeRow{29, "torch.float8_e4m3fn", std::nullopt},
    ScalarTypeRow{30, "torch.float8_e5m2", std::nullopt},
    ScalarTypeRow{31, "torch.float8_e4m3fnuz", std::nullopt},
    ScalarTypeRow{32, "torch.float8_e5m2fnuz", std::nullopt},
    ScalarTypeRow{33, "torch.float8_e8m0fnu", std::nullopt},
    ScalarTypeRow{34, "torch.uint32", std::nullopt},
    ScalarTypeRow{35, "torch.uint64", std::nullopt},
};

constexpr std::array<std::string_view, 5> kMemoryFormats = {
    "", "contiguous_format", "channels_last", "channels_last_3d", "preserve_format"};

constexpr std::array<std::string_view, 8> kLayouts = {
    "", "sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc", "mkldnn", "strided"};

const ScalarTypeRow* FindScalarType(int64_t number) {
  const auto* row = std::ranges::find(kScalarTypes, number, &ScalarTypeRow::number);
  return row == kScalarTypes.end() ? nullptr : row;
}

}  // namespace

std::optional<DType> DTypeFromScalarType(int64_t scalar_type) {
  const ScalarTypeRow* row = FindScalarType(scalar_type);
  return row == nullptr ? std::nullopt : row->dtype;
}

std::string_view ScalarTypeName(int64_t scalar_type) {
  const ScalarTypeRow* row = FindScalarType(scalar_type);
  return row == nullptr ? "an unknown element type" : row->name;
}

std::string_view MemoryFormatName(int64_t format) {
  return format < 0 || format >= std::ssize(kMemoryFormats) ? "" : kMemoryFormats[format];
}

std::string_view LayoutName(int64_t layout) {
  return layout < 0 || layout >= std::ssize(kLayouts) ? "" : kLayouts[layout];
}

}  // namespace autosp::exported
