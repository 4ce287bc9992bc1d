// Runs a fuzz target over its checked-in seeds, so that every build, libFuzzer or not, goes through
// them: replay_test FOLDER.
#include <cstdint>
#include <filesystem>
#include <iostream>
#include <string>

#include "common/file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: " << argv[0] << " FOLDER\n";
    return 2;
  }
  int num_seeds = 0;
  for (const auto& entry : std::filesystem::directory_iterator(argv[1])) {
    const auto seed = autosp::ReadFile(entry.path().string(), int64_t{1} << 24);
    if (!seed.ok()) {
      std::cerr << seed.status() << "\n";
      return 1;
    }
    std::cerr << entry.path().filename().string() << "\n";
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(seed->data()), seed->size());
    ++num_seeds;
  }
  std::cerr << num_seeds << " seeds\n";
  return num_seeds > 0 ? 0 : 1;
}
