// The handshake as bytes: what is refused, by whom it is refused, and that nothing crashes.

#include "worker/collectives/tcp_handshake.h"

#include <functional>
#include <random>

#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

using testing::HasSubstr;

constexpr char kSecret[] = "the attempt's secret";
const AttemptIdentity kAttempt = {.job_id = "job-1", .generation = 3, .secret = kSecret};
constexpr int64_t kAcceptor = 5;

Hello GoodHello() {
  return {.job_id = "job-1",
          .generation = 3,
          .group_digest = 77,
          .from_rank = 6,
          .to_rank = kAcceptor,
          .channel = PeerChannel::kControl,
          .nonce = RandomNonce(),
          .proof = ""};
}

Verdict JudgeBytes(const std::string& bytes, const Nonce& challenge) {
  const auto hello = ParseHello(bytes);
  EXPECT_THAT(hello, IsOk());
  return JudgeHello(*hello, bytes, challenge, kAttempt, kAcceptor);
}

TEST(TcpHandshakeTest, BothSidesConvinceEachOther) {
  const Nonce challenge = RandomNonce();
  const auto heard = ParseChallenge(EncodeChallenge(challenge));
  ASSERT_THAT(heard, IsOk());
  EXPECT_EQ(*heard, challenge);
  const Hello hello = GoodHello();
  const std::string bytes = EncodeHello(hello, *heard, kSecret);
  ASSERT_EQ(bytes.size(), kHelloBytes);
  EXPECT_EQ(JudgeBytes(bytes, challenge), Verdict::kAccepted);
  const auto parsed = ParseHello(bytes);
  EXPECT_EQ(parsed->job_id, hello.job_id);
  EXPECT_EQ(parsed->group_digest, hello.group_digest);
  EXPECT_EQ(parsed->channel, hello.channel);
  const std::string answer = EncodeVerdict(Verdict::kAccepted, hello.nonce, kSecret);
  ASSERT_EQ(answer.size(), kVerdictBytes);
  EXPECT_THAT(ParseVerdict(answer, hello.nonce, kSecret), IsOkAndHolds(Verdict::kAccepted));
}

TEST(TcpHandshakeTest, TheSecretIsNeverSent) {
  const Nonce challenge = RandomNonce();
  const Hello hello = GoodHello();
  EXPECT_EQ(EncodeHello(hello, challenge, kSecret).find(kSecret), std::string::npos);
  EXPECT_EQ(EncodeVerdict(Verdict::kAccepted, hello.nonce, kSecret).find(kSecret),
            std::string::npos);
}

TEST(TcpHandshakeTest, WhoIsNotMeantIsRefused) {
  struct Case {
    const char* name;
    std::function<void(Hello&)> change;
    Verdict verdict;
  };
  const Case cases[] = {
      {"another job", [](Hello& h) { h.job_id = "job-2"; }, Verdict::kWrongJob},
      {"no job", [](Hello& h) { h.job_id = ""; }, Verdict::kWrongJob},
      {"a longer name", [](Hello& h) { h.job_id = "job-11"; }, Verdict::kWrongJob},
      {"an old rank", [](Hello& h) { h.generation = 2; }, Verdict::kWrongGeneration},
      {"a newer rank", [](Hello& h) { h.generation = 4; }, Verdict::kWrongGeneration},
      {"for another rank", [](Hello& h) { h.to_rank = 4; }, Verdict::kWrongRank},
      {"the rank itself", [](Hello& h) { h.from_rank = kAcceptor; }, Verdict::kWrongRank},
      {"nothing wrong", [](Hello&) {}, Verdict::kAccepted},
  };
  for (const Case& c : cases) {
    const Nonce challenge = RandomNonce();
    Hello hello = GoodHello();
    c.change(hello);
    EXPECT_EQ(JudgeBytes(EncodeHello(hello, challenge, kSecret), challenge), c.verdict) << c.name;
  }
}

TEST(TcpHandshakeTest, AProofIsGoodForOneChallengeAndOneHello) {
  const Nonce challenge = RandomNonce();
  const std::string good = EncodeHello(GoodHello(), challenge, kSecret);
  // Who has no secret, has listened, or changes what it has heard.
  EXPECT_EQ(JudgeBytes(EncodeHello(GoodHello(), challenge, "a guess"), challenge),
            Verdict::kWrongProof);
  EXPECT_EQ(JudgeBytes(good, RandomNonce()), Verdict::kWrongProof);
  Hello other = GoodHello();
  other.group_digest = 78;
  std::string mixed = EncodeHello(other, challenge, kSecret);
  mixed.replace(kHelloBytes - 64, 64, good.substr(kHelloBytes - 64));
  EXPECT_EQ(JudgeBytes(mixed, challenge), Verdict::kWrongProof);
}

TEST(TcpHandshakeTest, TheAcceptorHasToProveItself) {
  const Nonce nonce = RandomNonce();
  const auto parse = [&](const std::string& bytes) { return ParseVerdict(bytes, nonce, kSecret); };
  EXPECT_THAT(parse(EncodeVerdict(Verdict::kAccepted, nonce, "a guess")),
              IsError(absl::StatusCode::kPermissionDenied, HasSubstr("secret")));
  EXPECT_THAT(parse(EncodeVerdict(Verdict::kAccepted, RandomNonce(), kSecret)),
              IsError(absl::StatusCode::kPermissionDenied, HasSubstr("secret")));
  EXPECT_THAT(parse(EncodeVerdict(Verdict::kWrongGeneration, nonce, "a guess")),
              IsOkAndHolds(Verdict::kWrongGeneration));
}

TEST(TcpHandshakeTest, OtherBytesAreRefused) {
  const std::string challenge = EncodeChallenge(RandomNonce());
  const std::string hello = EncodeHello(GoodHello(), RandomNonce(), kSecret);
  EXPECT_THAT(ParseChallenge(std::string(kChallengeBytes, '\0')),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("no rank of autosp")));
  EXPECT_THAT(ParseChallenge(challenge.substr(1)), testing::Not(IsOk()));
  EXPECT_THAT(ParseHello(""), testing::Not(IsOk()));
  EXPECT_THAT(ParseHello(hello + "x"), testing::Not(IsOk()));
  EXPECT_THAT(ParseHello("GET / HTTP/1.1\r\n" + std::string(kHelloBytes - 16, ' ')),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("GET / HT")));
  std::string newer = hello;
  newer[8] = 2;
  EXPECT_THAT(ParseHello(newer),
              IsError(absl::StatusCode::kFailedPrecondition, HasSubstr("version 2")));
  std::string channel = hello;
  channel[12] = 9;
  EXPECT_THAT(ParseHello(channel),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("channel 9")));
}

TEST(TcpHandshakeTest, NoChangedByteIsAccepted) {
  const Nonce challenge = RandomNonce();
  const std::string good = EncodeHello(GoodHello(), challenge, kSecret);
  for (size_t i = 0; i < good.size(); ++i) {
    std::string changed = good;
    changed[i] = static_cast<char>(changed[i] ^ 1);
    const auto hello = ParseHello(changed);
    if (!hello.ok()) continue;
    EXPECT_NE(JudgeHello(*hello, changed, challenge, kAttempt, kAcceptor), Verdict::kAccepted)
        << "byte " << i;
  }
}

}  // namespace
}  // namespace autosp
