// autosp-opt: runs passes of the compiler on an archive or a graph's text, for people who write
// passes and for golden tests.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>

#include "common/file.h"
#include "common/status_macros.h"
#include "compiler/analysis/simulate.h"
#include "compiler/checker/check_program.h"
#include "compiler/config/job_yaml.h"
#include "compiler/import/pt2_archive.h"
#include "compiler/lowering/select_kernels.h"
#include "compiler/passes/pass.h"
#include "compiler/planner/compile_job.h"

namespace autosp {
namespace {

constexpr int64_t kMaxGraphBytes = 256 << 20;

struct Options {
  std::string input;
  std::string from;
  std::string to;
  std::string pass;
  std::string emit = "graph";
  bool check = false;
  std::string one_device;
  int64_t batch = 0;
  int64_t seq_len = 0;
  int64_t dp = 1;
  int64_t ulysses = 1;
  int64_t accum = 1;
  std::string recompute = "none";
  std::string tiling = "none";
  std::string offload = "none";
  int64_t zero = 0;
  bool cuda = false;
};

absl::StatusOr<ImportedModel> ReadModel(const std::string& path) {
  if (path.ends_with(".pt2")) return ImportArchive(path);
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxGraphBytes));
  ImportedModel model;
  ASSIGN_OR_RETURN(model.graph, ParseGraph(text));
  return model;
}

absl::StatusOr<Program> ReadProgram(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxGraphBytes));
  return ParseProgram(text);
}

// Of a program's text, as --emit=program or `autosp-cli plan --program` wrote it.
absl::Status CheckText(const Options& options) {
  ASSIGN_OR_RETURN(const Program program, ReadProgram(options.input));
  if (options.one_device.empty()) {
    RETURN_IF_ERROR(CheckProgram(program));
    std::cout << "well-formed and placed; --one-device PROGRAM compares what it computes\n";
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const Program one_device, ReadProgram(options.one_device));
  ASSIGN_OR_RETURN(const Proof proof, CheckEquivalent(program, one_device));
  std::cout << "checked " << proof.num_values << " values and " << proof.num_collectives
            << " collectives; all " << proof.num_results
            << " outputs, parameters and states equal the one-device program's\n";
  return absl::OkStatus();
}

// Every input is [batch, sequence] unless it has another rank.
InputRoles UsualRoles(const Graph& graph) {
  InputRoles roles;
  for (const GraphInput& input : graph.inputs) {
    if (input.kind != InputKind::kUser) continue;
    std::vector<DimRole> dims(graph.type(input.value).sizes.size(), DimRole::kOther);
    if (!dims.empty()) dims[0] = DimRole::kBatch;
    if (dims.size() > 1) dims[1] = DimRole::kSequence;
    roles[input.name] = dims;
  }
  return roles;
}

absl::Status EmitProgram(Graph graph, const PassContext& context, const Options& options) {
  ASSIGN_OR_RETURN(GraphFactors factors, InferFactors(graph, context.roles));
  LoweringOptions lowering;
  lowering.mesh = {.accum = options.accum, .dp = options.dp, .ring = 1, .ulysses = options.ulysses};
  for (Recompute each : {Recompute::kSelective, Recompute::kFull}) {
    if (options.recompute == ToString(each)) lowering.memory.recompute = each;
  }
  lowering.memory.zero_stage = options.zero;
  for (Offload each : {Offload::kActivations, Offload::kEveryLayer}) {
    if (options.offload == ToString(each)) lowering.memory.offload = each;
  }
  for (Tiling each : {Tiling::kLoss, Tiling::kAll}) {
    if (options.tiling == ToString(each)) lowering.memory.tiling = each;
  }
  ASSIGN_OR_RETURN(LoweredProgram lowered, LowerToProgram(graph, factors, lowering));
  const DeviceKind device = options.cuda ? DeviceKind::kA100_80gb : DeviceKind::kCpu;
  if (options.cuda) SelectCudaKernels(lowered.program, device);
  std::cout << PrintProgram(lowered.program);
  if (options.emit != "prediction") return absl::OkStatus();
  ASSIGN_OR_RETURN(const SectionPrediction prediction,
                   SimulateSection(lowered.program, "step", LibraryBytes(device)));
  for (const auto& [account, peak] : prediction.memory) {
    std::cout << "# " << AccountName(account) << " peak " << peak.peak_bytes << " persistent "
              << peak.persistent_bytes << " at " << peak.peak_instruction << peak.peak_where
              << "\n";
  }
  for (const CollectiveTotals& row : prediction.collectives) {
    std::cout << "# " << row.phase << " " << row.kind << " over " << row.axis << " calls "
              << row.calls << " bytes " << row.bytes_received_per_rank << "\n";
  }
  return absl::OkStatus();
}

