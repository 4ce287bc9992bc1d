#include "tests/worker/ops/attention_ring.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "worker/ops/shard_indices.h"

namespace autosp {
namespace {

// The tokens of a shard of dim 2. Padding is NaN; where it lies between the keys of two members, a
// number that would be seen: masked tiles span it.
class Shards {
 public:
  Shards(const AttentionCase& c, FactorId factor, int64_t size)
      : program_(AttentionRunner(c, "", 0).program), size_(size), pad_(c.gathered ? 1e4 : NAN) {
    dim_ = {{.factor = factor, .axes = {Axis::kRing}}, {.factor = {}, .size = c.piece}};
  }

  at::Tensor Take(const at::Tensor& whole, int64_t member) const {
    const at::Tensor index = Indices(member);
    at::Tensor local = whole.index_select(2, index.clamp_max(size_ - 1)).contiguous();
    for (int64_t i = 0; i < index.numel(); ++i) {
      if (index[i].item<int64_t>() >= size_) local.select(2, i).fill_(pad_);
    }
    return local;
  }

  void Put(const at::Tensor& local, int64_t member, const at::Tensor& whole) const {
    const at::Tensor index = Indices(member);
    const at::Tensor valid = index.lt(size_).nonzero().flatten();
    at::Tensor target = whole;
    target.index_copy_(2, index.index_select(0, valid),
                       local.cpu().index_select(2, valid).to(whole.scalar_type()));
  }

 private:
  at::Tensor Indices(int64_t member) const {
    const std::vector<int64_t> indices = GlobalIndices(program_, dim_, {{.ring = member}});
    const at::Tensor places = at::tensor(indices, at::kLong);
    return places.masked_fill(places.lt(0), size_);
  }

