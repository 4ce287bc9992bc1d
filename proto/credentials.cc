#include "proto/credentials.h"

#include <grpcpp/security/tls_credentials_options.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <cstdint>
#include <ctime>
#include <vector>

#include "common/errors.h"
#include "common/file.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

constexpr int64_t kMaxPemBytes = 1 << 20;
// How soon certificates that were renewed are used.
constexpr unsigned kRefreshSeconds = 10;

using Bio = std::unique_ptr<BIO, decltype(&BIO_free)>;
using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;
using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;

Bio BioOf(const std::string& text) {
  return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())), BIO_free);
}

// Where a key has a passphrase: there is nobody to ask for it.
int NoPassphrase(char* /*buffer*/, int /*size*/, int /*is_writing*/, void* /*unused*/) { return 0; }

// What `print` writes.
template <typename Print>
std::string Written(const Print& print) {
  const Bio out(BIO_new(BIO_s_mem()), BIO_free);
  print(out.get());
  char* text = nullptr;
  const long size = BIO_get_mem_data(out.get(), &text);
  return std::string(text, static_cast<size_t>(size));
}

std::string TimeOf(const ASN1_TIME* time) {
  return Written([&](BIO* out) { ASN1_TIME_print(out, time); });
}

absl::Time ExpiryOf(X509* certificate) {
  tm parts{};
  ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &parts);
  return absl::FromTM(parts, absl::UTCTimeZone());
}

constexpr char kPemForm[] = " in PEM form (-----BEGIN CERTIFICATE-----)";

// All of a file, in its order.
absl::StatusOr<std::vector<Certificate>> ReadCertificates(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxPemBytes));
  const Bio in = BioOf(text);
  std::vector<Certificate> certificates;
  while (X509* next = PEM_read_bio_X509(in.get(), nullptr, NoPassphrase, nullptr)) {
    certificates.emplace_back(next, X509_free);
  }
  const bool is_at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  ERR_clear_error();
  if (is_at_end && certificates.empty()) {
    return InvalidArgument(path, " has no certificate", kPemForm);
  }
  if (is_at_end) return certificates;
  return InvalidArgument(path, ": certificate ", certificates.size() + 1, " is damaged, or not",
                         kPemForm);
}

bool HasIssued(X509* issuer, X509* certificate) {
  return issuer != certificate && X509_check_issued(issuer, certificate) == X509_V_OK;
}

// The one in the list that has issued it; of several the one that lasts longest.
X509* IssuerOf(X509* certificate, const std::vector<Certificate>& candidates) {
  X509* found = nullptr;
  for (const Certificate& each : candidates) {
    if (!HasIssued(each.get(), certificate)) continue;
    if (found == nullptr || ExpiryOf(found) < ExpiryOf(each.get())) found = each.get();
  }
  return found;
}

// Of the certificate that comes first in its file, and what lies between it and the CAs, the one
// that expires first.
X509* FirstToExpire(const std::vector<Certificate>& own, const std::vector<Certificate>& cas) {
  X509* first = own.front().get();
  X509* at = first;
  for (size_t i = 1; i < own.size() && IssuerOf(at, cas) == nullptr; ++i) {
    at = IssuerOf(at, own);
    if (at == nullptr) break;  // Of another CA, which the peers may know.
    if (ExpiryOf(at) < ExpiryOf(first)) first = at;
  }
  return first;
}

// Of a file of CAs, in which old ones may stay while new ones are rolled out.
X509* LastToExpire(const std::vector<Certificate>& certificates) {
  return std::ranges::max_element(certificates, {},
                                  [](const Certificate& each) { return ExpiryOf(each.get()); })
      ->get();
}

std::string SubjectOf(X509* certificate) {
  return Written([&](BIO* out) {
    X509_NAME_print_ex(out, X509_get_subject_name(certificate), 0, XN_FLAG_ONELINE);
  });
}

absl::Status CheckValid(const std::string& path, X509* certificate) {
  if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0) {
    return FailedPrecondition(path, ": the certificate of ", SubjectOf(certificate),
                              " was valid until ", TimeOf(X509_get0_notAfter(certificate)),
                              "; renew it");
  }
  if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0) {
    return FailedPrecondition(path, ": the certificate of ", SubjectOf(certificate),
                              " is valid from ", TimeOf(X509_get0_notBefore(certificate)),
                              " on, which is not yet; wait, or set this machine's clock");
  }
  return absl::OkStatus();
}

