// Jobs and decisions for tests of the store.
#pragma once

#include <memory>
#include <string>

#include "server/coordinator/decision.h"

namespace autosp {

inline Job MakeJob(const std::string& id, int64_t create_seconds = 100) {
  auto request = std::make_shared<JobRequest>();
  request->request_id = RequestId("request-" + id);
  request->request_digest = "digest-" + id;
  request->name = id;
  request->world_size = 2;
  request->model_flops = 1.5e15;
  request->peak_flops_per_second = 312e12;
  request->plan_digest = "abc";
  request->max_restarts = 3;
  request->verification_digest = "d1";
  request->verify_always = true;
  Job job;
  job.id = JobId(id);
  job.request = request;
  job.reason = "accepted";
  job.create_time = absl::FromUnixSeconds(create_seconds);
  return job;
}

// Moves `job` on by one stored change, with `num_entries` new lines of history.
inline Decision Change(Job& job, JobState state, int num_entries = 1) {
  const JobState from = job.state;
  job.state = state;
  ++job.revision;
  Decision decision;
  for (int i = 0; i < num_entries; ++i) {
    decision.history.push_back({.job = job.id,
                                .sequence = ++job.last_sequence,
                                .time = job.create_time,
                                .what = StateChange{.from = from, .to = state, .reason = "test"}});
  }
  decision.changed_jobs.push_back(job);
  return decision;
}

// Steps `first` to `last` of `job`, finished by all of its ranks.
inline Decision FinishSteps(Job& job, int64_t first, int64_t last) {
  ++job.revision;
  Decision decision;
  for (int64_t step = first; step <= last; ++step) {
    StepDone done;
    done.report.step = step;
    decision.history.push_back(
        {.job = job.id, .sequence = ++job.last_sequence, .time = job.create_time, .what = done});
  }
  decision.changed_jobs.push_back(job);
  return decision;
}

}  // namespace autosp
