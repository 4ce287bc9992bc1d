// Strides as ATen finds them, on random shapes.
#include "compiler/lowering/layout.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace autosp {
namespace {

class LayoutTest : public testing::Test {
 protected:
  int64_t Random(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random_);
  }
  // A tensor of these sizes, its dimensions in random order in memory, sometimes a slice.
  at::Tensor Strided(const Sizes& sizes) {
    std::vector<int64_t> order(sizes.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i);
    std::ranges::shuffle(order, random_);
    Sizes stored;
    for (int64_t dim : order) stored.push_back(sizes[dim]);
    const bool is_slice = !stored.empty() && Random(0, 2) == 0;
    if (is_slice) stored.back() += 3;
    at::Tensor tensor = at::zeros(stored);
    if (is_slice) tensor = tensor.slice(-1, 1, stored.back() - 2);
    std::vector<int64_t> inverse(order.size());
    for (size_t i = 0; i < order.size(); ++i) inverse[order[i]] = static_cast<int64_t>(i);
    return tensor.permute(inverse);
  }
  Sizes RandomSizes(int64_t rank) {
    Sizes sizes;
    for (int64_t i = 0; i < rank; ++i) sizes.push_back(Random(0, 3) == 0 ? 1 : Random(2, 5));
    return sizes;
  }
  static StridedShape Shape(const at::Tensor& tensor) {
    return {tensor.sizes().vec(), tensor.strides().vec()};
  }
  std::mt19937_64 random_{7};
};

// Strides of dimensions of size 1 say nothing.
void ExpectSameLayout(const Sizes& sizes, const Strides& ours, const Strides& theirs) {
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == 1) continue;
    EXPECT_EQ(ours[i], theirs[i]) << "dim " << i << " of " << at::IntArrayRef(sizes);
  }
}

TEST_F(LayoutTest, ElementwiseUnary) {
  for (int i = 0; i < 2000; ++i) {
    const at::Tensor x = Strided(RandomSizes(Random(0, 4)));
    ExpectSameLayout(x.sizes().vec(), ElementwiseStrides(x.sizes().vec(), {Shape(x)}),
                     x.neg().strides().vec());
  }
}

TEST_F(LayoutTest, ElementwiseBroadcast) {
  for (int i = 0; i < 2000; ++i) {
    const Sizes sizes = RandomSizes(Random(1, 4));
    Sizes other(sizes.begin() + Random(0, static_cast<int64_t>(sizes.size())), sizes.end());
    for (int64_t& size : other) size = Random(0, 2) == 0 ? 1 : size;
    const at::Tensor a = Strided(sizes);
    const at::Tensor b = Strided(other);
    const bool swapped = Random(0, 1) == 1;
    const at::Tensor sum = swapped ? b + a : a + b;
    const std::vector<StridedShape> operands =
        swapped ? std::vector{Shape(b), Shape(a)} : std::vector{Shape(a), Shape(b)};
    ExpectSameLayout(sizes, ElementwiseStrides(sizes, operands), sum.strides().vec());
  }
}

TEST_F(LayoutTest, ViewsExistWhereAtenSaysSo) {
  int num_views = 0;
  int num_copies = 0;
  for (int i = 0; i < 4000; ++i) {
    const at::Tensor x = Strided(RandomSizes(Random(1, 4)));
    // The elements in other groups: prime factors dealt to random dimensions.
    Sizes sizes(Random(1, 4), 1);
    int64_t rest = x.numel();
    for (int64_t prime : {2, 3, 5}) {
      for (; rest % prime == 0; rest /= prime) sizes[Random(0, sizes.size() - 1)] *= prime;
    }
    const auto ours = ViewStrides(Shape(x), sizes);
    std::optional<Strides> theirs;
    try {
      theirs = x.view(sizes).strides().vec();
    } catch (const c10::Error&) {
    }
    ASSERT_EQ(ours.has_value(), theirs.has_value()) << x.sizes() << x.strides();
    ++(ours ? num_views : num_copies);
    if (!ours) continue;
    EXPECT_EQ(*ours, *theirs) << x.sizes() << x.strides();
  }
  EXPECT_GT(num_views, 300);
  EXPECT_GT(num_copies, 300);
}

TEST_F(LayoutTest, Contiguity) {
  for (int i = 0; i < 1000; ++i) {
    const at::Tensor x = Strided(RandomSizes(Random(0, 4)));
    EXPECT_EQ(IsContiguous(Shape(x)), x.is_contiguous()) << x.sizes() << x.strides();
  }
}

}  // namespace
}  // namespace autosp
