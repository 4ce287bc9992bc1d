"""Reads the tree for the tidy rules: which files there are, C++ without comments and strings."""

import os
import re
import subprocess
from dataclasses import dataclass

CPP = (".h", ".cc")
CODE = CPP + (".py", ".sh", ".proto", ".cmake")


@dataclass(frozen=True)
class File:
    path: str  # From the root of the repository, with slashes.
    text: str

    @property
    def lines(self):
        return self.text.split("\n")

    @property
    def is_cpp(self):
        return self.path.endswith(CPP)

    @property
    def is_code(self):
        name = os.path.basename(self.path)
        return self.path.endswith(CODE) or name in ("CMakeLists.txt", "run")


@dataclass(frozen=True)
class Violation:
    path: str
    line: int
    rule: str
    message: str

    def __str__(self):
        return f"{self.path}:{self.line}: {self.message} [{self.rule}]"


def tracked_paths(root):
    """What git tracks, or about to track; every file where there is no git."""
    command = ["git", "-C", root, "ls-files", "-z", "--cached"]
    try:
        out = subprocess.run(command, check=True, capture_output=True).stdout
        return sorted(p for p in out.decode().split("\0") if p)
    except (OSError, subprocess.CalledProcessError):
        return sorted(_walk(root))


def _walk(root):
    skipped = {".git", ".deps", "build", "__pycache__"}
    for folder, names, files in os.walk(root):
        names[:] = [n for n in names if n not in skipped]
        for name in files:
            yield os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/")


# Inputs of fuzzers are any bytes; no rule speaks about them.
CORPUS = "tests/fuzz/corpus/"


def read_tree(root):
    """Every tracked text file. Archives, weights and other binaries are left out."""
    files = []
    for path in tracked_paths(root):
        if path.startswith(CORPUS):
            continue
        full = os.path.join(root, path)
        if os.path.islink(full) or not os.path.isfile(full):
            continue
        with open(full, "rb") as stream:
            data = stream.read()
        if b"\0" in data:
            continue
        try:
            files.append(File(path, data.decode("utf-8")))
        except UnicodeDecodeError:
            continue
    return files


_TOKEN = re.compile(
    r"""//[^\n]*
      | /\*.*?\*/
      | R"(?P<tag>[^()\s\\]{0,16})\(.*?\)(?P=tag)"
      | "(?:\\.|[^"\\\n])*"
      | (?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'
    """,
    re.VERBOSE | re.DOTALL,
)


def blank_comments_and_strings(text):
    """The same text, of the same length and lines, with spaces for what is not code."""

    def blank(match):
        return re.sub(r"[^\n]", " ", match.group(0))

    # A directive is no code either; its braces, if any, need not match.
    blanked = _TOKEN.sub(blank, text)
    return re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", blank, blanked, flags=re.MULTILINE)


_INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)


def includes(file):
    """(line, path) of each include directive."""
    for match in _INCLUDE.finditer(file.text):
        line = file.text.count("\n", 0, match.start(1) if match.group(1) else match.start(2)) + 1
        yield line, match.group(1) or match.group(2)


_CONTROL = re.compile(r"^(?:if|for|while|switch|catch|do|else|try)\b")
_FUNCTION = re.compile(
    r"\)\s*(?:(?:const|override|final|noexcept|mutable|try|&&?|->[\w:<>,&*\s]+"
    r"|[A-Z_]{4,}\([^()]*\))\s*)*$"
)
# `A::A() : a_{1} {`: the list of a constructor ends in a brace initialiser.
_CONSTRUCTOR = re.compile(r"\)\s*(?:noexcept\s*)?:(?!:)[^;]*\}$")


def cpp_functions(file):
    """(first line, number of lines) of each function body with its signature, lambdas within."""
    text = blank_comments_and_strings(file.text)
    stack = []  # Per open brace: the offset where the function starts, or None.
    head_start = 0
    for match in re.finditer(r"[{};]", text):
        offset, char = match.start(), match.group(0)
        if char == "{":
            head = text[head_start:offset].strip()
            is_function = (
                not any(start is not None for start in stack)
                and (_FUNCTION.search(head) or _CONSTRUCTOR.search(head)) is not None
                and not _CONTROL.match(head)
            )
            begin = offset - len(text[head_start:offset].lstrip())
            stack.append(begin if is_function else None)
            # After a brace initialiser, as in `: a_{1}`, the head of a constructor goes on.
            if not (is_function or _is_initialiser(head)):
                head_start = offset + 1
        elif char == "}":
            begin = stack.pop() if stack else None
            if begin is not None:
                first = text.count("\n", 0, begin) + 1
                yield first, text.count("\n", 0, offset) + 2 - first
                head_start = offset + 1
            elif not _is_initialiser(text[head_start:offset].split("{")[0].strip()):
                head_start = offset + 1
        elif not any(start is not None for start in stack):
            head_start = offset + 1


def _is_initialiser(head):
    """Whether a brace after `head` continues a constructor's list: `A::A() : a_(1), b_`."""
    return re.search(r"\)\s*(?:noexcept\s*)?:(?!:)[^;]*[\w>]$", head) is not None
