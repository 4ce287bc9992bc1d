"""Plants one violation of each rule, beside a twin that is right, so that no rule can sleep."""

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import rules  # noqa: E402
from source import File, cpp_functions  # noqa: E402


def found(rule, *files):
    """The rules and lines that `rule` reports, as (path, line)."""
    return [(v.path, v.line) for v in rule([File(path, text) for path, text in files])]


def include(path):
    return f'// Comment.\n#include "{path}"\n'


class IncludeRules(unittest.TestCase):
    def flag(self, rule, path, target):
        self.assertEqual(found(rule, (path, include(target))), [(path, 2)], (path, target))

    def pass_(self, rule, path, target):
        self.assertEqual(found(rule, (path, include(target))), [], (path, target))

    def test_edges(self):
        rule = rules.check_include_edges
        self.flag(rule, "server/service/a.cc", "worker/agent/b.h")
        self.flag(rule, "worker/agent/a.h", "client/cli/b.h")
        self.flag(rule, "client/a.cc", "server/store/b.h")
        self.flag(rule, "checkpoint/a.h", "worker/checkpoint/b.h")
        self.flag(rule, "server/a.cc", "checkpoint/b.h")
        self.flag(rule, "common/a.cc", "compiler/ir/b.h")
        self.flag(rule, "compiler/ir/a.cc", "server/store/b.h")
        self.flag(rule, "compiler/ir/a.cc", "autosp/v1/job.pb.h")
        self.flag(rule, "server/a.cc", "tests/common/temp_dir.h")
        self.flag(rule, "worker/rank/a.cc", "compiler/planner/b.h")
        self.flag(rule, "compiler/checker/a.cc", "compiler/rules/b.h")
        self.flag(rule, "compiler/checker/a.cc", "compiler/lowering/b.h")
        self.pass_(rule, "compiler/checker/a.cc", "compiler/program/b.h")
        self.pass_(rule, "worker/rank/a.cc", "compiler/program/b.h")
        self.pass_(rule, "worker/rank/a.cc", "checkpoint/b.h")
        self.pass_(rule, "client/commands/a.cc", "checkpoint/b.h")
        self.pass_(rule, "server/service/a.cc", "compiler/ir/b.h")
        self.pass_(rule, "worker/agent/a.cc", "autosp/v1/agent.grpc.pb.h")
        self.pass_(rule, "compiler/program/program_proto.cc", "autosp/v1/plan.pb.h")
        self.pass_(rule, "tests/process/a_test.cc", "server/store/b.h")
        self.pass_(rule, "common/a.cc", "absl/status/status.h")

    def test_purity(self):
        rule = rules.check_purity
        for target in ("grpcpp/server.h", "google/protobuf/message.h", "autosp/v1/job.pb.h",
                       "torch/torch.h", "ATen/Tensor.h", "c10/util/Half.h", "nccl.h", "thread",
                       "chrono", "mutex", "common/clock.h", "absl/synchronization/mutex.h"):
            self.flag(rule, "compiler/passes/a.cc", target)
            self.flag(rule, "server/coordinator/a.h", target)
            self.pass_(rule, "worker/executor/a.cc", target)
        self.pass_(rule, "compiler/program/plan_from_proto.cc", "autosp/v1/plan.pb.h")
        self.pass_(rule, "server/coordinator/job_proto.h", "google/protobuf/message.h")
        self.flag(rule, "compiler/program/plan_from_proto.cc", "thread")
        self.pass_(rule, "compiler/ir/a.cc", "absl/time/time.h")

    def test_angle_brackets_count_too(self):
        files = ("compiler/a.cc", "#include <thread>\n")
        self.assertEqual(found(rules.check_purity, files), [("compiler/a.cc", 1)])

    def test_wire(self):
        rule = rules.check_wire
        self.flag(rule, "worker/executor/a.cc", "autosp/v1/rank.pb.h")
        self.flag(rule, "server/store/a.h", "google/protobuf/message.h")
        self.pass_(rule, "server/store/job_proto.cc", "google/protobuf/message.h")
        self.pass_(rule, "worker/agent/a.cc", "grpcpp/server.h")
        both = "#include <ATen/ATen.h>\n" + include("grpcpp/server.h")
        self.assertEqual(found(rule, ("worker/rank/a.cc", both)), [("worker/rank/a.cc", 3)])

    def test_torch(self):
        rule = rules.check_torch
        for path in ("server/a.cc", "client/a.cc", "common/a.cc", "worker/agent/a.cc",
                     "compiler/rules/a.cc"):
            self.flag(rule, path, "torch/torch.h")
            self.flag(rule, path, "ATen/ops/add.h")
        for folder in ("rank", "executor", "ops", "collectives", "data", "checkpoint"):
            self.pass_(rule, f"worker/{folder}/a.cc", "c10/core/Device.h")
        self.pass_(rule, "tests/compiler/rules/a_test.cc", "ATen/ATen.h")
        self.pass_(rule, "server/a.cc", "server/torch/a.h")

    def test_type_names(self):
        def header(kind, name="Entry", scope=" autosp", end=" {"):
            return f"namespace{scope} {{\n\n{kind} {name}{end}\n}};\n\n}}  // namespace{scope}\n"

        rule = rules.check_type_names
        first = ("client/a.h", header("struct"))
        for second in (header("struct"), header("class"),
                       header("class", end=" final : public A {")):
            self.assertEqual(found(rule, first, ("compiler/b.h", second)), [("compiler/b.h", 3)])
        for second in (header("struct", name="Entries"), header("struct", scope=""),
                       header("struct", scope=" autosp::checker"), header("class", end=";"),
                       header("class", end="::Impl {")):
            self.assertEqual(found(rule, first, ("compiler/b.cc", second)), [])

    def test_gpu(self):
        rule = rules.check_gpu
        self.flag(rule, "worker/executor/a.cc", "nccl.h")
        self.flag(rule, "worker/collectives/shm.cc", "cuda_runtime.h")
        self.flag(rule, "worker/executor/a.cc", "c10/cuda/CUDAStream.h")
        self.flag(rule, "worker/nccl/nccl_collectives.cc", "nccl.h")
        self.pass_(rule, "worker/nccl/real_nccl_api.cc", "nccl.h")
        self.pass_(rule, "worker/cuda/real_cuda_api.cc", "cuda_runtime_api.h")
        self.pass_(rule, "worker/executor/a.cc", "c10/core/Stream.h")


