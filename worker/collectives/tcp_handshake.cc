#include "worker/collectives/tcp_handshake.h"

#include <sys/random.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <type_traits>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/errors.h"
#include "common/secret.h"

namespace autosp {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr absl::string_view kChallengeMagic = "ASPCHAL1";
constexpr absl::string_view kHelloMagic = "ASPHELO1";
constexpr absl::string_view kVerdictMagic = "ASPVERD1";
constexpr size_t kJobIdBytes = 64;
constexpr size_t kProofBytes = 64;

template <typename T>
void Append(std::string& out, T value) {
  static_assert(std::is_integral_v<T>);
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

// Takes a message apart. Requires: it is as long as what is taken.
class Reader {
 public:
  explicit Reader(absl::string_view bytes) : bytes_(bytes) {}

  absl::string_view Take(size_t count) {
    const absl::string_view taken = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return taken;
  }
  template <typename T>
  T TakeInt() {
    T value;
    std::memcpy(&value, Take(sizeof(T)).data(), sizeof(T));
    return value;
  }
  Nonce TakeNonce() {
    Nonce nonce;
    std::memcpy(nonce.data(), Take(nonce.size()).data(), nonce.size());
    return nonce;
  }

 private:
  absl::string_view bytes_;
};

absl::Status CheckBegin(absl::string_view bytes, size_t size, absl::string_view magic,
                        absl::string_view what) {
  if (bytes.size() != size) {
    return InvalidArgument(what, " has ", bytes.size(), " bytes, not ", size);
  }
  if (bytes.substr(0, magic.size()) != magic) {
    return InvalidArgument(what, " begins with \"", absl::CHexEscape(bytes.substr(0, magic.size())),
                           "\": no rank of autosp speaks there");
  }
  return absl::OkStatus();
}

absl::Status CheckVersion(uint32_t version, absl::string_view what) {
  if (version == kHandshakeVersion) return absl::OkStatus();
  return FailedPrecondition(what, " is of version ", version, ", this rank speaks ",
                            kHandshakeVersion, "; run the same version on all nodes");
}

absl::string_view View(const Nonce& nonce) { return {nonce.data(), nonce.size()}; }

std::string HelloProof(absl::string_view body, const Nonce& challenge, absl::string_view secret) {
  return HmacSha256Hex(secret, absl::StrCat("hello", View(challenge), body));
}

std::string VerdictProof(Verdict verdict, const Nonce& nonce, absl::string_view secret) {
  return HmacSha256Hex(secret,
                       absl::StrCat("verdict", View(nonce), static_cast<uint32_t>(verdict)));
}

// In a time that does not tell how much of it is right.
bool IsSameProof(absl::string_view a, absl::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned difference = 0;
  for (size_t i = 0; i < a.size(); ++i) difference |= static_cast<unsigned char>(a[i] ^ b[i]);
  return difference == 0;
}

}  // namespace

Nonce RandomNonce() {
  Nonce nonce;
  ssize_t count;
  do {
    count = getrandom(nonce.data(), nonce.size(), 0);
  } while (count < 0 && errno == EINTR);
  AUTOSP_CHECK(count == static_cast<ssize_t>(nonce.size()), "getrandom gave ", count);
  return nonce;
}

absl::string_view VerdictReason(Verdict verdict) {
  switch (verdict) {
    case Verdict::kAccepted:
      return "accepted";
    case Verdict::kWrongJob:
      return "of another job";
    case Verdict::kWrongGeneration:
      return "of another generation";
    case Verdict::kWrongRank:
      return "for another rank";
    case Verdict::kWrongProof:
      return "without the attempt's secret";
    case Verdict::kTaken:
      return "of a rank that is connected already";
  }
  return "of an unknown kind";
}

std::string EncodeChallenge(const Nonce& nonce) {
  std::string bytes(kChallengeMagic);
  Append(bytes, kHandshakeVersion);
  return absl::StrCat(bytes, View(nonce));
}

absl::StatusOr<Nonce> ParseChallenge(absl::string_view bytes) {
  absl::Status status = CheckBegin(bytes, kChallengeBytes, kChallengeMagic, "challenge");
  if (!status.ok()) return status;
  Reader reader(bytes.substr(kChallengeMagic.size()));
  status = CheckVersion(reader.TakeInt<uint32_t>(), "challenge");
  if (!status.ok()) return status;
  return reader.TakeNonce();
}

std::string EncodeHello(const Hello& hello, const Nonce& challenge, absl::string_view secret) {
  std::string bytes(kHelloMagic);
  Append(bytes, kHandshakeVersion);
  Append(bytes, static_cast<uint32_t>(hello.channel));
  Append(bytes, hello.generation);
  Append(bytes, hello.group_digest);
  Append(bytes, hello.from_rank);
  Append(bytes, hello.to_rank);
  std::string job_id = hello.job_id.substr(0, kJobIdBytes);
  job_id.resize(kJobIdBytes, '\0');
  absl::StrAppend(&bytes, job_id, View(hello.nonce));
  return absl::StrCat(bytes, HelloProof(bytes, challenge, secret));
}

absl::StatusOr<Hello> ParseHello(absl::string_view bytes) {
  absl::Status status = CheckBegin(bytes, kHelloBytes, kHelloMagic, "hello");
  if (!status.ok()) return status;
  Reader reader(bytes.substr(kHelloMagic.size()));
  status = CheckVersion(reader.TakeInt<uint32_t>(), "hello");
  if (!status.ok()) return status;
  Hello hello;
  const auto channel = reader.TakeInt<uint32_t>();
  if (channel != static_cast<uint32_t>(PeerChannel::kData) &&
      channel != static_cast<uint32_t>(PeerChannel::kControl)) {
    return InvalidArgument("hello names channel ", channel, ", which does not exist");
  }
  hello.channel = static_cast<PeerChannel>(channel);
  hello.generation = reader.TakeInt<int64_t>();
  hello.group_digest = reader.TakeInt<uint64_t>();
  hello.from_rank = reader.TakeInt<int32_t>();
  hello.to_rank = reader.TakeInt<int32_t>();
  const absl::string_view job_id = reader.Take(kJobIdBytes);
  hello.job_id = std::string(job_id.substr(0, job_id.find('\0')));
  hello.nonce = reader.TakeNonce();
  hello.proof = std::string(reader.Take(kProofBytes));
  return hello;
}

Verdict JudgeHello(const Hello& hello, absl::string_view bytes, const Nonce& challenge,
                   const AttemptIdentity& attempt, int64_t rank) {
  // What is said openly comes first: that is what helps who reads the log.
  if (hello.job_id != attempt.job_id) return Verdict::kWrongJob;
  if (hello.generation != attempt.generation) return Verdict::kWrongGeneration;
  if (hello.to_rank != rank || hello.from_rank == rank) return Verdict::kWrongRank;
  const absl::string_view body = bytes.substr(0, kHelloBytes - kProofBytes);
  const bool is_proved = IsSameProof(hello.proof, HelloProof(body, challenge, attempt.secret));
  return is_proved ? Verdict::kAccepted : Verdict::kWrongProof;
}

std::string EncodeVerdict(Verdict verdict, const Nonce& hello_nonce, absl::string_view secret) {
  std::string bytes(kVerdictMagic);
  Append(bytes, static_cast<uint32_t>(verdict));
  // Who is refused learns why; what a proof of it looks like is not for strangers.
  const bool is_accepted = verdict == Verdict::kAccepted;
  return absl::StrCat(bytes, is_accepted ? VerdictProof(verdict, hello_nonce, secret)
                                         : std::string(kProofBytes, '0'));
}

absl::StatusOr<Verdict> ParseVerdict(absl::string_view bytes, const Nonce& hello_nonce,
                                     absl::string_view secret) {
  absl::Status status = CheckBegin(bytes, kVerdictBytes, kVerdictMagic, "verdict");
  if (!status.ok()) return status;
  Reader reader(bytes.substr(kVerdictMagic.size()));
  const auto code = reader.TakeInt<uint32_t>();
  if (code > static_cast<uint32_t>(Verdict::kTaken)) {
    return InvalidArgument("verdict ", code, " is not known");
  }
  const auto verdict = static_cast<Verdict>(code);
  if (verdict == Verdict::kAccepted &&
      !IsSameProof(reader.Take(kProofBytes), VerdictProof(verdict, hello_nonce, secret))) {
    return PermissionDenied("who listens there does not know the attempt's secret");
  }
  return verdict;
}

}  // namespace autosp
