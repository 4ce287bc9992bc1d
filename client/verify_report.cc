#include "client/verify_report.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/text_table.h"

namespace autosp {
namespace {

using Align = TextTable::Align;

// Numbers that were not finite are null.
std::string Number(const nlohmann::json& number, int digits) {
  if (number.is_null()) return "not finite";
  return absl::StrFormat("%.*g", digits, number.get<double>());
}

std::string Precise(const nlohmann::json& number) { return Number(number, 9); }
std::string Rough(const nlohmann::json& number) { return Number(number, 2); }

// "wte.weight = lm_head.weight" where weights are tied.
std::string NamesOf(const nlohmann::json& row) {
  std::string names = row["name"].get<std::string>();
  for (const nlohmann::json& alias : row["aliases"]) {
    absl::StrAppend(&names, " = ", alias.get<std::string>());
  }
  return names;
}

std::string Numbers(const nlohmann::json& report) {
  TextTable table({{""},
                   {"plan", Align::kRight},
                   {"as exported", Align::kRight},
                   {"one device", Align::kRight},
                   {"in fp32", Align::kRight},
                   {"error", Align::kRight},
                   {"at most", Align::kRight}});
  for (const char* name : {"loss", "grad_norm"}) {
    const nlohmann::json& row = report[name];
    table.AddRow({name, Precise(row["plan"]),
                  row.contains("exported") ? Precise(row["exported"]) : "not run",
                  Precise(row["one_device"]),
                  row.contains("exact") ? Precise(row["exact"]) : "same", Rough(row["error"]),
                  Rough(row["bound"])});
  }
  if (report.contains("norm")) {
    const nlohmann::json& row = report["norm"];
    table.AddRow({"all gradients", "", "", "", "", Rough(row["error"]), Rough(row["bound"])});
  }
  if (report.contains("rounded")) {
    const nlohmann::json& row = report["rounded"];
    table.AddRow(
        {"to the model that rounds", "", "", "", "", Rough(row["error"]), Rough(row["bound"])});
  }
  return table.ToString();
}

std::string Gradients(const nlohmann::json& report) {
  TextTable table({{"gradient of"},
                   {"error", Align::kRight},
                   {"at most", Align::kRight},
                   {"in parts of", Align::kRight},
                   {"rank", Align::kRight},
                   {""}});
  for (const nlohmann::json& row : report["gradients"]) {
    table.AddRow({NamesOf(row), Rough(row["error"]), Rough(row["bound"]), Rough(row["scale"]),
                  absl::StrCat(row["rank"].get<int64_t>()),
                  !row["is_within"].get<bool>()  ? "differs"
                  : row["is_unsure"].get<bool>() ? "says little"
                                                 : ""});
  }
  return table.ToString();
}

// Rows of what a step leaves in buffers, "buffer:NAME", stand among those of gradients.
bool HasBuffers(const nlohmann::json& report) {
  return std::ranges::any_of(report["gradients"], [](const nlohmann::json& row) {
    return row["name"].get<std::string>().starts_with("buffer:");
  });
}

std::string Verdict(const nlohmann::json& report) {
  const bool is_equal = report["is_equal"].get<bool>();
  std::string text =
      absl::StrCat(report["num_within"].get<int64_t>(), " of ", report["gradients"].size(),
                   " gradients", HasBuffers(report) ? " and buffers" : "", " are within ");
  if (report["rule"] == "entries") {
    if (report.contains("noise_factor")) {
      const char* moved = report.contains("moves_values")  ? ", results and gradients"
                          : report["oracle"] == "exported" ? " and gradients"
                                                           : "";
      absl::StrAppend(&text, "what rounding may leave (", Rough(report["noise_factor"]),
                      " times what moving all weights", moved,
                      " by their last bit does, where that is above ", Rough(report["tolerance"]),
                      "): ");
    } else {
      absl::StrAppend(&text, Rough(report["tolerance"]), ": ");
    }
  } else {
    text += "what rounding may leave against one device in fp32";
    if (const auto unsure = report["num_unsure"].get<int64_t>(); unsure > 0) {
      absl::StrAppend(&text, " (of ", unsure, " that says little, as rounding alone moves ",
                      unsure == 1 ? "it" : "them",
                      " that far: the job with precision.params: fp32 tells more)");
    }
    text += ": ";
  }
  if (report.contains("noise_of_gradients")) {
    return absl::StrCat(text,
                        "this batch shows NOTHING, as rounding alone moves its gradients further "
                        "than they are large (a loss that compares what is the same, say, has "
                        "none); give another with --batch\n");
  }
  return absl::StrCat(
      text, "the plan ", is_equal ? "equals " : "DIFFERS from ",
      report["oracle"] == "exported" ? "the model as exported\n" : "the one-device program\n");
}

}  // namespace

std::string VerifyReportText(const nlohmann::json& report) {
  const nlohmann::json& mesh = report["mesh"];
  const auto num_micro_steps = mesh["accum"].get<int64_t>();
  std::string text = absl::StrFormat(
      "plan     dp %d x ring %d x ulysses %d, %d micro-step%s; %d sequences of %d tokens\n",
      mesh["dp"].get<int64_t>(), mesh["ring"].get<int64_t>(), mesh["ulysses"].get<int64_t>(),
      num_micro_steps, num_micro_steps == 1 ? "" : "s", report["job"]["batch_size"].get<int64_t>(),
      report["job"]["seq_len"].get<int64_t>());
  absl::StrAppend(&text, "data     ", report["data"].get<std::string>(), "\n", "weights  ",
                  report["weights"].get<std::string>(), "\n", "proof    ",
                  report["proof"].get<std::string>(), "\n", "against  ",
                  report["oracle_detail"].get<std::string>(), "\n\n", Numbers(report), "\n",
                  Gradients(report));
  for (const nlohmann::json& each : report["not_compared"]) {
    absl::StrAppend(&text, "not compared: ", each["name"].get<std::string>(), " (",
                    each["why"].get<std::string>(), ")\n");
  }
  // What a comparison cannot see: the oracle takes sizes and constants as the plan does.
  for (const nlohmann::json& warning : report["warnings"]) {
    absl::StrAppend(&text, "warning: ", warning.get<std::string>(), "\n");
  }
  absl::StrAppend(&text, "\n", Verdict(report));
  return text;
}

}  // namespace autosp
