#include "compiler/config/job_spec.h"

#include "common/file.h"

namespace autosp {

std::optional<InputFeed> InputFeedFor(const DataSpec& data, absl::string_view name) {
  if (const auto found = data.inputs.find(std::string(name)); found != data.inputs.end()) {
    return found->second;
  }
  const bool is_masked = data.mask_token >= 0;
  InputFeed feed;  // [batch, sequence]
  if (name == "input_ids") {
    feed.source = is_masked ? InputSource::kMlmTokens : InputSource::kTokens;
  } else if (name == "labels") {
    // Models that take `labels` shift them inside, so they get the tokens themselves.
    feed.source = is_masked ? InputSource::kMlmLabels : InputSource::kTokens;
  } else if (name == "position_ids") {
    feed.source = InputSource::kPositions;
  } else if (name == "attention_mask") {
    feed.source = InputSource::kOnes;
  } else if (name == "token_type_ids") {
    feed.source = InputSource::kZeros;
  } else {
    return std::nullopt;
  }
  return feed;
}

bool IsResumePath(absl::string_view resume) {
  return resume != kResumeAuto && resume != kResumeNever;
}

std::string CheckpointDirectory(const JobSpec& job) {
  if (!job.checkpoint.directory.empty()) return job.checkpoint.directory;
  return JoinPath(job.output.dir, "checkpoints");
}

absl::string_view ToString(DataFormat value) {
  return value == DataFormat::kText ? "text" : "tokens";
}

absl::string_view ToString(TokenDtype value) {
  switch (value) {
    case TokenDtype::kUint16:
      return "uint16";
    case TokenDtype::kUint32:
      return "uint32";
    case TokenDtype::kInt32:
      return "int32";
    case TokenDtype::kInt64:
      return "int64";
  }
  return "";
}

absl::string_view ToString(InputSource value) {
  switch (value) {
    case InputSource::kTokens:
      return "tokens";
    case InputSource::kNextTokens:
      return "next_tokens";
    case InputSource::kPositions:
      return "positions";
    case InputSource::kOnes:
      return "ones";
    case InputSource::kZeros:
      return "zeros";
    case InputSource::kMlmTokens:
      return "mlm_tokens";
    case InputSource::kMlmLabels:
      return "mlm_labels";
  }
  return "";
}

absl::string_view ToString(DimRole value) {
  switch (value) {
    case DimRole::kBatch:
      return "batch";
    case DimRole::kSequence:
      return "sequence";
    case DimRole::kOther:
      return "other";
  }
  return "";
}

absl::string_view ToString(OptimizerKind value) {
  return value == OptimizerKind::kAdamW ? "adamw" : "sgd";
}

absl::string_view ToString(ScheduleKind value) {
  switch (value) {
    case ScheduleKind::kConstant:
      return "constant";
    case ScheduleKind::kLinear:
      return "linear";
    case ScheduleKind::kCosine:
      return "cosine";
  }
  return "";
}

absl::string_view ToString(NanPolicy value) {
  return value == NanPolicy::kStop ? "stop" : "continue";
}

absl::string_view ToString(Recompute value) {
  switch (value) {
    case Recompute::kAuto:
      return "auto";
    case Recompute::kNone:
      return "none";
    case Recompute::kSelective:
      return "selective";
    case Recompute::kFull:
      return "full";
  }
  return "unknown";
}

absl::string_view ToString(RingExchange value) {
  switch (value) {
    case RingExchange::kAuto:
      return "auto";
    case RingExchange::kSendRecv:
      return "send_recv";
    case RingExchange::kAllGather:
      return "all_gather";
  }
  return "unknown";
}

absl::string_view ToString(Tiling value) {
  switch (value) {
    case Tiling::kAuto:
      return "auto";
    case Tiling::kNone:
      return "none";
    case Tiling::kLoss:
      return "loss";
    case Tiling::kAll:
      return "all";
  }
  return "unknown";
}

absl::string_view ToString(Offload value) {
  switch (value) {
    case Offload::kAuto:
      return "auto";
    case Offload::kNone:
      return "none";
    case Offload::kActivations:
      return "activations";
    case Offload::kEveryLayer:
      return "every_layer";
  }
  return "unknown";
}

absl::string_view ToString(VerifyMode value) {
  switch (value) {
    case VerifyMode::kNever:
      return "never";
    case VerifyMode::kUnproved:
      return "unproved";
    case VerifyMode::kNewPlan:
      return "new-plan";
    case VerifyMode::kAlways:
      return "always";
  }
  return "";
}

absl::string_view ToString(ParamPrecision value) {
  switch (value) {
    case ParamPrecision::kAsExported:
      return "as_exported";
    case ParamPrecision::kFp32:
      return "fp32";
    case ParamPrecision::kBf16:
      return "bf16";
  }
  return "";
}

absl::string_view ToString(ReducePrecision value) {
  return value == ReducePrecision::kFp32 ? "fp32" : "";
}

}  // namespace autosp
