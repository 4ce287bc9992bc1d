"""The rules of the tree. Each takes all files and yields violations; tests plant one of each."""

import ast
import os
import re

from commands import check_documented_commands
from source import Violation, cpp_functions, includes

LINE_LIMIT = 100
FUNCTION_LIMIT = 70
FILE_LIMIT = 600

# Who may include whom, by top-level folder. `tests` and `bench` may include everything.
ALLOWED_FOLDERS = {
    "common": ("common/",),
    "compiler": ("common/", "compiler/"),
    # Ranks write checkpoints, and the client makes models of them.
    "checkpoint": ("common/", "compiler/ir/", "compiler/program/", "compiler/weights/",
                   "checkpoint/"),
    "server": ("common/", "compiler/", "server/", "autosp/"),
    # A rank executes what was compiled; it never compiles. Of the importer it needs only where the
    # weights lie in an archive.
    "worker": ("common/", "compiler/config/", "compiler/import/link_models.h",
               "compiler/import/pt2_archive.h", "compiler/ir/", "compiler/program/",
               "compiler/weights/", "checkpoint/", "worker/", "autosp/"),
    "client": ("common/", "compiler/", "checkpoint/", "client/", "autosp/"),
}
# The checker proves what the rest of the compiler made, and may not believe the same mistake.
ALLOWED_SUBFOLDERS = {
    "compiler/checker/": ("common/", "compiler/checker/", "compiler/ir/", "compiler/program/"),
}
OUR_FOLDERS = ("common/", "compiler/", "checkpoint/", "server/", "worker/", "client/", "autosp/",
               "tests/")

TORCH_FOLDERS = tuple(
    f"worker/{name}/"
    for name in ("rank", "executor", "gpu", "ops", "collectives", "data", "checkpoint", "verify")
)
PURE_FOLDERS = ("compiler/", "server/coordinator/")

WIRE = re.compile(r"^(grpc|grpcpp|google/protobuf|google/rpc|autosp/v1)(/|$)|\.pb\.h$")
TORCH = re.compile(r"^(torch|ATen|c10|caffe2|torchgen)/")
GPU = re.compile(
    r"^(nccl\w*\.h|cuda\w*\.h|cuda/.*|c10/cuda/.*|ATen/cuda/.*|torch/.*[cC]uda.*|cublas.*|cupti.*)$"
)
IMPURE = re.compile(
    r"^(thread|chrono|mutex|shared_mutex|condition_variable|future|semaphore|barrier|latch"
    r"|pthread\.h|absl/synchronization/.*|absl/time/clock\.h|common/clock\.h|common/subprocess\.h)$"
)
# Files that stand beside what they convert to or from the wire.
ADAPTER = re.compile(r"(^|/)\w+_(from_|to_)?proto\.(h|cc)$")


def check_include_edges(files):
    """server, worker and client meet only in proto, common, compiler and checkpoint."""
    for file in files:
        allowed = ALLOWED_FOLDERS.get(file.path.split("/")[0])
        if not file.is_cpp or allowed is None:
            continue
        for line, path in includes(file):
            if not path.startswith(OUR_FOLDERS) or path.startswith(allowed):
                continue
            if path.startswith("autosp/") and ADAPTER.search(file.path):
                continue
            folder = file.path.split("/")[0]
            yield Violation(file.path, line, "include-edges", f"{folder} may not include {path}")
        for folder, narrower in ALLOWED_SUBFOLDERS.items():
            if not file.path.startswith(folder):
                continue
            for line, path in includes(file):
                if path.startswith(OUR_FOLDERS) and not path.startswith(narrower):
                    yield Violation(
                        file.path, line, "include-edges", f"{folder} may not include {path}")


def check_purity(files):
    """The compiler and the coordinator's core know no wire, no torch, no thread and no clock."""
    for file in files:
        if not file.is_cpp or not file.path.startswith(PURE_FOLDERS):
            continue
        is_adapter = ADAPTER.search(file.path) is not None
        for line, path in includes(file):
            is_wire = WIRE.search(path) is not None and not is_adapter
            if is_wire or TORCH.match(path) or GPU.match(path) or IMPURE.match(path):
                message = f"{path} does not belong into the pure parts; pass its result in"
                yield Violation(file.path, line, "purity", message)


# Neither talks to anybody; the wire stops in the folder that called them.
WIRELESS_FOLDERS = ("server/store/", "checkpoint/") + tuple(
    f"worker/{name}/" for name in ("executor", "ops", "collectives", "data", "checkpoint", "verify")
)


def check_wire(files):
    """Wire types stay out of what computes and stores, and never meet torch in one file.

    torch ships protobuf headers of its own, and the two together take half a minute to compile.
    """
    for file in files:
        if not file.is_cpp:
            continue
        paths = list(includes(file))
        has_torch = any(TORCH.match(path) for _, path in paths)
        is_wireless = file.path.startswith(WIRELESS_FOLDERS) and not ADAPTER.search(file.path)
        for line, path in paths:
            if WIRE.search(path) and (is_wireless or has_torch):
                message = f"{path} does not belong here; convert in a *_proto file of its own"
                yield Violation(file.path, line, "wire", message)


def check_torch(files):
    """libtorch stays in the ranks; tests and benchmarks may use it as a reference."""
    for file in files:
        if not file.is_cpp or file.path.startswith(TORCH_FOLDERS + ("tests/", "bench/")):
            continue
        for line, path in includes(file):
            if TORCH.match(path):
                yield Violation(file.path, line, "torch", f"only the ranks may include {path}")


# They implement the interfaces through which all else reaches CUDA and NCCL.
GPU_FILES = (
    "worker/cuda/real_cuda_api.cc",
    "worker/gpu/torch_gpu.cc",
    "worker/nccl/real_nccl_api.cc",
)


