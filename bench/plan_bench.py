"""Measures planning, import to verified plan, of Llama graphs of many layers on one core.

The archives are made of tests/zoo/llama, whose last layer is repeated: the nodes, names and
metadata are those that torch.export writes, and planning does not depend on how large tensors are.
Each plan is made twice, by `autosp-cli plan` in a process of its own, and must be the same bytes.

    ./run plan-bench                      # 8, 80 and 800 layers, for 1,024 devices
    ./run plan-bench --layers=80 --json=plan.json
"""

import argparse
import copy
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
MAX_SIZE = 1 << 24  # that the archives say they were exported for
ARCHIVE = ROOT / "tests" / "zoo" / "llama" / "model.pt2"
MODEL = "model/models/model.json"
CONFIG = "model/data/weights/model_weights_config.json"

JOB = """version: 1
kind: Job
name: plan-bench
model: {archive: model.pt2}
data: {format: text, files: [data.txt]}
training: {seq_len: 1048576, global_batch_size: 4, steps: 2}
parallelism: {ranks: 1024}
output: {dir: out}
"""
NODES, DEVICES_PER_NODE = 128, 8


def module_of(node):
    """"model.layers.1.mlp", from "key,model.layers.1.mlp,Class" behind the last semicolon."""
    stack = node["metadata"].get("nn_module_stack", "")
    return stack.rsplit(";", 1)[-1].split(",")[1] if stack else ""


def results_of(node):
    return {output["as_tensor"]["name"] for output in node["outputs"] if "as_tensor" in output}


def operands_of(node):
    return set(re.findall(r'"as_tensor": {"name": "(\w+)"', json.dumps(node["inputs"])))


class Layer:
    """One layer of the exported graph, and how to make others like it."""

    def __init__(self, graph, number):
        prefix = f"model.layers.{number}"
        inside = [f"{module_of(node)}.".startswith(f"{prefix}.") for node in graph["nodes"]]
        self.number = number
        self.nodes = [node for node, is_inside in zip(graph["nodes"], inside) if is_inside]
        self.end = max(i for i, is_inside in enumerate(inside) if is_inside) + 1
        self.results = set().union(*map(results_of, self.nodes))
        used = set().union(*map(operands_of, self.nodes))
        after = set().union(*map(operands_of, graph["nodes"][self.end:]))
        before = [node for node in graph["nodes"]
                  if f"{module_of(node)}.".startswith(f"model.layers.{number - 1}.")]
        (self.input,) = used & set().union(*map(results_of, before))
        (self.output,) = self.results & after

    def renamed(self, value, number, previous_output):
        """`value`, a piece of JSON of this layer, as the layer `number` has it."""
        text = json.dumps(value)
        text = text.replace(f"layers.{self.number}.", f"layers.{number}.")
        text = text.replace(f"layers.{self.number},", f"layers.{number},")
        text = text.replace(f"layers_{self.number}_", f"layers_{number}_")

        def rename(match):
            name = match.group(1)
            if name == self.input:
                return f'"{previous_output}"'
            return f'"{name}_of_{number}"' if name in self.results else match.group(0)

        return json.loads(re.sub(r'"(\w+)"', rename, text))


def is_of(entry, layer):
    return f"layers.{layer.number}." in json.dumps(entry)


def repeat_layers(model, config, num_layers):
    """Adds layers like the last until there are `num_layers`; returns the config of weights."""
    graph = model["graph_module"]["graph"]
    specs = model["graph_module"]["signature"]["input_specs"]
    numbers = [int(found) for found in re.findall(r"layers\.(\d+)\.", json.dumps(specs))]
    layer = Layer(graph, max(numbers))
    mine = [(spec, tensor) for spec, tensor in zip(specs, graph["inputs"]) if is_of(spec, layer)]
    place = max(i for i, spec in enumerate(specs) if is_of(spec, layer)) + 1
    parameters = {name: entry for name, entry in config["config"].items() if
                  f"layers.{layer.number}." in name}
    values = {name: meta for name, meta in graph["tensor_values"].items()
              if name in layer.results or f"layers_{layer.number}_" in name}
    nodes, new_specs, new_inputs = [], [], []
    output = layer.output
    for number in range(layer.number + 1, num_layers):
        nodes += [layer.renamed(node, number, output) for node in layer.nodes]
        new_specs += [layer.renamed(spec, number, output) for spec, _ in mine]
        new_inputs += [layer.renamed(tensor, number, output) for _, tensor in mine]
        graph["tensor_values"].update(layer.renamed(values, number, output))
        for name, entry in layer.renamed(parameters, number, output).items():
            config["config"][name] = {**entry, "path_name": f"{entry['path_name']}_of_{number}"}
        output = f"{layer.output}_of_{number}"
    rest = json.dumps(graph["nodes"][layer.end:]).replace(f'"{layer.output}"', f'"{output}"')
    graph["nodes"][layer.end:] = nodes + json.loads(rest)
    specs[place:place] = new_specs
    graph["inputs"][place:place] = new_inputs
    return config


