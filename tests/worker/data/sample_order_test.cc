#include "worker/data/sample_order.h"

#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace autosp {
namespace {

using testing::HasSubstr;

SampleOrder Order(SampleOrderOptions options) {
  auto order = SampleOrder::Make(options);
  EXPECT_TRUE(order.ok()) << order.status();
  return *order;
}

TEST(PermuteTest, IsAPermutation) {
  for (const int64_t size : {1, 2, 3, 4, 5, 16, 17, 100, 1000, 4097}) {
    for (const uint64_t key : {0, 1, 12345}) {
      std::set<int64_t> images;
      for (int64_t i = 0; i < size; ++i) {
        const int64_t image = Permute(i, size, key);
        EXPECT_GE(image, 0);
        EXPECT_LT(image, size);
        images.insert(image);
      }
      EXPECT_EQ(images.size(), size);
    }
  }
}

// Neighbours should end up far apart: of 1000 neighbours, about 2 stay neighbours by chance.
TEST(PermuteTest, Shuffles) {
  int num_neighbours = 0;
  for (int64_t i = 0; i + 1 < 1000; ++i) {
    num_neighbours += std::abs(Permute(i, 1000, 9) - Permute(i + 1, 1000, 9)) == 1;
  }
  EXPECT_LT(num_neighbours, 20);
}

TEST(SampleOrderTest, EachPassVisitsEverySampleInAnotherOrder) {
  const SampleOrder order = Order({.num_tokens = 1009, .seq_len = 10, .global_batch_size = 4});
  ASSERT_EQ(order.num_training_samples(), 100);
  std::vector<int64_t> first;
  std::vector<int64_t> second;
  for (int64_t step = 0; step < 50; ++step) {
    for (int64_t place = 0; place < 4; ++place) {
      const Sample sample = order.Training(step, place);
      EXPECT_EQ(sample.pass, step / 25);
      (sample.pass == 0 ? first : second).push_back(sample.index);
    }
  }
  EXPECT_NE(first, second);
  EXPECT_EQ(std::set<int64_t>(first.begin(), first.end()).size(), 100);
  EXPECT_EQ(std::set<int64_t>(second.begin(), second.end()).size(), 100);
}

TEST(SampleOrderTest, SeedChoosesTheOrder) {
  const SampleOrderOptions options = {.num_tokens = 1000, .seq_len = 10, .shuffle_seed = 1};
  SampleOrderOptions other = options;
  other.shuffle_seed = 2;
  std::vector<int64_t> a;
  std::vector<int64_t> again;
  std::vector<int64_t> b;
  for (int64_t step = 0; step < 100; ++step) {
    a.push_back(Order(options).Training(step, 0).index);
    again.push_back(Order(options).Training(step, 0).index);
    b.push_back(Order(other).Training(step, 0).index);
  }
  EXPECT_EQ(a, again);
  EXPECT_NE(a, b);
}

TEST(SampleOrderTest, HeldOutSamplesAreTheLastAndNeverTrainedOn) {
  const SampleOrder order = Order(
      {.num_tokens = 1000, .seq_len = 10, .global_batch_size = 3, .validation_fraction = 0.1});
  EXPECT_EQ(order.num_training_samples(), 90);
  EXPECT_EQ(order.num_validation_batches(), 3);
  EXPECT_EQ(order.Validation(0, 0).index, 90);
  EXPECT_EQ(order.Validation(2, 2).index, 98);
  for (int64_t step = 0; step < 100; ++step) EXPECT_LT(order.Training(step, 2).index, 90);
}

TEST(SampleOrderTest, TooLittleDataIsAnError) {
  const absl::Status none = SampleOrder::Make({.num_tokens = 9, .seq_len = 10}).status();
  EXPECT_THAT(std::string(none.message()), HasSubstr("none is left to train on"));
}

std::string ValidationError(int64_t num_samples, int64_t batch_size, double fraction) {
  const absl::Status status = SampleOrder::Make({.num_tokens = num_samples * 10,
                                                 .seq_len = 10,
                                                 .global_batch_size = batch_size,
                                                 .validation_fraction = fraction})
                                  .status();
  return std::string(status.message());
}

TEST(SampleOrderTest, TooLittleToValidateOnIsAnErrorThatSaysWhatIsEnough) {
  EXPECT_THAT(
      ValidationError(100, 8, 0.05),
      HasSubstr("0.05 of 100 samples is 5, less than one global batch of 8; set it to 0.08, "
                "or add data"));
  // No fraction leaves a sample to train on.
  for (const int64_t num_samples : {1, 2}) {
    EXPECT_THAT(ValidationError(num_samples, 2, 0.4),
                HasSubstr("; add data until there are more than 2 samples, or set it to 0"));
  }
}

// Fractions are cut to whole samples: one that is rounded down, as 0.333 of 3, would fail again.
TEST(SampleOrderTest, TheFractionOfTheErrorIsEnough) {
  for (int64_t num_samples = 2; num_samples < 400; ++num_samples) {
    for (int64_t batch_size = 1; batch_size < num_samples; batch_size += 1 + num_samples / 7) {
      const std::string error = ValidationError(num_samples, batch_size, 1e-9);
      const std::string mark = "set it to ";
      ASSERT_THAT(error, HasSubstr(mark));
      const double fraction = std::stod(error.substr(error.find(mark) + mark.size()));
      EXPECT_EQ(ValidationError(num_samples, batch_size, fraction), "") << error;
    }
  }
}

}  // namespace
}  // namespace autosp