def check_gpu(files):
    """NCCL and CUDA stay behind two interfaces; a build without GPUs leaves those files out."""
    for file in files:
        if not file.is_cpp or file.path in GPU_FILES:
            continue
        for line, path in includes(file):
            if GPU.match(path):
                message = f"{path} is for {' and '.join(GPU_FILES)}; use cuda_api.h or nccl_api.h"
                yield Violation(file.path, line, "gpu", message)


def check_headers(files):
    """A header says what it is about, and is read once."""
    for file in files:
        name = os.path.basename(file.path)
        if name in ("utils.h", "util.h", "helpers.h", "misc.h"):
            yield Violation(file.path, 1, "header-name", "name the thing, not that it is useful")
        if name.endswith(".h") and "#pragma once" not in file.lines:
            yield Violation(file.path, 1, "pragma-once", "a header starts with #pragma once")


def check_lines(files):
    """Lines fit on half a screen."""
    for file in files:
        if not file.is_code:
            continue
        for number, line in enumerate(file.lines, 1):
            if len(line) > LINE_LIMIT:
                message = f"the line has {len(line)} columns; at most {LINE_LIMIT}"
                yield Violation(file.path, number, "line-length", message)
        if len(file.lines) - 1 > FILE_LIMIT:
            message = f"the file has {len(file.lines) - 1} lines; at most {FILE_LIMIT}; split it"
            yield Violation(file.path, 1, "file-length", message)


def check_functions(files):
    """A function fits on a screen."""
    for file in files:
        functions = ()
        if file.is_cpp:
            functions = cpp_functions(file)
        elif file.path.endswith(".py"):
            functions = _python_functions(file)
        for line, count in functions:
            if count > FUNCTION_LIMIT:
                message = f"the function has {count} lines; at most {FUNCTION_LIMIT}; split it"
                yield Violation(file.path, line, "function-length", message)


def _python_functions(file):
    for node in ast.walk(ast.parse(file.text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.lineno, node.end_lineno + 1 - node.lineno


def check_ascii(files):
    """Sources and documents are ASCII, so that every tool and terminal shows the same."""
    for file in files:
        if not (file.is_code or file.path.endswith((".md", ".yaml", ".yml", ".txt"))):
            continue
        for number, line in enumerate(file.lines, 1):
            if not line.isascii():
                yield Violation(file.path, number, "ascii", "the line has a character beyond ASCII")


# Written in parts, or this file would break its own rule.
MACHINE_PATH = re.compile(
    r"(?<![\w./-])/(?:" + "|".join(("work", "root", "tmp/bu" + "ild")) + r")\b")


def check_machine_paths(files):
    """Nothing in the tree speaks of one machine."""
    for file in files:
        for number, line in enumerate(file.lines, 1):
            found = MACHINE_PATH.search(line)
            if found:
                message = f"{found.group(0)} is a path of one machine"
                yield Violation(file.path, number, "machine-path", message)


def check_todo(files):
    """A TODO names the condition for its removal, not a person."""
    for file in files:
        if not file.is_code:
            continue
        for number, line in enumerate(file.lines, 1):
            if re.search(r"\bTO" + r"DO\(", line):
                yield Violation(file.path, number, "todo", "say when it can go, not who wrote it")


NAMESPACE = re.compile(r"^namespace(?: ([\w:]+))? \{")
NAMESPACE_END = re.compile(r"^\}  // namespace")
TYPE = re.compile(r"^(?:struct|class|enum class) (\w+)(?: final)?(?: : .*)? \{")


def check_type_names(files):
    """No two types have one name: the linker would take code for one of them for the other."""
    known = {}
    for file in files:
        if not file.path.endswith((".h", ".cc")):
            continue
        scopes = []
        for number, line in enumerate(file.lines, 1):
            begin, found = NAMESPACE.match(line), TYPE.match(line)
            if begin:
                scopes.append(begin.group(1))  # None: of this file alone
            elif NAMESPACE_END.match(line) and scopes:
                scopes.pop()
            elif found and scopes and None not in scopes:
                name = "::".join([*scopes, found.group(1)])
                first = known.setdefault(name, file.path)
                if first != file.path:
                    message = f"{name} is defined in {first} too; give one of them another name"
                    yield Violation(file.path, number, "type-name", message)


PIPELINE = "compiler/passes/pipeline.cc"
PASS_ROW = re.compile(r'\{\s*"([a-z][a-z0-9-]*)",\s*"')  # {"fold-heads", "what it does", FoldHeads}


def check_pass_goldens(files):
    """Every pass of the pipeline is a file of its own and has a golden script of the same name."""
    by_path = {file.path: file for file in files}
    pipeline = by_path.get(PIPELINE)
    if pipeline is None:
        return
    rows = list(PASS_ROW.finditer(pipeline.text))
    if not rows:
        yield Violation(PIPELINE, 1, "pass-golden", "no pass was found here; has the form changed?")
    for row in rows:
        stem = row.group(1).replace("-", "_")
        line = pipeline.text.count("\n", 0, row.start(1)) + 1
        golden = f"tests/golden/passes/{stem}.ir"
        for path in (f"compiler/passes/{stem}.cc", golden):
            if path not in by_path:
                yield Violation(PIPELINE, line, "pass-golden", f"{row.group(1)} has no {path}")


ALL_RULES = (
    check_include_edges,
    check_purity,
    check_wire,
    check_torch,
    check_gpu,
    check_headers,
    check_lines,
    check_functions,
    check_ascii,
    check_machine_paths,
    check_todo,
    check_type_names,
    check_pass_goldens,
    check_documented_commands,
)


def check_all(files):
    return [violation for rule in ALL_RULES for violation in rule(files)]
