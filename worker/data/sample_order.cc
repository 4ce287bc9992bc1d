#include "worker/data/sample_order.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/errors.h"

namespace autosp {
namespace {

// The finalizer of splitmix64: every input bit changes every output bit.
constexpr uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

constexpr int kFeistelRounds = 6;

int64_t NumHeldOut(int64_t num_samples, double fraction) {
  return static_cast<int64_t>(static_cast<double>(num_samples) * fraction);
}

// The fraction of few digits that holds out at least `wanted` samples, and not all.
// Requires: 0 < wanted < num_samples.
double FractionOf(int64_t wanted, int64_t num_samples) {
  const double exact = static_cast<double>(wanted) / static_cast<double>(num_samples);
  constexpr int kMaxDigits = 15;
  for (int digits = 2; digits <= kMaxDigits; ++digits) {
    const double scale = std::pow(10.0, digits - 1 - std::floor(std::log10(exact)));
    const double least = std::ceil(exact * scale * (1 - 1e-12));
    for (const double units : {least, least + 1}) {
      const int64_t held_out = NumHeldOut(num_samples, units / scale);
      if (held_out >= wanted && held_out < num_samples) return units / scale;
    }
  }
  return exact;
}

// What holds out a global batch to measure on, and leaves a sample to train on.
std::string RemedyOf(int64_t num_samples, int64_t batch_size) {
  if (num_samples <= batch_size) {
    return absl::StrCat("; add data until there are more than ", batch_size,
                        " samples, or set it to 0 to train without validation");
  }
  return absl::StrFormat("; set it to %.15g, or add data", FractionOf(batch_size, num_samples));
}

}  // namespace

uint64_t HashOf(uint64_t seed, uint64_t a, uint64_t b, uint64_t c) {
  return Mix(Mix(Mix(Mix(seed) ^ a) ^ b) ^ c);
}

// A Feistel network permutes the numbers of an even number of bits; walking along its cycle until
// the image is small enough makes it a permutation of `size` numbers. The power of four above
// `size` is less than four times as large, so that the walk takes few steps.
int64_t Permute(int64_t place, int64_t size, uint64_t key) {
  const int bits = std::max(2, static_cast<int>(std::bit_width(static_cast<uint64_t>(size - 1))));
  const int half = (bits + 1) / 2;
  const uint64_t mask = (uint64_t{1} << half) - 1;
  auto value = static_cast<uint64_t>(place);
  do {
    uint64_t left = value >> half;
    uint64_t right = value & mask;
    for (int round = 0; round < kFeistelRounds; ++round) {
      const uint64_t next = left ^ (HashOf(key, right, round) & mask);
      left = right;
      right = next;
    }
    value = (left << half) | right;
  } while (value >= static_cast<uint64_t>(size));
  return static_cast<int64_t>(value);
}

absl::StatusOr<SampleOrder> SampleOrder::Make(const SampleOrderOptions& options) {
  SampleOrder order(options);
  const int64_t num_samples = options.num_tokens / options.seq_len;
  const bool validates = options.validation_fraction > 0;
  order.num_validation_ = NumHeldOut(num_samples, options.validation_fraction);
  order.num_training_ = num_samples - order.num_validation_;
  if (order.num_training_ < 1) {
    return InvalidArgument("data.files: ", options.num_tokens, " tokens are ", num_samples,
                           " samples of training.seq_len ", options.seq_len, ", of which ",
                           order.num_validation_,
                           " are held out; none is left to train on; add data");
  }
  if (validates && order.num_validation_batches() < 1) {
    return InvalidArgument("data.validation.fraction: ", options.validation_fraction, " of ",
                           num_samples, " samples is ", order.num_validation_,
                           ", less than one global batch of ", options.global_batch_size,
                           RemedyOf(num_samples, options.global_batch_size));
  }
  return order;
}

Sample SampleOrder::Training(int64_t step, int64_t place) const {
  const int64_t visit = step * options_.global_batch_size + place;
  const int64_t pass = visit / num_training_;
  return {.index = Permute(visit % num_training_, num_training_,
                           HashOf(options_.shuffle_seed, static_cast<uint64_t>(pass))),
          .pass = pass};
}

Sample SampleOrder::Validation(int64_t batch, int64_t place) const {
  return {.index = num_training_ + batch * options_.global_batch_size + place, .pass = 0};
}

}  // namespace autosp
