// Messages of the wire as JSON for programs.
#pragma once

#include <google/protobuf/message.h>

#include <nlohmann/json.hpp>

namespace autosp {

// Fields by their names in the proto files. Unlike protobuf's own JSON, 64-bit integers are
// numbers; enums are the words that the tables show ("running"); times are RFC 3339 in UTC; a
// number that JSON has no word for (NaN, infinity) is a string. Fields that are not set are there
// with their defaults, except for messages and `optional` ones, which are left out.
nlohmann::json MessageToJson(const google::protobuf::Message& message);

}  // namespace autosp
