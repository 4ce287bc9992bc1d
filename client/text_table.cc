#include "client/text_table.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace autosp {
namespace {

// Characters that a terminal shows: UTF-8 continuation bytes are not counted.
size_t WidthOf(const std::string& text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) >> 6) != 2; }));
}

}  // namespace

void TextTable::AddRow(std::vector<std::string> cells) {
  AUTOSP_CHECK(cells.size() == columns_.size(), cells.size(), " cells");
  rows_.push_back(std::move(cells));
}

std::string TextTable::ToString() const {
  std::vector<std::vector<std::string>> lines(1);
  for (const Column& column : columns_) lines[0].push_back(column.title);
  lines.insert(lines.end(), rows_.begin(), rows_.end());
  std::vector<size_t> widths(columns_.size());
  for (const auto& line : lines) {
    for (size_t i = 0; i < widths.size(); ++i) widths[i] = std::max(widths[i], WidthOf(line[i]));
  }
  std::string text;
  for (const auto& line : lines) {
    std::string row;
    for (size_t i = 0; i < widths.size(); ++i) {
      const std::string padding(widths[i] - WidthOf(line[i]), ' ');
      const bool is_right = columns_[i].align == Align::kRight;
      absl::StrAppend(&row, i == 0 ? "" : "  ", is_right ? padding : "", line[i],
                      is_right ? "" : padding);
    }
    row.erase(row.find_last_not_of(' ') + 1);
    absl::StrAppend(&text, row, "\n");
  }
  return text;
}

}  // namespace autosp
