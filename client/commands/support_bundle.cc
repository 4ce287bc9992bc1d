#include "client/support_bundle.h"

#include "absl/strings/str_cat.h"
#include "client/commands/command.h"

namespace autosp {
namespace {

struct BundleArgs {
  std::string job_id;
  std::string path;
};

void Bundle(const BundleArgs& args, CommandContext& context) {
  const absl::StatusOr<SupportBundle> bundle =
      MakeSupportBundle(context.server, args.job_id, context.environment.program_folder);
  if (!bundle.ok()) return context.FailServer(bundle.status());
  const std::string path =
      args.path.empty() ? absl::StrCat("autosp-", args.job_id, ".zip") : args.path;
  const absl::Status written = WriteZip(path, bundle->entries);
  if (!written.ok()) return context.FailInput(written);
  if (context.is_json()) {
    nlohmann::json names = nlohmann::json::array();
    for (const FileToZip& entry : bundle->entries) names.push_back(entry.name);
    return PrintJson(
        {{"bundle", {{"path", path}, {"entries", names}, {"missing", bundle->missing}}}},
        context.out());
  }
  context.out() << path << ": " << bundle->entries.size() << " files\n";
  for (const std::string& each : bundle->missing) context.out() << "missing: " << each << "\n";
}

}  // namespace

void AddSupportBundleCommand(CLI::App& app, CommandContext& context) {
  auto args = std::make_shared<BundleArgs>();
  CLI::App* command = app.add_subcommand(
      "support-bundle",
      "Put all that is known of a job into one zip file: job file, plan, events, logs, nodes");
  command->add_option("ID", args->job_id, "Job id, as in list")->required();
  command->add_option("-o,--file", args->path, "File to write; without it, autosp-ID.zip");
  command->callback([args, &context] { Bundle(*args, context); });
}

}  // namespace autosp
