#include "worker/rank/grpc_reporter.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <utility>
#include <vector>

#include "autosp/v1/rank.grpc.pb.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "proto/grpc_status.h"
#include "worker/rank/report_to_proto.h"

namespace autosp {
namespace {

// A rank that writes faster than its agent reads waits, rather than to fill its memory.
constexpr size_t kMaxQueued = 4096;
constexpr auto kCloseTimeout = std::chrono::seconds(10);

}  // namespace

// The call. Kept alive by itself until gRPC is done with it.
class GrpcReporter::Stream final : public grpc::ClientWriteReactor<v1::RankReport> {
 public:
  Stream(std::shared_ptr<grpc::Channel> channel, OnLost on_lost)
      : stub_(v1::RankService::NewStub(std::move(channel))), on_lost_(std::move(on_lost)) {}

  static void Start(const std::shared_ptr<Stream>& stream) {
    stream->self_ = stream;
    stream->stub_->async()->Report(&stream->context_, &stream->response_, stream.get());
    // While held, the call is there for writes that start outside of its callbacks.
    stream->AddHold();
    stream->StartCall();
  }

  void Push(v1::RankReport report) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return queue_.size() < kMaxQueued || is_done_ || is_broken_; });
    if (is_done_ || is_broken_ || is_closing_) return;
    queue_.push_back(std::move(report));
    if (queue_.size() == 1) StartWrite(&queue_.front());
  }

  absl::Status Close() {
    std::unique_lock<std::mutex> lock(mutex_);
    BeginClosing();
    if (!changed_.wait_for(lock, kCloseTimeout, [this] { return is_done_; })) {
      context_.TryCancel();
      changed_.wait(lock, [this] { return is_done_; });
    }
    return status_;
  }

  void OnWriteDone(bool ok) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    queue_.pop_front();
    if (!ok) {
      // OnDone follows, with the reason, once nothing holds the call.
      is_broken_ = true;
      queue_.clear();
      ReleaseHold();
    } else if (is_broken_) {
      queue_.clear();
    } else if (!queue_.empty()) {
      StartWrite(&queue_.front());
    } else if (is_closing_) {
      FinishWriting();
    }
    changed_.notify_all();
  }

  // The agent sends no metadata of its own before the end. When the call breaks while nothing is
  // being written, this is the only sign of it, since the hold keeps OnDone back.
  void OnReadInitialMetadataDone(bool ok) override {
    if (ok) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    is_broken_ = true;
    ReleaseHold();
    changed_.notify_all();
  }

  void OnDone(const grpc::Status& status) override {
    bool is_lost = false;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      status_ = FromGrpcStatus(status);
      is_lost = !is_closing_;
    }
    if (is_lost) on_lost_(status_.ok() ? Unavailable("the agent has ended the call") : status_);
    const std::shared_ptr<Stream> self = std::move(self_);  // dies after the lock
    const std::lock_guard<std::mutex> lock(mutex_);
    is_done_ = true;
    changed_.notify_all();
  }

 private:
  // Requires: mutex_ is held, here and below.
  void BeginClosing() {
    if (is_closing_) return;
    is_closing_ = true;
    if (queue_.empty() && !is_broken_) FinishWriting();
  }

  void FinishWriting() {
    StartWritesDone();
    ReleaseHold();
  }

  void ReleaseHold() {
    if (std::exchange(is_held_, false)) RemoveHold();
  }

  std::unique_ptr<v1::RankService::Stub> stub_;
  const OnLost on_lost_;
  grpc::ClientContext context_;
  v1::ReportResponse response_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<v1::RankReport> queue_;  // the front is being written
  bool is_closing_ = false;
  bool is_broken_ = false;
  bool is_held_ = true;
  bool is_done_ = false;
  absl::Status status_;
  std::shared_ptr<Stream> self_;
};

absl::StatusOr<std::unique_ptr<GrpcReporter>> GrpcReporter::Connect(const RankConfig& config,
                                                                    absl::Duration timeout,
                                                                    OnLost on_lost) {
  const auto channel =
      grpc::CreateChannel("unix:" + config.agent_socket_path, grpc::InsecureChannelCredentials());
  // A rank has one agent, for its life, and so the channel is never given back: gRPC 1.51 corrupts
  // its callback queue when the last reference to it goes within one of its own callbacks.
  static auto& channels = *new std::vector<std::shared_ptr<grpc::Channel>>;
  channels.push_back(channel);
  if (!channel->WaitForConnected(absl::ToChronoTime(absl::Now() + timeout))) {
    return Unavailable("agent: nobody listens at ", config.agent_socket_path, " after ",
                       absl::FormatDuration(timeout));
  }
  auto stream = std::make_shared<Stream>(channel, std::move(on_lost));
  Stream::Start(stream);
  return std::unique_ptr<GrpcReporter>(new GrpcReporter(config, std::move(stream)));
}

GrpcReporter::GrpcReporter(const RankConfig& config, std::shared_ptr<Stream> stream)
    : config_(config), stream_(std::move(stream)) {}

GrpcReporter::~GrpcReporter() { stream_->Close().IgnoreError(); }

void GrpcReporter::Hello(const std::string& program_digest) {
  stream_->Push(HelloToProto(config_, program_digest));
}

void GrpcReporter::Step(const StepInfo& info) { stream_->Push(StepToProto(config_, info)); }

void GrpcReporter::Checkpoint(const CheckpointInfo& info) {
  stream_->Push(CheckpointToProto(config_, info));
}

void GrpcReporter::Finished(const std::vector<OutputInfo>& outputs) {
  stream_->Push(FinishedToProto(config_, outputs));
}

void GrpcReporter::Verified(const VerificationResult& result) {
  stream_->Push(VerifiedToProto(config_, result));
}

void GrpcReporter::Failed(const FailureInfo& info) { stream_->Push(FailureToProto(config_, info)); }

absl::Status GrpcReporter::Close() { return stream_->Close(); }

}  // namespace autosp
