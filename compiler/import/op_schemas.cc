#include "compiler/import/op_schemas.h"

#include <algorithm>
#include <array>
#include <map>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/ir/text_cursor.h"

namespace autosp {
namespace {

constexpr std::string_view kSchemaTexts[] = {
#include "compiler/import/aten_schemas.inc"
};

struct TypeRow {
  std::string_view name;
  SchemaType type;
};

constexpr TypeRow kTypes[] = {
    {"Tensor", SchemaType::kTensor},       {"int", SchemaType::kInt},
    {"SymInt", SchemaType::kInt},          {"float", SchemaType::kFloat},
    {"bool", SchemaType::kBool},           {"str", SchemaType::kString},
    {"Scalar", SchemaType::kScalar},       {"ScalarType", SchemaType::kScalarType},
    {"Layout", SchemaType::kLayout},       {"Device", SchemaType::kDevice},
    {"Generator", SchemaType::kGenerator}, {"MemoryFormat", SchemaType::kMemoryFormat},
};

struct ParsedType {
  SchemaType type = SchemaType::kTensor;
  bool is_list = false;
  bool is_optional = false;
  bool has_optional_elements = false;
  std::string alias;
  bool is_written = false;
};

// Memory formats in defaults are c10's numbers.
constexpr std::array<std::string_view, 4> kC10MemoryFormats = {
    "contiguous_format", "preserve_format", "channels_last", "channels_last_3d"};

class SchemaParser {
 public:
  explicit SchemaParser(std::string_view text) : cursor_(text) {}

  absl::StatusOr<OpSchema> Parse() {
    OpSchema schema;
    ASSIGN_OR_RETURN(const std::string_view name, cursor_.Identifier());
    const bool has_overload = name.find('.') != std::string_view::npos;
    schema.name = absl::StrCat("aten.", Absl(name), has_overload ? "" : ".default");
    RETURN_IF_ERROR(ParseParameters(&schema.parameters));
    RETURN_IF_ERROR(cursor_.ExpectText("->"));
    RETURN_IF_ERROR(ParseReturns(&schema.returns));
    return schema;
  }

 private:
  absl::Status ParseParameters(std::vector<SchemaParameter>* parameters) {
    RETURN_IF_ERROR(cursor_.Expect('('));
    if (cursor_.Consume(')')) return absl::OkStatus();
    bool is_keyword_only = false;
    do {
      if (cursor_.Consume('*')) {
        is_keyword_only = true;
        continue;
      }
      ASSIGN_OR_RETURN(SchemaParameter parameter, ParseParameter());
      parameter.is_keyword_only = is_keyword_only;
      parameters->push_back(std::move(parameter));
    } while (cursor_.Consume(','));
    return cursor_.Expect(')');
  }

  absl::StatusOr<SchemaParameter> ParseParameter() {
    ASSIGN_OR_RETURN(ParsedType type, ParseType());
    SchemaParameter parameter;
    parameter.type = type.type;
    parameter.is_list = type.is_list;
    parameter.is_optional = type.is_optional;
    parameter.has_optional_elements = type.has_optional_elements;
    parameter.alias = std::move(type.alias);
    parameter.is_written = type.is_written;
    ASSIGN_OR_RETURN(parameter.name, cursor_.Identifier());
    if (cursor_.Consume('=')) {
      ASSIGN_OR_RETURN(parameter.default_value, ParseDefault(parameter));
    }
    return parameter;
  }

  // Tensor(a -> *)  Tensor?[]  int[2]?  SymInt[]  float?
  absl::StatusOr<ParsedType> ParseType() {
    ASSIGN_OR_RETURN(const std::string_view name, cursor_.Identifier());
    const auto* row = std::ranges::find(kTypes, name, &TypeRow::name);
    if (row == std::end(kTypes)) return cursor_.Error(absl::StrCat("unknown type ", Absl(name)));
    ParsedType type;
    type.type = row->type;
    if (cursor_.Consume('(')) {
      ASSIGN_OR_RETURN(const std::string_view alias, cursor_.Until(')'));
      type.is_written = alias.find('!') != std::string_view::npos;
      type.alias = std::string(alias.substr(0, alias.find_first_of("!| ")));
    }
    type.is_optional = cursor_.Consume('?');
    if (!cursor_.Consume('[')) return type;
    ASSIGN_OR_RETURN([[maybe_unused]] const std::string_view length, cursor_.Until(']'));
    type.is_list = true;
    type.has_optional_elements = type.is_optional;
    type.is_optional = cursor_.Consume('?');
    return type;
  }

