#include "proto/tls_flags.h"

#include <CLI/CLI.hpp>
#include <string>

namespace autosp {

void AddTlsFlags(CLI::App& app, TlsFiles& files, bool has_environment) {
  const auto add = [&](const char* flag, const char* variable, std::string& value,
                       const char* help) {
    CLI::Option* option = app.add_option(flag, value, help);
    if (has_environment) option->envname(variable);
  };
  add("--tls-cert", "AUTOSP_TLS_CERT", files.certificate,
      "Certificate of this program, PEM; without any of these, calls are in clear text");
  add("--tls-key", "AUTOSP_TLS_KEY", files.key, "Private key of the certificate, PEM");
  add("--tls-ca", "AUTOSP_TLS_CA", files.ca,
      "Certificates of the CA by which the other programs are known, PEM");
  add("--tls-peer-name", "AUTOSP_TLS_PEER_NAME", files.peer_name,
      "Name in the certificate of the other program, where that is not the host of its address");
}

}  // namespace autosp
