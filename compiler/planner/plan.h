// What the compiler answers: the program that ranks run, and the numbers that people read.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace autosp {

// One row of the communication table: every collective of one kind in one phase of a step.
struct CollectiveTotals {
  std::string kind;   // "all_to_all", "all_reduce", ...
  std::string phase;  // "forward", "backward", "optimizer", ...
  std::string axis;   // mesh axes of the group, for example "ulysses" or "dp+ulysses"
  int64_t calls = 0;  // per optimizer step
  int64_t bytes_received_per_rank = 0;  // per optimizer step
};

// The numbers of a plan, all per optimizer step and per rank unless said otherwise.
struct PlanSummary {
  std::string model_name;
  int64_t world_size = 1;
  int64_t dp_size = 1;
  int64_t ulysses_size = 1;
  int64_t ring_size = 1;
  std::string ring_exchange = "send_recv";  // send_recv, all_gather
  int64_t zero_stage = 0;
  int64_t seq_len = 0;
  int64_t seq_len_local = 0;
  int64_t global_batch_size = 0;
  int64_t micro_batch_size = 0;  // sequences per rank and micro-step
  int64_t grad_accum_steps = 1;
  int64_t num_parameters = 0;
  std::string recompute = "none";                       // none, selective, full
  std::string tiling = "none";                          // none, loss, all
  std::string offload = "none";                         // none, activations
  int64_t tokens_per_step = 0;                          // of the whole job
  std::map<std::string, int64_t> predicted_peak_bytes;  // by memory account
  // Floating point operations (compiler/rules/op_flops.h). Those of the model are the whole job's,
  // as one device would do them without making anything again; a rank's have all that it does.
  double model_flops = 0;
  double flops_per_rank = 0;
  double attention_flops_per_rank = 0;  // of these
  double peak_flops_per_second = 0;     // of the device, by the cluster's kind; 0: not known
  std::vector<CollectiveTotals> collectives;
  int64_t num_checked_values = 0;      // of the program, by compiler/checker
  int64_t num_checked_results = 0;     // outputs, parameters and states
  std::vector<std::string> links;      // of a model in several archives: which input is what output
  std::vector<std::string> shardings;  // sentences: what is sharded how
  std::vector<std::string> warnings;

  std::string ToText() const;
  nlohmann::json ToJson() const;
};

struct CompiledPlan {
  std::string program_text;  // canonical form (compiler/program/program.h); what ranks execute
  std::string digest;        // sha256 of program_text, hex
  PlanSummary summary;
};

}  // namespace autosp
