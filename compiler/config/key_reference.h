// The keys of the job and cluster files as the tables of docs/job-file.md.
#pragma once

#include <string>

namespace autosp {

// Markdown: one table per section.
std::string JobKeyReference();
std::string ClusterKeyReference();

}  // namespace autosp
