// Fourier transforms as exported (aten.fft_*, aten.stft), in transforms along one dimension each;
// and fftshift and ifftshift, with the dimensions that they are over.
//
//   before  %z = aten.fft_rfft2(%x, none, [1, 2], "ortho")    %x [2, 16, 8], %z complex [2, 16, 5]
//   after   %p = autosp.fft_r2c(%x, 2, 8, 5, false, 1)        [2, 16, 5, 2]
//           %z = autosp.fft_c2c(%p, 1, 16, 16, false, 1)      [2, 16, 5, 2]
//
// compiler/ir/fourier.h says what they are.
#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "compiler/import/pair_writer.h"

namespace autosp {

// "torch.ops.aten.fft_rfft.default"
bool IsExportedFourier(std::string_view target);

// Error: a transform that is not among those of fourier.h; a damaged call.
absl::Status WriteFourier(PairWriter& writer, exported::Node node);

}  // namespace autosp
