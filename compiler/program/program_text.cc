// The text form of programs: their canonical form. See program.h for an example.
#include <map>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/ir/argument_text.h"
#include "compiler/ir/text_cursor.h"
#include "compiler/program/program.h"

namespace autosp {
namespace {

// ---- printing ----

void PrintDimFactor(const Program& program, const DimFactor& factor, std::string* out) {
  std::string name =
      factor.factor.valid() ? program.factors[factor.factor.index].name : absl::StrCat(factor.size);
  if (!factor.axes.empty()) absl::StrAppend(&name, "@", AxisListName(factor.axes));
  absl::StrAppend(out, factor.padded ? absl::StrCat("pad(", name, ")") : name);
}

void PrintLinearExpr(const LinearExpr& expr, std::string* out) {
  absl::StrAppend(out, expr.base);
  for (const auto& [variable, coefficient] : expr.terms) {
    absl::StrAppend(out, "+", coefficient, "*", variable);
  }
}

void PrintType(const Program& program, const ProgramValue& value, std::string* out) {
  if (value.is_tape) {
    absl::StrAppend(out, "tape");
    return;
  }
  absl::StrAppend(out, Absl(DTypeName(value.dtype)), "[");
  for (size_t i = 0; i < value.dims.size(); ++i) {
    if (i > 0) absl::StrAppend(out, ", ");
    if (value.dims[i].empty()) absl::StrAppend(out, "1");
    for (size_t j = 0; j < value.dims[i].size(); ++j) {
      if (j > 0) absl::StrAppend(out, "*");
      PrintDimFactor(program, value.dims[i][j], out);
    }
  }
  absl::StrAppend(out, "]");
  if (!value.partial.axes.empty()) {
    absl::StrAppend(out, value.partial.reduction == Reduction::kSum ? "sum@" : "max@",
                    AxisListName(value.partial.axes));
  }
  if (value.strides.empty() && value.offset == LinearExpr{} && value.account == Account::kDevice) {
    return;
  }
  absl::StrAppend(out, "{strides=");
  for (size_t i = 0; i < value.strides.size(); ++i) {
    absl::StrAppend(out, i > 0 ? "," : "", value.strides[i]);
  }
  if (value.strides.empty()) absl::StrAppend(out, "-");
  if (value.offset != LinearExpr{}) {
    absl::StrAppend(out, " offset=");
    PrintLinearExpr(value.offset, out);
  }
  if (value.account != Account::kDevice) {
    absl::StrAppend(out, " account=", Absl(AccountName(value.account)));
  }
  absl::StrAppend(out, "}");
}

class Printer {
 public:
  explicit Printer(const Program& program) : program_(program) {}

  void PrintBody(const std::vector<Instruction>& body, int indent) {
    for (const Instruction& instruction : body) {
      out_.append(static_cast<size_t>(indent) * 2, ' ');
      PrintOne(instruction, indent);
      out_ += '\n';
    }
  }

  void PrintOne(const Instruction& instruction, int indent) {
    for (size_t i = 0; i < instruction.results.size(); ++i) {
      absl::StrAppend(&out_, i > 0 ? ", " : "", "%", Name(instruction.results[i]));
    }
    if (!instruction.results.empty()) out_ += " = ";
    absl::StrAppend(&out_, Absl(InstructionKindName(instruction.kind)));
    PrintOp(instruction);
    if (instruction.kind == InstructionKind::kFor) {
      PrintAttributes(instruction);
      out_ += " {\n";
      PrintBody(instruction.body, indent + 1);
      out_.append(static_cast<size_t>(indent) * 2, ' ');
      out_ += "}";
      return;
    }
    out_ += "(";
    for (size_t i = 0; i < instruction.args.size(); ++i) {
      if (i > 0) out_ += ", ";
      PrintArgument(instruction.args[i], names_, &out_);
    }
    out_ += ")";
    PrintAttributes(instruction);
    for (size_t i = 0; i < instruction.results.size(); ++i) {
      out_ += i > 0 ? ", " : " : ";
      PrintType(program_, program_.value(instruction.results[i]), &out_);
    }
    absl::StrAppend(&out_, " ; ", Absl(PhaseName(instruction.phase)));
    if (instruction.workspace_bytes > 0) {
      absl::StrAppend(&out_, " workspace=", instruction.workspace_bytes);
    }
    if (!instruction.source.empty()) {
      absl::StrAppend(&out_, " @ ", FormatQuoted(instruction.source.module()), " ",
                      FormatQuoted(instruction.source.location()));
    }
  }

