#include "compiler/import/complex_fourier.h"

#include <algorithm>
#include <iterator>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

using exported::Argument;
using exported::Item;
using exported::NamedArgument;
using exported::Node;
using exported::SymValue;
using exported::Tag;
using exported::TensorMeta;

enum class Kind : uint8_t {
  kComplex,   // of complex or real numbers
  kFromReal,  // the first half of the frequencies of real numbers
  kToReal,    // back
};
enum class Dims : uint8_t { kOne, kTwo, kAny };  // "n" and "dim", or lists of as many dimensions

struct Row {
  std::string_view op;
  Kind kind;
  Dims dims;
  bool inverse = false;
  // Hermitian: the frequencies are mirrored, which turns the direction of a transform.
  bool mirrors = false;
};

constexpr Row kRows[] = {
    {"fft_fft.default", Kind::kComplex, Dims::kOne},
    {"fft_fft2.default", Kind::kComplex, Dims::kTwo},
    {"fft_fftn.default", Kind::kComplex, Dims::kAny},
    {"fft_hfft.default", Kind::kToReal, Dims::kOne, false, true},
    {"fft_hfft2.default", Kind::kToReal, Dims::kTwo, false, true},
    {"fft_hfftn.default", Kind::kToReal, Dims::kAny, false, true},
    {"fft_ifft.default", Kind::kComplex, Dims::kOne, true},
    {"fft_ifft2.default", Kind::kComplex, Dims::kTwo, true},
    {"fft_ifftn.default", Kind::kComplex, Dims::kAny, true},
    {"fft_ihfft.default", Kind::kFromReal, Dims::kOne, true, true},
    {"fft_ihfft2.default", Kind::kFromReal, Dims::kTwo, true, true},
    {"fft_ihfftn.default", Kind::kFromReal, Dims::kAny, true, true},
    {"fft_irfft.default", Kind::kToReal, Dims::kOne, true},
    {"fft_irfft2.default", Kind::kToReal, Dims::kTwo, true},
    {"fft_irfftn.default", Kind::kToReal, Dims::kAny, true},
    {"fft_rfft.default", Kind::kFromReal, Dims::kOne},
    {"fft_rfft2.default", Kind::kFromReal, Dims::kTwo},
    {"fft_rfftn.default", Kind::kFromReal, Dims::kAny},
};
static_assert(std::ranges::is_sorted(kRows, {}, &Row::op));

constexpr std::string_view kPrefix = "torch.ops.aten.";

const Row* FindRow(std::string_view target) {
  if (!target.starts_with(kPrefix)) return nullptr;
  target.remove_prefix(kPrefix.size());
  const auto* row = std::ranges::lower_bound(kRows, target, {}, &Row::op);
  return row == std::end(kRows) || row->op != target ? nullptr : row;
}

constexpr std::string_view kC2c = "autosp.fft_c2c";
constexpr std::string_view kC2r = "autosp.fft_c2r";
constexpr std::string_view kR2c = "autosp.fft_r2c";

Argument Flag(bool value) {
  Argument argument;
  argument.tag = Tag::kBool;
  argument.integer = value ? 1 : 0;
  return argument;
}

// What a list says, or one number.
std::vector<Item> ItemsOf(const Argument* argument) {
  if (argument == nullptr || argument->tag == Tag::kNone) return {};
  if (argument->tag == Tag::kInt) return {{.name = "", .integer = argument->integer}};
  return argument->items;
}

class FourierCall {
 public:
  FourierCall(PairWriter& writer, const Row& row, Node node)
      : writer_(writer), row_(row), node_(std::move(node)), now_(node_.inputs[0].value.text) {}

  absl::Status Write() {
    is_pair_ = writer_.IsPair(now_);
    if (!is_pair_ && row_.kind == Kind::kToReal) {  // irfft of real numbers
      now_ = writer_.MakePair(node_, now_, writer_.Unary(node_, "zeros_like.default", now_));
      is_pair_ = true;
    }
    RETURN_IF_ERROR(CheckTypes());
    RETURN_IF_ERROR(FindDims());
    RETURN_IF_ERROR(FindScale());
    switch (row_.kind) {
      case Kind::kComplex:
        return WriteComplex();
      case Kind::kFromReal:
        return WriteFromReal();
      case Kind::kToReal:
        return WriteToReal();
    }
    return Internal("a kind of Fourier transform is missing");
  }