  absl::StatusOr<Argument> ParseDefault(const SchemaParameter& parameter) {
    if (cursor_.ConsumeWord("None")) return Argument(None());
    if (cursor_.ConsumeWord("True")) return Argument(true);
    if (cursor_.ConsumeWord("False")) return Argument(false);
    if (cursor_.Peek() == '"') {
      ASSIGN_OR_RETURN(std::string text, cursor_.QuotedString());
      return Argument(std::move(text));
    }
    if (cursor_.Peek() == '[') return ParseDefaultList(parameter.type);
    ASSIGN_OR_RETURN(Argument number, ParseDefaultNumber(parameter.type));
    // "int[1] dim=0": one number stands for a list of it.
    if (parameter.is_list) return Argument(IntList{std::get<SymInt>(number)});
    return number;
  }

  absl::StatusOr<Argument> ParseDefaultNumber(SchemaType type) {
    using Number = std::variant<int64_t, double>;
    ASSIGN_OR_RETURN(const Number number, cursor_.Number());
    if (const auto* value = std::get_if<double>(&number)) return Argument(*value);
    const int64_t integer = std::get<int64_t>(number);
    if (type == SchemaType::kFloat) return Argument(static_cast<double>(integer));
    if (type != SchemaType::kMemoryFormat) return Argument(SymInt(integer));
    if (integer < 0 || integer >= std::ssize(kC10MemoryFormats)) {
      return cursor_.Error("unknown memory format");
    }
    return Argument(EnumName{std::string(kC10MemoryFormats[integer])});
  }

  absl::StatusOr<Argument> ParseDefaultList(SchemaType type) {
    RETURN_IF_ERROR(cursor_.Expect('['));
    if (cursor_.PeekIdentifier() == "True" || cursor_.PeekIdentifier() == "False") {
      return ParseDefaultBools();
    }
    IntList list;
    while (!cursor_.Consume(']')) {
      if (!list.empty()) RETURN_IF_ERROR(cursor_.Expect(','));
      ASSIGN_OR_RETURN(const int64_t value, cursor_.Integer());
      list.push_back(value);
    }
    if (type != SchemaType::kInt && !(list.empty() && type == SchemaType::kTensor)) {
      return cursor_.Error("only lists of integers have defaults");
    }
    if (type == SchemaType::kTensor) return Argument(ValueList());
    return Argument(std::move(list));
  }

  absl::StatusOr<Argument> ParseDefaultBools() {
    BoolList list;
    do {
      list.push_back(cursor_.PeekIdentifier() == "True");
      ASSIGN_OR_RETURN([[maybe_unused]] const std::string_view word, cursor_.Identifier());
    } while (cursor_.Consume(','));
    RETURN_IF_ERROR(cursor_.Expect(']'));
    return Argument(std::move(list));
  }

  absl::Status ParseReturns(std::vector<SchemaReturn>* returns) {
    const bool is_tuple = cursor_.Consume('(');
    if (is_tuple && cursor_.Consume(')')) return absl::OkStatus();
    do {
      ASSIGN_OR_RETURN(ParsedType type, ParseType());
      returns->push_back({type.type, type.is_list, std::move(type.alias)});
      // Results may be named: "(Tensor values, Tensor indices)".
      if (!cursor_.PeekIdentifier().empty()) {
        ASSIGN_OR_RETURN([[maybe_unused]] const std::string_view name, cursor_.Identifier());
      }
    } while (is_tuple && cursor_.Consume(','));
    return is_tuple ? cursor_.Expect(')') : absl::OkStatus();
  }

