#include "client/message_json.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/timestamp.pb.h>

#include <cmath>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "client/format.h"

namespace autosp {
namespace {

using ::google::protobuf::EnumValueDescriptor;
using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;
using ::google::protobuf::Reflection;

// JOB_STATE_RUNNING of enum JobState, and STATE_READY of enum State, are "running" and "ready".
std::string EnumWord(const EnumValueDescriptor& value) {
  std::string prefix;
  for (const char c : value.type()->name()) {
    if (absl::ascii_isupper(c) && !prefix.empty()) prefix.push_back('_');
    prefix.push_back(absl::ascii_toupper(c));
  }
  absl::string_view name = value.name();
  absl::ConsumePrefix(&name, absl::StrCat(prefix, "_"));
  return absl::AsciiStrToLower(name);
}

nlohmann::json NumberToJson(double value) {
  if (std::isfinite(value)) return value;
  return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
}

nlohmann::json MessageValueToJson(const Message& message) {
  if (message.GetDescriptor() == google::protobuf::Timestamp::descriptor()) {
    google::protobuf::Timestamp time;
    time.CopyFrom(message);
    return absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", ToTime(time), absl::UTCTimeZone());
  }
  return MessageToJson(message);
}

// `get` reads one value: of the field itself, or of one of its elements.
template <typename Getter>
nlohmann::json ValueToJson(const FieldDescriptor& field, const Getter& get) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return get.Int32();
    case FieldDescriptor::CPPTYPE_INT64:
      return get.Int64();
    case FieldDescriptor::CPPTYPE_UINT32:
      return get.UInt32();
    case FieldDescriptor::CPPTYPE_UINT64:
      return get.UInt64();
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return NumberToJson(get.Double());
    case FieldDescriptor::CPPTYPE_FLOAT:
      return NumberToJson(get.Float());
    case FieldDescriptor::CPPTYPE_BOOL:
      return get.Bool();
    case FieldDescriptor::CPPTYPE_STRING:
      return get.String();
    case FieldDescriptor::CPPTYPE_ENUM:
      return EnumWord(*get.Enum());
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return MessageValueToJson(get.Value());
  }
  return nullptr;
}

struct Singular {
  const Message& message;
  const Reflection& reflection;
  const FieldDescriptor* field;

  auto Int32() const { return reflection.GetInt32(message, field); }
  auto Int64() const { return reflection.GetInt64(message, field); }
  auto UInt32() const { return reflection.GetUInt32(message, field); }
  auto UInt64() const { return reflection.GetUInt64(message, field); }
  auto Double() const { return reflection.GetDouble(message, field); }
  auto Float() const { return reflection.GetFloat(message, field); }
  auto Bool() const { return reflection.GetBool(message, field); }
  auto String() const { return reflection.GetString(message, field); }
  auto Enum() const { return reflection.GetEnum(message, field); }
  const Message& Value() const { return reflection.GetMessage(message, field); }
};

struct Element {
  const Message& message;
  const Reflection& reflection;
  const FieldDescriptor* field;
  int index;

  auto Int32() const { return reflection.GetRepeatedInt32(message, field, index); }
  auto Int64() const { return reflection.GetRepeatedInt64(message, field, index); }
  auto UInt32() const { return reflection.GetRepeatedUInt32(message, field, index); }
  auto UInt64() const { return reflection.GetRepeatedUInt64(message, field, index); }
  auto Double() const { return reflection.GetRepeatedDouble(message, field, index); }
  auto Float() const { return reflection.GetRepeatedFloat(message, field, index); }
  auto Bool() const { return reflection.GetRepeatedBool(message, field, index); }
  auto String() const { return reflection.GetRepeatedString(message, field, index); }
  auto Enum() const { return reflection.GetRepeatedEnum(message, field, index); }
  const Message& Value() const { return reflection.GetRepeatedMessage(message, field, index); }
};

nlohmann::json MapToJson(const Message& message, const FieldDescriptor* field) {
  nlohmann::json map = nlohmann::json::object();
  const Reflection& reflection = *message.GetReflection();
  for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
    const Message& entry = reflection.GetRepeatedMessage(message, field, i);
    const FieldDescriptor* key = field->message_type()->map_key();
    const FieldDescriptor* value = field->message_type()->map_value();
    const auto& entry_reflection = *entry.GetReflection();
    const nlohmann::json name = ValueToJson(*key, Singular{entry, entry_reflection, key});
    map[name.is_string() ? name.get<std::string>() : name.dump()] =
        ValueToJson(*value, Singular{entry, entry_reflection, value});
  }
  return map;
}

nlohmann::json FieldToJson(const Message& message, const FieldDescriptor* field) {
  const Reflection& reflection = *message.GetReflection();
  if (field->is_map()) return MapToJson(message, field);
  if (!field->is_repeated()) return ValueToJson(*field, Singular{message, reflection, field});
  nlohmann::json list = nlohmann::json::array();
  for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
    list.push_back(ValueToJson(*field, Element{message, reflection, field, i}));
  }
  return list;
}

}  // namespace

nlohmann::json MessageToJson(const Message& message) {
  nlohmann::json json = nlohmann::json::object();
  const auto& descriptor = *message.GetDescriptor();
  for (int i = 0; i < descriptor.field_count(); ++i) {
    const FieldDescriptor* field = descriptor.field(i);
    const bool is_set = !field->has_presence() || message.GetReflection()->HasField(message, field);
    if (is_set) json[field->name()] = FieldToJson(message, field);
  }
  return json;
}

}  // namespace autosp
