// What a server on this machine answers.
#pragma once

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "common/file.h"

namespace autosp {

// GET `path` from localhost, headers and body. Empty when nobody answers.
inline std::string HttpGet(int port, const std::string& path) {
  const UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) return "";
  const std::string request = absl::StrCat("GET ", path, " HTTP/1.0\r\n\r\n");
  if (!WriteAll(fd.get(), request, "socket").ok()) return "";
  std::string response;
  char buffer[4096];
  ssize_t count;
  while ((count = read(fd.get(), buffer, sizeof(buffer))) > 0) {
    response.append(buffer, static_cast<size_t>(count));
  }
  return response;
}

}  // namespace autosp