  std::string Take() { return std::move(out_); }
  std::string& out() { return out_; }
  std::string Name(ValueId id) const { return program_.value(id).name; }

 private:
  void PrintOp(const Instruction& instruction) {
    switch (instruction.kind) {
      case InstructionKind::kFeed:
      case InstructionKind::kOutput:
        absl::StrAppend(&out_, " ", FormatQuoted(instruction.op));
        break;
      default:
        if (!instruction.op.empty()) absl::StrAppend(&out_, " ", instruction.op);
    }
  }

  void PrintAttributes(const Instruction& instruction) {
    if (instruction.attributes.empty()) return;
    out_ += " {";
    bool first = true;
    for (const auto& [key, value] : instruction.attributes) {
      absl::StrAppend(&out_, first ? "" : ", ", key, "=");
      PrintArgument(value, names_, &out_);
      first = false;
    }
    out_ += "}";
  }

  const Program& program_;
  std::function<std::string(ValueId)> names_ = [this](ValueId id) { return Name(id); };
  std::string out_;
};

std::string_view PersistentKindName(PersistentKind kind) {
  switch (kind) {
    case PersistentKind::kParam:
      return "param";
    case PersistentKind::kBuffer:
      return "buffer";
    case PersistentKind::kState:
      return "state";
    case PersistentKind::kScalar:
      return "scalar";
  }
  return "?";
}

void PrintPersistent(const Program& program, const Persistent& persistent, std::string* out) {
  absl::StrAppend(out, "  ", Absl(PersistentKindName(persistent.kind)), " %",
                  program.value(persistent.value).name, " ", FormatQuoted(persistent.name));
  for (const std::string& alias : persistent.aliases) {
    absl::StrAppend(out, " alias=", FormatQuoted(alias));
  }
  if (persistent.init == StateInit::kCopyOfParameter) {
    absl::StrAppend(out, " copy_of=", FormatQuoted(persistent.init_from));
  }
  absl::StrAppend(out, " : ");
  PrintType(program, program.value(persistent.value), out);
  absl::StrAppend(out, "\n");
}

// ---- parsing ----

class Parser {
 public:
  explicit Parser(std::string_view text) : cursor_(text) {}

  absl::StatusOr<Program> Parse() {
    RETURN_IF_ERROR(cursor_.ExpectWord("program"));
    ASSIGN_OR_RETURN(program_.name, cursor_.QuotedString());
    RETURN_IF_ERROR(cursor_.Expect('{'));
    RETURN_IF_ERROR(ParseMesh());
    while (cursor_.ConsumeWord("factor")) RETURN_IF_ERROR(ParseFactor());
    while (!cursor_.PeekText("section") && !cursor_.PeekText("}")) {
      RETURN_IF_ERROR(ParsePersistent());
    }
    while (cursor_.ConsumeWord("section")) {
      Section section;
      ASSIGN_OR_RETURN(const std::string_view name, cursor_.Identifier());
      section.name = std::string(name);
      RETURN_IF_ERROR(ParseBody(&section.body, 0));
      program_.sections.push_back(std::move(section));
    }
    RETURN_IF_ERROR(cursor_.Expect('}'));
    if (!cursor_.AtEnd()) return cursor_.Error("expected the end of the program");
    return std::move(program_);
  }

 private:
  absl::Status ParseMesh() {
    RETURN_IF_ERROR(cursor_.ExpectWord("mesh"));
    for (auto [name, size] : {std::pair{"accum", &program_.mesh.accum},
                              {"dp", &program_.mesh.dp},
                              {"ring", &program_.mesh.ring},
                              {"ulysses", &program_.mesh.ulysses}}) {
      RETURN_IF_ERROR(cursor_.ExpectWord(name));
      RETURN_IF_ERROR(cursor_.Expect('='));
      ASSIGN_OR_RETURN(*size, cursor_.Integer());
      if (*size < 1 || *size > kMaxAxisSize) return cursor_.Error("mesh sizes are 1 to 65536");
    }
    if (!cursor_.ConsumeWord("tile")) return absl::OkStatus();
    RETURN_IF_ERROR(cursor_.Expect('='));
    ASSIGN_OR_RETURN(program_.mesh.tile, cursor_.Integer());
    if (program_.mesh.tile < 2 || program_.mesh.tile > kMaxAxisSize) {
      return cursor_.Error("tiles are 2 to 65536");
    }
    return absl::OkStatus();
  }

