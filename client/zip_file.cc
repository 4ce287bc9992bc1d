#include "client/zip_file.h"

#include <zip.h>

#include "common/errors.h"

namespace autosp {
namespace {

absl::Status AddEntry(zip_t* archive, const FileToZip& entry) {
  zip_source_t* const source =
      zip_source_buffer(archive, entry.data.data(), entry.data.size(), /*freep=*/0);
  if (source == nullptr) return Internal(entry.name, ": ", zip_strerror(archive));
  if (zip_file_add(archive, entry.name.c_str(), source, ZIP_FL_ENC_UTF_8) >= 0) {
    return absl::OkStatus();
  }
  zip_source_free(source);
  return Internal(entry.name, ": ", zip_strerror(archive));
}

}  // namespace

absl::Status WriteZip(const std::string& path, const std::vector<FileToZip>& entries) {
  int code = 0;
  zip_t* const archive = zip_open(path.c_str(), ZIP_CREATE | ZIP_TRUNCATE, &code);
  if (archive == nullptr) {
    zip_error_t error;
    zip_error_init_with_code(&error, code);
    const std::string why = zip_error_strerror(&error);
    zip_error_fini(&error);
    return InvalidArgument("cannot write ", path, ": ", why, "; name another file with -o");
  }
  absl::Status status;
  for (const FileToZip& entry : entries) {
    if (status.ok()) status = AddEntry(archive, entry);
  }
  // Only this writes the file, to another name first.
  if (status.ok() && zip_close(archive) == 0) return absl::OkStatus();
  if (status.ok()) {
    status = Unavailable("cannot write ", path, ": ", zip_strerror(archive),
                         "; free some space, or name another file with -o");
  }
  zip_discard(archive);
  return status;
}

}  // namespace autosp
