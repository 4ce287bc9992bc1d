// Tables of text, as `autosp-cli list` prints them.
#pragma once

#include <string>
#include <vector>

namespace autosp {

// Columns are as wide as their widest cell, two spaces apart. Nothing follows the last column.
class TextTable {
 public:
  enum class Align { kLeft, kRight };

  struct Column {
    std::string title;
    Align align = Align::kLeft;
  };

  explicit TextTable(std::vector<Column> columns) : columns_(std::move(columns)) {}

  // Requires: one cell per column.
  void AddRow(std::vector<std::string> cells);

  // The titles, then the rows.
  std::string ToString() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace autosp