  absl::Status ParseFactor() {
    Factor factor;
    ASSIGN_OR_RETURN(const std::string_view name, cursor_.Identifier());
    factor.name = std::string(name);
    RETURN_IF_ERROR(cursor_.Expect('='));
    ASSIGN_OR_RETURN(factor.size, cursor_.Integer());
    if (factor.size < 0 || factor.size > kMaxElements) {
      return cursor_.Error(absl::StrCat("factor ", factor.name, " has ", factor.size,
                                        " elements; factors have 0 to ", kMaxElements));
    }
    if (cursor_.ConsumeWord("zigzag")) factor.layout = Layout::kZigzag;
    const FactorId id{static_cast<int32_t>(program_.factors.size())};
    if (!factors_.emplace(factor.name, id).second) {
      return cursor_.Error(absl::StrCat("factor ", factor.name, " is defined twice"));
    }
    program_.factors.push_back(std::move(factor));
    return absl::OkStatus();
  }

  absl::StatusOr<DimFactor> ParseDimFactor() {
    DimFactor factor;
    factor.padded = cursor_.ConsumeText("pad(");
    const char next = cursor_.Peek();
    if (next >= '0' && next <= '9') {
      ASSIGN_OR_RETURN(factor.size, cursor_.Integer());
      if (factor.size > kMaxElements) return cursor_.Error("dimension too large");
    } else {
      ASSIGN_OR_RETURN(const std::string_view name, cursor_.Identifier());
      const auto found = factors_.find(name);
      if (found == factors_.end()) {
        return cursor_.Error(absl::StrCat("factor ", std::string(name), " is not defined"));
      }
      factor.factor = found->second;
    }
    if (cursor_.Consume('@')) {
      ASSIGN_OR_RETURN(factor.axes, ParseAxes());
    }
    if (factor.padded) RETURN_IF_ERROR(cursor_.Expect(')'));
    return factor;
  }

  absl::StatusOr<AxisList> ParseAxes() {
    AxisList axes;
    do {
      ASSIGN_OR_RETURN(const std::string_view name, cursor_.Identifier());
      const std::optional<Axis> axis = AxisFromName(name);
      if (!axis) return cursor_.Error("expected a mesh axis: accum, dp, ring, ulysses or tile");
      axes.push_back(*axis);
    } while (cursor_.Consume('+'));
    return axes;
  }

  absl::StatusOr<ProgramDim> ParseDim() {
    ProgramDim dim;
    do {
      ASSIGN_OR_RETURN(DimFactor factor, ParseDimFactor());
      const bool is_one = !factor.factor.valid() && factor.size == 1 && factor.axes.empty();
      if (!is_one) dim.push_back(std::move(factor));
    } while (cursor_.Consume('*'));
    return dim;
  }

  absl::Status ParseLayout(ProgramValue* value) {
    RETURN_IF_ERROR(cursor_.ExpectText("strides="));
    if (!cursor_.Consume('-')) {
      if (!value->dims.empty()) {
        do {
          ASSIGN_OR_RETURN(const int64_t stride, cursor_.Integer());
          value->strides.push_back(stride);
        } while (cursor_.Consume(','));
      }
    }
    if (cursor_.ConsumeText("offset=")) {
      ASSIGN_OR_RETURN(value->offset.base, cursor_.Integer());
      while (cursor_.Consume('+')) {
        ASSIGN_OR_RETURN(const int64_t coefficient, cursor_.Integer());
        RETURN_IF_ERROR(cursor_.Expect('*'));
        ASSIGN_OR_RETURN(const std::string_view variable, cursor_.Identifier());
        value->offset.terms.emplace_back(std::string(variable), coefficient);
      }
    }
    if (cursor_.ConsumeText("account=")) {
      ASSIGN_OR_RETURN(const std::string_view name, cursor_.Identifier());
      bool known = false;
      for (Account account :
           {Account::kDevice, Account::kPinnedHost, Account::kCommunication, Account::kDisk}) {
        if (AccountName(account) != name) continue;
        value->account = account;
        known = true;
      }
      if (!known) return cursor_.Error("expected a memory account");
    }
    RETURN_IF_ERROR(cursor_.Expect('}'));
    if (!value->strides.empty() && value->strides.size() != value->dims.size()) {
      return cursor_.Error("one stride for each dimension");
    }
    return absl::OkStatus();
  }

