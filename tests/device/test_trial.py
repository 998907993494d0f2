"""Models of strangers in a process of its own: what it may do, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.device.__main__ import main
from edgekit.device.footprint import child_environment
from edgekit.device.trial import try_model
from edgekit.errors import BundleError, EdgekitError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits on memory are Linux's")
MEMORY = 256 << 20


def save(path, nodes, initializers=(), shape=("n", 4)):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        list(initializers),
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.fixture
def fill(tmp_path):
    """A hundred bytes that ask for `elements` floats when they run."""

    def make(elements):
        size = numpy_helper.from_array(np.array([elements], np.int64), "size")
        nodes = [
            helper.make_node("Identity", ["size"], ["s"]),
            helper.make_node("ConstantOfShape", ["s"], ["zeros"]),
            helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
            helper.make_node("Add", ["x", "sum"], ["y"]),
        ]
        return save(tmp_path / "fill.onnx", nodes, [size])

    return make


def test_a_good_bundle_and_its_zip(bundle, make_bundle):
    for path in (bundle, make_bundle("b.edgekit.zip")):
        trial = try_model(path, memory_bytes=MEMORY, time_s=30)
        assert trial.outputs == {"scores": "float32 [1, 3]"}
        assert trial.about["whole"] is True
        assert trial.note == ""
        assert trial.missing == ()
        assert 1e6 < trial.peak_bytes < 1e9


def test_an_onnx_file(model_file):
    trial = try_model(model_file, memory_bytes=MEMORY, time_s=30)
    assert trial.outputs == {"scores": "float32 [1, 3]"}
    assert trial.about["graph"]["operators"] == {"Flatten": 1, "MatMul": 1}
    assert json.dumps(trial.to_dict())


def test_a_changed_bundle_is_looked_into_and_not_run(bundle):
    path = bundle / "models/model/exact/model.onnx"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    trial = try_model(bundle, memory_bytes=MEMORY, time_s=30)
    assert trial.outputs is None
    assert trial.about["changed"] == ["models/model/exact/model.onnx"]
    assert "changed since" in trial.note


def test_what_is_refused_is_refused_with_the_same_words(bundle, tmp_path):
    (bundle / "extra").touch()
    with pytest.raises(BundleError, match="not in the manifest"):
        try_model(bundle, memory_bytes=MEMORY, time_s=30)
    (tmp_path / "text.onnx").write_text("no ONNX")
    with pytest.raises(BundleError):
        try_model(tmp_path / "text.onnx", memory_bytes=MEMORY, time_s=30)
    with pytest.raises(BundleError, match="cannot read"):
        try_model(tmp_path / "absent.onnx", memory_bytes=MEMORY, time_s=30)


def test_memory_is_bounded(fill):
    assert try_model(fill(1000), memory_bytes=MEMORY, time_s=30).outputs == {"y": "float32 [1, 4]"}
    with pytest.raises(BundleError):  # 4 GB of zeros
        try_model(fill(1 << 30), memory_bytes=MEMORY, time_s=30)


def test_time_is_bounded(tmp_path):
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["v", "v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, None),
        ],
    )
    nodes = [helper.make_node("Loop", ["count", "yes", "x"], ["y"], body=body)]
    count = numpy_helper.from_array(np.array(2**62), "count")
    path = save(tmp_path / "loop.onnx", nodes, [count, numpy_helper.from_array(np.array(True), "yes")])
    with pytest.raises(BundleError, match="took more than 1 s"):
        try_model(path, memory_bytes=MEMORY, time_s=1)


CONFINED = """
import json, sys
from edgekit.device.confined import confine
confine(1 << 28, 20)
def attempt(work):
    try:
        work()
    except (OSError, MemoryError) as error:
        return type(error).__name__
    return "done"
def write():
    with open("file.txt", "wb") as file:
        file.write(b"x")
print(json.dumps({
    "write": attempt(write),
    "memory": attempt(lambda: bytes(1 << 29)),
    "small": attempt(lambda: bytes(1 << 20)),
    "files": attempt(lambda: [open("/dev/null") for _ in range(100)]),
}))
"""


def test_the_process_has_given_up_what_it_may_not_do(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CONFINED], cwd=tmp_path, env=child_environment(), capture_output=True, check=True
    )
    found = json.loads(done.stdout)
    assert found == {"write": "OSError", "memory": "MemoryError", "small": "done", "files": "OSError"}
    assert not (tmp_path / "file.txt").exists() or not (tmp_path / "file.txt").stat().st_size


def test_secrets_in_the_environment_stay_at_home(monkeypatch, model_file, tmp_path):
    """The process is asked by way of a stand-in for the worker that says what it sees."""
    (tmp_path / "spy.py").write_text(
        "import json, os, sys\n"
        "sys.stdin.read()\n"
        "print(json.dumps({'about': dict(os.environ), 'outputs': None, 'note': os.getcwd(), 'peak_bytes': 1}))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("API_TOKEN", "secret")
    monkeypatch.setattr("edgekit.device.trial.WORKER", "spy")
    trial = try_model(model_file)
    assert "API_TOKEN" not in trial.about
    assert "PATH" in trial.about
    assert trial.note != str(tmp_path)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("import os; os.abort()", "was killed by SIGABRT"),
        ("", "ended with exit code 0"),
        ("print('x' * 9_000_000)", "at most 8000000 bytes"),
        ('print(\'{"a": 1, "a": 1}\')', "key 'a' stands there twice"),
        ('print(\'{"error": {"problem": "odd"}}\')', "odd"),
    ],
)
def test_a_process_that_was_taken_over_is_not_believed(monkeypatch, model_file, tmp_path, code, text):
    (tmp_path / "odd.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("edgekit.device.trial.WORKER", "odd")
    with pytest.raises(BundleError) as caught:
        try_model(model_file)
    assert text in str(caught.value)


def test_limits_that_make_no_sense(model_file):
    for options in ({"memory_bytes": 0}, {"time_s": 0.0}, {"time_s": float("nan")}):
        with pytest.raises(EdgekitError, match="bytes, "):
            try_model(model_file, **options)


def test_a_system_without_limits_says_so(monkeypatch, model_file):
    monkeypatch.setattr("edgekit.device.trial.sys.platform", "win32")
    with pytest.raises(EdgekitError, match="no limits for processes"):
        try_model(model_file)


def test_the_device_looks_at_a_strangers_file(model_file, bundle, capsys):
    assert main(["inspect", str(model_file), "--untrusted", "--memory", "300"]) == 0
    assert "one run: scores float32 [1, 3]" in capsys.readouterr().out
    (bundle / "extra").touch()
    assert main(["inspect", str(bundle), "--untrusted", "--json"]) == 4
    assert "not in the manifest" in capsys.readouterr().err
