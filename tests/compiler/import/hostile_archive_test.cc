// Archives that are damaged, forged or of another time: an error that names the cause, never a
// crash, a hang or much memory.
#include <string>

#include "absl/strings/str_cat.h"
#include "compiler/import/pt2_archive.h"
#include "tests/common/status_matchers.h"
#include "tests/compiler/import/archive_editor.h"

namespace autosp {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

absl::StatusOr<ImportedModel> Import(const std::string& bytes) {
  return ImportArchiveFromMemory(Bytes(bytes));
}

absl::StatusOr<ImportedModel> Import(const ArchiveEditor& editor) { return Import(editor.Write()); }

ArchiveEditor Case(const std::string& name) { return ArchiveEditor::Read(CaseArchive(name)); }

TEST(HostileArchive, AnUnchangedCopyImports) {
  const absl::StatusOr<ImportedModel> copy = Import(Case("tied"));
  ASSERT_THAT(copy, IsOk());
  ASSERT_OK_AND_ASSIGN(const ImportedModel original, ImportArchive(CaseArchive("tied")));
  EXPECT_EQ(PrintGraph(copy->graph), PrintGraph(original.graph));
}

TEST(HostileArchive, TruncationsAreDamage) {
  const std::string bytes = ReadFileOrDie(ZooArchive("llama"));
  for (int part = 0; part < 16; ++part) {
    const std::string cut = bytes.substr(0, bytes.size() * part / 16);
    EXPECT_THAT(Import(cut), IsError(absl::StatusCode::kDataLoss,
                                     AnyOf(HasSubstr("truncated"), HasSubstr("too short"))))
        << part << "/16";
  }
  EXPECT_FALSE(Import(bytes.substr(0, bytes.size() - 1)).ok());
  EXPECT_FALSE(Import(bytes.substr(1)).ok());
}

// Where a flipped byte is not noticed it changed nothing that an import reads.
TEST(HostileArchive, FlippedBytesNeverChangeTheModel) {
  std::string bytes = ReadFileOrDie(CaseArchive("tied"));
  ASSERT_OK_AND_ASSIGN(const ImportedModel original, Import(bytes));
  const std::string text = PrintGraph(original.graph);
  int num_refused = 0;
  // An odd step, so that all kinds of fields are met; the fuzz target goes on from here.
  for (size_t i = 0; i < bytes.size(); i += 7) {
    for (const int mask : {0x01, 0x80}) {
      bytes[i] = static_cast<char>(bytes[i] ^ mask);
      const absl::StatusOr<ImportedModel> model = Import(bytes);
      num_refused += !model.ok();
      EXPECT_TRUE(!model.ok() || PrintGraph(model->graph) == text) << "byte " << i;
      bytes[i] = static_cast<char>(bytes[i] ^ mask);
    }
  }
  EXPECT_GT(num_refused, 0);
}

TEST(HostileArchive, BombsAreRefusedBeforeTheyAreInflated) {
  ArchiveEditor zeros = Case("tied");
  zeros.Find("models/model.json").content = std::string(64 << 20, '0');
  zeros.Find("models/model.json").is_deflated = true;
  EXPECT_THAT(Import(zeros), IsError(absl::StatusCode::kResourceExhausted,
                                     HasSubstr("models/model.json inflates")));

  // The directory may understate what the entry holds; no more than that is read.
  ArchiveEditor liar = Case("tied");
  liar.Find("models/model.json").content = std::string(64 << 20, '0');
  liar.Find("models/model.json").is_deflated = true;
  liar.Find("models/model.json").claimed_size = 1000;
  EXPECT_FALSE(Import(liar).ok());

  ArchiveEditor huge = Case("tied");
  huge.Find("models/model.json").is_deflated = true;
  huge.Find("models/model.json").claimed_size = 0xfffffffe;
  EXPECT_THAT(Import(huge), IsError(absl::StatusCode::kResourceExhausted, HasSubstr("inflates")));
}

TEST(HostileArchive, OverlappingEntriesAreForged) {
  ArchiveEditor archive = Case("tied");
  archive.Remove("sample_inputs/model.pt");  // a zip archive itself
  std::string bytes = archive.Write();
  // Let the second directory entry point at the first local header.
  const size_t first = bytes.find("PK\x01\x02");
  const size_t second = bytes.find("PK\x01\x02", first + 1);
  ASSERT_NE(second, std::string::npos);
  bytes.replace(second + 42, 4, bytes, first + 42, 4);
  EXPECT_THAT(Import(bytes), IsError(absl::StatusCode::kDataLoss,
                                     HasSubstr("overlap, so the archive is damaged or forged")));
}

TEST(HostileArchive, NamesAreUnique) {
  ArchiveEditor twice = Case("tied");
  twice.entries().push_back(twice.Find("models/model.json"));
  EXPECT_THAT(Import(twice), IsError(absl::StatusCode::kDataLoss, HasSubstr("two entries named")));
}

TEST(HostileArchive, EncryptionIsRefused) {
  ArchiveEditor encrypted = Case("tied");
  encrypted.Find("models/model.json").is_encrypted = true;
  EXPECT_THAT(Import(encrypted),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("encrypted")));
}

