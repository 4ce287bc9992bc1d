// VerificationResult on the wire, for both of its ends.
#pragma once

#include "autosp/v1/common.pb.h"
#include "common/verification_result.h"

namespace autosp {

v1::VerificationResult VerificationToProto(const VerificationResult& result);
VerificationResult VerificationFromProto(const v1::VerificationResult& proto);

}  // namespace autosp
