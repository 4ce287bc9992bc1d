// Speaks RankService as autosp-rank does, and does what a script tells it: the job file of its
// spec, one command per line, "<rank or *> <command> <arguments>", executed in order.
//
//   hello                  open the call and say hello
//   hello_as GENERATION    the same, as if of another generation
//   steps N MS             report N steps, MS milliseconds apart
//   log TEXT               write a line to stdout
//   talk N                 write N numbered lines to stderr
//   shm NAME               make a shared-memory segment, <prefix of the spec>-NAME
//   peers                  write the file of the peers to stdout
//   accept                 wait for a connection on the socket that was inherited, say so
//   ignore_term            from now on
//   finish                 report that everything is written, close the call
//   fail CODE TEXT         report a failure; fail_echo: the same, as the echo of a lost peer
//   exit CODE              end the process
//   hang                   sleep for ever

#include <fcntl.h>
#include <google/protobuf/util/json_util.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>

#include "autosp/v1/rank.grpc.pb.h"

namespace autosp {
namespace {

std::string ReadAll(const std::string& path) {
  std::ifstream file(path);
  if (!file) {
    std::fprintf(stderr, "cannot read %s\n", path.c_str());
    std::exit(3);
  }
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

class FakeRank {
 public:
  FakeRank(const v1::RankSpec& spec, int listen_fd) : spec_(spec), listen_fd_(listen_fd) {}

  void Run(const std::string& script) {
    std::istringstream lines(script);
    std::string line;
    while (std::getline(lines, line)) {
      std::istringstream words(line);
      std::string who;
      std::string command;
      words >> who >> command;
      if (who == "*" || who == std::to_string(spec_.rank())) Do(command, words);
    }
  }

 private:
  v1::RankReport NewReport() const {
    v1::RankReport report;
    *report.mutable_attempt() = spec_.attempt();
    report.set_rank(spec_.rank());
    return report;
  }

  void Hello(int64_t generation) {
    channel_ = grpc::CreateChannel("unix:" + spec_.agent_socket_path(),
                                   grpc::InsecureChannelCredentials());
    stub_ = v1::RankService::NewStub(channel_);
    context_ = std::make_unique<grpc::ClientContext>();
    writer_ = stub_->Report(context_.get(), &response_);
    v1::RankReport report = NewReport();
    report.mutable_attempt()->set_generation(generation);
    report.mutable_hello()->set_pid(getpid());
    report.mutable_hello()->set_program_digest(spec_.program_digest());
    writer_->Write(report);
  }

  void Steps(int count, int interval_ms) {
    for (int i = 0; i < count; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(interval_ms));
      v1::RankReport report = NewReport();
      v1::StepReport& step = *report.mutable_step();
      step.set_step(++step_);
      step.set_loss(5.0 / static_cast<double>(step_));
      step.set_tokens(1024);
      step.set_step_seconds(interval_ms / 1000.0);
      v1::MemoryUse& memory = *step.add_memory();
      memory.set_account("device");
      memory.set_current_bytes(1000);
      memory.set_peak_bytes(2000);
      v1::CollectiveUse& use = *step.add_collectives();
      use.set_kind("all_to_all");
      use.set_phase("forward");
      use.set_calls(3);
      use.set_bytes_received(4096);
      use.set_seconds(0.5);
      std::printf("step %d\n", static_cast<int>(step_));
      std::fflush(stdout);
      if (!writer_->Write(report)) return;
    }
  }

  void CloseCall() {
    writer_->WritesDone();
    const grpc::Status status = writer_->Finish();
    std::printf("call ended: %d %s\n", status.error_code(), status.error_message().c_str());
    std::fflush(stdout);
  }

  void Finish() {
    v1::RankReport report = NewReport();
    v1::OutputFile& output = *report.mutable_finished()->add_outputs();
    output.set_kind("weights");
    output.set_path(spec_.output_directory() + "/weights.safetensors");
    writer_->Write(report);
    CloseCall();
  }

  void Fail(int code, const std::string& message, bool is_echo) {
    v1::RankReport report = NewReport();
    v1::RankFailure& failure = *report.mutable_failure();
    failure.set_status_code(code);
    failure.set_message(message);
    failure.set_instruction("%7 = call aten.linear(%1, %2)");
    failure.set_step(step_ + 1);
    failure.set_is_peer_lost(is_echo);
    writer_->Write(report);
    CloseCall();
  }

  void MakeSharedMemory(const std::string& name) {
    const int fd = shm_open((spec_.shm_prefix() + "-" + name).c_str(), O_CREAT | O_RDWR, 0600);
    if (fd < 0 || ftruncate(fd, 4096) != 0) std::exit(4);
    close(fd);
  }

  void Accept() const {
    pollfd query = {.fd = listen_fd_, .events = POLLIN, .revents = 0};
    poll(&query, 1, /*timeout=*/20'000);
    std::printf("%s\n", accept(listen_fd_, nullptr, nullptr) < 0 ? "nobody came" : "accepted");
    std::fflush(stdout);
  }

  void Do(const std::string& command, std::istringstream& words) {
    int number = 0;
    std::string text;
    if (command == "hello") {
      Hello(spec_.attempt().generation());
    } else if (command == "hello_as") {
      words >> number;
      Hello(number);
      CloseCall();
    } else if (command == "steps") {
      int interval_ms = 0;
      words >> number >> interval_ms;
      Steps(number, interval_ms);
    } else if (command == "log") {
      std::getline(words >> std::ws, text);
      std::printf("%s\n", text.c_str());
      std::fflush(stdout);
    } else if (command == "talk") {
      words >> number;
      for (int i = 0; i < number; ++i) std::fprintf(stderr, "line %d\n", i);
    } else if (command == "shm") {
      words >> text;
      MakeSharedMemory(text);
    } else if (command == "peers") {
      std::printf("peers: %s\n", ReadAll(spec_.peers_path()).c_str());
      std::fflush(stdout);
    } else if (command == "accept") {
      Accept();
    } else if (command == "ignore_term") {
      signal(SIGTERM, SIG_IGN);
    } else if (command == "finish") {
      Finish();
    } else if (command == "fail" || command == "fail_echo") {
      words >> number;
      std::getline(words >> std::ws, text);
      Fail(number, text, command == "fail_echo");
    } else if (command == "exit") {
      words >> number;
      _exit(number);
    } else if (command == "hang") {
      while (true) pause();
    } else {
      std::fprintf(stderr, "unknown command %s\n", command.c_str());
      std::exit(5);
    }
  }

  const v1::RankSpec spec_;
  const int listen_fd_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::RankService::Stub> stub_;
  std::unique_ptr<grpc::ClientContext> context_;
  v1::ReportResponse response_;
  std::unique_ptr<grpc::ClientWriter<v1::RankReport>> writer_;
  int64_t step_ = 0;
};

int Main(int argc, char** argv) {
  if (argc < 3 || std::string(argv[1]) != "--spec") return 2;
  const bool listens = argc == 5 && std::string(argv[3]) == "--listen-fd";
  v1::RankSpec spec;
  if (!google::protobuf::util::JsonStringToMessage(ReadAll(argv[2]), &spec).ok()) return 2;
  FakeRank(spec, listens ? std::atoi(argv[4]) : -1).Run(ReadAll(spec.job_yaml_path()));
  return 0;
}

}  // namespace
}  // namespace autosp

int main(int argc, char** argv) { return autosp::Main(argc, argv); }
