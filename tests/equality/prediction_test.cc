// What the compiler predicts is what ranks do: bytes exactly, peak memory within a tenth.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "compiler/analysis/simulate.h"
#include "tests/equality/case_jobs.h"
#include "tests/equality/zoo_model.h"
#include "worker/executor/torch_types.h"

namespace autosp {
namespace {

using Totals = std::map<std::string, std::pair<int64_t, int64_t>>;  // key -> calls, bytes

std::string KeyOf(std::string_view kind, std::string_view phase, const std::string& axis) {
  return absl::StrCat(std::string(phase), " ", std::string(kind), " ", axis);
}

Totals Counted(const SectionResult& result) {
  Totals totals;
  for (const CollectiveUse& use : result.collectives) {
    if (use.calls == 0) continue;
    auto& [calls, bytes] =
        totals[KeyOf(CollectiveKindName(use.kind), PhaseName(use.phase), AxisListName(use.axes))];
    calls += use.calls;
    bytes += use.bytes_received;
  }
  return totals;
}

Totals Predicted(const SectionPrediction& prediction) {
  Totals totals;
  for (const CollectiveTotals& row : prediction.collectives) {
    auto& [calls, bytes] = totals[KeyOf(row.kind, row.phase, row.axis)];
    calls += row.calls;
    bytes += row.bytes_received_per_rank;
  }
  return totals;
}

// Weights of the model's shapes where the archive has none, and a batch of random tokens.
NamedTensors RandomWeights(const ZooModel& zoo) {
  NamedTensors weights = zoo.weights();
  at::manual_seed(1);
  for (const GraphInput& input : zoo.model().graph.inputs) {
    if (input.kind == InputKind::kUser || weights.contains(input.name)) continue;
    const TensorType& type = zoo.model().graph.type(input.value);
    std::vector<int64_t> sizes;
    for (const SymInt& size : type.sizes) sizes.push_back(size.value);
    weights[input.name] = IsFloating(type.dtype)
                              ? at::randn(sizes).mul_(0.05).to(ToScalarType(type.dtype))
                              : at::zeros(sizes, ToScalarType(type.dtype));
  }
  return weights;
}

NamedTensors RandomBatch(const ZooModel& zoo, int64_t batch, int64_t seq_len) {
  NamedTensors feeds;
  at::manual_seed(2);
  for (const GraphInput& input : zoo.model().graph.inputs) {
    if (input.kind != InputKind::kUser) continue;
    feeds[input.name] = input.name == "attention_mask" ? at::ones({batch, seq_len}, at::kLong)
                                                       : at::randint(24, {batch, seq_len});
    feeds[input.name] = feeds[input.name].to(at::kLong);
  }
  return feeds;
}

struct Run {
  SectionPrediction prediction;
  std::vector<SectionResult> results;
  Program program;
};

absl::StatusOr<Run> RunOnce(const std::string& model, int64_t batch, int64_t seq_len,
                            const Mesh& mesh, int64_t zero = 0) {
  auto zoo = ZooModel::Load(model);
  if (!zoo.ok()) return zoo.status();
  (*zoo)->AllowAnyLength();
  Run run;
  JobSpec job = (*zoo)->Job(batch, seq_len);
  if (model.starts_with("cases/")) FeedCaseInputs((*zoo)->model(), &job);
  job.parallelism.zero = zero;
  auto lowered = CompileForMesh((*zoo)->model(), job, mesh, nullptr);
  if (!lowered.ok()) return lowered.status();
  run.program = lowered->program;
  auto prediction = SimulateSection(run.program, "step");
  if (!prediction.ok()) return prediction.status();
  run.prediction = *prediction;
  auto ranks = VirtualRanks::Create(run.program, RandomWeights(**zoo));
  if (!ranks.ok()) return ranks.status();
  auto results = (*ranks)->Run("step", RandomBatch(**zoo, batch, seq_len));
  if (!results.ok()) return results.status();
  run.results = *std::move(results);
  return run;
}

struct BytesCase {
  const char* model;
  Mesh mesh;
  int64_t zero = 0;
};

std::string NameOf(std::string model) {
  std::ranges::replace(model, '/', '_');
  return model;
}

class CollectiveBytesTest : public testing::TestWithParam<BytesCase> {};

TEST_P(CollectiveBytesTest, PredictedIsCounted) {
  const auto run = RunOnce(GetParam().model, 2, 32, GetParam().mesh, GetParam().zero);
  ASSERT_TRUE(run.ok()) << run.status();
  const Totals predicted = Predicted(run->prediction);
  for (const SectionResult& result : run->results) EXPECT_EQ(Counted(result), predicted);
  EXPECT_EQ(predicted.empty(), GetParam().mesh.world_size() == 1);
}

std::vector<BytesCase> BytesCases() {
  std::vector<BytesCase> cases;
  for (const char* model : {"llama", "llama_mask", "llama_bf16", "gpt2", "bert", "plain", "mistral",
                            "mamba2", "t5", "cases/latent_attention"}) {
    for (const Mesh& mesh :
         {Mesh{1, 1, 1, 1}, Mesh{1, 1, 1, 2}, Mesh{1, 1, 1, 4}, Mesh{1, 2, 1, 2}, Mesh{2, 1, 1, 2},
          Mesh{2, 1, 1, 1}, Mesh{1, 1, 2, 1}, Mesh{1, 1, 4, 1}, Mesh{2, 1, 2, 2}}) {
      cases.push_back({model, mesh});
    }
  }
  // Three ranks divide little of what two do: some parameters stay whole, others in fewer parts.
  for (const char* model : {"llama", "llama_bf16", "gpt2", "t5"}) {
    for (int64_t zero : {1, 2, 3}) {
      for (const Mesh& mesh : {Mesh{1, 1, 1, 2}, Mesh{2, 1, 2, 2}, Mesh{1, 2, 3, 1}}) {
        cases.push_back({model, mesh, zero});
      }
    }
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Zoo, CollectiveBytesTest, testing::ValuesIn(BytesCases()),
                         [](const testing::TestParamInfo<BytesCase>& info) {
                           const Mesh& mesh = info.param.mesh;
                           return absl::StrCat(NameOf(info.param.model), "_a", mesh.accum, "d",
                                               mesh.dp, "r", mesh.ring, "u", mesh.ulysses, "z",
                                               info.param.zero);
                         });

// Ulysses: 2 (1 + g) (U - 1) / U * S * h / P elements per layer, forward, and the same backward; g
// is key head copies per head.
TEST(CollectiveBytesTest, AllToAllIsTheClosedForm) {
  struct Model {
    const char* name;
    int64_t heads;
    int64_t kv_heads;
  };
  for (const Model& model : {Model{"llama", 4, 2}, Model{"gpt2", 4, 4}, Model{"bert", 4, 4}}) {
    for (int64_t ulysses : {2, 4}) {
      const auto run = RunOnce(model.name, 2, 32, {1, 1, 1, ulysses});
      ASSERT_TRUE(run.ok()) << run.status();
      const int64_t copies = std::max(model.kv_heads, ulysses);
      const int64_t tokens_by_hidden = 2 * 32 * 64;  // batch x S x h
      const int64_t layers = 2;
      const int64_t bytes = layers * 4 * 2 * (model.heads + copies) * (ulysses - 1) *
                            tokens_by_hidden / (model.heads * ulysses * ulysses);
      const Totals totals = Predicted(run->prediction);
      for (const char* phase : {"forward", "backward"}) {
        const auto row = totals.find(absl::StrCat(phase, " all_to_all ulysses"));
        ASSERT_NE(row, totals.end()) << model.name;
        EXPECT_EQ(row->second.second, bytes) << model.name << " u" << ulysses << " " << phase;
        EXPECT_LE(row->second.first, 4 * layers) << model.name;
      }
    }
  }
}

// Around a ring of R: keys and values of R - 1 others, 2 g (R - 1) * S * h / P elements per layer;
// the backward moves them again, and their gradients, in fp32, over R hops. Beside ulysses each
// rank holds its heads of them.
TEST(CollectiveBytesTest, RingIsTheClosedForm) {
  struct Model {
    const char* name;
    int64_t heads;
    int64_t kv_heads;
    int64_t element_bytes;
  };
  for (const Model& model :
       {Model{"llama", 4, 2, 4}, Model{"llama_bf16", 4, 2, 2}, Model{"gpt2", 4, 4, 4}}) {
    for (const Mesh& mesh : {Mesh{1, 1, 2, 1}, Mesh{1, 1, 4, 1}, Mesh{1, 1, 2, 2}}) {
      const auto run = RunOnce(model.name, 2, 32, mesh);
      ASSERT_TRUE(run.ok()) << run.status();
      const int64_t copies = std::max(model.kv_heads, mesh.ulysses);
      const int64_t layers = 2;
      // Of keys, in one layer, of one block: g * S * h / P, with batch 2, S 32 and h 64.
      const int64_t elements = 2 * 32 * 64 * copies / model.heads / mesh.sp();
      const int64_t hop_bytes = 2 * elements * model.element_bytes;
      const int64_t gradient_hop_bytes = 2 * elements * 4;
      const Totals totals = Predicted(run->prediction);
      const auto row = [&](const char* phase) {
        const auto found = totals.find(absl::StrCat(phase, " send_recv ring"));
        return found == totals.end() ? std::pair<int64_t, int64_t>() : found->second;
      };
      const std::string name = absl::StrCat(model.name, " r", mesh.ring, "u", mesh.ulysses);
      EXPECT_EQ(row("forward").second, layers * (mesh.ring - 1) * hop_bytes) << name;
      EXPECT_EQ(row("backward").second,
                layers * ((mesh.ring - 1) * hop_bytes + mesh.ring * gradient_hop_bytes))
          << name;
      EXPECT_LE(row("forward").first, layers * (mesh.ring - 1)) << name;
      EXPECT_LE(row("backward").first, layers * (2 * mesh.ring - 1)) << name;
    }
  }
}

// Shifts and convolutions: of each stretch of consecutive tokens of P - 1 others, as many tokens as
// the op looks before and behind; the backward moves as many of the gradient. The length is not in
// it.
TEST(CollectiveBytesTest, EdgesOfTokensAreTheClosedForm) {
  struct Model {
    const char* name;
    int64_t num_ops;
    int64_t window;
  };
  for (const Model& model : {Model{"cases/causal_conv", 1, 2}, Model{"cases/conv_over_time", 1, 2},
                             Model{"cases/conv_cut_to_length", 1, 2},
                             Model{"cases/shift_by_one", 2, 1}, Model{"cases/roll", 1, 2}}) {
    for (const Mesh& mesh : {Mesh{1, 1, 1, 2}, Mesh{1, 1, 1, 4}, Mesh{1, 1, 2, 1}, Mesh{1, 1, 4, 1},
                             Mesh{1, 1, 2, 2}}) {
      for (int64_t seq_len : {32, 64}) {
        const auto run = RunOnce(model.name, 2, seq_len, mesh);
        ASSERT_TRUE(run.ok()) << run.status();
        const int64_t stretches = mesh.sp() - 1;  // one each: no attention asks for zigzag
        const int64_t token_bytes = 2 * 16 * 4;   // batch x h, f32
        const int64_t bytes = model.num_ops * stretches * model.window * token_bytes;
        const Totals totals = Predicted(run->prediction);
        const std::string axes = mesh.ring == 1      ? "ulysses"
                                 : mesh.ulysses == 1 ? "ring"
                                                     : "ring+ulysses";
        for (const char* phase : {"forward", "backward"}) {
          const auto row = totals.find(absl::StrCat(phase, " all_gather ", axes));
          ASSERT_NE(row, totals.end()) << model.name << " over " << axes;
          EXPECT_EQ(row->second, std::pair(model.num_ops, bytes))
              << model.name << " over " << axes << " of " << mesh.sp() << " " << phase;
          EXPECT_FALSE(totals.contains(absl::StrCat(phase, " all_to_all ", axes))) << model.name;
        }
      }
    }
  }
}

// Of the parameters in their dtype, of the gradients in fp32, and of what the backward reads.
struct ParameterBytes {
  int64_t held = 0;
  int64_t gradients = 0;
  int64_t read_backward = 0;
};

absl::StatusOr<ParameterBytes> BytesOfParameters(const std::string& model) {
  auto zoo = ZooModel::Load(model);
  if (!zoo.ok()) return zoo.status();
  ParameterBytes bytes;
  for (const GraphInput& input : (*zoo)->model().graph.inputs) {
    if (input.kind != InputKind::kParameter) continue;
    const TensorType& type = (*zoo)->model().graph.type(input.value);
    bytes.held += type.numel() * SizeOf(type.dtype);
    bytes.gradients += type.numel() * SizeOf(DType::kF32);
    // The gradient of an embedding is that of its rows alone.
    const bool is_embedding = input.name.find("embed_tokens") != std::string::npos;
    bytes.read_backward += is_embedding ? 0 : type.numel() * SizeOf(type.dtype);
  }
  return bytes;
}

// The rows that ZeRO has in the table of communication; (P - 1) / P of each is received.
Totals ZeroRows(const ParameterBytes& bytes, const Mesh& mesh, int64_t zero) {
  std::map<std::string, int64_t> whole;
  if (zero == 1) whole["reduce reduce_scatter"] = bytes.gradients;
  if (zero > 1) whole["backward reduce_scatter"] = mesh.accum * bytes.gradients;
  if (zero < 3) whole["optimizer all_gather"] = bytes.held;
  if (zero == 3) whole["forward all_gather"] = mesh.accum * bytes.held;
  if (zero == 3) whole["backward all_gather"] = mesh.accum * bytes.read_backward;
  whole["optimizer all_reduce"] = 2 * SizeOf(DType::kF64);  // the squares of the norm
  Totals rows;
  for (const auto& [key, total] : whole) {
    rows[key].second = total / mesh.world_size() * (mesh.world_size() - 1);
  }
  return rows;
}

TEST(CollectiveBytesTest, ZeroIsTheClosedForm) {
  for (const char* model : {"llama", "llama_bf16"}) {
    const auto bytes = BytesOfParameters(model);
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    for (const Mesh& mesh : {Mesh{1, 2, 1, 1}, Mesh{1, 2, 1, 2}, Mesh{2, 1, 1, 2}}) {
      for (int64_t zero : {1, 2, 3}) {
        const auto run = RunOnce(model, 2, 32, mesh, zero);
        ASSERT_TRUE(run.ok()) << run.status();
        const Totals totals = Predicted(run->prediction);
        const std::string axes = mesh.dp == 1 ? "ulysses" : mesh.ulysses == 1 ? "dp" : "dp+ulysses";
        for (const auto& [key, expected] : ZeroRows(*bytes, mesh, zero)) {
          const auto row = totals.find(absl::StrCat(key, " ", axes));
          ASSERT_NE(row, totals.end()) << model << " zero " << zero << " " << key;
          EXPECT_EQ(row->second.second, expected.second)
              << model << " zero " << zero << " over " << axes << ": " << key;
        }
      }
    }
  }
}

// Stage by stage less is kept: states, gradients, parameters of P ranks.
TEST(PersistentMemoryTest, StagesOfZeroKeepTheirParts) {
  const auto bytes = BytesOfParameters("llama");
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  constexpr int64_t kRanks = 4;
  const int64_t whole = bytes->held;
  const int64_t part = whole / kRanks;
  constexpr int64_t kScalars = 8;  // learning rate and step
  // Parameters, gradients and two moments, all in fp32.
  const int64_t expected[] = {4 * whole, whole + 3 * part, whole + 3 * part, 4 * part};
  for (int64_t zero = 0; zero <= 3; ++zero) {
    const auto run = RunOnce("llama", 2, 32, {1, 1, 1, kRanks}, zero);
    ASSERT_TRUE(run.ok()) << run.status();
    const AccountPeak& device = run->prediction.memory.at(Account::kDevice);
    EXPECT_NEAR(static_cast<double>(device.persistent_bytes),
                static_cast<double>(expected[zero] + kScalars), 2048)
        << "zero " << zero;  // and buffers
    for (const SectionResult& result : run->results) {
      EXPECT_NEAR(static_cast<double>(result.memory.at(Account::kDevice).live_bytes),
                  static_cast<double>(device.persistent_bytes), 4096)
          << "zero " << zero;
    }
  }
}

struct MemoryCase {
  const char* model;
  int64_t seq_len;
  int64_t ring;
  int64_t ulysses;
  int64_t zero = 0;
};

class PeakMemoryTest : public testing::TestWithParam<MemoryCase> {};

TEST_P(PeakMemoryTest, PredictedIsWithinATenthOfMeasured) {
  const MemoryCase& c = GetParam();
  const auto run = RunOnce(c.model, 1, c.seq_len, {1, 1, c.ring, c.ulysses}, c.zero);
  ASSERT_TRUE(run.ok()) << run.status();
  const AccountPeak& predicted = run->prediction.memory.at(Account::kDevice);
  for (const SectionResult& result : run->results) {
    const int64_t measured = result.memory.at(Account::kDevice).peak_bytes;
    const double ratio = static_cast<double>(predicted.peak_bytes) / static_cast<double>(measured);
    std::printf(
        "%-10s S %5ld ring %ld ulysses %ld zero %ld: predicted %10ld measured %10ld ratio %.3f at "
        "%s in %s\n",
        c.model, static_cast<long>(c.seq_len), static_cast<long>(c.ring),
        static_cast<long>(c.ulysses), static_cast<long>(c.zero),
        static_cast<long>(predicted.peak_bytes), static_cast<long>(measured), ratio,
        predicted.peak_instruction.c_str(), predicted.peak_where.c_str());
    EXPECT_GT(ratio, 0.9);
    EXPECT_LT(ratio, 1.1);
    // Results that are copied into place are memory and time that the plan does not know of.
    EXPECT_EQ(result.num_conformed, 0);
    EXPECT_EQ(result.num_unshared, 0);
  }
}

std::vector<MemoryCase> MemoryCases() {
  std::vector<MemoryCase> cases;
  for (const char* model : {"llama", "gpt2_long", "bert_long", "plain", "llama_mask"}) {
    for (int64_t seq_len : {512, 4096}) {
      // Scores of all pairs, several times: more than a test may take.
      const bool is_quadratic = std::string(model) == "plain";
      if (is_quadratic && seq_len > 2048) continue;
      for (int64_t ulysses : {1, 2}) cases.push_back({model, seq_len, 1, ulysses});
      if (!is_quadratic) cases.push_back({model, seq_len, 2, 1});
    }
  }
  for (const char* model : {"qwen3", "mistral", "t5", "qwen3_moe"}) {
    for (int64_t ulysses : {1, 2}) cases.push_back({model, 256, 1, ulysses});
  }
  // Experts, of tokens that are many beside the weights.
  for (const char* model : {"cases/sorted_experts", "cases/scattered_experts"}) {
    cases.push_back({model, 2048, 1, 1});
    cases.push_back({model, 2048, 2, 1});
  }
  // Value heads of another size.
  for (int64_t ulysses : {1, 2}) cases.push_back({"cases/latent_attention", 32, 1, ulysses});
  cases.push_back({"cases/latent_attention", 32, 2, 1});
  // Short sequences, where parameters are most of what is held.
  for (const char* model : {"llama", "gpt2_long", "t5"}) {
    for (int64_t zero : {1, 2, 3}) cases.push_back({model, 64, 1, 2, zero});
  }
  // Tiny heads, beside which the scores of a block are most of what the kernel needs.
  for (const char* model : {"cases/two_heads", "cases/grouped_heads", "cases/one_key_head"}) {
    cases.push_back({model, 256, 1, 2});
  }
  // Convolutions over tokens.
  for (const auto& [ring, ulysses] : {std::pair(1, 1), std::pair(1, 4), std::pair(2, 1)}) {
    cases.push_back({"cases/causal_conv", 2048, ring, ulysses});
    cases.push_back({"cases/conv_over_time", 2048, ring, ulysses});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Zoo, PeakMemoryTest, testing::ValuesIn(MemoryCases()),
                         [](const testing::TestParamInfo<MemoryCase>& info) {
                           const MemoryCase& c = info.param;
                           return absl::StrCat(NameOf(c.model), "_s", c.seq_len, "r", c.ring, "u",
                                               c.ulysses, "z", c.zero);
                         });

}  // namespace
}  // namespace autosp