  absl::StatusOr<ProgramValue> ParseType() {
    ProgramValue value;
    if (cursor_.ConsumeWord("tape")) {
      value.is_tape = true;
      return value;
    }
    ASSIGN_OR_RETURN(const std::string_view dtype_name, cursor_.Identifier());
    const std::optional<DType> dtype = DTypeFromName(dtype_name);
    if (!dtype) return cursor_.Error("expected a dtype");
    value.dtype = *dtype;
    RETURN_IF_ERROR(cursor_.Expect('['));
    while (!cursor_.Consume(']')) {
      if (!value.dims.empty()) RETURN_IF_ERROR(cursor_.Expect(','));
      ASSIGN_OR_RETURN(ProgramDim dim, ParseDim());
      value.dims.push_back(std::move(dim));
    }
    const bool is_sum = cursor_.ConsumeText("sum@");
    if (is_sum || cursor_.ConsumeText("max@")) {
      value.partial.reduction = is_sum ? Reduction::kSum : Reduction::kMax;
      ASSIGN_OR_RETURN(value.partial.axes, ParseAxes());
    }
    if (cursor_.Consume('{')) RETURN_IF_ERROR(ParseLayout(&value));
    return value;
  }

  absl::StatusOr<ValueId> Lookup(std::string_view name) {
    const auto found = values_.find(name);
    if (found != values_.end()) return found->second;
    return cursor_.Error(absl::StrCat("%", std::string(name), " is not defined before its use"));
  }

  absl::StatusOr<ValueId> Define(const std::string& name, ProgramValue value, ValueId alias_of) {
    value.name = name;
    const ValueId id = alias_of.valid() ? program_.AddAlias(std::move(value), alias_of)
                                        : program_.AddValue(std::move(value));
    if (!values_.emplace(name, id).second) {
      return cursor_.Error(absl::StrCat("%", name, " is defined twice"));
    }
    return id;
  }

  absl::Status ParsePersistent() {
    Persistent persistent;
    ASSIGN_OR_RETURN(const std::string_view kind, cursor_.Identifier());
    bool known = false;
    for (PersistentKind each : {PersistentKind::kParam, PersistentKind::kBuffer,
                                PersistentKind::kState, PersistentKind::kScalar}) {
      if (PersistentKindName(each) != kind) continue;
      persistent.kind = each;
      known = true;
    }
    if (!known) return cursor_.Error("expected param, buffer, state, scalar or section");
    ASSIGN_OR_RETURN(const std::string_view name, cursor_.ValueName());
    ASSIGN_OR_RETURN(persistent.name, cursor_.QuotedString());
    while (cursor_.ConsumeText("alias=")) {
      ASSIGN_OR_RETURN(std::string alias, cursor_.QuotedString());
      persistent.aliases.push_back(std::move(alias));
    }
    if (cursor_.ConsumeText("copy_of=")) {
      persistent.init = StateInit::kCopyOfParameter;
      ASSIGN_OR_RETURN(persistent.init_from, cursor_.QuotedString());
    }
    RETURN_IF_ERROR(cursor_.Expect(':'));
    ASSIGN_OR_RETURN(ProgramValue value, ParseType());
    ASSIGN_OR_RETURN(persistent.value, Define(std::string(name), std::move(value), {}));
    program_.persistents.push_back(std::move(persistent));
    return absl::OkStatus();
  }