absl::Status Run(const Options& options) {
  if (options.check) return CheckText(options);
  ASSIGN_OR_RETURN(ImportedModel model, ReadModel(options.input));
  Graph graph = std::move(model.graph);
  PassContext context;
  context.roles = UsualRoles(graph);
  context.batch_size = options.batch;
  context.seq_len = options.seq_len;
  context.head_shards = options.ulysses;
  context.constant_ranges = model.constant_ranges;
  context.symbol_ranges = model.symbol_ranges;
  context.guards = model.guards;
  std::vector<std::string> warnings;
  context.warnings = &warnings;
  const std::string from = options.pass.empty() ? options.from : options.pass;
  const std::string to = options.pass.empty() ? options.to : options.pass;
  if (options.emit != "import") RETURN_IF_ERROR(RunGraphPasses(graph, context, from, to));
  for (const std::string& warning : warnings) std::cerr << "warning: " << warning << "\n";
  context.warnings = nullptr;
  if (options.emit == "program" || options.emit == "prediction") {
    return EmitProgram(std::move(graph), context, options);
  }
  std::cout << PrintGraph(graph);
  return absl::OkStatus();
}

}  // namespace
}  // namespace autosp

int main(int argc, char** argv) {
  autosp::Options options;
  CLI::App app{"Runs compiler passes on a .pt2 archive or the text of a graph."};
  app.add_option("input", options.input, "archive (.pt2), graph text, or program text to check")
      ->required();
  app.add_option("--pass", options.pass, "run this pass alone");
  app.add_option("--from", options.from, "first pass; default: the first");
  app.add_option("--to", options.to, "last pass; default: the last");
  app.add_option("--emit", options.emit, "import, graph, program or prediction")
      ->check(CLI::IsMember({"import", "graph", "program", "prediction"}));
  app.add_flag("--check", options.check, "prove the text of a program instead of compiling");
  app.add_option("--one-device", options.one_device,
                 "with --check: the program of the same job for one rank and one micro-step");
  app.add_option("--batch", options.batch, "global batch size; default: as exported");
  app.add_option("--seq-len", options.seq_len, "sequence length; default: as exported");
  app.add_option("--dp", options.dp, "data-parallel ranks");
  app.add_option("--ulysses", options.ulysses, "sequence-parallel ranks");
  app.add_option("--accum", options.accum, "micro-steps of one step");
  app.add_option("--recompute", options.recompute, "none, selective or full")
      ->check(CLI::IsMember({"none", "selective", "full"}));
  app.add_option("--zero", options.zero, "stage of ZeRO")->check(CLI::Range(0, 3));
  app.add_flag("--cuda", options.cuda, "name the kernels that GPUs run");
  app.add_option("--offload", options.offload, "none, activations or every_layer")
      ->check(CLI::IsMember({"none", "activations", "every_layer"}));
  app.add_option("--tiling", options.tiling, "none, loss or all")
      ->check(CLI::IsMember({"none", "loss", "all"}));
  std::string passes = "passes, in order:\n";
  for (const autosp::Pass& pass : autosp::GraphPasses()) {
    passes += "  " + std::string(pass.name) + ": " + std::string(pass.summary) + "\n";
  }
  app.footer(passes);
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = autosp::Run(options);
  if (status.ok()) return 0;
  std::cerr << "autosp-opt: " << status.message() << "\n";
  return 1;
}
