#include "compiler/config/config_keys.h"
#include "compiler/config/table_codecs.h"
#include "compiler/config/value_codec.h"

namespace autosp {
namespace {

using enum Presence;

KeyTable<NodeSpec> MakeNodeKeys() {
  KeyTable<NodeSpec> keys;
  keys.Add("name", At(&NodeSpec::name), StringCodec{"name"}, kRequired, "Unique in the cluster.");
  keys.Add("address", At(&NodeSpec::address), StringCodec{"host:port"}, kOptional,
           "Where the agent of the node listens.");
  keys.Add("kind", At(&NodeSpec::kind),
           EnumCodec<DeviceKind>{{DeviceKind::kCpu, DeviceKind::kA100_40gb, DeviceKind::kA100_80gb,
                                  DeviceKind::kH100_80gb, DeviceKind::kH200_141gb}},
           kOptional, "The devices, for the prediction of times.");
  keys.Add("devices", At(&NodeSpec::devices), IntCodec{1, 1024}, kRequired,
           "Devices of the node, each of which takes one rank.");
  keys.Add("device_memory", At(&NodeSpec::device_memory_bytes), BytesCodec{}, kRequired,
           "Memory of one device that ranks may use.");
  keys.Add("host_memory", At(&NodeSpec::host_memory_bytes), AutoBytesCodec{}, kOptional,
           "Memory of the machine beside its devices for what ranks move out of them "
           "(memory.offload); each device takes up to an equal part. auto: none is known, and "
           "nothing is moved unless a job asks for it.");
  return keys;
}

KeyTable<ClusterSpec> MakeClusterKeys() {
  KeyTable<ClusterSpec> keys;
  keys.Add("nodes", At(&ClusterSpec::nodes), ListOfMapsCodec<NodeSpec>{NodeKeys, "nodes"},
           kRequired, "The machines.");
  keys.Add("links.intra_node_gb_per_s", At(&ClusterSpec::links, &LinkSpec::intra_node_gb_per_s),
           FloatCodec{.above_min = true}, kOptional,
           "What one device can send to another of the same node, in 1e9 bytes per second.");
  keys.Add("links.inter_node_gb_per_s", At(&ClusterSpec::links, &LinkSpec::inter_node_gb_per_s),
           FloatCodec{.above_min = true}, kOptional,
           "What one device can send to a device of another node.");
  return keys;
}

}  // namespace

const KeyTable<NodeSpec>& NodeKeys() {
  static const auto& keys = *new KeyTable<NodeSpec>(MakeNodeKeys());
  return keys;
}

const KeyTable<ClusterSpec>& ClusterKeys() {
  static const auto& keys = *new KeyTable<ClusterSpec>(MakeClusterKeys());
  return keys;
}

}  // namespace autosp
