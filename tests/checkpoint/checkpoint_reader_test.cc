#include "checkpoint/checkpoint_reader.h"

#include <cstring>

#include "checkpoint/checkpoint_folder.h"
#include "common/errors.h"
#include "common/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/checkpoint/written_checkpoint.h"
#include "tests/common/status_matchers.h"
#include "tests/common/temp_dir.h"

namespace autosp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class CheckpointReaderTest : public testing::Test {
 protected:
  // The tensors in the parts of three ranks.
  CheckpointReader Open(const std::vector<WholeTensor>& tensors) {
    return *CheckpointReader::Open(dir_.path(), WriteCheckpoint(dir_.path(), 3, tensors));
  }

  static std::vector<float> Numbers(const CheckpointReader& reader, const std::string& name,
                                    const TensorBox& box) {
    int64_t count = 1;
    for (const int64_t size : box.shape) count *= size;
    std::vector<std::byte> bytes(count * sizeof(float));
    const absl::StatusOr<const ManifestTensor*> tensor = reader.Find(name);
    EXPECT_THAT(tensor, IsOk());
    EXPECT_THAT(reader.Read(**tensor, box, absl::MakeSpan(bytes)), IsOk());
    std::vector<float> numbers(count);
    std::memcpy(numbers.data(), bytes.data(), bytes.size());
    return numbers;
  }

  TempDir dir_;
};

// Every box of a tensor of three dimensions, whichever of them is cut.
TEST_F(CheckpointReaderTest, ReadsEveryBox) {
  const std::vector<int64_t> shape = {4, 3, 5};
  const CheckpointReader reader =
      Open({F32Tensor("a", shape, 0), F32Tensor("b", shape, 0), F32Tensor("c", shape, 0)});
  const auto check = [&](const std::string& name, const TensorBox& box) {
    const std::vector<float> numbers = Numbers(reader, name, box);
    size_t next = 0;
    for (int64_t i = 0; i < box.shape[0]; ++i) {
      for (int64_t j = 0; j < box.shape[1]; ++j) {
        for (int64_t k = 0; k < box.shape[2]; ++k) {
          const int64_t place =
              ((box.offset[0] + i) * shape[1] + box.offset[1] + j) * shape[2] + box.offset[2] + k;
          ASSERT_EQ(numbers[next++], static_cast<float>(place)) << name;
        }
      }
    }
  };
  for (const char* name : {"a", "b", "c"}) {
    for (int64_t begin = 0; begin < 60; ++begin) {
      for (int64_t size = 0; size < 60; ++size) {
        const TensorBox box{.offset = {begin / 15, begin / 5 % 3, begin % 5},
                            .shape = {size / 15 + 1, size / 5 % 3 + 1, size % 5 + 1}};
        bool is_inside = true;
        for (size_t dim = 0; dim < 3; ++dim) {
          is_inside = is_inside && box.offset[dim] + box.shape[dim] <= shape[dim];
        }
        if (is_inside) check(name, box);
      }
    }
  }
}

TEST_F(CheckpointReaderTest, ReadsScalarsAndNamesWhatIsNotThere) {
  const CheckpointReader reader = Open({F32Tensor("scale", {}, 7)});
  EXPECT_THAT(Numbers(reader, "scale", {}), ElementsAre(7));
  EXPECT_THAT(reader.Find("w"), IsError(absl::StatusCode::kNotFound, HasSubstr("no tensor w")));
}

TEST_F(CheckpointReaderTest, RefusesFilesThatAreNotWhatTheManifestSays) {
  const CheckpointManifest manifest =
      WriteCheckpoint(dir_.path(), 3, {F32Tensor("w", {5, 2}, 0), F32Tensor("x", {2}, 0)});
  CheckpointManifest swapped = manifest;
  std::swap(swapped.files[0], swapped.files[2]);
  EXPECT_THAT(CheckpointReader::Open(dir_.path(), swapped),
              IsError(absl::StatusCode::kDataLoss, HasSubstr("w is not the slice")));
  CheckpointManifest renamed = manifest;
  renamed.tensors[0].name = "v";
  EXPECT_THAT(CheckpointReader::Open(dir_.path(), renamed),
              IsError(absl::StatusCode::kDataLoss, HasSubstr("has no slice of v")));
}

TEST_F(CheckpointReaderTest, AFileIsReadOnlyAsFarAsTheCallerLikes) {
  const CheckpointManifest manifest = WriteCheckpoint(dir_.path(), 1, {F32Tensor("w", {9}, 0)});
  int64_t num_bytes = 0;
  const auto count = [&](int64_t bytes) {
    num_bytes += bytes;
    return absl::OkStatus();
  };
  EXPECT_THAT(CheckFile(dir_.path(), manifest.files[0], count), IsOk());
  EXPECT_EQ(num_bytes, manifest.files[0].size_bytes);
  const auto stop = [](int64_t) { return Cancelled("enough"); };
  EXPECT_THAT(CheckFile(dir_.path(), manifest.files[0], stop),
              IsError(absl::StatusCode::kCancelled, "enough"));
}

}  // namespace
}  // namespace autosp
