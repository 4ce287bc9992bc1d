// What may come in on the port of a rank: each message of the handshake, as the peer of either side
// may send it. Nothing may crash, and without the secret nothing may be accepted.
#include <cstdint>
#include <string>

#include "common/check.h"
#include "worker/collectives/tcp_handshake.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace autosp;
  if (size == 0) return 0;
  const std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const AttemptIdentity attempt = {.job_id = "job", .generation = 1, .secret = "unknown to it"};
  switch (data[0]) {
    case 'c':
      ParseChallenge(bytes).status().IgnoreError();
      break;
    case 'h': {
      const absl::StatusOr<Hello> hello = ParseHello(bytes);
      if (!hello.ok()) break;
      const Verdict verdict = JudgeHello(*hello, bytes, /*challenge=*/{}, attempt, /*rank=*/0);
      AUTOSP_CHECK(verdict != Verdict::kAccepted, "a hello without the secret was accepted");
      break;
    }
    case 'v': {
      const absl::StatusOr<Verdict> verdict =
          ParseVerdict(bytes, /*hello_nonce=*/{}, attempt.secret);
      AUTOSP_CHECK(!verdict.ok() || *verdict != Verdict::kAccepted,
                   "a verdict without the secret was accepted");
      break;
    }
    default:
      break;
  }
  return 0;
}
