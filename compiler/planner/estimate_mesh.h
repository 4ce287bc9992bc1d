// What a mesh costs, before anything is compiled for it: the closed forms of the exchanges around
// attention, which are all that tells meshes apart (every mesh reduces the same gradients).
//
// Elements that a rank receives for one attention, with T the tokens of a rank, h = heads x
// head_dim, and g the key heads that ranks hold per head:
//
//   ulysses   2 (1 + g) (U - 1) / U * T h            forward, and the same backward
//   ring      2 g (R - 1) * T h                      forward; backward again, and 2 g R T h in fp32
//   gathered  2 g (R - 1) * T h                      likewise, and 2 g (R - 1) T h in fp32
#pragma once

#include "compiler/config/cluster_spec.h"
#include "compiler/config/job_spec.h"
#include "compiler/ir/graph.h"
#include "compiler/program/mesh.h"

namespace autosp {

struct MeshEstimate {
  double received_bytes = 0;  // per rank and step
  double seconds = 0;         // that a rank waits for them, without what a ring hides, and for the
                              // launches of its blocks
  // What the ring does: as the job says, else what is faster.
  RingExchange ring_exchange = RingExchange::kSendRecv;
};

// Of all attentions of a graph after its passes, at the job's sizes, for one step (forward and
// backward).
MeshEstimate EstimateMesh(const Graph& graph, const JobSpec& job, const ClusterSpec& cluster,
                          const Mesh& mesh);

}  // namespace autosp
