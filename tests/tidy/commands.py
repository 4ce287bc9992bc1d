"""The rule that what documents tell people to run is there: targets, verbs, commands and flags."""

import re

from source import Violation

DOCUMENT = re.compile(r"^(?:\w+|docs/.*|deploy/.*|helm/.*|tests/zoo/\w+)\.md$")
HISTORY = ("CHANGELOG.md",)  # what it names may be gone
CODE_SPAN = re.compile(r"`([^`]+)`")

BUILT = re.compile(r"\bbuild/\w+/(?:bin|tests)/([\w.-]+)")
VERB = re.compile(r"(?<![\w/])\./run ([a-z][a-z-]*)")
COMMAND = re.compile(r"\bautosp-cli((?: +--\w[\w-]*(?:[= ]\S+)?)*) +([a-z][a-z-]*)")
PROGRAM = re.compile(r"(?<![\w./-])(?:build/\w+/bin/)?(autosp-(?:cli|opt|coordinator|agent))\b")
FLAG = re.compile(r"(?<=[\s\[|])--([a-z][a-z-]*)")
PATH = re.compile(r"(?<![\w./-])(?:\./)?((?:bench|deploy|examples|scripts|tests)/[\w./-]+"
                  r"\.(?:cc|h|ir|md|py|sh|txt|yaml))\b")

CALL = re.compile(r"autosp_(?:test|\w*executable|fuzzer)\(\s*NAME\s+([\w.${}-]+)")
LOOP = re.compile(r"foreach\(name IN ITEMS([^)]*)\)(.*?)endforeach", re.DOTALL)
# Where each program declares its flags.
FLAGS_OF = {"autosp-cli": "client/", "autosp-opt": "compiler/planner/", "autosp-agent": "worker/",
            "autosp-coordinator": "server/"}


def targets(files):
    """Every program that CMake builds, also those of a list of names."""
    found = set()
    for file in files:
        if not file.path.endswith("CMakeLists.txt"):
            continue
        found.update(CALL.findall(file.text))
        for names, body in LOOP.findall(file.text):
            for target in CALL.findall(body):
                found.update(target.replace("${name}", name) for name in names.split())
    return found


def code_of(file):
    """(line, text) of what a document shows as code, without what a shell takes for comments."""
    is_fenced = False
    for number, line in enumerate(file.lines, 1):
        if line.lstrip().startswith("```"):
            is_fenced = not is_fenced
        elif is_fenced or line.startswith("    "):
            yield number, re.sub(r"(^|\s)# .*", "", line)
        else:
            for span in CODE_SPAN.findall(line):
                yield number, span


def declared(files, folder, pattern):
    texts = [file.text for file in files if file.is_cpp and file.path.startswith(folder)]
    return {word for text in texts for word in re.findall(pattern, text)}


class Tree:
    """What there is to run."""

    def __init__(self, files):
        self.targets = targets(files)
        run = next((file.text for file in files if file.path == "run"), "")
        self.verbs = set(re.findall(r"^verb_([a-z-]+)\(\)", run, re.MULTILINE))
        self.commands = declared(files, "client/", r'add_subcommand\(\s*"([a-z-]+)"')
        self.flags = {
            program: declared(files, folder, r'"(?:-\w,)?--([a-z-]+)"') | {"help", "version"}
            for program, folder in FLAGS_OF.items()
        }
        self.paths = {file.path for file in files}

    def missing(self, code):
        """What a line of code names and is not there, in words."""
        for name in BUILT.findall(code):
            if name not in self.targets:
                yield f"no target is called {name}"
        for name in VERB.findall(code):
            if name not in self.verbs:
                yield f"./run has no verb {name}"
        for _, name in COMMAND.findall(code):
            if name not in self.commands:
                yield f"autosp-cli has no command {name}"
        for part in re.split(r"[;|&]+ ", code):
            program = PROGRAM.search(part)
            for flag in FLAG.findall(part[program.end():]) if program else ():
                if flag not in self.flags[program.group(1)]:
                    yield f"{program.group(1)} has no flag --{flag}"
        for path in PATH.findall(code):
            if path not in self.paths:
                yield f"there is no {path}"


def check_documented_commands(files):
    """What a document says to run exists."""
    tree = Tree(files)
    for file in files:
        if not DOCUMENT.match(file.path) or file.path in HISTORY:
            continue
        for line, code in code_of(file):
            for message in tree.missing(code):
                yield Violation(file.path, line, "documented-command", message)
