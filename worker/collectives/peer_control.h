// What two ranks tell each other beside their data: that one leaves the group, that it has aborted
// and why, or that there is news in memory which they share.
//
// The connection carries nothing else, so that word of an abort does not wait behind data that
// nobody reads, and so that the kernel's keep-alive probes tell within seconds when the other
// machine cannot be reached any more: they are not sent on a connection with data in flight.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "common/file.h"

namespace autosp {

// Used by one thread, but for SendAbort.
class PeerControl {
 public:
  explicit PeerControl(UniqueFd fd);

  int fd() const { return fd_.get(); }

  // Takes in what has come, without waiting.
  void Read();
  // What the peer has said; nothing is ever taken back.
  bool has_left() const { return has_left_; }
  bool has_aborted() const { return has_aborted_; }
  const std::string& abort_reason() const { return abort_reason_; }
  // Why nothing more will come of a peer that has not said that it leaves: "has died: ...". Empty
  // while it is there.
  const std::string& loss() const { return loss_; }

  // None waits: a peer that does not read these notices has none to miss.
  void SendLeave();
  void SendNews();  // the peer looks into the shared memory
  // Callable from any thread and from a signal handler; reasons are cut at 400 bytes.
  void SendAbort(absl::string_view reason);

 private:
  void TakeNotices();

  UniqueFd fd_;
  std::string received_;
  bool has_left_ = false;
  bool has_aborted_ = false;
  std::string abort_reason_;
  std::string loss_;
};

}  // namespace autosp
