#include "tests/zoo/zoo_archives.h"

#include <filesystem>
#include <set>

#include "absl/strings/str_cat.h"
#include "compiler/import/link_models.h"

namespace autosp {

std::string ZooPath(const std::string& relative) {
  return absl::StrCat(AUTOSP_SOURCE_DIR, "/tests/zoo/", relative);
}

ModelSpec ZooSpec(const std::string& name) {
  std::set<std::string> archives;
  for (const auto& entry : std::filesystem::directory_iterator(ZooPath(name))) {
    if (entry.path().extension() == ".pt2") archives.insert(entry.path().string());
  }
  ModelSpec spec;
  spec.archives = {archives.begin(), archives.end()};
  if (name == "cases/tied_archives") spec.tied = {{"front.embed.weight", "back.head.weight"}};
  return spec;
}

absl::StatusOr<ImportedModel> ImportZoo(const std::string& name) {
  const ModelSpec spec = ZooSpec(name);
  return ImportModel(spec.archives, spec.tied);
}

const std::set<std::string>& CasesInBlocksOfFour() {
  static const auto& names =
      *new std::set<std::string>{"blocks_of_four", "halves_compared", "padded_windows",
                                 "rows_of_a_parameter", "rows_of_tokens"};
  return names;
}

}  // namespace autosp