def write_archive(path, num_layers):
    with zipfile.ZipFile(ARCHIVE) as source, zipfile.ZipFile(path, "w") as archive:
        model, config = json.loads(source.read(MODEL)), json.loads(source.read(CONFIG))
        for bounds in model["range_constraints"].values():
            bounds["max_val"] = MAX_SIZE
        known = {entry["path_name"] for entry in config["config"].values()}
        config = repeat_layers(model, copy.deepcopy(config), num_layers)
        changed = {MODEL: json.dumps(model), CONFIG: json.dumps(config)}
        for name in source.namelist():
            archive.writestr(name, changed.get(name, source.read(name)))
        for entry in config["config"].values():
            file = entry["path_name"]
            if file not in known:
                weights = source.read(f"model/data/weights/{file.split('_of_')[0]}")
                archive.writestr(f"model/data/weights/{file}", weights)
    return len(model["graph_module"]["graph"]["nodes"])


def write_cluster(path):
    nodes = [f"  - {{name: n{i}, devices: {DEVICES_PER_NODE}, kind: a100-80gb, "
             "device_memory: 80GiB}" for i in range(NODES)]
    links = "links: {intra_node_gb_per_s: 300, inter_node_gb_per_s: 25}"
    path.write_text("\n".join(["version: 1", "kind: Cluster", "nodes:", *nodes, links, ""]))


def write_inputs(folder, num_layers):
    """Everything that a plan reads; returns the number of nodes of the graph."""
    write_cluster(folder / "cluster.yaml")
    (folder / "job.yaml").write_text(JOB)
    (folder / "data.txt").write_bytes(bytes(4 << 20))
    return write_archive(folder / "model.pt2", num_layers)


def plan(binary, folder):
    """One run of `autosp-cli plan` on one core: its JSON, its CPU seconds and its peak bytes."""
    command = [binary, "--output=json", "plan", "job.yaml", "--cluster", "cluster.yaml"]
    if hasattr(os, "sched_setaffinity"):
        core = max(os.sched_getaffinity(0))
        setup = lambda: os.sched_setaffinity(0, {core})  # noqa: E731
    else:
        setup = None
    with tempfile.TemporaryFile() as output:
        with subprocess.Popen(command, cwd=folder, stdout=output, preexec_fn=setup) as child:
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            sys.exit(f"plan_bench: {' '.join(map(str, command))} ended with {child.returncode}")
        output.seek(0)
        answer = json.loads(output.read())
    return answer, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def measure(binary, num_layers, rounds):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        num_nodes = write_inputs(folder, num_layers)
        runs = [plan(binary, folder) for _ in range(rounds)]
    first = runs[0][0]
    if any(answer != first for answer, _, _ in runs):
        sys.exit(f"plan_bench: {num_layers} layers: two runs gave two plans")
    seconds = min(seconds for _, seconds, _ in runs)
    return {"layers": num_layers, "nodes": num_nodes, "seconds": seconds,
            "ns_per_node": seconds / num_nodes * 1e9,
            "peak_bytes": max(peak for _, _, peak in runs),
            "checked_values": first["plan"]["num_checked_values"], "digest": first["digest"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=ROOT / "build" / "dev" / "bin" / "autosp-cli")
    parser.add_argument("--layers", default="8,80,800", help="numbers of layers, by comma")
    parser.add_argument("--rounds", type=int, default=3, help="the fastest counts; at least 2")
    parser.add_argument("--json", help="also write the numbers to this file")
    options = parser.parse_args()
    rows = []
    print("layers   nodes  CPU seconds  ns per node  peak MiB  values proved  plan")
    for num_layers in map(int, options.layers.split(",")):
        row = measure(pathlib.Path(options.binary).resolve(), num_layers, max(options.rounds, 2))
        rows.append(row)
        print(f"{row['layers']:6} {row['nodes']:7} {row['seconds']:12.2f} "
              f"{row['ns_per_node']:12.0f} {row['peak_bytes'] / 2**20:9.0f} "
              f"{row['checked_values']:14} {row['digest'][:12]}", flush=True)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
