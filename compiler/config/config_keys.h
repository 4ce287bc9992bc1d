// Every key of the job file and of the cluster file.
#pragma once

#include "compiler/config/cluster_spec.h"
#include "compiler/config/job_spec.h"
#include "compiler/config/key_table.h"

namespace autosp {

const KeyTable<JobSpec>& JobKeys();
const KeyTable<InputFeed>& InputFeedKeys();  // under data.inputs.<input>
const KeyTable<ClusterSpec>& ClusterKeys();
const KeyTable<NodeSpec>& NodeKeys();  // under nodes[]

}  // namespace autosp
