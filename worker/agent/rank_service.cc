#include "worker/agent/rank_service.h"

#include "absl/cleanup/cleanup.h"
#include "common/errors.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "proto/grpc_status.h"
#include "worker/agent/order_from_proto.h"

namespace autosp::agent {

grpc::Status RankServiceImpl::Report(grpc::ServerContext* /*context*/,
                                     grpc::ServerReader<v1::RankReport>* reader,
                                     v1::ReportResponse* /*response*/) {
  const absl::Status status = ReadReports(*reader);
  if (!status.ok()) LogWarning("reports of a rank are refused: ", status.message());
  return ToGrpcStatus(status);
}

absl::Status RankServiceImpl::ReadReports(grpc::ServerReader<v1::RankReport>& reader) {
  v1::RankReport report;
  if (!reader.Read(&report)) return absl::OkStatus();
  ASSIGN_OR_RETURN(const AttemptKey key, KeyFromProto(report.attempt()));
  const Rank rank(report.rank());
  if (!report.has_hello()) return InvalidArgument("the first report of a rank must be its hello");
  RETURN_IF_ERROR(agent_.Hello(key, rank, report.hello().pid()));
  const absl::Cleanup close = [&] { agent_.StreamClosed(key, rank); };
  while (reader.Read(&report)) RETURN_IF_ERROR(Handle(key, rank, report));
  return absl::OkStatus();
}

absl::Status RankServiceImpl::Handle(const AttemptKey& key, Rank rank,
                                     const v1::RankReport& report) {
  ASSIGN_OR_RETURN(const AttemptKey report_key, KeyFromProto(report.attempt()));
  if (report_key != key || report.rank() != rank.value()) {
    return InvalidArgument("a report of ", report_key.ToString(), " rank ", report.rank(),
                           " came on the call of ", key.ToString(), " rank ", rank.value());
  }
  switch (report.report_case()) {
    case v1::RankReport::kStep:
      return agent_.StepDone(key, rank, report.step());
    case v1::RankReport::kCheckpoint:
      return agent_.CheckpointDone(key, rank, report.checkpoint());
    case v1::RankReport::kFinished:
      return agent_.Finished(key, rank, ResultFromProto(report.finished()));
    case v1::RankReport::kFailure:
      return agent_.Failed(key, rank, FailureFromProto(report.failure()));
    case v1::RankReport::kHello:
      return InvalidArgument("a second hello of ", key.ToString(), " rank ", rank.value());
    case v1::RankReport::REPORT_NOT_SET:
      break;
  }
  return InvalidArgument("an empty report of ", key.ToString(), " rank ", rank.value());
}

}  // namespace autosp::agent
