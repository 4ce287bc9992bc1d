#include "worker/data/sample_reader.h"

#include <algorithm>
#include <utility>

#include "common/status_macros.h"

namespace autosp {
namespace {

// Of the tokens that masked language modelling predicts, so many become the mask token, another
// random one, or stay as they are (Devlin et al., 2019).
constexpr double kMaskTokenShare = 0.8;
constexpr double kRandomTokenShare = 0.1;

// Independent random numbers of one token.
enum class Draw : uint64_t { kIsMasked = 1, kReplacement = 2, kRandomToken = 3 };

uint64_t HashOfDraw(uint64_t seed, Draw draw, const Sample& sample, int64_t position) {
  return HashOf(seed ^ (static_cast<uint64_t>(draw) << 56), static_cast<uint64_t>(sample.pass),
                static_cast<uint64_t>(sample.index), static_cast<uint64_t>(position));
}

// In [0, 1), with all bits that a double holds.
double UnitInterval(uint64_t hash) { return static_cast<double>(hash >> 11) * 0x1p-53; }

}  // namespace

SampleReader::SampleReader(std::shared_ptr<const TokenFiles> files, const DataSpec& data,
                           int64_t seq_len, uint64_t seed)
    : files_(std::move(files)), data_(data), seq_len_(seq_len), seed_(seed) {}

absl::Status SampleReader::Read(InputSource source, const Sample& sample,
                                absl::Span<const int64_t> positions,
                                absl::Span<int64_t> values) const {
  const int64_t base = sample.index * seq_len_;
  switch (source) {
    case InputSource::kTokens:
      return ReadTokens(base, positions, values);
    case InputSource::kNextTokens:
      return ReadNextTokens(base, positions, values);
    case InputSource::kPositions:
      std::copy(positions.begin(), positions.end(), values.begin());
      return absl::OkStatus();
    case InputSource::kOnes:
      std::fill(values.begin(), values.end(), 1);
      return absl::OkStatus();
    case InputSource::kZeros:
      std::fill(values.begin(), values.end(), 0);
      return absl::OkStatus();
    case InputSource::kMlmTokens:
      RETURN_IF_ERROR(ReadTokens(base, positions, values));
      return Mask(sample, positions, values);
    case InputSource::kMlmLabels:
      RETURN_IF_ERROR(ReadTokens(base, positions, values));
      for (size_t i = 0; i < positions.size(); ++i) {
        if (!IsMasked(sample, positions[i])) values[i] = data_.ignore_index;
      }
      return absl::OkStatus();
  }
  return absl::InternalError("input source: not a value of the enum");
}

absl::Status SampleReader::ReadTokens(int64_t base, absl::Span<const int64_t> positions,
                                      absl::Span<int64_t> values) const {
  for (size_t begin = 0; begin < positions.size();) {
    size_t end = begin + 1;
    while (end < positions.size() && positions[end] == positions[end - 1] + 1) ++end;
    RETURN_IF_ERROR(files_->Read(base + positions[begin], values.subspan(begin, end - begin)));
    begin = end;
  }
  return absl::OkStatus();
}

// The last token of the data has no next one.
absl::Status SampleReader::ReadNextTokens(int64_t base, absl::Span<const int64_t> positions,
                                          absl::Span<int64_t> values) const {
  size_t count = positions.size();
  const bool has_end = count > 0 && base + positions.back() + 1 >= files_->num_tokens();
  if (has_end) values[--count] = data_.ignore_index;
  return ReadTokens(base + 1, positions.subspan(0, count), values.subspan(0, count));
}

bool SampleReader::IsMasked(const Sample& sample, int64_t position) const {
  return UnitInterval(HashOfDraw(seed_, Draw::kIsMasked, sample, position)) < data_.mlm_probability;
}

absl::Status SampleReader::Mask(const Sample& sample, absl::Span<const int64_t> positions,
                                absl::Span<int64_t> values) const {
  for (size_t i = 0; i < positions.size(); ++i) {
    if (!IsMasked(sample, positions[i])) continue;
    const double replacement =
        UnitInterval(HashOfDraw(seed_, Draw::kReplacement, sample, positions[i]));
    if (replacement < kMaskTokenShare) {
      values[i] = data_.mask_token;
    } else if (replacement < kMaskTokenShare + kRandomTokenShare) {
      // A token from anywhere in the data is in the vocabulary, whose size is not known here.
      const uint64_t hash = HashOfDraw(seed_, Draw::kRandomToken, sample, positions[i]);
      const auto place = static_cast<int64_t>(hash % static_cast<uint64_t>(files_->num_tokens()));
      RETURN_IF_ERROR(files_->Read(place, values.subspan(i, 1)));
    }
  }
  return absl::OkStatus();
}

}  // namespace autosp
