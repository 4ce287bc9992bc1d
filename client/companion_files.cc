#include "client/companion_files.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/file.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

namespace fs = std::filesystem;

constexpr char kConfig[] = "config.json";
constexpr char kGenerationConfig[] = "generation_config.json";
constexpr int64_t kMaxConfigBytes = 16 << 20;

// What tokenizers and processors of transformers write.
constexpr const char* kTokenizerFiles[] = {"tokenizer.json",
                                           "tokenizer_config.json",
                                           "special_tokens_map.json",
                                           "added_tokens.json",
                                           "vocab.json",
                                           "merges.txt",
                                           "vocab.txt",
                                           "tokenizer.model",
                                           "spiece.model",
                                           "sentencepiece.bpe.model",
                                           "chat_template.jinja",
                                           "chat_template.json",
                                           "preprocessor_config.json",
                                           "processor_config.json"};

bool IsFolder(const std::string& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

absl::StatusOr<nlohmann::json> ReadConfig(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxConfigBytes));
  auto config = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (config.is_object()) return config;
  return InvalidArgument(path, " is no JSON table; name the config.json of a Hugging Face model");
}

class Companions {
 public:
  absl::Status AddConfig(const std::string& path) {
    const bool is_folder = IsFolder(path);
    const std::string file = is_folder ? JoinPath(path, kConfig) : path;
    RETURN_IF_ERROR(WithContext(ReadConfig(file).status(), "--config"));
    RETURN_IF_ERROR(Add(kConfig, file));
    const std::string generation = JoinPath(path, kGenerationConfig);
    if (!is_folder || !FileExists(generation) || Has(kGenerationConfig)) return absl::OkStatus();
    return Add(kGenerationConfig, generation);
  }

  absl::Status AddGenerationConfig(const std::string& path) {
    RETURN_IF_ERROR(WithContext(ReadConfig(path).status(), "--generation-config"));
    return Add(kGenerationConfig, path);
  }

  absl::Status AddTokenizer(const std::string& path) {
    if (!IsFolder(path)) {
      RETURN_IF_ERROR(WithContext(OpenForReading(path).status(), "--tokenizer"));
      return Add(fs::path(path).filename().string(), path);
    }
    const size_t before = files_.size();
    for (const char* name : kTokenizerFiles) {
      const std::string file = JoinPath(path, name);
      if (FileExists(file)) RETURN_IF_ERROR(Add(name, file));
    }
    if (files_.size() > before) return absl::OkStatus();
    return NotFound("--tokenizer: ", path,
                    " has no tokenizer.json, nor another file that tokenizers have; name files");
  }

  std::vector<CompanionFile> Take() { return std::move(files_); }

 private:
  bool Has(const std::string& name) const {
    return std::ranges::find(files_, name, &CompanionFile::name) != files_.end();
  }

  absl::Status Add(const std::string& name, const std::string& path) {
    if (absl::StrContains(name, ".safetensors") || absl::StartsWith(name, ".")) {
      return InvalidArgument(path, ": ", name, " is no name of a configuration or tokenizer");
    }
    if (Has(name)) return InvalidArgument(path, ": ", name, " is given twice");
    files_.push_back({.name = name, .path = path});
    return absl::OkStatus();
  }

  std::vector<CompanionFile> files_;
};

}  // namespace

absl::StatusOr<std::vector<CompanionFile>> FindCompanions(const CompanionSources& sources) {
  Companions companions;
  if (!sources.generation_config.empty()) {
    RETURN_IF_ERROR(companions.AddGenerationConfig(sources.generation_config));
  }
  if (!sources.config.empty()) RETURN_IF_ERROR(companions.AddConfig(sources.config));
  for (const std::string& path : sources.tokenizer) {
    RETURN_IF_ERROR(companions.AddTokenizer(path));
  }
  return companions.Take();
}

std::vector<std::string> CompanionNotes(const std::vector<CompanionFile>& files,
                                        const std::string& dtype) {
  const auto file = std::ranges::find(files, kConfig, &CompanionFile::name);
  if (file == files.end()) {
    return {"it has no config.json, without which transformers does not load it; give --config"};
  }
  const absl::StatusOr<nlohmann::json> config = ReadConfig(file->path);
  if (!config.ok() || dtype.empty()) return {};
  for (const char* key : {"dtype", "torch_dtype"}) {
    const auto found = config->find(key);
    if (found == config->end() || !found->is_string() || *found == dtype) continue;
    return {absl::StrCat("config.json says ", key, " ", found->get<std::string>(),
                         ", and the weights are ", dtype,
                         ": transformers converts them as it loads, unless it is told another "
                         "dtype")};
  }
  return {};
}

}  // namespace autosp
