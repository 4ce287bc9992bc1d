#include "tests/equality/case_rows.h"

namespace autosp {
namespace {

constexpr CaseOutcome kEqual = CaseOutcome::kEqual;
constexpr CaseOutcome kRefused = CaseOutcome::kRefused;

NamedTest Models() {
  return {"equality/equality_test.cc", "EqualityTest", "LossAndGradientsAreThoseOfOneDevice",
          "the models of the zoo"};
}
NamedTest Training() {
  return {"equality/training_test.cc", "TrainingTest", "GivesTheWeightsOfPyTorch",
          "losses, norms and weights of three steps, SGD and AdamW, clipped"};
}
NamedTest Rings() {
  return {"worker/ops/attend_block_test.cc", "RingTest", "EqualsDenseAttention",
          "blocks of keys against dense attention"};
}

std::vector<CaseRow> LossRows() {
  return {
      {.number = 1,
       .what = "labels shifted in the graph, across the border of shards",
       .outcome = kEqual,
       .cases = {"padded_shift", "old_shift"},
       .tests = {Models()}},
      {.number = 2,
       .what = "shards with unequal numbers of valid tokens",
       .outcome = kEqual,
       .cases = {"padded_shift", "counts_of_the_batch"},
       .tests = {Models()}},
      {.number = 3,
       .what = "a shard without a valid token",
       .outcome = kEqual,
       .cases = {"padded_shift"},
       .tests = {{"worker/ops/cross_entropy_test.cc", "CrossEntropyTest",
                  "AShardWithoutValidTokensIsZero", "the kernel alone"},
                 Models()}},
      {.number = 4,
       .what = "ignore_index, label smoothing, class weights, reductions, division by a count",
       .outcome = kEqual,
       .cases = {"other_ignore_index", "ignore_zero", "ignore_positive", "label_smoothing",
                 "class_weights", "weighted_smoothing", "sum_loss", "loss_sum", "loss_none",
                 "sum_over_count", "per_token_weights", "pairs_counted", "chunks_of_tokens"},
       .open = "A count that is fed as a scalar has no source in data.inputs; a mask's sum has."},
      {.number = 5,
       .what = "cross entropy of shifted labels; both sides sliced",
       .outcome = kEqual,
       .cases = {"old_shift", "sliced_probabilities", "sliced_inputs", "sliced_both_ways",
                 "classes_second", "classes_second_of_four", "unbatched", "negative_log_likelihood",
                 "negative_log_likelihood_nd", "negative_log_likelihood_turned"},
       .tests = {Models()}},
      {.number = 6,
       .what = "other losses, and several added",
       .outcome = kEqual,
       .cases = {"token_mse", "static_regression", "kl_divergence", "binary_cross_entropy",
                 "probability_loss", "robust_losses", "probability_targets", "several_losses",
                 "weighed_losses", "sequences_compared", "sequences_of_one_class",
                 "groups_of_sequences", "divergence_of_scores", "mixture_of_experts"}},
      {.number = 7,
       .what = "scale of gradients with SGD and with clipping",
       .outcome = kEqual,
       .tests = {Training()}},
      {.number = 8,
       .what = "dp beside sp, gradient accumulation, batches above 1",
       .outcome = kEqual,
       .cases = {"padded_shift", "counts_of_the_batch", "stretched_logits", "in_place",
                 "heads_written_apart", "roll_mixer", "sequences_by_themselves"},
       .tests = {Models(), Training()}},
  };
}

std::vector<CaseRow> ShapeRows() {
  return {
      {.number = 9,
       .what = "lengths that ranks, or twice the ring, do not divide",
       .outcome = kEqual,
       .cases = {"old_shift", "bidirectional", "first_token", "mean_pool", "key_padding",
                 "divided_by_norms", "norms_without_epsilon", "hidden_where_computed",
                 "masks_of_scores", "keys_by_lengths", "infinities_of_constants",
                 "scales_of_distributions"},
       .tests = {{"worker/ops/attention_tiles_test.cc", "PlanTilesTest", "PaddingTakesNoPart",
                  "padding of a ring"}}},
      {.number = 10,
       .what = "sizes that were constants at export; sizes that coincide",
       .outcome = kEqual,
       .cases = {"static_shapes", "static_regression", "static_experts", "static_derived_sizes",
                 "counts_of_tokens", "halves_compared", "preferred_half", "sizes_that_coincide",
                 "learned_positions", "rows_of_a_parameter", "chosen_places", "types_of_others",
                 "sums_of_ellipses", "vectors_compared", "views_of_a_batch", "skewed_positions",
                 "counted_rows"},
       .tests = {Models(),
                 {"compiler/passes/pass_golden_test.cc", "PassGolden", "IsUnchanged",
                  "numbers and places that may be made of a size"}},
       .refused = {"zoo/refused/every_second_token", "zoo/refused/half_of_the_tokens",
                   "zoo/refused/last_four_by_place", "zoo/refused/last_place",
                   "zoo/refused/next_token_around", "zoo/refused/pairs_of_tokens",
                   "zoo/refused/places_past_the_end", "zoo/refused/rows_of_the_batch",
                   "zoo/refused/second_half", "zoo/refused/sum_over_batch",
                   "zoo/refused/third_next_token", "zoo/refused/tokens_as_parameters",
                   "zoo/refused/tokens_one_by_one"},
       .warned = {"zoo/warned/buckets_of_the_batch", "zoo/warned/centred_places",
                  "zoo/warned/decay_to_the_end", "zoo/warned/first_half_open",
                  "zoo/warned/latents_at_the_end", "zoo/warned/log_of_length",
                  "zoo/warned/mean_of_the_rest", "zoo/warned/over_tensor_of_length",
                  "zoo/warned/pairs_of_the_batch", "zoo/warned/places_of_pairs",
                  "zoo/warned/reversed_places", "zoo/warned/rows_of_the_length",
                  "zoo/warned/top_quarter", "zoo/warned/variance_of_the_batch"},
       .open =
           "A number that python computed from a constant size is a number of the graph, and "
           "stays at another batch or length. Where it meets positions, counts, sums or places "
           "of a dimension that changes, or scales anything by the length, its root or "
           "logarithm, or where a view cuts such a dimension and neither a parameter nor a -1 "
           "says which part changes, or where whole numbers are wrapped around it (token ids "
           "% batch), the plan warns of it by node and line, and `strict` refuses it; rows that "
           "are looked up by such a number are refused. Another warning names numbers that are "
           "as large as a size, or a form of it, and may as well be the model's own; where "
           "there are none, it says that there may be some all the same. A constant of the model "
           "that is of the size's order (a sliding window, buckets of positions) is warned of "
           "too."},
      {.number = 11,
       .what = "dynamic lengths and what is derived from them",
       .outcome = kEqual,
       .cases = {"derived_sizes", "class_token", "tokens_behind_class", "repeated_values",
                 "last_tokens", "long_convolution", "distances_of_pairs", "strided_windows",
                 "rows_of_tokens", "fractions_of_the_length", "roots_of_the_length"},
       .tests = {Models(),
                 {"compiler/planner/verification_test.cc", "VerificationTest",
                  "TheSizesAreOnesThatExportTookForGranted",
                  "what export took for granted of sizes"}},
       .refused = {"zoo/refused/branch_of_the_length", "zoo/refused/share_of_the_length"}},
      {.number = 12,
       .what = "the sequence is not dimension 1",
       .outcome = kEqual,
       .cases = {"sequence_first", "patch_conv"}},
  };
}

std::vector<CaseRow> AttentionRows() {
  return {
      {.number = 13,
       .what = "heads that ranks do not divide; fewer heads than ranks",
       .outcome = kEqual,
       .cases = {"three_heads", "three_heads_both_ways", "two_heads", "two_heads_of_other_values",
                 "one_head"},
       .tests = {{"compiler/planner/layouts_test.cc", "LayoutsTest",
                  "RanksThatOutnumberHeadsShareRows", "rows of queries, all keys"},
                 {"compiler/planner/layouts_test.cc", "LayoutsTest",
                  "WhatEveryRankComputesIsWarnedOf", "the warning"}},
       .open =
           "On ulysses alone, which is taken only where a job asks for it, each rank computes such "
           "attention whole where it is causal or has documents or a window; a warning says so."},
      {.number = 14,
       .what = "grouped and single key heads; repeat_kv in the graph",
       .outcome = kEqual,
       .cases = {"empty_cache", "grouped_heads", "one_key_head", "straddling_heads",
                 "repeated_heads", "grouped_by_hand", "other_dimensions"},
       .tests = {{"equality/prediction_test.cc", "CollectiveBytesTest", "AllToAllIsTheClosedForm",
                  "no more bytes than key heads need"},
                 Models()}},
      {.number = 15,
       .what = "positions made in the graph",
       .outcome = kEqual,
       .cases = {"absent_positions", "learned_positions", "counted_positions"},
       .tests = {Models()}},
      {.number = 16,
       .what = "masks: none, causal, dense, padded keys, a bias for each head, a trained bias",
       .outcome = kEqual,
       .cases = {"multihead_default", "bidirectional", "static_shapes", "prefix_mask",
                 "strided_mask", "triangle_masks", "mask_of_tokens", "key_padding",
                 "added_key_padding", "causal_key_padding", "alibi", "head_masks", "learned_bias",
                 "alibi_by_baddbmm"},
       .tests = {Models()}},
      {.number = 17,
       .what = "sliding windows; packed documents",
       .outcome = kEqual,
       .cases = {"window", "window_on_both_sides", "packed", "packed_window",
                 "packed_on_both_sides", "restarting_positions"},
       .tests = {Rings(),
                 {"worker/ops/attention_tiles_test.cc", "PlanTilesTest",
                  "CostOfDocumentsIsTheSumOfSquares", "what is not computed"}}},
      {.number = 18,
       .what = "forms of attention",
       .outcome = kEqual,
       .cases = {"keyword_arguments", "three_dimensions", "heads_in_batch", "dense_pairs",
                 "einsum_attention", "merged_batch_attention", "complex_rotary", "capped_scores",
                 "grouped_heads", "grouped_by_hand", "other_value_heads",
                 "other_value_heads_masked", "latent_attention", "torch_encoder_layer",
                 "queries_of_all"},
       .tests = {Models()}},
      {.number = 19,
       .what = "shared keys and values, other users of them, another length",
       .outcome = kEqual,
       .cases = {"shared_keys", "query_is_key_is_value", "other_users_of_heads",
                 "cross_attention"}},
      {.number = 36,
       .what = "queries that may attend to nothing",
       .outcome = kEqual,
       .cases = {"rows_that_see_nothing", "strictly_before", "packed_window"},
       .tests = {Rings()}},
      {.number = 37,
       .what = "key heads that straddle ranks",
       .outcome = kEqual,
       .cases = {"straddling_heads", "straddling_masked"}},
  };
}

std::vector<CaseRow> FourierRows() {
  return {
      {.number = 39,
       .what = "Fourier transforms, over tokens and features, and complex numbers",
       .outcome = kEqual,
       .cases = {"hyena_convolution", "state_space_kernel", "fourier_mixing",
                 "static_auto_correlation", "static_spectral_loss", "global_filter",
                 "frequency_layers", "fourier_forms", "complex_arithmetic", "short_time_transform",
                 "signs_of_zeros", "short_filters", "chosen_modes", "cauchy_kernel",
                 "shifted_frequencies", "complex_writes", "static_shifts", "hermitian_transforms",
                 "complex_layers"},
       .tests = {{"worker/ops/fourier_test.cc", "FourierTest", "IsASumOfWaves",
                  "the kernels against sums of waves"},
                 {"worker/ops/fourier_test.cc", "FourierTest", "TheAdjointIsATransform",
                  "their adjoints"}},
       .refused = {"compiler/import/archives/refused_fourier.pt2"},
       .open =
           "Zeros have the signs of PyTorch's CPU kernels where the archive takes an `angle` or "
           "an `atan2`, but for negations (there 0 - x or -x, by the place in the tensor) and "
           "quotients by 0."},
  };
}

std::vector<CaseRow> ModelRows() {
  return {
      {.number = 20,
       .what = "encoders: pooled tokens, means over valid tokens, masked language models",
       .outcome = kEqual,
       .cases = {"first_token", "last_token", "one_token_of_each", "mean_pool", "masked_mean_pool",
                 "max_pool", "torch_encoder_layer"},
       .tests = {Models()}},
      {.number = 21,
       .what = "a class token beside the patches; patches by convolution",
       .outcome = kEqual,
       .cases = {"class_token", "tokens_behind_class", "patch_conv"},
       .tests = {{"compiler/planner/layouts_test.cc", "LayoutsTest",
                  "TokensBehindAClassTokenAreSplitThoughNoInputHasThem", "no token is gathered"}}},
      {.number = 22,
       .what = "other ops across tokens",
       .outcome = kEqual,
       .cases = {"causal_conv",
                 "conv_over_time",
                 "conv_cut_to_length",
                 "cumsum_mixer",
                 "reverse_cumsum",
                 "flip",
                 "roll",
                 "roll_mixer",
                 "shift_by_one",
                 "max_of_tokens",
                 "sums_times_tokens",
                 "running_max",
                 "sorted_tokens",
                 "softmax_over_sequence",
                 "gated_by_mean",
                 "image_rows",
                 "norms_over_tokens",
                 "windows_of_tokens",
                 "blocks_of_four",
                 "padded_windows",
                 "cuts_in_two_ways",
                 "ellipses_and_gates"},
       .open =
           "Convolutions and shifts run on each rank's own tokens, with those at the borders of "
           "other shards. A window longer than a shard, and a roll at a length that ranks do "
           "not divide, take all tokens of some channels, or of all."},
      {.number = 23,
       .what = "linear attention, scans of state-space models",
       .outcome = kEqual,
       .cases = {"linear_attention", "gated_scan"}},
      {.number = 24,
       .what = "mixture of experts: dense dispatch, rows sorted by expert, balance loss",
       .outcome = kEqual,
       .cases = {"mixture_of_experts", "static_experts", "expert_histogram", "hidden_by_infinity",
                 "sorted_experts", "static_sorted_experts", "scattered_experts", "ordered_experts"},
       .open = "Each rank has all experts, and all rows where something sees their order."},
  };
}

std::vector<CaseRow> TrainingRows() {
  return {
      {.number = 25,
       .what = "dropout of hidden values and of attention; random numbers that a model draws",
       .outcome = kEqual,
       .tests = {{"equality/dropout_equality_test.cc", "DropoutTest", "IsTheSameForAnyMesh",
                  "one loss for all meshes"},
                 {"equality/dropout_equality_test.cc", "DrawsTest", "AreTheSameForAnyMesh",
                  "uniform, normal and exponential numbers, integers, bernoulli"},
                 {"worker/ops/dropout_test.cc", "DropoutTest", "EverySplitDropsTheSame",
                  "the kernel alone"}}},
      {.number = 26,
       .what = "tied, shared and frozen parameters; buffers",
       .outcome = kEqual,
       .cases = {"tied_head", "parameter_used_twice", "weight_functions", "batch_statistics",
                 "class_weights", "names_of_inputs"},
       .tests = {{"compiler/planner/layouts_test.cc", "LayoutsTest",
                  "WhatIsMadeOfWeightsAloneIsOnEveryRank", "no exchange for weights"},
                 {"equality/training_test.cc", "FrozenTest", "FrozenParametersStay",
                  "frozen parameters"},
                 Models()}},
      {.number = 27,
       .what = "no_grad, autocast, bf16 with fp32 norms",
       .outcome = kEqual,
       .cases = {"no_grad_copy", "no_grad_views", "other_norms", "half_gates", "half_sums",
                 "half_gradients", "half_parameters", "half_products"},
       .tests = {{"equality/precision_test.cc", "PrecisionTest", "IsAsCloseAsOneDevice",
                  "autocast and bf16, as close to fp32 as PyTorch"},
                 {"compiler/import/lost_gradients_test.cc", "LostGradientsTest", "AreWarnedOf",
                  "what torch.export leaves out"}},
       .open = "torch.export keeps the forward of a torch.autograd.Function alone, and drops "
               "torch.no_grad inside of torch.autocast. Both are warned of, with the place."},
      {.number = 28,
       .what = "exported with activation checkpointing",
       .outcome = kEqual,
       .cases = {"checkpointed"}},
      {.number = 38,
       .what = "dropout that would depend on the number of ranks",
       .outcome = kEqual,
       .tests = {{"equality/dropout_equality_test.cc", "DropoutTest", "IsTheSameForAnyMesh",
                  "counter-based, see row 25"}}},
  };
}

std::vector<CaseRow> SystemRows() {
  return {
      {.number = 29,
       .what = "ZeRO 0 to 3",
       .outcome = kEqual,
       .tests = {Training(),
                 {"equality/training_test.cc", "FrozenTest", "FrozenParametersStay",
                  "frozen parameters at every stage"},
                 {"equality/prediction_test.cc", "CollectiveBytesTest", "ZeroIsTheClosedForm",
                  "what gathers and reductions move"},
                 {"compiler/checker/zoo_checks_test.cc", "ModelChecks", "EveryStageOfZeroIsProved",
                  "the proof, for every model of the zoo"}},
       .open = "Stage 0 is what all other rows run."},
      {.number = 30,
       .what = "recomputation, tiles, offload",
       .outcome = kEqual,
       .tests = {{"equality/memory_equality_test.cc", "MemoryTest",
                  "RecomputationAndOffloadGiveTheSameBits",
                  "memory.recompute none, selective and full, memory.offload, bit for bit"},
                 {"equality/memory_equality_test.cc", "MemoryTest", "TilesGiveTheSameNumbers",
                  "memory.tiling loss and all, to 1e-6"}},
       .open = "A rank's tokens are cut into as many tiles as divide them; "
               "where none near the wanted number does, values stay whole."},
      {.number = 31,
       .what = "a model in several archives",
       .outcome = kEqual,
       .cases = {"several_archives", "tied_archives", "angles_of_parts"},
       .tests = {{"compiler/import/link_models_test.cc", "LinkModelsTest", "RefusesWhatDoesNotFit",
                  "what is refused, with the remedy"}}},
      {.number = 32,
       .what = "an op with a derivative and without a rule",
       .outcome = kEqual,
       .cases = {"ops_without_rules", "prelus", "in_place_forms", "other_names",
                 "special_functions", "pixels_of_tokens", "rare_functions", "places_and_choices",
                 "other_products", "recurrent_cells"},
       .tests = {{"equality/case_table_test.cc", "CaseTable", "OpsWithoutRulesAreNamed",
                  "the warning"},
                 {"compiler/planner/strict_test.cc", "StrictTest", "WarningsAreAnError",
                  "the refusal"}},
       .open = "With `strict` their warnings are errors."},
      {.number = 34,
       .what = "several jobs compiled in one process",
       .outcome = kEqual,
       .tests = {{"equality/case_table_test.cc", "CaseTable", "JobsInOneProcessAreIndependent",
                  "byte-identical programs in any order"},
                 {"compiler/planner/zoo_programs_test.cc", "ZooPrograms",
                  "AreTheirTextAndTheSameEachTime", "the models of the zoo"}}},
      {.number = 35,
       .what = "one rank",
       .outcome = kEqual,
       .tests = {{"equality/case_table_test.cc", "CaseTable", "OneRankHasNoCollectives",
                  "every case"},
                 Models()}},
  };
}

std::vector<CaseRow> ImportRows() {
  return {
      {.number = 33,
       .what = "shapes that depend on data, writes to inputs, custom objects",
       .outcome = kRefused,
       .cases = {"in_place", "in_place_forms", "heads_written_apart", "keys_by_slices",
                 "reshapes_in_place", "moving_average", "names_of_scalars", "batch_norms",
                 "router_bias", "codebook", "buffer_views", "running_normalizer", "spectral_norms"},
       .refused = {"compiler/import/archives/refused_nonzero.pt2",
                   "compiler/import/archives/refused_item.pt2",
                   "compiler/import/archives/refused_branch.pt2",
                   "compiler/import/archives/refused_input_write.pt2",
                   "compiler/import/archives/refused_parameter_write.pt2",
                   "compiler/import/archives/refused_constant_write.pt2",
                   "compiler/import/archives/refused_buffer_shape.pt2",
                   "compiler/import/archives/refused_shared_buffer.pt2",
                   "compiler/import/archives/refused_no_grad_write.pt2",
                   "compiler/import/archives/refused_reshape_write.pt2",
                   "compiler/import/archives/refused_custom_op.pt2",
                   "compiler/import/archives/refused_complex.pt2",
                   "compiler/import/archives/refused_complex_input.pt2",
                   "compiler/import/archives/refused_complex_parameter.pt2",
                   "compiler/import/archives/refused_complex_sum.pt2",
                   "compiler/import/archives/refused_random.pt2"},
       .open =
           "Writes to fresh values, through views too, are made functional and are equal; so are "
           "writes to buffers, which each rank keeps whole."},
  };
}

}  // namespace

const std::vector<CaseRow>& CaseRows() {
  static const auto& rows = *[] {
    auto* all = new std::vector<CaseRow>(kNumCaseRows);
    for (auto family : {LossRows, ShapeRows, AttentionRows, FourierRows, ModelRows, TrainingRows,
                        SystemRows, ImportRows}) {
      for (CaseRow& row : family()) (*all)[row.number - 1] = std::move(row);
    }
    return all;
  }();
  return rows;
}

}  // namespace autosp
