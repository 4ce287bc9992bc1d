#include "compiler/analysis/simulate.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/analysis/exchange_buffers.h"
#include "compiler/program/collective_bytes.h"
#include "compiler/program/exchange_buffer.h"

namespace autosp {
namespace {

class Simulator {
 public:
  Simulator(const Program& program, int64_t library_bytes)
      : program_(program),
        live_values_(program.values.size(), false),
        storage_values_(program.num_storages, 0) {
    live_bytes_[Account::kDevice] = library_bytes;
    for (const Persistent& persistent : program.persistents) {
      Define(persistent.value);
      AccountPeak& peak = result_.memory[program.value(persistent.value).account];
      peak.persistent_bytes += program.LocalBytes(program.value(persistent.value));
    }
    Note("", Source(), {});
  }

  absl::Status Walk(const std::vector<Instruction>& body, int64_t repeats) {
    for (const Instruction& instruction : body) {
      if (instruction.kind == InstructionKind::kFor) {
        ASSIGN_OR_RETURN(const int64_t count, IntAttribute(instruction, "count"));
        RETURN_IF_ERROR(Walk(instruction.body, repeats * count));
        continue;
      }
      RETURN_IF_ERROR(One(instruction, repeats));
    }
    return absl::OkStatus();
  }

  SectionPrediction Take() { return std::move(result_); }

 private:
  void Define(ValueId id) {
    const ProgramValue& value = program_.value(id);
    if (live_values_[id.index]) return;
    live_values_[id.index] = true;
    if (storage_values_[value.storage.index]++ == 0) {
      live_bytes_[value.account] += program_.LocalBytes(value);
      storages_[value.storage] = {value.account, program_.LocalBytes(value)};
    }
  }

  absl::Status Free(ValueId id) {
    const ProgramValue& value = program_.value(id);
    if (!live_values_[id.index]) return Internal("%", value.name, " is freed twice");
    live_values_[id.index] = false;
    Release(value.storage);
    return absl::OkStatus();
  }

  void Release(StorageId storage) {
    if (--storage_values_[storage.index] > 0) return;
    const StorageUse& use = storages_[storage];
    live_bytes_[use.account] -= use.bytes;
  }

  // Peaks with what is live now and `extra` on top.
  void Note(const std::string& what, const Source& source,
            const std::map<Account, int64_t>& extra) {
    std::map<Account, int64_t> now = live_bytes_;
    for (const auto& [account, bytes] : extra) now[account] += bytes;
    now[Account::kDevice] += now[Account::kCommunication];
    for (const auto& [account, bytes] : now) {
      AccountPeak& peak = result_.memory[account];
      if (bytes <= peak.peak_bytes) continue;
      peak.peak_bytes = bytes;
      peak.peak_instruction = what;
      peak.peak_where = source.Where();
    }
  }

  absl::Status One(const Instruction& instruction, int64_t repeats) {
    for (ValueId id : ReadsOf(instruction)) {
      if (!live_values_[id.index]) {
        return Internal(PrintInstruction(program_, instruction), ": %", program_.value(id).name,
                        " is not live here");
      }
    }
    if (instruction.kind == InstructionKind::kFree) {
      for (ValueId id : OperandsOf(instruction)) RETURN_IF_ERROR(Free(id));
      return absl::OkStatus();
    }
    for (ValueId id : instruction.results) Define(id);
    std::map<Account, int64_t> extra{{Account::kDevice, instruction.workspace_bytes}};
    RETURN_IF_ERROR(Communicate(instruction, repeats, &extra));
    if (instruction.kind == InstructionKind::kWait) {
      Wait(instruction);
    } else {
      Note(instruction.op, instruction.source, extra);
    }
    return absl::OkStatus();
  }

  absl::Status Communicate(const Instruction& instruction, int64_t repeats,
                           std::map<Account, int64_t>* extra) {
    if (instruction.op == "autosp.all_gather_") return GatherInPlace(instruction, repeats, extra);
    const bool in_place = instruction.op == "autosp.all_reduce_";
    if (instruction.kind != InstructionKind::kStart && !in_place) return absl::OkStatus();
    const std::optional<CollectiveKind> kind =
        in_place ? CollectiveKind::kAllReduce : CollectiveKindFromName(instruction.op);
    if (!kind) return Internal(instruction.op, " is not a collective");
    ASSIGN_OR_RETURN(const AxisList axes, AxesAttribute(instruction));
    const int64_t group_size = program_.mesh.size(axes);
    int64_t received = 0;
    int64_t calls = 0;
    for (ValueId id : OperandsOf(instruction)) {
      received += BytesReceived(*kind, program_.LocalBytes(program_.value(id)), group_size);
      if (in_place || calls == 0) ++calls;
    }
    if (!in_place) Start(instruction, BuffersOf(program_, instruction, *kind, group_size));
    AddTotals(instruction, std::string(CollectiveKindName(*kind)), AxisListName(axes),
              calls * repeats, received * repeats);
    return absl::OkStatus();
  }