TEST(HostileArchive, DeflatedModelsAreRead) {
  ArchiveEditor deflated = Case("tied");
  deflated.Find("models/model.json").is_deflated = true;
  EXPECT_THAT(Import(deflated), IsOk());
}

TEST(HostileArchive, DeepJsonIsRefused) {
  ArchiveEditor deep = Case("tied");
  deep.Find("models/model.json").content = std::string(1 << 20, '[');
  EXPECT_THAT(Import(deep), IsError(absl::StatusCode::kResourceExhausted, HasSubstr("nest")));
  deep.Find("models/model.json").content = "{\"graph_module\": ";
  EXPECT_THAT(Import(deep), IsError(absl::StatusCode::kDataLoss, HasSubstr("is not JSON")));
  deep.Find("models/model.json").content = "[1, 2]";
  EXPECT_THAT(Import(deep),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("an object is expected")));
}

TEST(HostileArchive, OtherVersionsAreRefusedWithWhatToDo) {
  ArchiveEditor archive = Case("tied");
  archive.Find("archive_version").content = "1";
  EXPECT_THAT(Import(archive),
              IsError(absl::StatusCode::kUnimplemented, HasSubstr("archive_version is '1'")));
  archive = Case("tied");
  archive.Find("archive_format").content = "pt3";
  EXPECT_THAT(Import(archive),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("archive_format is 'pt3'")));
  archive = Case("tied");
  archive.Find("byteorder").content = "big";
  EXPECT_THAT(Import(archive),
              IsError(absl::StatusCode::kUnimplemented, HasSubstr("byteorder is 'big'")));
  for (const char* major : {"7", "9"}) {
    archive = Case("tied");
    archive.Replace("models/model.json", "\"major\": 8", absl::StrCat("\"major\": ", major));
    EXPECT_THAT(Import(archive), IsError(absl::StatusCode::kUnimplemented,
                                         HasSubstr(absl::StrCat("export schema ", major, "."))));
  }
}

TEST(HostileArchive, OldLayoutsAreRefusedWithWhatToDo) {
  ArchiveEditor torch27;
  torch27.entries() = {{"serialized_exported_program.json", "{}", false, {}, false},
                       {"version", "8.2", false, {}, false}};
  EXPECT_THAT(Import(torch27), IsError(absl::StatusCode::kUnimplemented,
                                       HasSubstr("re-save it with torch 2.9 or newer")));
  ArchiveEditor torch28 = Case("tied");
  torch28.entries().push_back({"tied/data/weights/model.pt", "pickle", false, {}, false});
  EXPECT_THAT(Import(torch28),
              IsError(absl::StatusCode::kUnimplemented, HasSubstr("torch 2.8 or older")));
  ArchiveEditor checkpoint;
  checkpoint.entries() = {{"archive/data.pkl", "pickle", false, {}, false}};
  EXPECT_THAT(Import(checkpoint),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("pickled checkpoint")));
  ArchiveEditor empty;
  EXPECT_THAT(Import(empty),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("no exported program")));
}

TEST(HostileArchive, OtherFilesAreNoArchives) {
  EXPECT_THAT(Import(std::string()), IsError(absl::StatusCode::kDataLoss, HasSubstr("too short")));
  EXPECT_THAT(Import(std::string(1000, 'x')),
              IsError(absl::StatusCode::kDataLoss, HasSubstr("no zip")));
  EXPECT_THAT(ImportArchive("/no/such/file.pt2"),
              IsError(absl::StatusCode::kNotFound, HasSubstr("/no/such/file.pt2")));
}

}  // namespace
}  // namespace autosp