  TextCursor cursor_;
};

// Ops of other libraries that stand for one of ATen's (op_names.h says for which).
constexpr std::pair<std::string_view, std::string_view> kOtherLibraries[] = {
    // As transformers 5 exports experts of other types than bf16.
    {"transformers.grouped_mm_fallback.default",
     "grouped_mm_fallback(Tensor input, Tensor weight, Tensor offs) -> Tensor"},
};

// Ops of torch.fft that canonicalisation writes with others, at the sizes of the job; an import
// writes its other functions.
constexpr std::pair<std::string_view, std::string_view> kFourierOps[] = {
    {"aten.fft_fftfreq.default",
     "fft_fftfreq(int n, float d=1.0, *, ScalarType? dtype=None, Layout? layout=None, "
     "Device? device=None, bool? pin_memory=None) -> Tensor"},
    {"aten.fft_fftshift.default", "fft_fftshift(Tensor self, int[1]? dim=None) -> Tensor"},
    {"aten.fft_ifftshift.default", "fft_ifftshift(Tensor self, int[1]? dim=None) -> Tensor"},
    {"aten.fft_rfftfreq.default",
     "fft_rfftfreq(int n, float d=1.0, *, ScalarType? dtype=None, Layout? layout=None, "
     "Device? device=None, bool? pin_memory=None) -> Tensor"},
};

// Ops of our own that an import writes in place of others, before it reads signatures.
constexpr std::pair<std::string_view, std::string_view> kOwnOps[] = {
    {"autosp.fft_c2c",
     "fft_c2c(Tensor self, int dim, SymInt n, SymInt length, bool flag, int scale) -> Tensor"},
    {"autosp.fft_c2r",
     "fft_c2r(Tensor self, int dim, SymInt n, SymInt length, bool flag, int scale) -> Tensor"},
    {"autosp.fft_r2c",
     "fft_r2c(Tensor self, int dim, SymInt n, SymInt length, bool flag, int scale) -> Tensor"},
};

using SchemaTable = std::map<std::string, OpSchema, std::less<>>;

const SchemaTable& Table() {
  // Never destroyed, so that it outlives every user at exit.
  static const SchemaTable* const table = [] {
    auto* result = new SchemaTable();
    for (const std::string_view text : kSchemaTexts) {
      absl::StatusOr<OpSchema> schema = ParseOpSchema(text);
      AUTOSP_CHECK(schema.ok(), "aten_schemas.inc: ", schema.status().ToString());
      std::string name = schema->name;
      result->emplace(std::move(name), *std::move(schema));
    }
    const auto add = [&](std::string_view name, std::string_view text) {
      absl::StatusOr<OpSchema> schema = ParseOpSchema(text);
      AUTOSP_CHECK(schema.ok(), Absl(name), ": ", schema.status().ToString());
      schema->name = std::string(name);
      result->emplace(std::string(name), *std::move(schema));
    };
    for (const auto& [name, text] : kOtherLibraries) add(name, text);
    for (const auto& [name, text] : kFourierOps) add(name, text);
    for (const auto& [name, text] : kOwnOps) add(name, text);
    return result;
  }();
  return *table;
}

}  // namespace

const SchemaParameter* OpSchema::written() const {
  const auto written = std::ranges::find(parameters, true, &SchemaParameter::is_written);
  return written == parameters.end() ? nullptr : &*written;
}

absl::StatusOr<OpSchema> ParseOpSchema(std::string_view text) {
  absl::StatusOr<OpSchema> schema = SchemaParser(text).Parse();
  if (!schema.ok()) return WithContext(schema.status(), "op signature ", Absl(text));
  return schema;
}

std::string_view OpBaseName(std::string_view op) {
  op.remove_prefix(op.find('.') + 1);
  return op.substr(0, op.find('.'));
}

const OpSchema* FindOpSchema(std::string_view name) {
  const auto found = Table().find(name);
  return found == Table().end() ? nullptr : &found->second;
}

const OpSchema* FindReturningForm(const OpSchema& schema) {
  if (schema.parameters.empty() || schema.written() != &schema.parameters.back()) return nullptr;
  const auto is_same = [](const SchemaParameter& a, const SchemaParameter& b) {
    return a.name == b.name && a.type == b.type && a.is_list == b.is_list;
  };
  const std::span<const SchemaParameter> given(schema.parameters.data(),
                                               schema.parameters.size() - 1);
  const std::string prefix = schema.name.substr(0, schema.name.rfind('.') + 1);
  for (auto it = Table().lower_bound(prefix); it != Table().end(); ++it) {
    if (!it->first.starts_with(prefix)) break;
    if (std::ranges::equal(it->second.parameters, given, is_same)) return &it->second;
  }
  return nullptr;
}

std::vector<std::string> SimilarOps(std::string_view name) {
  const std::string prefix(name.substr(0, name.rfind('.') + 1));
  std::vector<std::string> similar;
  for (auto it = Table().lower_bound(prefix); it != Table().end(); ++it) {
    if (!it->first.starts_with(prefix)) break;
    similar.push_back(it->first);
  }
  return similar;
}

}  // namespace autosp
