// How the programs prove to each other who they are, and keep calls secret: with certificates in
// files, or not at all, in clear text.
//
// Whoever listens or dials over TCP has its credentials from here. With files, both sides of a call
// show a certificate of one CA (mutual TLS); a client without one of its own is let in only by a
// server that says so. The files are read again as they change, so that certificates can be renewed
// while programs run. Unix sockets, which the owner alone can open, stay as they are.
#pragma once

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/security/tls_certificate_provider.h>

#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace autosp {

// PEM, by path; each may be empty.
struct TlsFiles {
  std::string certificate;  // of this program, and what lies between it and the CA
  std::string key;          // of the certificate
  std::string ca;           // whose certificates are trusted
  // The name that the certificate of a server has that is dialled; empty: the host of its address.
  std::string peer_name;
};

// Which clients a server with TLS lets in.
enum class TlsClients { kWithCertificate, kAny };

// Thread-safe; copies are cheap.
class Credentials {
 public:
  Credentials() = default;  // Clear text.

  // Of a program that only dials: nothing, a CA, or all three. Reads the files, so that what is
  // wrong with them is said at the start.
  static absl::StatusOr<Credentials> ForClient(const TlsFiles& files);
  // Of a program that listens and dials: nothing, or all three.
  static absl::StatusOr<Credentials> ForServer(const TlsFiles& files);

  bool is_tls() const { return provider_ != nullptr; }
  // When the files as they are now expire: "certificate", with what is between it and the CA, and
  // "ca", of whose certificates the one that lasts longest counts. The epoch for what cannot be
  // used: a file that cannot be read, or a certificate of another key. Nothing in clear text.
  std::map<std::string, absl::Time> Expiries() const;
  const TlsFiles& files() const { return files_; }

  std::shared_ptr<grpc::ChannelCredentials> OfChannel() const;
  // Requires: clear text, or from ForServer.
  std::shared_ptr<grpc::ServerCredentials> OfServer(TlsClients clients) const;

 private:
  static absl::StatusOr<Credentials> Load(const TlsFiles& files);
  bool has_certificate() const { return !files_.certificate.empty(); }

  TlsFiles files_;
  std::shared_ptr<grpc::experimental::CertificateProviderInterface> provider_;
};

}  // namespace autosp
