// The options of the programs for TLS, the same for all.
#pragma once

#include "proto/credentials.h"

namespace CLI {
class App;
}

namespace autosp {

// --tls-cert, --tls-key, --tls-ca and --tls-peer-name. `has_environment`: AUTOSP_TLS_CERT and so on
// stand for those that are not given.
void AddTlsFlags(CLI::App& app, TlsFiles& files, bool has_environment);

}  // namespace autosp
