// Makes in-place ops functional while a graph is imported.
//
//   before  %m = aten.zeros(...)           after  %m = aten.zeros(...)
//           %s = aten.select.int(%m, 0, 1)        %s = aten.select.int(%m, 0, 1)
//           aten.fill_.Scalar(%s, 1.0)            %f = aten.fill.Scalar(%s, 1.0)
//           use(%m)                               %m1 = aten.select_scatter(%m, %f, 0, 1)
//                                                 use(%m1)
//
// An op that changes the shape of its operand in place (x.unsqueeze_(1)) becomes the view, which
// later uses of the operand see; other views of it stay as they are. What shares memory with it may
// not be written to afterwards.
//
// An op that is told where its result goes, torch.div(x, y, out=z), is that op and a write of what
// it returns to z.
//
// A write gives a new value, and later uses of what was written see it. A write through a view
// is carried back to what the view shows, and the views of that are taken again. Of the graph's
// inputs only buffers may be written to: what a buffer is in the end, it is in the next step. What
// a reshape gives, which may or may not be a copy, may be written to if nothing that it may share
// memory with is used afterwards: then it makes no difference. A view with no inverse here makes a
// write an error.
#pragma once

#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "compiler/import/graph_builder.h"
#include "compiler/import/op_schemas.h"

namespace autosp {

class Functionalizer {
 public:
  explicit Functionalizer(GraphBuilder& builder) : builder_(builder) {}

  // What a use of `id` reads after the writes so far.
  absl::StatusOr<ValueId> Current(ValueId id);

  // That an input of the graph may be written to, which others may not be.
  void AllowWrites(ValueId buffer) { buffers_.insert(buffer.index); }

  // To be called for each functional node, so that its views are known.
  void RecordViews(const Node& node, const OpSchema& schema);

  // Emits the view that an op takes in place, and makes it what later uses of its operand see.
  // Requires: IsInPlaceView. Returns the view, of type `type`.
  absl::StatusOr<ValueId> Reshape(const OpSchema& schema, std::vector<Argument> args,
                                  std::string_view result_name, TensorType type,
                                  const NodeContext& context);

  // Emits the functional form of an in-place op and makes its result what later uses see. Requires:
  // schema.written(). Returns the new value.
  absl::StatusOr<ValueId> Write(const OpSchema& schema, const std::vector<Argument>& args,
                                std::string_view result_name, const NodeContext& context);

  // The same for X.out(args..., target): emits `returning`, X itself, whose result is of type
  // `type` but for its strides, and copies the result to `target`.
  absl::StatusOr<ValueId> WriteResult(const OpSchema& returning, std::vector<Argument> args,
                                      ValueId target, std::string_view result_name, TensorType type,
                                      const NodeContext& context);

  // Makes `updated` what later uses of `target` see, as if it had been copied there.
  absl::Status Replace(ValueId target, ValueId updated, const NodeContext& context);

 private:
  struct View {
    ValueId base;
    Node node;
    size_t output_index = 0;
    bool may_copy = false;  // whether it shares memory depends on strides
  };

  absl::Status CheckWritable(ValueId target, const NodeContext& context) const;
  absl::Status CheckNotReshaped(ValueId target) const;
  // The tensor that is no view, whose memory `value` shows.
  ValueId RootOf(ValueId value) const;
  // Whether another value of the graph is the same tensor, as what `to` returns may be.
  bool HasOtherNames(ValueId value) const;
  absl::StatusOr<ValueId> EmitFunctional(const OpSchema& schema, std::vector<Argument> args,
                                         std::string_view result_name, const NodeContext& context);
  absl::Status CheckResult(const OpSchema& returning, const std::vector<Argument>& args,
                           const TensorType& type, const TensorType& target) const;
  absl::StatusOr<ValueId> EmitCopy(ValueId target, ValueId source, std::string_view name,
                                   const NodeContext& context);
  // Emits the views of `old_base` again, on `new_base`.
  void TakeViewsAgain(ValueId old_base, ValueId new_base);
  ValueId TakeViewAgain(ValueId view_value, ValueId new_base);
  // That `value`, its views and what replaced them may not be used any more, but for `kept`.
  void MarkStale(ValueId value, ValueId kept = {});
  void AddView(ValueId value, View view);
  // The base's value after `updated` was written to the view of it.
  absl::StatusOr<ValueId> WriteBack(const View& view, ValueId updated, const NodeContext& context);

  GraphBuilder& builder_;
  std::unordered_map<int32_t, ValueId> replaced_by_;
  std::unordered_map<int32_t, View> views_;
  std::unordered_map<int32_t, std::vector<ValueId>> views_of_;
  std::unordered_map<int32_t, bool> is_stale_;
  std::unordered_set<int32_t> buffers_;                   // inputs that may be written to
  std::unordered_map<int32_t, std::string> reshaped_by_;  // roots: the op, for messages
};

// Whether the op changes the shape of its operand and no element: "aten.unsqueeze_.default".
bool IsInPlaceView(std::string_view name);

// The functional counterpart of an in-place op: "aten.add_.Tensor" -> "aten.add.Tensor".
// Empty if the name is not that of an in-place op.
std::string FunctionalOpName(std::string_view name);

}  // namespace autosp
