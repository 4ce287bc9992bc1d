"""Reads and writes safetensors files with nothing but the standard library: values of float32 and
int64, bytes of any type."""

import array
import json
import struct

TYPES = {"F32": "f", "I64": "q"}


def load_bytes(path):
    """Metadata, and {name: (dtype, shape, bytes)} in the order of the file."""
    data = path.read_bytes()
    (header_size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + header_size])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + header_size + offset for offset in entry["data_offsets"])
        tensors[name] = (entry["dtype"], entry["shape"], data[begin:end])
    return metadata, tensors


def load(path):
    """{name: (shape, values)}"""
    tensors = {}
    for name, (dtype, shape, data) in load_bytes(path)[1].items():
        values = array.array(TYPES[dtype])
        values.frombytes(data)
        tensors[name] = (shape, values)
    return tensors


def save(path, tensors):
    """`tensors`: {name: (dtype, shape, values)}"""
    header, body = {}, b""
    for name, (dtype, shape, values) in tensors.items():
        piece = array.array(TYPES[dtype], values).tobytes()
        offsets = [len(body), len(body) + len(piece)]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        body += piece
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