 private:
  absl::Status CheckTypes() const {
    const bool gives_pair = writer_.IsPair(node_.outputs[0].text);
    const bool is_known =
        gives_pair == (row_.kind != Kind::kToReal) && (row_.kind != Kind::kFromReal || !is_pair_);
    const TensorMeta& given = writer_.TypeOf(now_);
    const TensorMeta& result = writer_.TypeOf(node_.outputs[0].text);
    if (!is_known ||
        given.sizes.size() + (is_pair_ ? 0 : 1) != result.sizes.size() + (gives_pair ? 0 : 1)) {
      return DataLoss("the types of the Fourier transform are damaged");
    }
    if (given.dtype && (*given.dtype == DType::kF32 || *given.dtype == DType::kF64)) {
      return absl::OkStatus();
    }
    if (given.dtype && IsHalf(*given.dtype)) return absl::OkStatus();  // under autocast
    return Unimplemented("a Fourier transform of integers or truth values is not supported; ",
                         "convert them with .float() before");
  }

  // The positions that are transformed, from the front, in the order of the call.
  absl::Status FindDims() {
    const auto rank = static_cast<int64_t>(writer_.TypeOf(now_).sizes.size()) - (is_pair_ ? 1 : 0);
    sizes_ = ItemsOf(FindArgument(std::as_const(node_), row_.dims == Dims::kOne ? "n" : "s"));
    std::vector<Item> items = ItemsOf(FindArgument(std::as_const(node_), "dim"));
    if (items.empty()) {
      const int64_t all = sizes_.empty() ? rank : static_cast<int64_t>(sizes_.size());
      const int64_t count = row_.dims == Dims::kOne ? 1 : row_.dims == Dims::kTwo ? 2 : all;
      for (int64_t i = -count; i < 0; ++i) items.push_back({.name = "", .integer = i});
    }
    for (const Item& item : items) {
      const int64_t dim = item.integer < 0 ? item.integer + rank : item.integer;
      const bool is_dim = item.name.empty() && dim >= 0 && dim < rank;
      if (!is_dim || std::ranges::count(dims_, dim) > 0) {
        return DataLoss("the dimensions of the Fourier transform are damaged");
      }
      dims_.push_back(dim);
    }
    const bool is_whole = !dims_.empty() && (sizes_.empty() || sizes_.size() == dims_.size());
    return is_whole ? absl::OkStatus() : DataLoss("the sizes of the transform are damaged");
  }

  // Each dimension is scaled by itself: by 1, 1 / sqrt(n) or 1 / n.
  absl::Status FindScale() {
    const Argument* norm = FindArgument(std::as_const(node_), "norm");
    const std::string name = norm == nullptr || norm->tag != Tag::kString ? "backward" : norm->text;
    if (name != "backward" && name != "forward" && name != "ortho") {
      return DataLoss("the norm '", name, "' of the Fourier transform is damaged");
    }
    const bool scales = row_.inverse == (name == "backward");
    scale_ = name == "ortho" ? 1 : scales ? 2 : 0;
    return absl::OkStatus();
  }

  SymValue ResultSize(int64_t dim) const {
    return writer_.TypeOf(node_.outputs[0].text).sizes[dim];
  }

  // How many places are transformed, where the result does not say so.
  Argument PlacesOf(size_t i) {
    if (i < sizes_.size() && !sizes_[i].name.empty()) {
      Argument argument;
      argument.tag = Tag::kSymInt;
      argument.items = {sizes_[i]};
      return argument;
    }
    if (i < sizes_.size() && sizes_[i].integer != -1) return IntegerArgumentOf(sizes_[i].integer);
    return writer_.SizeArgument(writer_.TypeOf(now_).sizes[dims_[i]]);
  }

