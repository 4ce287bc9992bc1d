// Jobs, history, plans and nodes as messages for users.
#pragma once

#include "autosp/v1/coordinator.pb.h"
#include "autosp/v1/job.pb.h"
#include "compiler/planner/plan.h"
#include "server/coordinator/decision.h"
#include "server/coordinator/job.h"
#include "server/service/node_view.h"

namespace autosp {

void SetTime(absl::Time time, google::protobuf::Timestamp& out);

v1::JobState JobStateToProto(JobState state);

// Everything but the plan.
v1::Job JobToProto(const Job& job);

v1::JobEvent HistoryEntryToProto(const HistoryEntry& entry);
v1::PlanSummary PlanSummaryToProto(const PlanSummary& summary);
v1::Node NodeToProto(const NodeView& node);

}  // namespace autosp