absl::Status CheckKey(const std::string& path, const std::string& certificate_path,
                      X509* certificate) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxPemBytes), "--tls-key");
  const Key key(PEM_read_bio_PrivateKey(BioOf(text).get(), nullptr, NoPassphrase, nullptr),
                EVP_PKEY_free);
  ERR_clear_error();
  if (key == nullptr) {
    return InvalidArgument("--tls-key: ", path,
                           " has no private key in PEM form that needs no passphrase");
  }
  const bool fits = X509_check_private_key(certificate, key.get()) == 1;
  ERR_clear_error();
  if (fits) return absl::OkStatus();
  return InvalidArgument("--tls-key: ", path, " is not the key of --tls-cert ", certificate_path);
}

}  // namespace

absl::StatusOr<Credentials> Credentials::Load(const TlsFiles& files) {
  ASSIGN_OR_RETURN(const std::vector<Certificate> cas, ReadCertificates(files.ca), "--tls-ca");
  RETURN_IF_ERROR(WithContext(CheckValid(files.ca, LastToExpire(cas)), "--tls-ca"));
  if (!files.certificate.empty()) {
    ASSIGN_OR_RETURN(const std::vector<Certificate> own, ReadCertificates(files.certificate),
                     "--tls-cert");
    X509* const certificate = own.front().get();
    RETURN_IF_ERROR(WithContext(CheckValid(files.certificate, certificate), "--tls-cert"));
    X509* const first = FirstToExpire(own, cas);
    RETURN_IF_ERROR(WithContext(CheckValid(files.certificate, first), "--tls-cert"));
    RETURN_IF_ERROR(CheckKey(files.key, files.certificate, certificate));
  }
  Credentials credentials;
  credentials.files_ = files;
  credentials.provider_ = std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
      files.key, files.certificate, files.ca, kRefreshSeconds);
  return credentials;
}

absl::StatusOr<Credentials> Credentials::ForClient(const TlsFiles& files) {
  if (files.certificate.empty() != files.key.empty()) {
    return InvalidArgument("--tls-cert and --tls-key belong together; give both or neither");
  }
  if (!files.ca.empty()) return Load(files);
  if (files.certificate.empty() && files.peer_name.empty()) return Credentials();
  return InvalidArgument(
      "--tls-ca is missing: the certificate of the CA by which the coordinator is known");
}

absl::StatusOr<Credentials> Credentials::ForServer(const TlsFiles& files) {
  const bool has_all = !files.certificate.empty() && !files.key.empty() && !files.ca.empty();
  if (has_all) return Load(files);
  const bool has_none =
      files.certificate.empty() && files.key.empty() && files.ca.empty() && files.peer_name.empty();
  if (has_none) return Credentials();
  return InvalidArgument(
      "--tls-cert, --tls-key and --tls-ca belong together; give all three, or none to speak in "
      "clear text");
}

std::map<std::string, absl::Time> Credentials::Expiries() const {
  std::map<std::string, absl::Time> expiries;
  if (!is_tls()) return expiries;
  const auto cas = ReadCertificates(files_.ca);
  expiries["ca"] = cas.ok() ? ExpiryOf(LastToExpire(*cas)) : absl::UnixEpoch();
  if (!has_certificate()) return expiries;
  absl::Time& own_expiry = expiries["certificate"];
  own_expiry = absl::UnixEpoch();
  const auto own = ReadCertificates(files_.certificate);
  if (!own.ok()) return expiries;
  const bool fits = CheckKey(files_.key, files_.certificate, own->front().get()).ok();
  static const auto& no_cas = *new std::vector<Certificate>();
  if (fits) own_expiry = ExpiryOf(FirstToExpire(*own, cas.ok() ? *cas : no_cas));
  return expiries;
}

std::shared_ptr<grpc::ChannelCredentials> Credentials::OfChannel() const {
  if (!is_tls()) return grpc::InsecureChannelCredentials();
  grpc::experimental::TlsChannelCredentialsOptions options;
  options.set_certificate_provider(provider_);
  options.watch_root_certs();
  if (has_certificate()) options.watch_identity_key_cert_pairs();
  return grpc::experimental::TlsCredentials(options);
}

std::shared_ptr<grpc::ServerCredentials> Credentials::OfServer(TlsClients clients) const {
  if (!is_tls()) return grpc::InsecureServerCredentials();
  grpc::experimental::TlsServerCredentialsOptions options(provider_);
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
  options.set_cert_request_type(clients == TlsClients::kAny
                                    ? GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY
                                    : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  return grpc::experimental::TlsServerCredentials(options);
}

}  // namespace autosp