  // One transform; the last has the name and type of the call's result.
  absl::Status Step(std::string_view op, int64_t dim, Argument n, bool flag, bool is_last,
                    SymValue size) {
    const bool makes_pair = op == kR2c;
    std::vector<NamedArgument> inputs = {{"self", TensorArgumentOf(now_), false},
                                         {"dim", IntegerArgumentOf(dim), false},
                                         {"n", std::move(n), false},
                                         {"length", writer_.SizeArgument(size), false},
                                         {"flag", Flag(flag), false},
                                         {"scale", IntegerArgumentOf(scale_), false}};
    if (is_last) {
      MakeContiguous(writer_.ResultType(node_));
      return writer_.Finish(std::move(node_), op, std::move(inputs));
    }
    TensorMeta meta = writer_.TypeOf(now_);
    meta.sizes[dim] = std::move(size);
    if (makes_pair) meta.sizes.push_back(LiteralSize(2));
    if (makes_pair) meta.strides.push_back(LiteralSize(1));
    if (makes_pair) meta.dtype = writer_.TypeOf(node_.outputs[0].text).dtype;
    MakeContiguous(meta);
    now_ = writer_.Emit(node_, op, std::move(inputs), std::move(meta));
    return absl::OkStatus();
  }

  // Complex transforms of some of the dimensions, the last of which may end the call.
  absl::Status ComplexSteps(size_t first, size_t count, bool ends) {
    for (size_t i = first; i < count; ++i) {
      const SymValue size = ResultSize(dims_[i]);
      RETURN_IF_ERROR(Step(kC2c, dims_[i], writer_.SizeArgument(size), row_.inverse,
                           ends && i + 1 == count, size));
    }
    return absl::OkStatus();
  }

  // The parts of the conjugate of what there is now.
  std::pair<std::string, std::string> Conjugate() {
    std::string re = writer_.Part(node_, now_, 0);
    const std::string part = writer_.Part(node_, now_, 1);
    return {std::move(re), writer_.Unary(node_, "neg.default", part)};
  }

  absl::Status FinishConjugate() {
    const auto [re, im] = Conjugate();
    return writer_.FinishPair(std::move(node_), re, im);
  }

  void GoOnWithConjugate() {
    const auto [re, im] = Conjugate();
    now_ = writer_.MakePair(node_, re, im);
  }

  absl::Status WriteComplex() {
    if (is_pair_) return ComplexSteps(0, dims_.size(), /*ends=*/true);
    // Real numbers have real coefficients: the inverse gives the conjugate of what forward gives.
    const bool is_single = dims_.size() == 1;
    const bool conjugates = row_.inverse && is_single;
    const SymValue size = ResultSize(dims_[0]);
    RETURN_IF_ERROR(Step(kR2c, dims_[0], writer_.SizeArgument(size), /*flag=*/false,
                         is_single && !row_.inverse, size));
    if (conjugates) return FinishConjugate();
    if (is_single) return absl::OkStatus();
    if (!row_.inverse) return ComplexSteps(1, dims_.size(), /*ends=*/true);
    GoOnWithConjugate();
    return ComplexSteps(1, dims_.size(), /*ends=*/true);
  }

  // rfft: the last dimension first, then the others as complex ones. ihfft: its conjugate.
  absl::Status WriteFromReal() {
    const size_t last = dims_.size() - 1;
    RETURN_IF_ERROR(Step(kR2c, dims_[last], PlacesOf(last), /*flag=*/false,
                         last == 0 && !row_.mirrors, ResultSize(dims_[last])));
    if (row_.mirrors && last == 0) return FinishConjugate();
    if (row_.mirrors) GoOnWithConjugate();
    return ComplexSteps(0, last, /*ends=*/true);
  }

  // irfft: the last dimension last. hfft: of the conjugate.
  absl::Status WriteToReal() {
    const size_t last = dims_.size() - 1;
    RETURN_IF_ERROR(ComplexSteps(0, last, /*ends=*/false));
    if (row_.mirrors) GoOnWithConjugate();
    const SymValue size = ResultSize(dims_[last]);
    return Step(kC2r, dims_[last], writer_.SizeArgument(size), /*flag=*/true, true, size);
  }

