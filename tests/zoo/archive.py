"""Reading and rewriting .pt2 archives: paths made relative, and the ops that a graph calls.

    python archive.py FILE.pt2    makes the paths in the stack traces of FILE.pt2 relative, in place
"""

import json
import re
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

import torch

# Written by the zip writer itself, so not to be copied.
WRITER_RECORDS = {"byteorder", ".data/version", ".data/serialization_id"}

# Everything up to the folder that holds installed packages, or up to this repository's folders.
PREFIX_IN_TRACE = re.compile(
    r'(File ")/[^"]*?/(?:(?:site|dist)-packages/|(?=tests/zoo/|examples/))'
)
FRAME_IN_TRACE = re.compile(r'^ *(?=File ")', re.MULTILINE)
ABSOLUTE_IN_TRACE = re.compile(r'File "/[^"]*"')


def read_records(path: Path) -> dict[str, bytes]:
    """All entries of an archive, without the root folder, in the order of the file."""
    with zipfile.ZipFile(path) as archive:
        return {
            info.filename.split("/", 1)[1]: archive.read(info) for info in archive.infolist()
        }


def relativize_traces(model_json: bytes, is_brief: bool = False) -> bytes:
    """Cuts the exporting machine's folders out of the stack traces of every node.

    With `is_brief`, only the innermost frame and module of each node are kept, and JSON has no
    spaces: half as much to store.
    """

    def rewrite(key, item):
        if key == "stack_trace":
            item = PREFIX_IN_TRACE.sub(r"\1", item)
            return FRAME_IN_TRACE.split(item)[-1] if is_brief else item
        if key == "nn_module_stack" and is_brief:
            return item.split(";")[-1]
        return visit(item)

    def visit(value):
        if isinstance(value, dict):
            return {key: rewrite(key, item) for key, item in value.items()}
        return [visit(item) for item in value] if isinstance(value, list) else value

    separators = (",", ":") if is_brief else None
    text = json.dumps(visit(json.loads(model_json)), separators=separators)
    leftover = ABSOLUTE_IN_TRACE.search(text.replace('\\"', '"'))
    if leftover:
        raise ValueError(f"absolute path left in a stack trace: {leftover.group(0)}")
    return text.encode()


def rewrite_with_relative_traces(
    source: Path, target: Path, is_brief: bool = False
) -> None:
    """Writes `source` again with torch's own zip writer: stored, every entry 64-byte aligned.

    The root folder inside the archive is the file name of `target`, as torch does it.
    """
    target.unlink(missing_ok=True)
    writer = torch._C.PyTorchFileWriter(str(target))
    for name, data in read_records(source).items():
        if name in WRITER_RECORDS:
            continue
        if name == "models/model.json":
            data = relativize_traces(data, is_brief)
        writer.write_record(name, data, len(data))
    writer.write_record("byteorder", b"little", len(b"little"))
    writer.write_end_of_file()


def called_ops(path: Path) -> Counter:
    """How often each op is called, nodes of nested graphs included."""
    ops = Counter()

    def visit(value):
        if isinstance(value, dict):
            if "target" in value and "outputs" in value:
                ops[value["target"]] += 1
            value = list(value.values())
        if isinstance(value, list):
            for item in value:
                visit(item)

    visit(json.loads(read_records(path)["models/model.json"])["graph_module"])
    return ops


def main():
    path = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as scratch:
        rewritten = Path(scratch) / path.name
        rewrite_with_relative_traces(path, rewritten)
        path.write_bytes(rewritten.read_bytes())
    torch.export.load(path)


if __name__ == "__main__":
    main()