  // Buffers are there until the wait, whatever runs meanwhile; results only then, if they are not
  // buffers themselves.
  void Start(const Instruction& start, const ExchangeBuffers& buffers) {
    live_bytes_[Account::kCommunication] += buffers.send_bytes + buffers.recv_bytes;
    if (!buffers.receives_in_place) AddResults(start.results, -1);
    std::vector<StorageId> held;  // also when their values are freed
    if (buffers.sends_in_place) {
      for (ValueId id : OperandsOf(start)) held.push_back(program_.value(id).storage);
    }
    for (StorageId storage : held) ++storage_values_[storage.index];
    pending_[start.results[0]] = {buffers, start.results, std::move(held)};
  }

  void Wait(const Instruction& wait) {
    // Once for all results of one exchange: the others find nothing left.
    for (ValueId id : OperandsOf(wait)) {
      const auto found = pending_.find(id);
      if (found == pending_.end()) continue;
      const auto& [buffers, results, held] = found->second;
      live_bytes_[Account::kCommunication] -= buffers.send_bytes;
      for (StorageId storage : held) Release(storage);
      if (!buffers.receives_in_place) AddResults(results, 1);
      Note("wait", wait.source, {});
      live_bytes_[Account::kCommunication] -= buffers.recv_bytes;
      pending_.erase(found);
    }
  }

  void AddResults(const std::vector<ValueId>& results, int64_t sign) {
    for (ValueId id : results) {
      const ProgramValue& value = program_.value(id);
      live_bytes_[value.account] += sign * program_.LocalBytes(value);
    }
  }

  // One call for each part, through buffers where the parts are no runs of memory.
  absl::Status GatherInPlace(const Instruction& instruction, int64_t repeats,
                             std::map<Account, int64_t>* extra) {
    ASSIGN_OR_RETURN(const AxisList axes, AxesAttribute(instruction));
    const std::vector<int64_t> dims = IntsAttribute(instruction, "dim");
    const std::vector<ValueId> values = OperandsOf(instruction);
    const size_t num_parts = dims.size();
    if (values.size() != 2 * num_parts)
      return Internal("all_gather_ has not a part for each whole");
    int64_t received = 0;
    int64_t buffers = 0;
    for (size_t i = 0; i < num_parts; ++i) {
      const ProgramValue& whole = program_.value(values[i]);
      const int64_t part_bytes = program_.LocalBytes(program_.value(values[num_parts + i]));
      received += BytesReceived(CollectiveKind::kAllGather, part_bytes, program_.mesh.size(axes));
      const bool is_run =
          IsExchangeBuffer(program_.LocalSizes(whole), program_.LocalStrides(whole), dims[i]);
      if (!is_run) buffers = std::max(buffers, part_bytes + program_.LocalBytes(whole));
    }
    (*extra)[Account::kCommunication] += buffers;
    AddTotals(instruction, "all_gather", AxisListName(axes),
              static_cast<int64_t>(num_parts) * repeats, received * repeats);
    return absl::OkStatus();
  }

  void AddTotals(const Instruction& instruction, const std::string& kind, const std::string& axis,
                 int64_t calls, int64_t received) {
    const std::string phase(PhaseName(instruction.phase));
    const auto same = [&](const CollectiveTotals& row) {
      return row.kind == kind && row.phase == phase && row.axis == axis;
    };
    auto row = std::ranges::find_if(result_.collectives, same);
    if (row == result_.collectives.end()) {
      result_.collectives.push_back({.kind = kind, .phase = phase, .axis = axis});
      row = result_.collectives.end() - 1;
    }
    row->calls += calls;
    row->bytes_received_per_rank += received;
  }

  const Program& program_;
  std::vector<bool> live_values_;
  std::vector<int64_t> storage_values_;  // live values by storage
  struct StorageUse {
    Account account = Account::kDevice;
    int64_t bytes = 0;
  };
  std::map<StorageId, StorageUse> storages_;
  std::map<Account, int64_t> live_bytes_;
  struct Pending {
    ExchangeBuffers buffers;
    std::vector<ValueId> results;
    std::vector<StorageId> held;  // operands that are sent from where they are
  };
  std::map<ValueId, Pending> pending_;  // exchanges under way, by first result
  SectionPrediction result_;
};

}  // namespace

absl::StatusOr<SectionPrediction> SimulateSection(const Program& program,
                                                  const std::string& section,
                                                  int64_t library_bytes) {
  const Section* found = program.FindSection(section);
  if (found == nullptr) return NotFound("the program has no section ", section);
  Simulator simulator(program, library_bytes);
  RETURN_IF_ERROR(simulator.Walk(found->body, 1));
  return simulator.Take();
}

}  // namespace autosp