class FileRules(unittest.TestCase):
    def test_header_names(self):
        text = "#pragma once\n"
        self.assertTrue(found(rules.check_headers, ("worker/ops/utils.h", text)))
        self.assertFalse(found(rules.check_headers, ("worker/ops/futex.h", text)))

    def test_pragma_once(self):
        self.assertTrue(found(rules.check_headers, ("common/a.h", "int f();\n")))
        self.assertFalse(found(rules.check_headers, ("common/a.cc", "int f();\n")))

    def test_line_length(self):
        for path in ("common/a.cc", "run", "tests/CMakeLists.txt", "scripts/a.py"):
            text = "\n" + "x" * 101 + "\n" + "x" * 100 + "\n"
            self.assertEqual(found(rules.check_lines, (path, text)), [(path, 2)])
        self.assertFalse(found(rules.check_lines, ("docs/a.md", "x" * 500)))

    def test_file_length(self):
        self.assertTrue(found(rules.check_lines, ("common/a.cc", "\n" * 601)))
        self.assertFalse(found(rules.check_lines, ("common/a.cc", "\n" * 600)))

    def test_ascii(self):
        text = "a\nb\u2014c\n"
        self.assertEqual(found(rules.check_ascii, ("docs/a.md", text)), [("docs/a.md", 2)])
        self.assertFalse(found(rules.check_ascii, ("tests/golden/data.json", text)))

    def test_machine_paths(self):
        for path in ("/wo" + "rk/main", "/ro" + "ot/.cache", "/tmp/bu" + "ild/x"):
            self.assertTrue(found(rules.check_machine_paths, ("docs/a.md", f"see {path}\n")), path)
        for path in ("net/wo" + "rk/x", "./ro" + "ot", "/workers", "/rooted", "/tmp/x"):
            self.assertFalse(found(rules.check_machine_paths, ("docs/a.md", f"see {path}\n")), path)

    def test_todo(self):
        self.assertTrue(found(rules.check_todo, ("common/a.cc", "// TO" + "DO(ann): later\n")))
        text = "// TO" + "DO: remove with torch 2.16.\n"
        self.assertFalse(found(rules.check_todo, ("common/a.cc", text)))

    def test_pass_goldens(self):
        pipeline = (rules.PIPELINE, 'p{\n  {"fold-heads", "folds", FoldHeads},\n};\n')
        source = ("compiler/passes/fold_heads.cc", "")
        golden = ("tests/golden/passes/fold_heads.ir", "")
        rule = rules.check_pass_goldens
        self.assertEqual(found(rule, pipeline, source), [(rules.PIPELINE, 2)])
        self.assertEqual(found(rule, pipeline, golden), [(rules.PIPELINE, 2)])
        self.assertEqual(found(rule, pipeline, source, golden), [])
        self.assertEqual(found(rule, (rules.PIPELINE, "Add<FoldHeads>();\n")),
                         [(rules.PIPELINE, 1)])


