// Autocast regions, lowered to explicit casts.
//
//   before  wrap_with_autocast("cpu", bf16): %y = aten.linear(%x, %w) : bf16[2, 8]   (%x, %w are
//   f32) after   %x_bf16 = aten.to.dtype(%x, bf16); %w_bf16 = aten.to.dtype(%w, bf16)
//           %y = aten.linear(%x_bf16, %w_bf16) : bf16[2, 8]
//
// The lists of ops are those of ATen/autocast_mode.{h,cpp} for the CPU and CUDA, restricted to what
// a training export can contain.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "compiler/import/graph_builder.h"
#include "compiler/import/op_schemas.h"
#include "compiler/ir/argument.h"

namespace autosp {

enum class CastPolicy : uint8_t {
  kNone,            // runs in whatever types its operands have
  kLowerPrecision,  // operands are cast to the region's type
  kFloat32,         // operands are cast to float32
  kFloat32Result,   // the op's own dtype argument is set to float32
  kPromote,         // operands are cast to the widest type among them
};

// `device` is "cpu" or "cuda"; `op` as "aten.linear.default".
CastPolicy AutocastPolicy(std::string_view device, std::string_view op);

// One region. Casts are made anew for each use, unless the region caches those of parameters.
class AutocastRegion {
 public:
  AutocastRegion(std::string device, DType dtype, bool is_enabled, bool caches_parameters)
      : device_(std::move(device)),
        dtype_(dtype),
        is_enabled_(is_enabled),
        caches_parameters_(caches_parameters) {}

  // Changes the operands in `args` as the policy of the op asks. `stated` is the archive's type of
  // the first result: it tells what became of an op without a policy whose parts have one.
  absl::Status CastOperands(const OpSchema& schema, std::optional<DType> stated,
                            const NodeContext& context, GraphBuilder& builder,
                            std::vector<Argument>& args);

 private:
  absl::Status CastForParts(const OpSchema& schema, std::optional<DType> stated,
                            const NodeContext& context, GraphBuilder& builder,
                            std::vector<Argument>& args);
  void CastAll(DType to, const NodeContext& context, GraphBuilder& builder, Argument& argument);
  ValueId Cast(ValueId value, DType to, const NodeContext& context, GraphBuilder& builder);

  std::string device_;
  DType dtype_;
  bool is_enabled_;
  bool caches_parameters_;
  std::map<ValueId, ValueId> cached_;
};

}  // namespace autosp
