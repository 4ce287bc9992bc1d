#include "compiler/planner/estimate_mesh.h"

#include <algorithm>

#include "compiler/analysis/link_model.h"
#include "compiler/rules/op_rule.h"

namespace autosp {
namespace {

// Of a block of keys that a ring adds to the result, forward or backward: the launches of the
// kernel and of what merges the two. An estimate, as are the latencies of links.
constexpr double kBlockSeconds = 16e-6;

struct Attention {
  double heads = 1;
  double key_heads = 1;
  double head_dim = 1;
  double value_dim = 1;  // head_dim of values and of the result
  double element_bytes = 4;
  OpFlops flops;  // of all ranks in a step
};

Attention ReadAttention(const Graph& graph, const Node& node) {
  const TensorType& query = graph.type(std::get<ValueId>(node.args[0]));
  const TensorType& key = graph.type(std::get<ValueId>(node.args[1]));
  const TensorType& value = graph.type(std::get<ValueId>(node.args[2]));
  const auto size = [](const TensorType& type, int64_t from_end) {
    const int64_t dim = type.rank() - from_end;
    return dim < 0 ? 1.0 : static_cast<double>(type.sizes[dim].value);
  };
  return {.heads = size(query, 3),
          .key_heads = size(key, 3),
          .head_dim = size(query, 1),
          .value_dim = size(value, 1),
          .element_bytes = static_cast<double>(SizeOf(query.dtype)),
          .flops = FlopsOf(graph, node)};
}

class Estimator {
 public:
  Estimator(const JobSpec& job, const ClusterSpec& cluster, const Mesh& mesh)
      : links_(cluster, mesh),
        mesh_(mesh),
        wanted_(job.parallelism.ring_exchange),
        tokens_(static_cast<double>(job.training.global_batch_size) *
                static_cast<double>(job.training.seq_len) /
                static_cast<double>(mesh.world_size())) {}

  void Add(const Attention& attention) {
    const auto ulysses = static_cast<double>(mesh_.ulysses);
    // Key heads are copied until they split over ulysses.
    const double copies = std::max(attention.key_heads, ulysses) / attention.heads;
    const Planes planes = {.query = tokens_ * attention.heads * attention.head_dim,
                           .value = tokens_ * attention.heads * attention.value_dim};
    AddUlysses(planes, copies, attention.element_bytes);
    if (mesh_.ring > 1) AddRing(attention, planes, copies);
  }

  MeshEstimate Take() const {
    if (mesh_.ring == 1) {
      return {.received_bytes = ulysses_.received_bytes, .seconds = ulysses_.seconds};
    }
    const bool gathers = wanted_ == RingExchange::kAuto ? gathered_.seconds < hops_.seconds
                                                        : wanted_ == RingExchange::kAllGather;
    const Exchanges& ring = gathers ? gathered_ : hops_;
    return {.received_bytes = ulysses_.received_bytes + ring.received_bytes,
            .seconds = ulysses_.seconds + ring.seconds,
            .ring_exchange = gathers ? RingExchange::kAllGather : RingExchange::kSendRecv};
  }

 private:
  struct Exchanges {
    double received_bytes = 0;
    double seconds = 0;
  };
  // Elements of all heads on a rank: of queries, and of the result. Keys and values have `copies`
  // times as many.
  struct Planes {
    double query = 0;
    double value = 0;
  };

  void AddUlysses(const Planes& planes, double copies, double element_bytes) {
    if (mesh_.ulysses == 1) return;
    const auto ulysses = static_cast<double>(mesh_.ulysses);
    // q, o, k and v, there and, as gradients, back.
    for (const double elements :
         {planes.query, planes.value, copies * planes.query, copies * planes.value}) {
      const double bytes = (ulysses - 1) / ulysses * elements * element_bytes;
      ulysses_.received_bytes += 2 * bytes;
      ulysses_.seconds += 2 * links_.Seconds(CollectiveKind::kAllToAll, {Axis::kUlysses}, bytes);
    }
  }

  void AddRing(const Attention& attention, const Planes& planes, double copies) {
    const double hop_elements = copies * (planes.query + planes.value);
    const double hop_bytes = hop_elements * attention.element_bytes;
    const double gradient_bytes = hop_elements * 4;
    AddHops(attention, hop_bytes, gradient_bytes);
    const double block_seconds = 2 * static_cast<double>(mesh_.ring) * kBlockSeconds;
    hops_.seconds += block_seconds;
    gathered_.seconds += block_seconds;
    // Of the members, each receives what the others hold, forward and backward, and of the
    // gradients its own part from each.
    const double others = static_cast<double>(mesh_.ring) - 1;
    gathered_.received_bytes += others * (2 * hop_bytes + gradient_bytes);
    gathered_.seconds +=
        2 * links_.Seconds(CollectiveKind::kAllGather, {Axis::kRing}, others * hop_bytes) +
        links_.Seconds(CollectiveKind::kReduceScatter, {Axis::kRing}, others * gradient_bytes);
  }

  void AddHops(const Attention& attention, double hop_bytes, double gradient_bytes) {
    const auto ring = static_cast<double>(mesh_.ring);
    const auto hop = [&](double bytes) {
      return links_.Seconds(CollectiveKind::kSendRecv, {Axis::kRing}, bytes);
    };
    // The queries of this rank with the keys of one block.
    const double num_hops = static_cast<double>(mesh_.world_size()) * ring;
    const double forward = Compute(attention.flops.forward / num_hops, attention);
    const double backward = Compute(attention.flops.backward / num_hops, attention);
    hops_.received_bytes += (ring - 1) * 2 * hop_bytes + ring * gradient_bytes;
    // Gradients wait for the work of their hop, so nothing hides them.
    hops_.seconds += (ring - 1) * std::max(0.0, hop(hop_bytes) - forward) +
                     (ring - 1) * std::max(0.0, hop(hop_bytes) - backward) +
                     ring * hop(gradient_bytes);
  }

  double Compute(double flops, const Attention& attention) const {
    return links_.overlaps() ? links_.AttentionSeconds(flops, attention.element_bytes > 2) : 0;
  }

  LinkModel links_;
  const Mesh mesh_;
  const RingExchange wanted_;
  const double tokens_;  // of a rank in a step
  Exchanges ulysses_;
  Exchanges hops_;      // of a ring that passes keys on
  Exchanges gathered_;  // of one that puts them together
};

}  // namespace

MeshEstimate EstimateMesh(const Graph& graph, const JobSpec& job, const ClusterSpec& cluster,
                          const Mesh& mesh) {
  Estimator estimator(job, cluster, mesh);
  for (const Node& node : graph.nodes) {
    const bool is_attention = node.op == kSdpa || node.op == kMaskedAttention;
    if (is_attention) estimator.Add(ReadAttention(graph, node));
  }
  return estimator.Take();
}

}  // namespace autosp
