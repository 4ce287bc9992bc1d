// Archives and what an import makes of them, as whole text: the graph, where its weights lie, and
// for archives that are refused, the message. `--rewrite` writes the goldens again.
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/file.h"
#include "compiler/import/pt2_archive.h"
#include "gtest/gtest.h"
#include "tests/compiler/import/archive_editor.h"

namespace autosp {
namespace {

bool rewrite = false;

std::string PrintModel(const ImportedModel& model) {
  std::string text = PrintGraph(model.graph);
  for (const auto& [symbol, range] : model.symbol_ranges) {
    const std::string max = range.max == INT64_MAX ? "inf" : absl::StrCat(range.max);
    absl::StrAppend(&text, "# symbol ", symbol, " in [", range.min, ", ", max, "]\n");
  }
  for (const WeightRef& weight : model.weights) {
    absl::StrAppend(&text, "# weight ", weight.input_name, " ",
                    std::string(DTypeName(weight.dtype)), "[", absl::StrJoin(weight.sizes, ", "),
                    "] strides ", absl::StrJoin(weight.strides, ","), " from ",
                    weight.storage_offset, ": ", weight.entry, " at ", weight.file_offset, ", ",
                    weight.size_bytes, " bytes", weight.is_empty ? ", empty" : "", "\n");
  }
  if (model.is_graph_only) text += "# graph only\n";
  return text;
}

// The path of the archive depends on the machine.
std::string ImportToText(const std::string& path) {
  const absl::StatusOr<ImportedModel> model = ImportArchive(path);
  if (model.ok()) return PrintModel(*model);
  std::string message(model.status().message());
  const size_t at = message.find(AUTOSP_SOURCE_DIR);
  if (at != std::string::npos) message.erase(at, std::strlen(AUTOSP_SOURCE_DIR) + 1);
  return absl::StrCat("refused: ", message, "\n");
}

void ExpectGolden(const std::string& name, const std::string& text) {
  const std::string path = absl::StrCat(AUTOSP_SOURCE_DIR, "/tests/golden/import/", name, ".txt");
  if (rewrite) {
    std::ofstream(path) << text;
    return;
  }
  ASSERT_TRUE(FileExists(path)) << path << " is missing; run this test with --rewrite";
  EXPECT_EQ(text, ReadFileOrDie(path)) << "run this test with --rewrite if the change is wanted";
}

class ImportGolden : public testing::TestWithParam<std::string> {};

TEST_P(ImportGolden, IsUnchanged) {
  const std::string path =
      FileExists(CaseArchive(GetParam())) ? CaseArchive(GetParam()) : ZooArchive(GetParam());
  ExpectGolden(GetParam(), ImportToText(path));
}

INSTANTIATE_TEST_SUITE_P(
    Models, ImportGolden,
    testing::Values("writes_buffers", "writes_functionally", "writes_to_out", "writes_to_fresh",
                    "writes_through_views", "writes_to_reshaped", "draws", "reshapes_in_place",
                    "writes_mask", "complex_numbers", "complex_signs", "fourier", "fourier_shifts",
                    "short_time_fourier", "no_grad", "autocast", "autocast_parts", "symbols",
                    "whole_blocks", "outputs", "tied", "noise", "residual_dropout", "bert", "gpt2",
                    "gpt2_dropout", "gpt2_long", "llama", "llama_autocast", "llama_mask", "plain"),
    [](const testing::TestParamInfo<std::string>& info) { return info.param; });

TEST(ImportGolden, Refusals) {
  std::string text;
  for (const char* name : {"refused_autocast",
                           "refused_branch",
                           "refused_buffer_shape",
                           "refused_complex",
                           "refused_complex_input",
                           "refused_complex_parameter",
                           "refused_complex_sum",
                           "refused_constant_write",
                           "refused_custom_op",
                           "refused_fake_quantize",
                           "refused_fourier",
                           "refused_input_write",
                           "refused_item",
                           "refused_new_strides",
                           "refused_no_grad_write",
                           "refused_nonzero",
                           "refused_out_results",
                           "refused_out_shape",
                           "refused_out_type",
                           "refused_parameter_write",
                           "refused_random",
                           "refused_recurrent",
                           "refused_reshape_of_two_names",
                           "refused_reshape_write",
                           "refused_shared_buffer",
                           "refused_shared_storage",
                           "refused_wide_integers",
                           "refused_write_after_reshape"}) {
    absl::StrAppend(&text, ImportToText(CaseArchive(name)));
  }
  ExpectGolden("refusals", text);
}

// The text of every imported graph is all there is to it.
TEST_P(ImportGolden, RoundTrips) {
  const std::string path =
      FileExists(CaseArchive(GetParam())) ? CaseArchive(GetParam()) : ZooArchive(GetParam());
  const absl::StatusOr<ImportedModel> model = ImportArchive(path);
  ASSERT_TRUE(model.ok()) << model.status();
  const std::string text = PrintGraph(model->graph);
  const absl::StatusOr<Graph> again = ParseGraph(text);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(PrintGraph(*again), text);
  EXPECT_TRUE(VerifyGraph(*again).ok()) << VerifyGraph(*again);
}

}  // namespace
}  // namespace autosp

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  autosp::rewrite = std::getenv("AUTOSP_REWRITE_GOLDENS") != nullptr;
  for (int i = 1; i < argc; ++i) autosp::rewrite |= std::strcmp(argv[i], "--rewrite") == 0;
  return RUN_ALL_TESTS();
}
