// SHA-256, the name of everything that is content-addressed: plans, graphs, weights, data.

#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace autosp {

// Digests bytes that arrive in pieces. Thread-compatible.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  void Update(absl::string_view data);

  // 64 lower case hex digits. Requires: called once, after the last Update.
  std::string Finish();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

std::string Sha256Hex(absl::string_view data);

// Reads in pieces, so a file larger than memory is fine.
absl::StatusOr<std::string> Sha256HexOfFile(const std::string& path);
// The same; `on_piece` hears of each piece, and ends the reading with an error.
absl::StatusOr<std::string> Sha256HexOfFile(
    const std::string& path, absl::FunctionRef<absl::Status(int64_t num_bytes)> on_piece);

// 64 lower case hex digits: what may become part of a path.
bool IsSha256Hex(absl::string_view text);

}  // namespace autosp
