// The words with which two ranks make sure of each other before a connection carries data.
//
//   acceptor                               connector
//   challenge: magic, version, nonce   ->
//                                      <-  hello: who it is, whom it means, nonce, proof
//   verdict: accepted or why not, proof ->
//
// A proof shows that its maker knows the secret of the attempt, for the other side's fresh nonce:
// it is of no use to who has listened, and the secret is never sent. Each message has one size, so
// that nothing from the network decides how much is read. Bytes are little-endian.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace autosp {

inline constexpr uint32_t kHandshakeVersion = 1;

// What all ranks of one attempt know, and nobody else.
struct AttemptIdentity {
  std::string job_id;
  int64_t generation = 0;
  std::string secret;
};

// Two connections join each pair of ranks in a group: see peer_control.h.
enum class PeerChannel : uint8_t { kData = 1, kControl = 2 };

using Nonce = std::array<char, 16>;
Nonce RandomNonce();

struct Hello {
  std::string job_id;
  int64_t generation = 0;
  uint64_t group_digest = 0;
  int32_t from_rank = 0;  // ranks of the job
  int32_t to_rank = 0;
  PeerChannel channel = PeerChannel::kData;
  Nonce nonce = {};
  std::string proof;
};

enum class Verdict : uint32_t {
  kAccepted,
  kWrongJob,
  kWrongGeneration,
  kWrongRank,
  kWrongProof,
  kTaken,  // the rank is connected already
};
// "of another generation"; for messages.
absl::string_view VerdictReason(Verdict verdict);

inline constexpr size_t kChallengeBytes = 8 + 4 + 16;
inline constexpr size_t kHelloBytes = 8 + 4 + 4 + 8 + 8 + 4 + 4 + 64 + 16 + 64;
inline constexpr size_t kVerdictBytes = 8 + 4 + 64;

std::string EncodeChallenge(const Nonce& nonce);
absl::StatusOr<Nonce> ParseChallenge(absl::string_view bytes);

// The proof in `hello` is made here.
std::string EncodeHello(const Hello& hello, const Nonce& challenge, absl::string_view secret);
absl::StatusOr<Hello> ParseHello(absl::string_view bytes);
// Whether `bytes`, parsed as `hello`, are meant for `rank` of this very attempt.
Verdict JudgeHello(const Hello& hello, absl::string_view bytes, const Nonce& challenge,
                   const AttemptIdentity& attempt, int64_t rank);

std::string EncodeVerdict(Verdict verdict, const Nonce& hello_nonce, absl::string_view secret);
// PERMISSION_DENIED when the acceptor cannot prove that it is of the attempt.
absl::StatusOr<Verdict> ParseVerdict(absl::string_view bytes, const Nonce& hello_nonce,
                                     absl::string_view secret);

}  // namespace autosp
