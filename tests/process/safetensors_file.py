"""Reads and writes safetensors files of float32 and int64 with nothing but the standard library."""

import array
import json
import struct

TYPES = {"F32": "f", "I64": "q"}


def load(path):
    """{name: (shape, values)}"""
    data = path.read_bytes()
    (header_size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + header_size])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + header_size + offset for offset in entry["data_offsets"])
        values = array.array(TYPES[entry["dtype"]])
        values.frombytes(data[begin:end])
        tensors[name] = (entry["shape"], values)
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
