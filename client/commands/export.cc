#include <atomic>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/commands/command.h"
#include "client/companion_files.h"
#include "client/interrupts.h"
#include "client/model_export.h"
#include "common/bytes.h"
#include "common/errors.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

constexpr absl::Duration kProgressEvery = absl::Seconds(2);

struct ExportArgs {
  std::string checkpoint;
  std::string output_dir;
  bool overwrite = false;
  std::string dtype = "auto";
  std::string max_shard_size = FormatBytesExactly(kDefaultShardBytes);
  std::string weights;
  CompanionSources companions;
};

// As Hugging Face names them, and as people abbreviate that.
struct DTypeWord {
  const char* word;
  DType dtype;
};
constexpr DTypeWord kDTypeWords[] = {{"float32", DType::kF32},   {"fp32", DType::kF32},
                                     {"bfloat16", DType::kBF16}, {"bf16", DType::kBF16},
                                     {"float16", DType::kF16},   {"fp16", DType::kF16}};

std::set<std::string> DTypeChoices() {
  std::set<std::string> choices = {"auto"};
  for (const DTypeWord& each : kDTypeWords) choices.insert(each.word);
  return choices;
}

// The name of the type that all floating weights have; empty: they have several, or another.
std::string DTypeOf(const ExportedModel& model) {
  if (model.floating_types.size() != 1) return "";
  for (const DTypeWord& each : kDTypeWords) {
    if (each.dtype == *model.floating_types.begin()) return each.word;
  }
  return "";
}

absl::StatusOr<ModelExportOptions> OptionsOf(const ExportArgs& args) {
  ModelExportOptions options{.checkpoint = args.checkpoint,
                             .output_dir = args.output_dir,
                             .overwrite = args.overwrite,
                             .weights = args.weights};
  for (const DTypeWord& each : kDTypeWords) {
    if (args.dtype == each.word) options.dtype = each.dtype;
  }
  ASSIGN_OR_RETURN(options.max_shard_bytes, ParseBytes(args.max_shard_size), "--max-shard-size");
  if (options.max_shard_bytes < 1) {
    return InvalidArgument("--max-shard-size: ", args.max_shard_size, " must be above 0");
  }
  ASSIGN_OR_RETURN(options.files, FindCompanions(args.companions));
  return options;
}

// What is on its way is for people at a terminal, and no part of the answer.
class Progress {
 public:
  explicit Progress(const CommandContext& context)
      : context_(context), is_shown_(context.environment.is_terminal && !context.is_json()) {}

  void Show(absl::string_view what, int64_t done_bytes, int64_t total_bytes) {
    const absl::Time now = absl::Now();
    if (!is_shown_ || now < next_) return;
    next_ = now + kProgressEvery;
    context_.err() << what << ": " << FormatBytes(done_bytes) << " of " << FormatBytes(total_bytes)
                   << "\n";
  }

 private:
  const CommandContext& context_;
  const bool is_shown_;
  absl::Time next_ = absl::Now() + kProgressEvery;
};

void Report(const ExportedModel& model, const ModelExportOptions& options,
            CommandContext& context) {
  const std::vector<std::string> notes = CompanionNotes(options.files, DTypeOf(model));
  if (context.is_json()) {
    nlohmann::json files = nlohmann::json::array();
    for (const WrittenFile& file : model.files) {
      files.push_back(
          {{"path", file.path}, {"size_bytes", file.size_bytes}, {"sha256", file.sha256}});
    }
    return PrintJson({{"export",
                       {{"output_dir", options.output_dir},
                        {"checkpoint", model.checkpoint},
                        {"step", model.step},
                        {"num_tensors", model.num_tensors},
                        {"total_size", model.num_bytes},
                        {"files", files},
                        {"skipped", model.skipped},
                        {"notes", notes}}}},
                     context.out());
  }
  for (const std::string& each : model.skipped) context.out() << "skipped: " << each << "\n";
  context.out() << options.output_dir << ": step " << model.step << " of " << model.checkpoint
                << ", " << model.num_tensors << " tensors, " << FormatBytes(model.num_bytes)
                << "\n";
  for (const WrittenFile& file : model.files) {
    context.out() << "  " << file.path << "  " << FormatBytes(file.size_bytes) << "\n";
  }
  for (const std::string& note : notes) context.out() << "note: " << note << "\n";
}

// What is not found is a path that the user gave; what is out of range is the size of a file.
ExitCode CodeOf(const absl::Status& status) {
  if (absl::IsNotFound(status)) return ExitCode::kBadInput;
  return absl::IsOutOfRange(status) ? ExitCode::kFailed : ExitCodeOf(status);
}

void Export(const ExportArgs& args, CommandContext& context) {
  absl::StatusOr<ModelExportOptions> options = OptionsOf(args);
  if (!options.ok()) return context.FailInput(options.status());
  // An interrupt must not end this process before the partial folder is gone.
  std::atomic<bool> is_interrupted = false;
  const Interrupts interrupts([&is_interrupted](int /*count*/) { is_interrupted = true; });
  Progress progress(context);
  options->on_progress = [&](absl::string_view what, int64_t done, int64_t total) {
    progress.Show(what, done, total);
    return is_interrupted ? Cancelled("interrupted") : absl::OkStatus();
  };
  const absl::StatusOr<ExportedModel> model = ExportModel(*options);
  if (model.ok()) return Report(*model, *options, context);
  if (absl::IsCancelled(model.status())) {
    context.exit_code = ExitCode::kInterrupted;
  } else {
    context.Fail(model.status(), CodeOf(model.status()));
  }
}

}  // namespace

void AddExportCommand(CLI::App& app, CommandContext& context) {
  auto args = std::make_shared<ExportArgs>();
  CLI::App* command = app.add_subcommand(
      "export", "Make a checkpoint a directory that Hugging Face transformers loads");
  command
      ->add_option("CHECKPOINT", args->checkpoint,
                   "A checkpoint, or the folder of a job's checkpoints: the newest whole one")
      ->required();
  command
      ->add_option("-o,--output-dir", args->output_dir,
                   "Directory to make; nothing is left of it where the export fails")
      ->required();
  command->add_flag("--overwrite", args->overwrite,
                    "Replace a directory with a model, and all that is in it");
  command
      ->add_option("--dtype", args->dtype,
                   "Type of the weights: auto is that of the exported program")
      ->check(CLI::IsMember(DTypeChoices()))
      ->capture_default_str();
  command
      ->add_option("--max-shard-size", args->max_shard_size,
                   "Size past which the weights become several files with an index")
      ->capture_default_str();
  command->add_option("--config", args->companions.config,
                      "config.json to copy, or a model's directory that has it");
  command->add_option("--generation-config", args->companions.generation_config,
                      "generation_config.json to copy; without it, that beside --config");
  command
      ->add_option("--tokenizer", args->companions.tokenizer,
                   "Directory of a tokenizer, or one of its files, to copy; may be repeated")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->allow_extra_args(false);
  command->add_option("--weights", args->weights,
                      "Safetensors with what no step changes and the checkpoint has not: buffers "
                      "and weights that the loss does not depend on");
  command->callback([args, &context] { Export(*args, context); });
}

}  // namespace autosp