  const Program program_;
  const int64_t size_;
  const double pad_;
  ProgramDim dim_;
};

at::Tensor AllowedPairs(const AttentionCase& c) {
  const at::Tensor q = at::arange(c.q_size, at::kLong).unsqueeze(1);
  const at::Tensor k = at::arange(c.num_keys(), at::kLong).unsqueeze(0);
  at::Tensor allowed = at::ones({c.batch, 1, c.q_size, c.num_keys()}, at::kBool);
  if (c.causal) allowed = allowed.logical_and(k.le(q));
  if (c.window > 0) allowed = allowed.logical_and((q - k).abs().lt(c.window));
  const auto docs_of = [&](const at::Tensor& docs, int64_t num_tokens) {
    if (!docs.defined()) return at::zeros({c.batch, num_tokens}, at::kLong);
    return docs.narrow(1, 0, num_tokens);
  };
  const at::Tensor q_docs = docs_of(c.q_docs, c.q_size).view({c.batch, 1, c.q_size, 1});
  const at::Tensor k_docs = docs_of(c.k_docs, c.num_keys()).view({c.batch, 1, 1, -1});
  allowed = allowed.logical_and(q_docs.eq(k_docs));
  return allowed;
}

// What one ring member holds.
struct Member {
  at::Tensor q, k, v, grad_out;
  at::Tensor acc, lse, dq, dk, dv;
};

// What is at hand at a hop: of the member so many places before, or of all, side by side.
Member KeysAt(const AttentionCase& c, const std::vector<Member>& members, int64_t r, int64_t hop) {
  if (!c.gathered) return members[(r - hop + c.ring) % c.ring];
  Member sender;
  for (at::Tensor Member::*tensor : {&Member::k, &Member::v, &Member::dk, &Member::dv}) {
    std::vector<at::Tensor> parts;
    for (const Member& member : members) parts.push_back(member.*tensor);
    sender.*tensor = at::cat(parts, 2);
  }
  return sender;
}

int64_t NumHops(const AttentionCase& c) { return c.gathered ? 1 : c.ring; }

// The gradients of all keys, back to the members.
void SplitGradients(const Member& all, std::vector<Member>& members) {
  int64_t begin = 0;
  for (Member& member : members) {
    const int64_t size = member.k.size(2);
    member.dk.copy_(all.dk.narrow(2, begin, size));
    member.dv.copy_(all.dv.narrow(2, begin, size));
    begin += size;
  }
}

absl::Status Forward(const AttentionCase& c, std::vector<Member>& members) {
  for (int64_t r = 0; r < c.ring; ++r) {
    for (int64_t hop = 0; hop < NumHops(c); ++hop) {
      const Member sender = KeysAt(c, members, r, hop);
      OwnOpRunner runner = AttentionRunner(c, "autosp.attend_block_", r);
      runner.Tensor(members[r].acc).Tensor(members[r].lse).Tensor(members[r].q);
      runner.Tensor(sender.k).Tensor(sender.v);
      AddDocs(c, runner);
      RETURN_IF_ERROR(runner.Literal(SymInt(hop)).Run().status());
    }
  }
  return absl::OkStatus();
}

absl::Status Backward(const AttentionCase& c, std::vector<Member>& members) {
  for (int64_t r = 0; r < c.ring; ++r) {
    const at::Tensor out = members[r].acc.to(c.dtype);
    for (int64_t hop = 0; hop < NumHops(c); ++hop) {
      const Member sender = KeysAt(c, members, r, hop);
      OwnOpRunner runner = AttentionRunner(c, "autosp.attend_block_backward_", r);
      runner.Tensor(members[r].dq).Tensor(sender.dk).Tensor(sender.dv);
      runner.Tensor(members[r].grad_out).Tensor(members[r].q).Tensor(sender.k).Tensor(sender.v);
      runner.Tensor(out).Tensor(members[r].lse);
      AddDocs(c, runner);
      RETURN_IF_ERROR(runner.Literal(SymInt(hop)).Run().status());
      if (c.gathered) SplitGradients(sender, members);
    }
  }
  return absl::OkStatus();
}

}  // namespace

void AddDocs(const AttentionCase& c, OwnOpRunner& runner) {
  for (const at::Tensor& docs : {c.q_docs, c.k_docs}) {
    if (docs.defined()) {
      runner.Tensor(docs.to(c.device));
    } else {
      runner.Literal(None());
    }
  }
}

std::string AttentionCase::Name() const {
  return absl::StrCat("ring ", ring, layout == Layout::kZigzag ? " zigzag" : "",
                      gathered ? ", gathered, " : ", ", q_size, " x ", num_keys(),
                      " tokens, heads ", num_heads, "/", num_kv_heads, causal ? ", causal" : "",
                      ", window ", window, has_docs() ? ", documents" : "",
                      kernel.empty() ? "" : ", kernel ", kernel);
}

WholeOperands MakeInputs(const AttentionCase& c) {
  const auto make = [&](int64_t heads, int64_t tokens, int64_t head_dim) {
    return at::randn({c.batch, heads, tokens, head_dim}).to(c.dtype).to(at::kDouble);
  };
  return {make(c.num_heads, c.q_size, c.head_dim), make(c.num_kv_heads, c.num_keys(), c.head_dim),
          make(c.num_kv_heads, c.num_keys(), c.v_head_dim),
          make(c.num_heads, c.q_size, c.v_head_dim)};
}

AttentionResults DenseAttention(const AttentionCase& c, const WholeOperands& inputs) {
  const int64_t group = c.num_heads / c.num_kv_heads;
  const at::Tensor k = inputs.k.repeat_interleave(group, 1);
  const at::Tensor v = inputs.v.repeat_interleave(group, 1);
  const double low = -std::numeric_limits<double>::infinity();
  const at::Tensor scores = at::matmul(inputs.q, k.transpose(2, 3)).mul(c.scale());
  const at::Tensor masked = scores.masked_fill(AllowedPairs(c).logical_not(), low);
  AttentionResults results;
  results.lse = at::logsumexp(masked, -1);
  // A row that may attend to nothing has no probabilities.
  const at::Tensor normaliser = results.lse.masked_fill(results.lse.eq(low), -low).unsqueeze(-1);
  const at::Tensor p = (masked - normaliser).exp();
  results.out = at::matmul(p, v);
  const at::Tensor dp = at::matmul(inputs.grad_out, v.transpose(2, 3));
  const at::Tensor delta = (inputs.grad_out * results.out).sum(-1, true);
  const at::Tensor ds = p * (dp - delta) * c.scale();
  const auto sum_groups = [&](const at::Tensor& grad) {
    return grad.unflatten(1, at::IntArrayRef({c.num_kv_heads, group})).sum(2);
  };
  results.dq = at::matmul(ds, k);
  results.dk = sum_groups(at::matmul(ds.transpose(2, 3), inputs.q));
  results.dv = sum_groups(at::matmul(p.transpose(2, 3), inputs.grad_out));
  return results;
}

absl::StatusOr<AttentionResults> RingAttention(const AttentionCase& c,
                                               const WholeOperands& inputs) {
  const Shards queries(c, FactorId{0}, c.q_size);
  const Shards keys(c, FactorId{1}, c.num_keys());
  std::vector<Member> members(static_cast<size_t>(c.ring));
  for (int64_t r = 0; r < c.ring; ++r) {
    Member& member = members[r];
    member.q = queries.Take(inputs.q, r).to(c.device, c.dtype);
    member.k = keys.Take(inputs.k, r).to(c.device, c.dtype);
    member.v = keys.Take(inputs.v, r).to(c.device, c.dtype);
    member.grad_out = queries.Take(inputs.grad_out, r).to(c.device, c.dtype);
    const at::TensorOptions fp32 = at::TensorOptions(c.device).dtype(at::kFloat);
    member.acc = at::zeros(member.grad_out.sizes(), fp32);
    member.lse = at::full(member.acc.sizes().slice(0, 3), -INFINITY, fp32);
    member.dq = at::zeros(member.q.sizes(), fp32);
    member.dk = at::zeros(member.k.sizes(), fp32);
    member.dv = at::zeros(member.v.sizes(), fp32);
  }
  RETURN_IF_ERROR(Forward(c, members));
  RETURN_IF_ERROR(Backward(c, members));
  AttentionResults results;
  results.out = at::full(inputs.grad_out.sizes(), NAN, at::kDouble);
  results.lse = at::full(inputs.q.sizes().slice(0, 3), NAN, at::kDouble);
  results.dq = at::full(inputs.q.sizes(), NAN, at::kDouble);
  results.dk = at::full(inputs.k.sizes(), NAN, at::kDouble);
  results.dv = at::full(inputs.v.sizes(), NAN, at::kDouble);
  for (int64_t r = 0; r < c.ring; ++r) {
    queries.Put(members[r].acc.to(c.dtype), r, results.out);
    queries.Put(members[r].lse, r, results.lse);
    queries.Put(members[r].dq, r, results.dq);
    keys.Put(members[r].dk, r, results.dk);
    keys.Put(members[r].dv, r, results.dv);
  }
  return results;
}

OwnOpRunner AttentionRunner(const AttentionCase& c, const std::string& op, int64_t member) {
  OwnOpRunner runner(op);
  runner.program.mesh.ring = c.ring;
  runner.program.mesh.ulysses = c.ulysses;
  runner.program.factors = {{"seq", c.q_size / c.piece, c.layout},
                            {"keys", c.num_keys() / c.piece, c.layout}};
  runner.place.ring = member;
  runner.Attribute("factor", std::string("seq")).Attribute("axes", std::string("ring"));
  if (c.k_size != 0) runner.Attribute("kv_factor", std::string("keys"));
  runner.Attribute("causal", c.causal).Attribute("window", SymInt(c.window));
  runner.Attribute("scale", c.scale());
  if (c.gathered) runner.Attribute("gathered", true);
  if (c.piece > 1) runner.Attribute("piece", SymInt(c.piece));
  if (!c.kernel.empty()) runner.Attribute("kernel", c.kernel);
  return runner;
}

double MaxError(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).abs().max() / b.abs().max()).item<double>();
}

double L2Error(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).norm() / b.norm()).item<double>();
}

}  // namespace autosp
