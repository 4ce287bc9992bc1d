// Shifts and convolutions on shards with the edges of their neighbours are the shards of the whole,
// whatever padding holds.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "worker/ops/own_op.h"
#include "worker/ops/shard_indices.h"

namespace autosp {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kBatch = 2;
constexpr int64_t kChannels = 3;
constexpr int64_t kPad = 7;

struct Case {
  std::string name;
  int64_t size;  // of the factor that ranks split; each of its elements is `minor` tokens
  int64_t ring = 1;
  int64_t ulysses = 1;
  int64_t minor = 1;
  int64_t num_tokens() const { return size * minor; }
};

const std::vector<Case>& Cases() {
  static const auto& cases = *new std::vector<Case>{
      {"contiguous", 16, 1, 4},      {"padded", 13, 1, 4},          {"only_padding", 9, 1, 4},
      {"zigzag", 16, 2, 1},          {"zigzag_padded", 13, 2, 1},   {"zigzag_of_four", 32, 4, 1},
      {"with_ulysses", 16, 2, 2},    {"odd_ulysses", 35, 2, 3},     {"blocks", 6, 1, 3, 4},
      {"blocks_padded", 5, 1, 2, 4}, {"blocks_zigzag", 6, 2, 1, 4},
  };
  return cases;
}

// One instruction on every rank, each operand whole or in shards of tokens.
class ShardedCall {
 public:
  explicit ShardedCall(const Case& c) : case_(c) {
    program_.mesh.ring = c.ring;
    program_.mesh.ulysses = c.ulysses;
    program_.factors = {{"seq", c.size, c.ring > 1 ? Layout::kZigzag : Layout::kContiguous}};
    for (Axis axis : {Axis::kRing, Axis::kUlysses}) {
      if (program_.mesh.size(axis) > 1) tokens_.front().axes.push_back(axis);
    }
    if (c.minor > 1) tokens_.push_back({.factor = {}, .size = c.minor});
  }

  int64_t num_ranks() const { return program_.mesh.sp(); }
  ValueId Tokens(int64_t channels) { return Add({Whole(kBatch), Whole(channels), tokens_}); }
  ValueId Edges(int64_t channels) { return Add({Whole(kBatch), Whole(channels), Whole(1)}); }
  ValueId Weight(const at::Tensor& weight) {
    std::vector<ProgramDim> dims;
    for (int64_t size : weight.sizes()) dims.push_back(Whole(size));
    return Add(dims);
  }

  // A rank's tokens; what is padding holds no number.
  at::Tensor Shard(const at::Tensor& whole, int64_t rank) const {
    std::vector<at::Tensor> columns;
    for (const int64_t index : Indices(rank)) {
      const at::Tensor none = at::full_like(whole.select(2, 0), std::nan(""));
      columns.push_back(index < 0 ? none : whole.select(2, index));
    }
    return at::stack(columns, 2);
  }

  at::Tensor Run(std::string op, std::vector<Argument> args, ValueId result, int64_t rank,
                 const std::vector<std::pair<ValueId, at::Tensor>>& tensors) const {
    Instruction instruction;
    instruction.op = std::move(op);
    instruction.args = std::move(args);
    instruction.results = {result};
    instruction.attributes["pad"] = SymInt(kPad);
    const MeshCoordinate place = CoordinateOf(program_.mesh, rank);
    const auto made = FindOwnOp(instruction.op)({program_, instruction, place});
    EXPECT_TRUE(made.ok()) << made.status();
    if (!made.ok()) return {};
    std::vector<OwnArgument> values(instruction.args.size());
    for (size_t i = 0; i < values.size(); ++i) {
      const auto* id = std::get_if<ValueId>(&instruction.args[i]);
      if (id == nullptr) continue;
      for (const auto& [named, tensor] : tensors) {
        if (named == *id) values[i] = {tensor};
      }
    }
    const std::vector<int64_t> integers(values.size(), 0);
    std::vector<at::Tensor> results;
    EXPECT_TRUE((*made)({values, integers, 0, 0, results}).ok());
    return results.empty() ? at::Tensor() : results[0];
  }

  // What all ranks give for `whole`, as an all_gather leaves it.
  at::Tensor Gathered(const at::Tensor& whole, int64_t before, int64_t after) {
    const ValueId tokens = Tokens(whole.size(1));
    std::vector<at::Tensor> all;
    for (int64_t rank = 0; rank < num_ranks(); ++rank) {
      all.push_back(Run("autosp.shard_edges", {tokens, SymInt(2), SymInt(before), SymInt(after)},
                        Edges(whole.size(1)), rank, {{tokens, Shard(whole, rank)}}));
    }
    return at::cat(all, 2);
  }