  PairWriter& writer_;
  const Row& row_;
  Node node_;
  std::string now_;  // what is transformed further
  bool is_pair_ = false;
  std::vector<int64_t> dims_;
  std::vector<Item> sizes_;
  int64_t scale_ = 0;
};

constexpr std::string_view kStft = "torch.ops.aten.stft.default";
constexpr std::string_view kShift = "torch.ops.aten.fft_fftshift.default";
constexpr std::string_view kShiftBack = "torch.ops.aten.fft_ifftshift.default";

bool IsFlag(const Argument* argument, bool value) {
  return argument != nullptr && argument->tag == Tag::kBool && (argument->integer != 0) == value;
}

// The argument, or `absent`; nullopt: it is no number.
std::optional<int64_t> IntegerOf(const Node& node, std::string_view name, int64_t absent) {
  const Argument* argument = FindArgument(node, name);
  if (argument == nullptr || argument->tag == Tag::kNone) return absent;
  return argument->tag == Tag::kInt ? std::optional(argument->integer) : std::nullopt;
}

// Null: without a window.
const Argument* WindowOf(const Node& node) {
  const Argument* window = FindArgument(node, "window");
  return window != nullptr && window->tag == Tag::kTensor ? window : nullptr;
}

// fftshift(x, dim), ifftshift(x, dim): by half of the places, which are those of the job, so that a
// pass writes how many (canonicalize_indexing.cc). The dimensions of a pair count from the front.
absl::Status WriteShift(PairWriter& writer, Node node) {
  const std::string& self = node.inputs[0].value.text;
  const bool is_pair = writer.IsPair(self);
  const std::string_view op =
      node.target == kShift ? "fft_fftshift.default" : "fft_ifftshift.default";
  const auto rank = static_cast<int64_t>(writer.TypeOf(self).sizes.size()) - (is_pair ? 1 : 0);
  std::vector<Item> items = ItemsOf(FindArgument(std::as_const(node), "dim"));
  if (items.empty()) {
    for (int64_t i = 0; i < rank; ++i) items.push_back({.name = "", .integer = i});
  }
  std::vector<int64_t> dims;
  for (const Item& item : items) {
    const int64_t dim = item.integer < 0 ? item.integer + rank : item.integer;
    if (!item.name.empty() || dim < 0 || dim >= rank) return DataLoss("the call is damaged");
    dims.push_back(dim);
  }
  if (writer.IsPair(node.outputs[0].text) != is_pair) return DataLoss("the call is damaged");
  std::vector<NamedArgument> inputs = {{"self", node.inputs[0].value, false},
                                       {"dim", IntegersArgumentOf(dims), false}};
  return writer.Finish(std::move(node), op, std::move(inputs));
}

bool IsKnownStft(const PairWriter& writer, const Node& node, int64_t n_fft, int64_t hop) {
  const std::string& self = node.inputs[0].value.text;
  const std::string& result = node.outputs[0].text;
  const int64_t length = IntegerOf(node, "win_length", n_fft).value_or(0);
  if (const Argument* window = WindowOf(node)) {
    const bool fits = writer.Knows(window->text) && !writer.IsPair(window->text) &&
                      writer.TypeOf(window->text).sizes.size() == 1 &&
                      HintOf(writer.TypeOf(window->text).sizes[0]) == length;
    if (!fits) return false;
  } else if (length != n_fft) {
    return false;
  }
  const size_t rank = writer.TypeOf(self).sizes.size();
  return n_fft > 0 && hop > 0 && rank > 0 && !writer.IsPair(self) && writer.IsPair(result) &&
         writer.TypeOf(result).sizes.size() == rank + 2 && length > 0 && length <= n_fft &&
         !IsFlag(FindArgument(node, "onesided"), false);
}

// With as many zeros on either side as make a window one of n_fft places.
std::string WidenedWindow(PairWriter& writer, const Node& node, const std::string& window,
                          int64_t n_fft) {
  TensorMeta meta = writer.TypeOf(window);
  const int64_t missing = n_fft - HintOf(meta.sizes[0]);
  if (missing == 0) return window;
  meta.sizes[0] = LiteralSize(n_fft);
  MakeContiguous(meta);
  return writer.Emit(node, "constant_pad_nd.default",
                     {{"self", TensorArgumentOf(window), false},
                      {"pad", IntegersArgumentOf({missing / 2, missing - missing / 2}), false}},
                     meta);
}

