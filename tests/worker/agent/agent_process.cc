#include "tests/worker/agent/agent_process.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/impl/codegen/client_unary_call.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/byte_buffer.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/errors.h"
#include "common/file.h"
#include "common/sha256.h"
#include "common/status_macros.h"
#include "proto/grpc_status.h"
#include "worker/agent/process_identity.h"

namespace autosp::agent {
namespace {

constexpr char kNode[] = "node-0";

absl::StatusOr<std::string> WaitForPort(const std::string& path) {
  for (int i = 0; i < 1000; ++i) {
    if (const auto text = ReadFile(path, 100); text.ok() && !text->empty()) {
      return std::string(absl::StripAsciiWhitespace(*text));
    }
    Clock::Real().Sleep(absl::Milliseconds(10));
  }
  return DeadlineExceeded("the agent does not listen");
}

void SetTimeout(grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
}

}  // namespace

absl::StatusOr<std::unique_ptr<AgentProcess>> AgentProcess::Start(
    FakeCoordinator& coordinator, const std::string& folder,
    const std::vector<std::string>& extra_flags, const std::vector<std::string>& env) {
  const std::string port_file = absl::StrCat(folder, "/port");
  const std::string log_path = absl::StrCat(folder, "/agent.log");
  RETURN_IF_ERROR(RemoveFile(port_file));
  const size_t num_registrations = coordinator.Get().registrations.size();
  SubprocessOptions options;
  options.argv = {std::getenv("AUTOSP_AGENT"),
                  absl::StrCat("--coordinator=127.0.0.1:", coordinator.port()),
                  absl::StrCat("--port-file=", port_file), absl::StrCat("--node-name=", kNode),
                  absl::StrCat("--state-dir=", folder, "/state")};
  for (const std::string& flag : {absl::StrCat("--rank-binary=", std::getenv("AUTOSP_FAKE_RANK")),
                                  std::string("--devices=4")}) {
    const std::string name = flag.substr(0, flag.find('=') + 1);
    const bool is_given =
        std::any_of(extra_flags.begin(), extra_flags.end(),
                    [&](const std::string& extra) { return absl::StartsWith(extra, name); });
    if (!is_given) options.argv.push_back(flag);
  }
  options.argv.insert(options.argv.end(), extra_flags.begin(), extra_flags.end());
  options.env = env;
  options.output = SubprocessOptions::Output::kFile;
  options.output_path = log_path;
  options.dies_with_parent = true;
  ASSIGN_OR_RETURN(Subprocess process, Subprocess::Start(options));
  ASSIGN_OR_RETURN(const std::string port, WaitForPort(port_file));
  const bool is_registered = coordinator.WaitUntil([&](const FakeCoordinator::Seen& seen) {
    return seen.registrations.size() > num_registrations;
  });
  if (!is_registered) return DeadlineExceeded("the agent does not register");
  return std::unique_ptr<AgentProcess>(
      new AgentProcess(std::move(process), absl::StrCat("127.0.0.1:", port), log_path));
}

AgentProcess::AgentProcess(Subprocess process, std::string address, std::string log_path)
    : process_(std::move(process)),
      address_(address),
      log_path_(std::move(log_path)),
      stub_(v1::AgentService::NewStub(
          grpc::CreateChannel(address, grpc::InsecureChannelCredentials()))) {}

// By hand, as gRPC's C++ headers have no messages of the health service: a request has the name in
// field 1, an answer a status in field 1, of which 1 is SERVING.
bool AgentProcess::IsServing(const std::string& service) const {
  const std::string bytes =
      absl::StrCat("\n", std::string(1, static_cast<char>(service.size())), service);
  const grpc::Slice request_slice(service.empty() ? "" : bytes);
  const grpc::ByteBuffer request(&request_slice, 1);
  grpc::ByteBuffer response;
  grpc::ClientContext context;
  const auto channel = grpc::CreateChannel(address_, grpc::InsecureChannelCredentials());
  const grpc::internal::RpcMethod method("/grpc.health.v1.Health/Check",
                                         grpc::internal::RpcMethod::NORMAL_RPC);
  const grpc::Status status =
      grpc::internal::BlockingUnaryCall(channel.get(), method, &context, request, &response);
  grpc::Slice slice;
  if (!status.ok() || !response.DumpToSingleSlice(&slice).ok()) return false;
  return std::string(slice.begin(), slice.end()) == "\x08\x01";
}

absl::Status AgentProcess::Prepare(const v1::PrepareRequest& request) {
  return PrepareForAnswer(request).status();
}

absl::StatusOr<v1::PrepareResponse> AgentProcess::PrepareForAnswer(
    const v1::PrepareRequest& request) {
  grpc::ClientContext context;
  SetTimeout(context);
  v1::PrepareResponse response;
  RETURN_IF_ERROR(FromGrpcStatus(stub_->Prepare(&context, request, &response)));
  return response;
}

absl::Status AgentProcess::Commit(const std::string& job_id, int64_t generation,
                                  const std::vector<std::string>& rank_addresses,
                                  const std::string& secret) {
  grpc::ClientContext context;
  SetTimeout(context);
  v1::CommitRequest request;
  request.set_node_id(kNode);
  request.mutable_attempt()->set_job_id(job_id);
  request.mutable_attempt()->set_generation(generation);
  request.mutable_rank_addresses()->Add(rank_addresses.begin(), rank_addresses.end());
  request.set_secret(secret);
  v1::CommitResponse response;
  return FromGrpcStatus(stub_->Commit(&context, request, &response));
}

absl::Status AgentProcess::Abort(const std::string& job_id, int64_t generation) {
  grpc::ClientContext context;
  SetTimeout(context);
  v1::AbortRequest request;
  request.set_node_id(kNode);
  request.mutable_attempt()->set_job_id(job_id);
  request.mutable_attempt()->set_generation(generation);
  v1::AbortResponse response;
  return FromGrpcStatus(stub_->Abort(&context, request, &response));
}

absl::Status AgentProcess::StopAttempt(const std::string& job_id, absl::Duration grace,
                                       int64_t generation) {
  grpc::ClientContext context;
  SetTimeout(context);
  v1::StopAttemptRequest request;
  request.set_node_id(kNode);
  request.mutable_attempt()->set_job_id(job_id);
  request.mutable_attempt()->set_generation(generation);
  request.set_grace_ms(absl::ToInt64Milliseconds(grace));
  request.set_reason("cancelled by the test");
  v1::StopAttemptResponse response;
  return FromGrpcStatus(stub_->StopAttempt(&context, request, &response));
}

absl::StatusOr<std::string> AgentProcess::ReadLog(const std::string& job_id, int rank,
                                                  int64_t tail_lines, bool follow) {
  grpc::ClientContext context;
  SetTimeout(context);
  v1::ReadLogRequest request;
  request.mutable_attempt()->set_job_id(job_id);
  request.mutable_attempt()->set_generation(1);
  request.set_rank(rank);
  request.set_tail_lines(tail_lines);
  request.set_follow(follow);
  const auto reader = stub_->ReadLog(&context, request);
  std::string text;
  v1::ReadLogResponse response;
  while (reader->Read(&response)) text += response.data();
  RETURN_IF_ERROR(FromGrpcStatus(reader->Finish()));
  return text;
}

std::string AgentProcess::LogText() const {
  return ReadFile(log_path_, int64_t{1} << 24).value_or("");
}

v1::PrepareRequest MakePrepare(const std::string& folder, const std::string& job_id, int num_ranks,
                               const std::string& script) {
  v1::PrepareRequest request;
  request.set_node_id(kNode);
  request.set_commit_timeout_ms(10'000);
  v1::AttemptSpec& spec = *request.mutable_attempt();
  spec.mutable_attempt()->set_job_id(job_id);
  spec.mutable_attempt()->set_generation(1);
  spec.set_job_name("test");
  spec.set_world_size(num_ranks);
  spec.mutable_mesh()->set_dp_size(1);
  spec.mutable_mesh()->set_ulysses_size(num_ranks);
  spec.mutable_mesh()->set_ring_size(1);
  spec.set_job_yaml(script);
  spec.set_program_text("program\n");
  spec.set_program_digest(Sha256Hex("program\n"));
  spec.set_output_directory(absl::StrCat(folder, "/out"));
  spec.set_device_kind(v1::DEVICE_KIND_CPU);
  spec.set_rendezvous_id(job_id);
  for (int rank = 0; rank < num_ranks; ++rank) {
    v1::RankAssignment& assigned = *request.add_ranks();
    assigned.set_rank(rank);
    assigned.set_local_rank(rank);
    assigned.set_device_index(rank);
    spec.add_node_of_rank(kNode);
  }
  return request;
}

bool AreGone(const std::vector<int64_t>& pids, absl::Duration timeout) {
  Clock& clock = Clock::Real();
  const absl::Duration deadline = clock.Steady() + timeout;
  while (true) {
    const bool is_any_alive = std::any_of(pids.begin(), pids.end(),
                                          [](int64_t pid) { return IdentifyProcess(pid).ok(); });
    if (!is_any_alive) return true;
    if (clock.Steady() > deadline) return false;
    clock.Sleep(absl::Milliseconds(10));
  }
}

}  // namespace autosp::agent
