#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/passes/pass.h"

namespace autosp {

const std::vector<Pass>& GraphPasses() {
  static const std::vector<Pass>& passes = *new std::vector<Pass>{
      // Before sizes are the job's: what has no parts follows any.
      {"join-chunks", "do with a tensor what is done with all its parts", JoinChunks},
      // Literals are explained by the factors of the exported sizes; from here on all sizes
      // are those of the job.
      {"resize-inputs", "rewrite sizes for the job's batch and sequence", ResizeInputs},
      {"canonicalize", "one form for ops that have several; drop what does nothing", Canonicalize},
      // After expand_as has become expand.
      {"index-masked-rows", "look up the rows that a mask of tokens scatters", IndexMaskedRows},
      // Before look-ups in order are folded, which it makes of those of sorted rows.
      {"unsort-rows", "multiply rows by their expert in their own order", UnsortRows},
      // Before what looks for attention: dropout, masks, heads.
      {"recognize-attention", "write attention that is spelled out as one op", RecognizeAttention},
      {"shape-attention", "give attention batch and heads of their own", ShapeAttention},
      // Before masks are recognised: attention with dropout keeps its dense mask.
      {"expand-dropout", "give dropout a mask that does not depend on ranks", ExpandDropout},
      // After dropout, which spells out the attention that it is in.
      {"expand-trained-bias", "spell out attention whose mask is trained", ExpandTrainedBias},
      {"fold-identity-index", "turn look-ups of everything in order into views", FoldIdentityIndex},
      // Needs the canonical forms of masks' ops; makes most of a mask's graph dead.
      {"recognize-masks", "replace provably causal or empty masks by attributes", RecognizeMasks},
      {"fold-repeated-heads", "attend to grouped heads instead of repeated ones",
       FoldRepeatedHeads},
      // Before windows are recognised: of what is cut in front, a shift is left.
      {"mask-cut-tokens", "mask tokens that are cut off before a sum, and keep them",
       MaskCutTokens},
      {"recognize-windows", "write shifts and convolutions over tokens as one op each",
       RecognizeWindows},
      // After the passes that look for patterns, which its casts would hide; before the sums of
      // means are made, which keep its types.
      {"apply-precision", "give parameters the type that the job asks for", ApplyPrecision},
      {"globalize-norms", "write norms over tokens in means", GlobalizeNorms},
      // Also of the means that norms have become.
      {"globalize-means", "write means over batch or sequence as sums", GlobalizeMeans},
      // The passes above leave the old nodes behind.
      {"eliminate-dead-code", "drop nodes that no output needs", EliminateDeadCode},
      // At the job's sizes, and of what will run: masks that became arguments are gone.
      {"check-index-bounds", "refuse look-ups beyond a table", CheckIndexBounds},
      // After it, which knows the classes that there are.
      {"spell-out-one-hot", "compare with all classes instead of writing to one", SpellOutOneHot},
      // Last, and for each mesh anew. After folding: what counts is the heads that the model
      // computes, not their repetition.
      {"replicate-kv-heads", "copy kv heads where ranks outnumber them", ReplicateKvHeads,
       /*reads_mesh=*/true},
      // After it: heads that are copied split evenly.
      {"split-rows", "split dense pairs of tokens by rows where ranks outnumber heads", SplitRows,
       /*reads_mesh=*/true},
  };
  return passes;
}

namespace {

absl::Status RunPass(const Pass& pass, Graph& graph, const PassContext& context) {
  RETURN_IF_ERROR(pass.run(graph, context).status());
  return WithContext(VerifyGraph(graph), "after pass ", std::string(pass.name));
}

}  // namespace

absl::Status RunSharedPasses(Graph& graph, const PassContext& context) {
  for (const Pass& pass : GraphPasses()) {
    if (pass.reads_mesh) break;
    RETURN_IF_ERROR(RunPass(pass, graph, context));
  }
  return absl::OkStatus();
}

absl::Status RunMeshPasses(Graph& graph, const PassContext& context) {
  bool is_shared = true;
  for (const Pass& pass : GraphPasses()) {
    is_shared = is_shared && !pass.reads_mesh;
    if (!is_shared) RETURN_IF_ERROR(RunPass(pass, graph, context));
  }
  return absl::OkStatus();
}

absl::Status RunGraphPasses(Graph& graph, const PassContext& context, std::string_view from,
                            std::string_view to) {
  bool running = from.empty();
  bool found_from = running;
  bool found_to = to.empty();
  for (const Pass& pass : GraphPasses()) {
    if (pass.name == from) running = found_from = true;
    if (!running) continue;
    RETURN_IF_ERROR(RunPass(pass, graph, context));
    if (pass.name == to) {
      found_to = true;
      break;
    }
  }
  if (!found_from) return NotFound("no pass is named ", std::string(from));
  if (!found_to) return NotFound("no pass after it is named ", std::string(to));
  return absl::OkStatus();
}

}  // namespace autosp