// stft(self, n_fft, hop, win_length, window, normalized, onesided, return_complex): windows of
// n_fft places, each times the window, and their frequencies, which come before the windows.
absl::Status WriteStft(PairWriter& writer, Node node) {
  const int64_t n_fft = IntegerOf(node, "n_fft", 0).value_or(0);
  const int64_t hop = IntegerOf(node, "hop_length", n_fft / 4).value_or(0);
  if (!IsKnownStft(writer, node, n_fft, hop)) {
    return Unimplemented(
        "an stft of complex numbers, of fewer places than n_fft without a window, or of all "
        "frequencies is not supported; write it as rfft(x.unfold(-1, n_fft, hop) * "
        "window).transpose(-1, -2)");
  }
  const auto rank = static_cast<int64_t>(writer.TypeOf(node.inputs[0].value.text).sizes.size());
  const TensorMeta result = writer.ResultType(node);
  // Under autocast neither the signal nor the window need have the type of the result.
  const std::string signal = writer.Cast(node, node.inputs[0].value.text, result);
  TensorMeta frames = writer.TypeOf(signal);
  frames.sizes.back() = result.sizes[rank];
  frames.sizes.push_back(LiteralSize(n_fft));
  frames.strides.push_back(LiteralSize(1));
  MakeContiguous(frames);
  std::string now = writer.Emit(node, "unfold.default",
                                {{"self", TensorArgumentOf(signal), false},
                                 {"dimension", IntegerArgumentOf(-1), false},
                                 {"size", IntegerArgumentOf(n_fft), false},
                                 {"step", IntegerArgumentOf(hop), false}},
                                frames);
  if (const Argument* window = WindowOf(node)) {
    const std::string typed = writer.Cast(node, window->text, result);
    const Argument wide = TensorArgumentOf(WidenedWindow(writer, node, typed, n_fft));
    now = writer.Emit(node, "mul.Tensor",
                      {{"self", TensorArgumentOf(now), false}, {"other", wide, false}}, frames);
  }
  TensorMeta spectrum = frames;
  spectrum.sizes.back() = result.sizes[rank - 1];
  spectrum.sizes.push_back(LiteralSize(2));
  spectrum.strides.push_back(LiteralSize(1));
  MakeContiguous(spectrum);
  const bool is_normalized = IsFlag(FindArgument(std::as_const(node), "normalized"), true);
  now = writer.Emit(node, kR2c,
                    {{"self", TensorArgumentOf(now), false},
                     {"dim", IntegerArgumentOf(rank), false},
                     {"n", IntegerArgumentOf(n_fft), false},
                     {"length", IntegerArgumentOf(n_fft / 2 + 1), false},
                     {"flag", Flag(false), false},
                     {"scale", IntegerArgumentOf(is_normalized ? 1 : 0), false}},
                    spectrum);
  return writer.Finish(std::move(node), "transpose.int",
                       {{"self", TensorArgumentOf(now), false},
                        {"dim0", IntegerArgumentOf(rank - 1), false},
                        {"dim1", IntegerArgumentOf(rank), false}});
}

}  // namespace

bool IsExportedFourier(std::string_view target) {
  return FindRow(target) != nullptr || target == kStft || target == kShift || target == kShiftBack;
}

absl::Status WriteFourier(PairWriter& writer, Node node) {
  const bool is_complete =
      node.outputs.size() == 1 && !node.inputs.empty() && node.outputs[0].tag == Tag::kTensor &&
      writer.Knows(node.outputs[0].text) && node.inputs[0].value.tag == Tag::kTensor &&
      writer.Knows(node.inputs[0].value.text);
  if (!is_complete) return DataLoss("the call is damaged");
  if (node.target == kStft) return WriteStft(writer, std::move(node));
  const Row* row = FindRow(node.target);
  if (row == nullptr) return WriteShift(writer, std::move(node));
  return FourierCall(writer, *row, std::move(node)).Write();
}

}  // namespace autosp
