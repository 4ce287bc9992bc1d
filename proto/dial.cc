#include "proto/dial.h"

#include <grpcpp/create_channel.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/tcp.h"

namespace autosp {
namespace {

constexpr int kPatienceMs = 500;

constexpr uint8_t kTlsAlert = 0x15;
constexpr uint8_t kTlsHandshake = 0x16;
constexpr size_t kHttp2FrameHeader = 9;
constexpr size_t kHttp2FrameType = 3;
constexpr uint8_t kHttp2Settings = 4;

enum class Speech { kUnknown, kNothing, kClearText, kTls };

bool IsReady(int fd, int16_t events) {
  pollfd polled{.fd = fd, .events = events, .revents = 0};
  return poll(&polled, 1, kPatienceMs) == 1 && (polled.revents & events) != 0;
}

// The beginning of a TLS handshake.
std::string ClientHello() {
  const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_client_method()),
                                                                  SSL_CTX_free);
  const std::unique_ptr<SSL, decltype(&SSL_free)> connection(SSL_new(context.get()), SSL_free);
  BIO* const out = BIO_new(BIO_s_mem());
  SSL_set_bio(connection.get(), BIO_new(BIO_s_mem()), out);  // Owns both.
  SSL_connect(connection.get());
  ERR_clear_error();  // That nobody has answered.
  char* text = nullptr;
  const auto size = BIO_get_mem_data(out, &text);
  return std::string(text, static_cast<size_t>(size));
}

// A server answers the beginning of a handshake, or says something of its own before it has read
// that.
Speech SpeechOf(const std::string& address) {
  const absl::StatusOr<HostPort> parsed = ParseHostPort(address);
  if (!parsed.ok()) return Speech::kUnknown;
  const absl::StatusOr<UniqueFd> fd = BeginConnectTcp(*parsed);
  if (!fd.ok() || !IsReady(fd->get(), POLLOUT)) return Speech::kUnknown;
  if (!WriteAll(fd->get(), ClientHello(), address).ok()) return Speech::kUnknown;
  std::array<uint8_t, kHttp2FrameHeader> answer{};
  if (!IsReady(fd->get(), POLLIN)) return Speech::kUnknown;
  const ssize_t count = recv(fd->get(), answer.data(), answer.size(), 0);
  if (count == 0 || (count < 0 && errno == ECONNRESET)) return Speech::kNothing;
  if (count < 0) return Speech::kUnknown;
  if (answer[0] == kTlsAlert || answer[0] == kTlsHandshake) return Speech::kTls;
  const bool is_http2 = count > static_cast<ssize_t>(kHttp2FrameType) && answer[0] == 0 &&
                        answer[kHttp2FrameType] == kHttp2Settings;
  return is_http2 ? Speech::kClearText : Speech::kUnknown;
}

std::string ExpectedName(const std::string& address, const TlsFiles& files) {
  if (!files.peer_name.empty()) return absl::StrCat(files.peer_name, " (--tls-peer-name)");
  const absl::StatusOr<HostPort> parsed = ParseHostPort(address);
  return absl::StrCat(parsed.ok() ? parsed->host : address, " (--tls-peer-name names another)");
}

}  // namespace

std::shared_ptr<grpc::Channel> Dial(const std::string& address, const Credentials& credentials,
                                    grpc::ChannelArguments arguments) {
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  const std::string& name = credentials.files().peer_name;
  if (!name.empty()) arguments.SetSslTargetNameOverride(name);
  return grpc::CreateCustomChannel(address, credentials.OfChannel(), arguments);
}

std::string ExplainTls(const std::string& address, const Credentials& credentials) {
  const Speech speech = SpeechOf(address);
  if (speech == Speech::kTls && !credentials.is_tls()) {
    return "it speaks TLS, and this program does not: give --tls-ca, and --tls-cert with --tls-key "
           "where it asks for a certificate";
  }
  if (speech == Speech::kClearText && credentials.is_tls()) {
    return "it does not speak TLS, and this program does: leave out the --tls options, or start it "
           "with --tls-cert, --tls-key and --tls-ca";
  }
  if (speech == Speech::kNothing && credentials.is_tls()) {
    return "it ends connections before it says a word: files of its --tls options may not fit each "
           "other since they were renewed; look at its log";
  }
  if (speech != Speech::kTls) return "";
  const TlsFiles& files = credentials.files();
  std::string hint = absl::StrCat("for TLS, its certificate has to be of the CA in ", files.ca,
                                  " and have the name ", ExpectedName(address, files));
  if (files.certificate.empty()) {
    absl::StrAppend(&hint, "; it may also ask for one of this program: --tls-cert and --tls-key");
  } else {
    absl::StrAppend(&hint, ", and this program's be of a CA that it trusts");
  }
  return hint;
}

}  // namespace autosp
