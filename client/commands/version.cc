#include "common/version.h"

#include "client/commands/command.h"

namespace autosp {

void AddVersionCommand(CLI::App& app, CommandContext& context) {
  CLI::App* command = app.add_subcommand("version", "Print the version");
  command->callback([&context] {
    if (context.is_json()) return PrintJson({{"version", kVersion}}, context.out());
    context.out() << "autosp-cli " << kVersion << "\n";
  });
}

}  // namespace autosp