  // The shard of `whole`, with `pad` in padding.
  void ExpectShard(const at::Tensor& actual, const at::Tensor& whole, int64_t pad, int64_t rank) {
    at::Tensor expected = Shard(whole, rank);
    expected = expected.nan_to_num(static_cast<double>(pad));
    EXPECT_TRUE(at::allclose(actual, expected, 1e-5, 1e-5))
        << case_.name << " rank " << rank << "\n"
        << actual << "\n"
        << expected;
  }

 private:
  static ProgramDim Whole(int64_t size) { return {{.factor = {}, .size = size}}; }
  ValueId Add(std::vector<ProgramDim> dims) {
    ProgramValue value;
    value.name = "v" + std::to_string(program_.values.size());
    value.dims = std::move(dims);
    return program_.AddValue(std::move(value));
  }
  std::vector<int64_t> Indices(int64_t rank) const {
    return GlobalIndices(program_, tokens_, {CoordinateOf(program_.mesh, rank)});
  }

  const Case case_;
  Program program_;
  ProgramDim tokens_ = {{.factor = FactorId{0}}};
};

class TokenOpsTest : public testing::TestWithParam<Case> {};

at::Tensor Random(at::IntArrayRef sizes) { return at::randn(sizes); }

at::Tensor ShiftOfWhole(const at::Tensor& x, int64_t by) {
  return at::constant_pad_nd(x, {by, -by}, 0);
}

// A shift of x on all ranks against their shards of `expected`.
void ExpectShift(const Case& c, const at::Tensor& x, int64_t by, bool wraps,
                 const at::Tensor& expected) {
  ShardedCall call(c);
  const at::Tensor gathered = call.Gathered(x, std::max<int64_t>(by, 0), std::max<int64_t>(-by, 0));
  const ValueId tokens = call.Tokens(kChannels);
  const ValueId edges = call.Edges(kChannels);
  for (int64_t rank = 0; rank < call.num_ranks(); ++rank) {
    const at::Tensor y =
        call.Run("autosp.token_shift", {tokens, edges, SymInt(2), SymInt(by), wraps},
                 call.Tokens(kChannels), rank, {{tokens, call.Shard(x, rank)}, {edges, gathered}});
    call.ExpectShard(y, expected, kPad, rank);
  }
}

TEST_P(TokenOpsTest, ShiftsAreThoseOfTheWhole) {
  at::manual_seed(1);
  const at::Tensor x = Random({kBatch, kChannels, GetParam().num_tokens()});
  for (int64_t by : {1, -1, 2, -2}) {
    ExpectShift(GetParam(), x, by, /*wraps=*/false, ShiftOfWhole(x, by));
  }
}

TEST_P(TokenOpsTest, RollsAreThoseOfTheWhole) {
  const Case& c = GetParam();
  if (c.size % (c.ulysses * c.ring * (c.ring > 1 ? 2 : 1)) != 0) return;  // refused by the checker
  const at::Tensor x = Random({kBatch, kChannels, c.num_tokens()});
  for (int64_t by : {2, -1}) ExpectShift(c, x, by, /*wraps=*/true, x.roll({by}, {2}));
}

struct Shape {
  std::vector<int64_t> weight;
  int64_t before;
  int64_t dilation;
};

// Forward and both gradients, against autograd on the whole.
void CheckConv(const Case& c, const Shape& shape) {
  const int64_t reach = (shape.weight[2] - 1) * shape.dilation;
  const at::Tensor x = Random({kBatch, kChannels, c.num_tokens()}).requires_grad_();
  const at::Tensor weight = Random(shape.weight).requires_grad_();
  const at::Tensor bias = Random({shape.weight[0]});
  const at::Tensor whole =
      at::conv1d(at::constant_pad_nd(x, {shape.before, reach - shape.before}, 0), weight, bias, {1},
                 at::IntArrayRef({0}), {shape.dilation}, kChannels / shape.weight[1]);
  const at::Tensor dy = Random(whole.sizes());
  whole.backward(dy);
  ShardedCall call(c);
  const SymInt before(shape.before);
  const SymInt dilation(shape.dilation);
  const at::Tensor x_edges = call.Gathered(x.detach(), shape.before, reach - shape.before);
  const at::Tensor dy_edges = call.Gathered(dy, reach - shape.before, shape.before);
  const ValueId tokens = call.Tokens(kChannels);
  const ValueId grad = call.Tokens(shape.weight[0]);
  const ValueId w = call.Weight(weight);
  const ValueId b = call.Weight(bias);
  const ValueId edges = call.Edges(kChannels);
  at::Tensor dw = at::zeros_like(weight);
  for (int64_t rank = 0; rank < call.num_ranks(); ++rank) {
    const at::Tensor mine = call.Shard(x.detach(), rank);
    const at::Tensor my_grad = call.Shard(dy, rank);
    const at::Tensor y = call.Run(
        "autosp.token_conv", {tokens, w, b, edges, before, dilation}, call.Tokens(shape.weight[0]),
        rank, {{tokens, mine}, {w, weight.detach()}, {b, bias}, {edges, x_edges}});
    call.ExpectShard(y, whole.detach(), kPad, rank);
    const at::Tensor dx = call.Run("autosp.token_conv_input_grad",
                                   {grad, w, edges, before, dilation}, call.Tokens(kChannels), rank,
                                   {{grad, my_grad}, {w, weight.detach()}, {edges, dy_edges}});
    call.ExpectShard(dx, x.grad(), 0, rank);
    dw += call.Run("autosp.token_conv_weight_grad", {grad, tokens, edges, before, dilation},
                   call.Weight(weight), rank, {{grad, my_grad}, {tokens, mine}, {edges, x_edges}});
  }
  EXPECT_TRUE(at::allclose(dw, weight.grad(), 1e-4, 1e-4)) << c.name << dw << weight.grad();
}

TEST_P(TokenOpsTest, ConvolutionsAreThoseOfTheWhole) {
  at::manual_seed(2);
  for (const Shape& shape : {Shape{{kChannels, 1, 3}, 2, 1}, Shape{{kChannels, 1, 3}, 1, 1},
                             Shape{{5, kChannels, 2}, 0, 2}, Shape{{5, kChannels, 3}, 2, 1},
                             Shape{{2 * kChannels, 1, 2}, 1, 1}}) {
    CheckConv(GetParam(), shape);
  }
}

// As models in bf16 run them.
TEST(TokenOpsTypesTest, HalfTypesAreCloseToF32) {
  at::manual_seed(3);
  const Case c{"zigzag", 16, 2, 1};
  const at::Tensor x = Random({kBatch, kChannels, c.size});
  const at::Tensor weight = Random({kChannels, 1, 3});
  ShardedCall call(c);
  const at::Tensor edges_of_x = call.Gathered(x, 1, 1);
  const ValueId tokens = call.Tokens(kChannels);
  const ValueId w = call.Weight(weight);
  const ValueId edges = call.Edges(kChannels);
  const auto run = [&](std::string op, std::vector<Argument> args, ValueId result,
                       at::ScalarType dtype) {
    return call.Run(std::move(op), std::move(args), result, 1,
                    {{tokens, call.Shard(x, 1).to(dtype)},
                     {w, weight.to(dtype)},
                     {edges, edges_of_x.to(dtype)}});
  };
  const Argument none = None{};
  const SymInt one(1);
  for (at::ScalarType dtype : {at::kBFloat16, at::kHalf}) {
    for (const auto& [op, args, result] :
         {std::tuple{"autosp.token_conv", std::vector<Argument>{tokens, w, none, edges, one, one},
                     call.Tokens(kChannels)},
          std::tuple{"autosp.token_conv_input_grad",
                     std::vector<Argument>{tokens, w, edges, one, one}, call.Tokens(kChannels)},
          std::tuple{"autosp.token_conv_weight_grad",
                     std::vector<Argument>{tokens, tokens, edges, one, one},
                     call.Weight(weight)}}) {
      const at::Tensor exact = run(op, args, result, at::kFloat);
      const at::Tensor actual = run(op, args, result, dtype);
      EXPECT_EQ(actual.scalar_type(), dtype);
      EXPECT_TRUE(at::allclose(actual.to(at::kFloat), exact, 3e-2, 1e-1)) << op << actual << exact;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Layouts, TokenOpsTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

absl::Status Refusal(const Instruction& like, const Program& program) {
  return FindOwnOp(like.op)({program, like, MeshCoordinate{}}).status();
}

TEST(TokenOpsRefusalTest, NamesWhatDoesNotFit) {
  Program program;
  program.mesh.ulysses = 4;
  program.factors = {{"seq", 8, Layout::kContiguous}};
  ProgramValue value;
  value.name = "x";
  value.dims = {{{.factor = FactorId{0}, .axes = {Axis::kUlysses}}}};
  Instruction edges;
  edges.op = "autosp.shard_edges";
  const ValueId x = program.AddValue(value);
  edges.results = {program.AddValue(value)};
  edges.args = {x, SymInt(0), SymInt(3), SymInt(0)};
  EXPECT_THAT(Refusal(edges, program).ToString(),
              HasSubstr("a window of 3 before and 0 behind does not fit the tokens of %x"));
  edges.args = {x, SymInt(1), SymInt(1), SymInt(0)};
  EXPECT_THAT(Refusal(edges, program).ToString(), HasSubstr("dim (1) must be 0 to 0"));
  Instruction shift = edges;
  shift.op = "autosp.token_shift";
  shift.args = {x, None{}, SymInt(0), SymInt(1), false};
  EXPECT_THAT(Refusal(shift, program).ToString(), HasSubstr("attribute pad must be an integer"));
  shift.attributes["pad"] = SymInt(0);
  EXPECT_THAT(Refusal(shift, program).ToString(), HasSubstr("the edges, must be given"));
}

}  // namespace
}  // namespace autosp
