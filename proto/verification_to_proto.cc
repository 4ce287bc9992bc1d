#include "proto/verification_to_proto.h"

namespace autosp {

v1::VerificationResult VerificationToProto(const VerificationResult& result) {
  v1::VerificationResult proto;
  proto.set_is_equal(result.is_equal);
  proto.set_worst(result.worst);
  proto.set_error(result.error);
  proto.set_bound(result.bound);
  proto.set_num_gradients(result.num_gradients);
  proto.set_seconds(result.seconds);
  return proto;
}

VerificationResult VerificationFromProto(const v1::VerificationResult& proto) {
  return {.is_equal = proto.is_equal(),
          .worst = proto.worst(),
          .error = proto.error(),
          .bound = proto.bound(),
          .num_gradients = proto.num_gradients(),
          .seconds = proto.seconds()};
}

}  // namespace autosp
