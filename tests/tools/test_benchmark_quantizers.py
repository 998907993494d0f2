"""The comparison with other quantizers: real files of a tiny network, measured for a second."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from edgekit.device import isa_target
from edgekit.export import export
from edgekit.workload import Batch, load_callable

TOOL = Path(__file__).parents[2] / "tools" / "benchmark_quantizers.py"
ORT_FILES = ("ort-defaults", "ort-u8s8")

PROJECT = """
import torch
from torch import nn
from torch.utils.data import TensorDataset


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))


def model():
    torch.manual_seed(0)
    return Net()


def data():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(128, 3, 8, 8, generator=generator)
    with torch.no_grad():
        return TensorDataset(x, model()(x).argmax(1))
"""

RUNNER = """
import sys
sys.path.insert(0, {runners!r})
from harness import run

def load():
    def make(job):
        {body}
    return make

run(load, "fake", ())
"""


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("benchmark_quantizers", TOOL)
    module = importlib.util.module_from_spec(spec)
    # As Python does for a script: its folder comes first.
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOOL.parent))
        spec.loader.exec_module(module)
        yield module
    for name in [name for name in sys.modules if name.startswith("quantizer_benchmark")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("project") / "net.py"
    path.write_text(PROJECT)
    return str(path)


@pytest.fixture(scope="module")
def model(project, tmp_path_factory) -> Path:
    x = load_callable(f"{project}:data")().tensors[0]
    path = tmp_path_factory.mktemp("exported") / "net.onnx"
    return export(load_callable(f"{project}:model")().eval(), Batch((x[:2],), {}, None), path).path


@pytest.fixture
def workload(project, model) -> list[str]:
    return [
        str(model),
        "--workload-model",
        f"{project}:model",
        "--train",
        f"{project}:data",
        "--test",
        f"{project}:data",
    ]


@pytest.fixture
def product(tmp_path) -> Path:
    """A matrix product and no convolution."""
    value = onnx.helper.make_tensor_value_info
    weight = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "weight"], ["y"], name="product")],
        "product",
        [value("x", onnx.TensorProto.FLOAT, ["batch", 64])],
        [value("y", onnx.TensorProto.FLOAT, ["batch", 64])],
        [onnx.numpy_helper.from_array(weight, "weight")],
    )
    path = tmp_path / "product.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.fixture
def only(tool, monkeypatch):
    """Let these of the quantizers that fit take part, and no others: each is a process that takes its time."""
    measuring = sys.modules[tool.benchmark.__module__]
    fitting = measuring.fitting

    def limit(*names: str) -> None:
        monkeypatch.setattr(measuring, "fitting", lambda found: [q for q in fitting(found) if q.name in names])

    return limit


@pytest.fixture
def fake(tool, monkeypatch, tmp_path):
    """Let a quantizer whose `make(job)` is `body` take part, with others of those that fit, and no others."""
    measuring = sys.modules[tool.benchmark.__module__]

    def make(name: str, body: str, *beside: str) -> None:
        path = tmp_path / f"run_{name}.py"
        path.write_text(RUNNER.format(runners=str(TOOL.parent / "quantizer_benchmark" / "runners"), body=body))
        it = measuring.NNCF.__class__(name=name, made_by=name, how="", runner=path)
        others = [q for q in measuring.fitting(frozenset()) if q.name in beside]
        monkeypatch.setattr(measuring, "fitting", lambda _: [it, *others])

    return make


def rows_of(path: Path) -> dict[str, dict]:
    return {row["name"]: row for row in json.loads(path.read_text())["rows"]}


def operators(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node}


@pytest.mark.slow
def test_the_script_makes_measures_and_tells(model, tmp_path):
    out, kept = tmp_path / "quantizers.json", tmp_path / "kept"
    words = [model, "--also", f"copy={model}", "--time", "1", "--keep", kept, "--json", out]
    done = subprocess.run([sys.executable, TOOL, *words], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report, rows = json.loads(out.read_text()), rows_of(out)
    assert list(rows) == ["fp32", *ORT_FILES, "nncf", "aimet", "edgekit", "copy"]
    files = {"fp32": model, "copy": model, **{name: kept / f"{name}.onnx" for name in (*ORT_FILES, "edgekit")}}
    for name, path in files.items():
        row = rows[name]
        assert (row["status"], row["file"], row["size_bytes"]) == ("measured", path.name, path.stat().st_size)
        assert row["ratio_to_fp32"]["low"] <= row["ratio_to_fp32"]["value"] <= row["ratio_to_fp32"]["high"]
        assert row["latency"]["rounds"] >= 30
        assert f"| {name} | " in done.stdout
    for name in (*ORT_FILES, "edgekit"):
        onnxruntime.InferenceSession(files[name], providers=["CPUExecutionProvider"])
        assert "QuantizeLinear" in operators(files[name])
        making = rows[name]["making"]
        assert 0 < making["seconds"] < making["process_seconds"]
        assert 0 < making["imported_bytes"] <= making["peak_bytes"]
        assert making["versions"]["onnxruntime"] == onnxruntime.__version__
        # With its defaults it writes 8-bit weights, which overflow without VNNI.
        assert rows[name]["steps_apart"] <= 2 or (name, isa_target()) == ("ort-defaults", "x86-avx2")
    assert rows["fp32"]["making"] is None
    assert rows["fp32"]["ratio_to_fp32"]["value"] == 1.0
    others = [name for name in (*ORT_FILES, "nncf", "aimet") if rows[name]["status"] == "measured"]
    assert report["best_other"] == max(others, key=lambda name: rows[name]["ratio_to_fp32"]["value"])
    assert rows[report["best_other"]]["ratio_to_best_other"]["value"] == 1.0
    assert f"as fast as {report['best_other']}" in done.stdout
    assert report["data"] == {"kind": "random", "calibration_samples": 64}
    assert "only speed and size mean something" in done.stdout
    assert report["model"] == {"operators": sorted(operators(model)), "depthwise": False, "residual": False}
    assert report["versions"]["onnxruntime"] == onnxruntime.__version__
    assert report["conditions"] | {"threads": 1, "batch": 1, "time_s": 1.0} == report["conditions"]
    for folder in (tmp_path, model.parent, TOOL.parent):
        assert str(folder) not in out.read_text()


@pytest.mark.slow
def test_with_a_workload_the_metric_is_there_and_a_file_of_ours_stands_once(tool, only, workload, tmp_path, capsys):
    first, second, kept = tmp_path / "first.json", tmp_path / "second.json", tmp_path / "kept"
    common = [*workload, "--time", "0.3"]
    only(*ORT_FILES, "edgekit")
    assert tool.main([*common, "--keep", str(kept), "--json", str(first)]) == 0
    report, rows = json.loads(first.read_text()), rows_of(first)
    assert report["data"]["metric"] == "top-1 accuracy"
    assert (report["data"]["calibration_samples"], report["data"]["samples"]) == (32, 64)
    assert (rows["fp32"]["metric"]["value"], rows["fp32"]["drop"]["value"]) == (100.0, 0.0)
    for name in (*ORT_FILES, "edgekit"):
        assert rows[name]["drop"]["value"] == pytest.approx(100 - rows[name]["metric"]["value"])
        assert rows[name]["metric"]["n"] == 64
    others = {name: rows[name]["metric"]["value"] for name in ORT_FILES}
    best = rows[report["most_accurate_other"]]
    assert best["metric"]["value"] == max(others.values())
    behind = best["metric"]["value"] - rows["edgekit"]["metric"]["value"]
    assert rows["edgekit"]["drop_to_most_accurate_other"]["value"] == pytest.approx(behind)
    assert "| drop [95 %] |" in capsys.readouterr().out
    only("ort-defaults", "edgekit")
    assert tool.main([*common, "--also", f"int8={kept / 'edgekit.onnx'}", "--json", str(second)]) == 0
    assert list(rows_of(second)) == ["fp32", "ort-defaults", "int8"]
    assert "edgekit's own file of fp32 is int8, byte for byte" in capsys.readouterr().out


def test_a_quantizer_that_fails_is_a_row_and_the_others_go_on(tool, fake, model, tmp_path, capsys):
    fake("fake", "raise RuntimeError('/home/someone/model.onnx: no such luck')", "edgekit")
    assert tool.main([str(model), "--time", "0.3", "--json", str(tmp_path / "out.json")]) == 0
    rows = rows_of(tmp_path / "out.json")
    assert (rows["fake"]["status"], rows["fake"]["reason"]) == ("failed", "RuntimeError: model.onnx: no such luck")
    assert rows["edgekit"]["status"] == "measured"
    assert rows["edgekit"]["ratio_to_best_other"] is None
    out = capsys.readouterr().out
    assert "fake: failed: RuntimeError: model.onnx: no such luck" in out
    assert "there is nothing to compare with" in out


def test_a_report_of_the_same_files_is_taken_as_it_is(tool, fake, model, tmp_path):
    fake("edgekit", "job.path.write_bytes(job.model.read_bytes()); return ''")
    out = tmp_path / "out.json"
    words = [str(model), "--time", "0.1", "--json", str(out), "--resume"]
    assert tool.main(words) == 0
    first = json.loads(out.read_text())
    assert tool.main(words) == 0
    assert json.loads(out.read_text()) == first
    # Under other conditions, or without an int8 file of the same bytes, it is no longer this run's report.
    for change in ({"conditions": first["conditions"] | {"threads": 3}}, {"rows": first["rows"][:1]}):
        out.write_text(json.dumps(first | change))
        assert tool.main(words) == 0
        again = json.loads(out.read_text())
        assert again["rows"][0]["latency"] != first["rows"][0]["latency"]
        assert (again["conditions"], len(again["rows"])) == (first["conditions"], 2)


@pytest.mark.parametrize(
    ("groups", "shortcut", "found"),
    [(8, True, (True, True)), (2, False, (False, False)), (1, True, (False, True))],
)
def test_what_is_asked_depends_on_the_structure(tool, groups, shortcut, found, tmp_path):
    value, weight = onnx.helper.make_tensor_value_info, np.zeros((8, 8 // groups, 3, 3), np.float32)
    nodes = [onnx.helper.make_node("Conv", ["x", "w"], ["y"], group=groups, pads=[1, 1, 1, 1])]
    nodes.append(onnx.helper.make_node("Relu", ["y"], ["z"]))
    # A constant that is added is no shortcut.
    nodes.append(onnx.helper.make_node("Add", ["z", "y" if shortcut else "b"], ["out"]))
    shape = ["batch", 8, 4, 4]
    graph = onnx.helper.make_graph(
        nodes,
        "net",
        [value("x", onnx.TensorProto.FLOAT, shape)],
        [value("out", onnx.TensorProto.FLOAT, shape)],
        [onnx.numpy_helper.from_array(weight, "w"), onnx.numpy_helper.from_array(np.ones(1, np.float32), "b")],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)]), tmp_path / "net.onnx")
    structure = sys.modules[tool.benchmark.__module__].structure_of(tmp_path / "net.onnx")
    assert (structure.depthwise, structure.residual) == found
    assert structure.operators == {"Conv", "Relu", "Add"}


def test_a_network_without_convolutions_is_quantized_dynamically_too(tool, only, product, tmp_path):
    only("ort-dynamic", "edgekit")
    np.savez(tmp_path / "inputs.npz", x=np.random.default_rng(0).standard_normal((40, 64)), labels=np.zeros(40))
    words = [str(product), "--data", str(tmp_path / "inputs.npz"), "--batch", "2", "--time", "0.3"]
    assert tool.main([*words, "--keep", str(tmp_path), "--json", str(tmp_path / "out.json")]) == 0
    assert rows_of(tmp_path / "out.json")["ort-dynamic"]["status"] == "measured"
    assert "MatMulInteger" in operators(tmp_path / "ort-dynamic.onnx")
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["data"] == {"kind": "npz", "calibration_samples": 40}
    assert report["conditions"]["batch"] == 2


def test_files_and_data_at_fault_are_clear_errors(tool, model, product, tmp_path, capsys):
    broken, wrong = tmp_path / "broken.onnx", tmp_path / "wrong.npz"
    broken.write_bytes(model.read_bytes()[:200])
    np.savez(wrong, features=np.zeros((4, 3, 8, 8), np.float32))
    for words, said in (
        ([broken], "not an ONNX file"),
        ([tmp_path / "none.onnx"], "no file"),
        ([model, "--also", f"int8={broken}"], "not an ONNX file"),
        ([model, "--also", f"other={product}"], "takes and gives"),
        ([model, "--data", wrong], "no array x in"),
        ([model, "--data", tmp_path / "none.npz"], "cannot read"),
        ([model, "--time", "soon"], "got 'soon'"),
    ):
        assert tool.main([*map(str, words)]) == 4, words
        captured = capsys.readouterr()
        assert captured.err.startswith("error: "), words
        assert said in captured.err
        assert captured.out == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--also", "file.onnx"], "not of the form NAME=FILE"),
        (["--also", "fp32=file.onnx"], "the name is taken"),
        (["--also", "a=1.onnx", "--also", "a=2.onnx"], "the name is taken"),
        (["--train", "net.py:data"], "only with --workload-model"),
        (["--workload-model", "net.py:model"], "needs --train and --test"),
        (["--workload-model", "net.py:model", "--data", "x.npz"], "one or the other"),
        (["--threads", "0"], "no positive integer"),
        (["--python", "nncf"], "not of the form NAME=FILE"),
        (["--python", "edgekit=python"], "is none of nncf, aimet"),
        (["--python", "aimet=nowhere/python"], "no interpreter nowhere/python"),
        (["--resume"], "only with --json"),
        (["--seed", "-1"], "from 0 up"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong(tool, words, said, capsys):
    with pytest.raises(SystemExit) as stop:
        tool.main(["model.onnx", *words])
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def test_help_teaches():
    done = subprocess.run([sys.executable, TOOL, "--help"], capture_output=True, text=True, check=True)
    for text in ("ort-u8s8", "--also NAME=FILE", "--workload-model", "--python NAME=PYTHON", "Exit codes"):
        assert text in done.stdout