  absl::Status ParseBody(std::vector<Instruction>* body, int depth) {
    if (depth > kMaxLoopDepth) return cursor_.Error("loops are nested too deep");
    RETURN_IF_ERROR(cursor_.Expect('{'));
    while (!cursor_.Consume('}')) {
      if (body->size() >= kMaxInstructions) return cursor_.Error("too many instructions");
      Instruction instruction;
      RETURN_IF_ERROR(ParseInstruction(&instruction, depth));
      body->push_back(std::move(instruction));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<InstructionKind> ParseKind() {
    ASSIGN_OR_RETURN(const std::string_view name, cursor_.Identifier());
    for (int i = 0; i <= static_cast<int>(InstructionKind::kOutput); ++i) {
      const auto kind = static_cast<InstructionKind>(i);
      if (InstructionKindName(kind) == name) return kind;
    }
    return cursor_.Error(absl::StrCat("'", std::string(name), "' is not an instruction"));
  }

  absl::Status ParseOp(Instruction* instruction) {
    switch (instruction->kind) {
      case InstructionKind::kFeed:
      case InstructionKind::kOutput: {
        ASSIGN_OR_RETURN(instruction->op, cursor_.QuotedString());
        return absl::OkStatus();
      }
      case InstructionKind::kCall:
      case InstructionKind::kRecord:
      case InstructionKind::kAlias:
      case InstructionKind::kUpdate:
      case InstructionKind::kStart:
      case InstructionKind::kFor: {
        ASSIGN_OR_RETURN(const std::string_view op, cursor_.Identifier());
        instruction->op = std::string(op);
        return absl::OkStatus();
      }
      default:
        return absl::OkStatus();
    }
  }

  absl::Status ParseAttributes(Instruction* instruction) {
    if (!cursor_.Consume('{')) return absl::OkStatus();
    while (!cursor_.Consume('}')) {
      if (!instruction->attributes.empty()) RETURN_IF_ERROR(cursor_.Expect(','));
      ASSIGN_OR_RETURN(const std::string_view key, cursor_.Identifier());
      RETURN_IF_ERROR(cursor_.Expect('='));
      const std::string name(key);
      if (name == "saves") {
        // May name results of the same instruction; resolved once they are defined.
        ASSIGN_OR_RETURN(pending_saves_, ParseNames());
        instruction->attributes["saves"] = ValueList{};
        continue;
      }
      ASSIGN_OR_RETURN(Argument value, ParseArgument(cursor_, resolve_));
      instruction->attributes[name] = std::move(value);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<std::string>> ParseNames() {
    std::vector<std::string> names;
    if (cursor_.ConsumeText("values")) {
      RETURN_IF_ERROR(cursor_.Expect('['));
      RETURN_IF_ERROR(cursor_.Expect(']'));
      return names;
    }
    RETURN_IF_ERROR(cursor_.Expect('['));
    while (!cursor_.Consume(']')) {
      if (!names.empty()) RETURN_IF_ERROR(cursor_.Expect(','));
      ASSIGN_OR_RETURN(const std::string_view name, cursor_.ValueName());
      names.emplace_back(name);
    }
    return names;
  }

  absl::Status ParseInstruction(Instruction* instruction, int depth) {
    std::vector<std::string> results;
    while (cursor_.Peek() == '%') {
      ASSIGN_OR_RETURN(const std::string_view name, cursor_.ValueName());
      results.emplace_back(name);
      if (!cursor_.Consume(',')) break;
    }
    if (!results.empty()) RETURN_IF_ERROR(cursor_.Expect('='));
    ASSIGN_OR_RETURN(instruction->kind, ParseKind());
    RETURN_IF_ERROR(ParseOp(instruction));
    pending_saves_.clear();
    if (instruction->kind == InstructionKind::kFor) {
      RETURN_IF_ERROR(ParseAttributes(instruction));
      return ParseBody(&instruction->body, depth + 1);
    }
    RETURN_IF_ERROR(cursor_.Expect('('));
    while (!cursor_.Consume(')')) {
      if (!instruction->args.empty()) RETURN_IF_ERROR(cursor_.Expect(','));
      ASSIGN_OR_RETURN(Argument argument, ParseArgument(cursor_, resolve_));
      instruction->args.push_back(std::move(argument));
    }
    RETURN_IF_ERROR(ParseAttributes(instruction));
    RETURN_IF_ERROR(ParseResults(results, instruction));
    return ParseTrailer(instruction);
  }

  absl::Status ParseResults(const std::vector<std::string>& names, Instruction* instruction) {
    ValueId alias_of;
    if (instruction->kind == InstructionKind::kAlias) {
      const std::vector<ValueId> operands = OperandsOf(*instruction);
      if (operands.size() != 1 || names.size() != 1) {
        return cursor_.Error("an alias has one operand and one result");
      }
      alias_of = operands[0];
    }
    for (size_t i = 0; i < names.size(); ++i) {
      RETURN_IF_ERROR(cursor_.Expect(i == 0 ? ':' : ','));
      ASSIGN_OR_RETURN(ProgramValue value, ParseType());
      ASSIGN_OR_RETURN(const ValueId id, Define(names[i], std::move(value), alias_of));
      instruction->results.push_back(id);
    }
    if (instruction->attributes.contains("saves")) {
      ValueList saves;
      for (const std::string& name : pending_saves_) {
        ASSIGN_OR_RETURN(const ValueId id, Lookup(name));
        saves.push_back(id);
      }
      instruction->attributes["saves"] = std::move(saves);
    }
    return absl::OkStatus();
  }

  absl::Status ParseTrailer(Instruction* instruction) {
    RETURN_IF_ERROR(cursor_.Expect(';'));
    ASSIGN_OR_RETURN(const std::string_view name, cursor_.Identifier());
    bool known = false;
    for (Phase phase : {Phase::kForward, Phase::kBackward, Phase::kReduce, Phase::kOptimizer}) {
      if (PhaseName(phase) != name) continue;
      instruction->phase = phase;
      known = true;
    }
    if (!known) return cursor_.Error("expected a phase: forward, backward, reduce or optimizer");
    if (cursor_.ConsumeText("workspace=")) {
      ASSIGN_OR_RETURN(instruction->workspace_bytes, cursor_.Integer());
    }
    if (cursor_.Consume('@')) {
      ASSIGN_OR_RETURN(std::string module, cursor_.QuotedString());
      ASSIGN_OR_RETURN(std::string location, cursor_.QuotedString());
      Source source(std::move(module), std::move(location));
      if (source != last_source_) last_source_ = std::move(source);
      instruction->source = last_source_;
    }
    return absl::OkStatus();
  }

  static constexpr int64_t kMaxAxisSize = 65536;
  static constexpr int64_t kMaxElements = int64_t{1} << 50;
  static constexpr int kMaxLoopDepth = 8;
  static constexpr size_t kMaxInstructions = 10'000'000;

  TextCursor cursor_;
  Program program_;
  std::map<std::string, FactorId, std::less<>> factors_;
  std::map<std::string, ValueId, std::less<>> values_;
  std::vector<std::string> pending_saves_;
  Source last_source_;  // shared by the instructions in a row that one node became
  ResolveValue resolve_ = [this](std::string_view name) { return Lookup(name); };
};

}  // namespace

std::string PrintProgram(const Program& program) {
  Printer printer(program);
  std::string& out = printer.out();
  const Mesh& mesh = program.mesh;
  absl::StrAppend(&out, "program ", FormatQuoted(program.name), " {\n  mesh accum=", mesh.accum,
                  " dp=", mesh.dp, " ring=", mesh.ring, " ulysses=", mesh.ulysses,
                  mesh.tile > 1 ? absl::StrCat(" tile=", mesh.tile) : "", "\n");
  for (const Factor& factor : program.factors) {
    absl::StrAppend(&out, "  factor ", factor.name, " = ", factor.size,
                    factor.layout == Layout::kZigzag ? " zigzag\n" : "\n");
  }
  for (const Persistent& persistent : program.persistents) {
    PrintPersistent(program, persistent, &out);
  }
  for (const Section& section : program.sections) {
    absl::StrAppend(&out, "  section ", section.name, " {\n");
    printer.PrintBody(section.body, 2);
    absl::StrAppend(&out, "  }\n");
  }
  absl::StrAppend(&out, "}\n");
  return printer.Take();
}

std::string PrintInstruction(const Program& program, const Instruction& instruction) {
  Printer printer(program);
  printer.PrintOne(instruction, 0);
  return printer.Take();
}

absl::StatusOr<Program> ParseProgram(std::string_view text) { return Parser(text).Parse(); }

}  // namespace autosp
