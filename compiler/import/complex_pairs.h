// Complex tensors as pairs of real ones.
//
//   before  %c = aten.view_as_complex(%x)            after  %c = aten.alias(%x)
//           %y = aten.mul.Tensor(%c, %f)                    %y = stack([re * re' - im * im',
//           %r = aten.view_as_real(%y)                                  re * im' + im * re'], -1)
//                                                           %r = aten.alias(%y)
//
// A complex tensor of sizes s stands for the real one of sizes s + [2] that torch.view_as_real
// shows: the same bytes, so that buffers of an archive need no conversion, and the gradient that
// PyTorch gives for it. This is for rotary embeddings that are written as products of complex
// numbers (Llama's own code, DeepSeek, Llama 4) and for what is made of frequencies (Hyena, S4,
// Autoformer); ops are those that they call (complex_math.h, complex_fourier.h). What comes after
// an import knows real numbers alone.
#pragma once

#include <map>
#include <string>

#include "absl/status/status.h"
#include "compiler/import/exported_program.h"

namespace autosp {

// Rewrites graphs and types of `program`, and the types of `payloads`. `keeps_signs`: zeros have
// the signs that PyTorch's kernels give them (complex_signs.h). Error: an op on complex tensors
// that has no row here; a complex input, parameter or output.
absl::Status SplitComplex(exported::Program& program,
                          std::map<std::string, exported::Payload>& payloads, bool keeps_signs);

}  // namespace autosp
