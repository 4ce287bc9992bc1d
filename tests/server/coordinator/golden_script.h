// Golden scripts in the form of etcd's raft: blocks of commands, a line of four dashes, and all
// that came out. Lines that begin with '#' and blank lines between blocks are kept as they are.
//
//   # Two ranks come up.
//
//   submit job=j1 ranks=2
//   ----
//   j1: queued: accepted
//
// With --rewrite, or AUTOSP_REWRITE_GOLDENS in the environment, the outputs in the file are
// replaced by what came out.
#pragma once

#include <functional>
#include <map>
#include <string>

namespace autosp {

// `name key=value key="value with spaces"`.
struct ScriptCommand {
  std::string name;
  std::map<std::string, std::string> args;
  std::string positional;  // the first word without '='

  std::string Get(const std::string& key, const std::string& otherwise = "") const;
  int64_t GetInt(const std::string& key, int64_t otherwise = 0) const;
};

ScriptCommand ParseScriptCommand(const std::string& line);

// Runs every block of the file through `run`, which gets one command line at a time and gives its
// output. A difference is a test failure that shows both.
void RunGoldenScript(const std::string& path, bool rewrite,
                     const std::function<std::string(const ScriptCommand&)>& run);

}  // namespace autosp
