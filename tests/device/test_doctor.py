from __future__ import annotations

import importlib
import importlib.util
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from edgekit.device import doctor as examine
from edgekit.device.doctor import (
    PROBE_INPUT,
    PROBE_MODEL,
    PROBE_OUTPUT,
    _clash,
    _int8,
    _libraries,
    _machine,
    _pillow,
    _provider,
    _runtime,
)
from edgekit.errors import ProviderError


def test_the_probe_is_the_model_that_its_text_says():
    weights = [[1.0, -2.0], [0.5, 1.5], [-1.0, 0.25], [2.0, 1.0]]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Relu", ["m"], ["y"])],
        "probe",
        [value("x", TensorProto.FLOAT, [1, 4])],
        [value("y", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor("w", TensorProto.FLOAT, [4, 2], np.ravel(weights))],
    )
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="edgekit")
    assert onnx.load_model_from_string(PROBE_MODEL) == built
    assert np.array_equal(np.maximum(PROBE_INPUT @ np.array(weights), 0), PROBE_OUTPUT)


def test_finds_this_machine_in_order():
    findings = {finding.name: finding for finding in examine()}
    assert findings["onnxruntime"].found.startswith(onnxruntime.__version__)
    assert findings["CPUExecutionProvider"].status == "ok"
    assert {finding.status for finding in findings.values()} <= {"ok", "warn"}
    assert findings["numpy"].to_dict() == {"name": "numpy", "status": "ok", "found": np.__version__, "way_out": ""}


@pytest.mark.parametrize(
    ("installed", "status", "way_out"),
    [
        ({"onnxruntime": "1.32.0"}, "ok", ""),
        ({"onnxruntime": "1.32.0", "onnxruntime-extensions": "0.14"}, "ok", ""),
        (
            {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.0"},
            "fault",
            "pip uninstall -y onnxruntime onnxruntime-gpu",
        ),
        ({}, "fault", "pip install onnxruntime"),
    ],
)
def test_clash_of_wheels(installed, status, way_out):
    finding = _clash(installed)
    assert finding.status == status
    assert way_out in finding.way_out


def test_no_runtime(monkeypatch):
    def absent():
        raise ProviderError("onnxruntime cannot be imported", way_out="pip install onnxruntime")

    monkeypatch.setattr(importlib.import_module("edgekit.device.doctor"), "runtime", absent)
    (finding,) = _runtime({})
    assert (finding.status, finding.way_out) == ("fault", "pip install onnxruntime")


def test_gpu_wheel_without_cuda(monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert _runtime({"onnxruntime-gpu": "1.32.0"})[-1].found == (
        "onnxruntime-gpu is installed, but the CUDA provider is not in it"
    )


def fake_runtime(*, output=PROBE_OUTPUT, providers=("CUDAExecutionProvider",), error=None):
    class Session:
        def __init__(self, model, options, providers):
            self.asked = providers
            assert model == PROBE_MODEL
            assert ("session.disable_cpu_ep_fallback", "1") in options.entries
            if error:
                raise error

        def run(self, _, feeds):
            assert np.array_equal(feeds["x"], PROBE_INPUT)
            return [output]

        def get_providers(self):
            return list(providers)

    class Options:
        def __init__(self):
            self.entries = []

        def add_session_config_entry(self, *entry):
            self.entries.append(entry)

    return SimpleNamespace(InferenceSession=Session, SessionOptions=Options)


@pytest.mark.parametrize(
    ("runtime", "status", "found"),
    [
        (fake_runtime(), "ok", "runs a model and computes it right"),
        (fake_runtime(output=PROBE_OUTPUT + 1), "fault", "computes [[8.0, 1.0]] instead of [[7.0, 0.0]]"),
        (fake_runtime(providers=["CPUExecutionProvider"]), "fault", "replaced by CPUExecutionProvider"),
        (fake_runtime(error=RuntimeError("libcudnn.so.9: not found\nmore")), "fault", "libcudnn.so.9: not found"),
        (fake_runtime(error=RuntimeError()), "fault", "RuntimeError"),
    ],
)
def test_a_provider_is_believed_only_when_it_computes(runtime, status, found):
    finding = _provider(runtime, "CUDAExecutionProvider")
    assert finding.status == status
    assert found in finding.found
    assert bool(finding.way_out) == (status == "fault")


@pytest.mark.parametrize(
    ("target", "flags", "status"),
    [
        ("x86-vnni", ["avx512_vnni"], "ok"),
        ("x86-avx2", ["avx2"], "warn"),
        ("arm64", ["asimddp"], "ok"),
        ("arm64", ["asimd"], "warn"),
        ("riscv64", [], "warn"),
    ],
)
def test_int8(target, flags, status):
    finding = _int8(target, flags)
    assert finding.status == status
    assert bool(finding.way_out) == (status == "warn")


def test_noise_is_warned_of():
    cpu = {"model": "m", "cores": 4, "architecture": "x", "flags": [], "governor": "powersave", "load_average": [3.0]}
    found = {f.name: f for f in _machine({"cpu": cpu, "isa_target": "x86-vnni", "gpus": ["NVIDIA H9"]})}
    assert found["frequency governor"].status == "warn"
    assert found["load"].status == "warn"
    assert found["GPU"].found == "NVIDIA H9"


def test_libraries():
    def some(name):
        if name == "onnx":
            raise ValueError(name)
        return object() if name == "torch" else None

    assert _libraries({}, lambda _: None).found == "not installed: a device needs none of it"
    assert _libraries({}, importlib.util.find_spec).status == "ok"
    half = _libraries({"torch": "2.13"}, some)
    assert half.status == "warn"
    assert half.found.startswith("missing: onnx, ")
    assert _pillow({}).way_out == "pip install 'edgekit[image]'"


def test_full_disk(monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1_000))
    assert {finding.name: finding.status for finding in examine()}["disk"] == "warn"