class DocumentedCommands(unittest.TestCase):
    TREE = (
        ("tests/CMakeLists.txt",
         "autosp_test(NAME equality_test SRCS a.cc)\nautosp_executable(NAME autosp-cli)\n"
         "foreach(name IN ITEMS srepr\n    weights)\n"
         "  autosp_test(NAME import_${name}_test SRCS ${name}_test.cc)\nendforeach()\n"),
        ("run", "verb_plan-bench() {\n}\n"),
        ("client/plan.cc", 'app.add_subcommand("plan", "x");\nc.add_flag("--json", a, "x");\n'
                           'c.add_option("-o,--output-dir", b, "x");\n'),
        ("bench/plan_bench.py", ""),
    )

    def lines(self, text, path="docs/a.md"):
        files = [*self.TREE, (path, text)]
        return [line for _, line in found(rules.check_documented_commands, *files)]

    def test_what_is_there(self):
        for code in ("build/dev/tests/equality_test --gtest_filter=A.b", "./run plan-bench",
                     "build/dev/tests/import_weights_test", "python3 bench/plan_bench.py --x",
                     "autosp-cli --json plan JOB --output-dir=x --help",
                     "build/dev/bin/autosp-cli plan JOB; ctest --no"):
            for text in (f"Text.\n\n    {code}\n", f"Run `{code}`.\n", f"```\n{code}\n```\n"):
                self.assertEqual(self.lines(text), [], code)

    def test_what_is_not(self):
        for code in ("build/dev/tests/weights_test", "build/dev/tests/import_equality_test",
                     "AUTOSP_X=1 ./run tests", "autosp-cli plans JOB", "bench/no.py",
                     "autosp-cli --json plans", "autosp-cli plan --dir x", "a && autosp-cli --x"):
            for text in (f"Text.\n    {code}\n", f"\nRun `{code}`.\n", f"```\n{code}\n```\n"):
                self.assertEqual(self.lines(text), [2], code)

    def test_where(self):
        self.assertEqual(self.lines("The autosp-cli and ./run are words here.\n"), [])
        self.assertEqual(self.lines("    make  # autosp-cli plans, ./run alone\n"), [])
        self.assertEqual(self.lines("Was `./run old`.\n", "CHANGELOG.md"), [])
        self.assertEqual(self.lines("Run `./run old`.\n", "README.md"), [1])


def body(lines):
    return "  x();\n" * lines


class FunctionRules(unittest.TestCase):
    def sizes(self, text):
        return [count for _, count in cpp_functions(File("a.cc", text))]

    def test_limit(self):
        text = "int f(\n    int a) {\n" + body(68) + "}\n"
        self.assertTrue(found(rules.check_functions, ("common/a.cc", text)))
        text = "int f(int a) {\n" + body(68) + "}\n"
        self.assertFalse(found(rules.check_functions, ("common/a.cc", text)))

    def test_python(self):
        text = "def f():\n" + "    x()\n" * 70
        self.assertEqual(found(rules.check_functions, ("a.py", text)), [("a.py", 1)])
        self.assertFalse(found(rules.check_functions, ("a.py", text[: -len("    x()\n")])))

    def test_kinds_of_functions(self):
        for head in ("void f() {", "A::A(int b) : c_(b) {", "A::A() : b_{1}, c_{2} {",
                     "int A::f() const override {", "auto f() -> std::vector<int> {",
                     "TEST_F(A, B) {", "template <typename T>\nT f() noexcept {",
                     "void f() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {"):
            expected = [head.count("\n") + 12]
            self.assertEqual(self.sizes(head + "\n" + body(10) + "}\n"), expected, head)

    def test_what_is_no_function(self):
        for head in ("namespace a {", "class A : public B {", "enum class E {",
                     "constexpr Row kRows[] = {", "struct A {\n  int b = 1;\n  struct C {};"):
            end = "};\n" if head != "namespace a {" else "}\n"
            self.assertEqual(self.sizes(head + "\n" + "  // x\n" * 80 + end), [], head)

    def test_functions_inside_and_after_each_other(self):
        text = ("namespace a {\nclass A {\n  int f() {\n    if (b) {\n    }\n    return 1;\n  }\n"
                "  int g() { return 2; }\n};\n}  // namespace a\nvoid h() {\n"
                "  auto l = [] {\n  };\n}\n")
        self.assertEqual(self.sizes(text), [5, 1, 4])

    def test_braces_in_strings_and_comments_do_not_count(self):
        text = ('void f() {\n  // }\n  g("}", \'}\', R"x(}\n})x");  /* } */\n  h(1\'000);\n}\n'
                "#define M(x) do {\nint g() {\n}\n")
        self.assertEqual(self.sizes(text), [6, 2])


if __name__ == "__main__":
    unittest.main()
