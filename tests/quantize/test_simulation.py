"""Simulation of a written file against ONNX Runtime's integer kernels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from edgekit.device import isa_target
from edgekit.device.session import open_session
from edgekit.errors import QuantizeError
from edgekit.quantize.kernels import kernels_of
from edgekit.quantize.simulation import steps_apart


@pytest.fixture
def difference():
    """The same by onnx and onnxruntime alone: outputs added by hand, one run without and one with optimizations."""

    def find(path, feeds, dtype):
        model = onnx.load(path)
        names = [node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
        kind = onnx.TensorProto.INT8 if dtype == "int8" else onnx.TensorProto.UINT8
        model.graph.output.extend(helper.make_tensor_value_info(name, kind, None) for name in names)
        sides = []
        for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
            options = onnxruntime.SessionOptions()
            options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
            options.log_severity_level = 3
            key = "qdqisint8allowed" if dtype == "int8" else "x64quantprecision"
            options.add_session_config_entry(f"session.{key}", "1")
            session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            sides.append(session.run(names, feeds))
        return {name: int(np.abs(one.astype(int) - two).max()) for name, one, two in zip(names, *sides, strict=True)}

    return find


@pytest.mark.parametrize(
    "kind", [("x86-vnni", "uint8"), ("x86-avx2", "uint8"), ("arm64", "int8"), ("tensorrt", "int8")]
)
def test_every_kernel_is_within_a_step_of_the_file_and_the_network_within_two(resnet, int8, draw, difference, kind):
    target, dtype = kind
    done = int8(resnet, target=target)
    (feeds,) = draw(resnet, seed=3, batches=1)
    alone = steps_apart(done.path, feeds, target=target)
    # What leaves the stem (or also what enters it), five convolutions, two additions, and the mean.
    assert set(alone) == {f"{value}_int8" for value in done.plan.activations}
    assert max(alone.values()) <= 1
    along = steps_apart(done.path, feeds, accumulated=True, target=target)
    assert along == difference(done.path, feeds, dtype)
    assert max(along.values()) <= 2


@pytest.mark.skipif(isa_target() != "x86-avx2", reason=f"{isa_target()}: no sums of 16 bits that overflow")
def test_without_vnni_8_bit_weights_overflow_and_7_bit_weights_do_not(resnet, int8, draw):
    (feeds,) = draw(resnet, seed=3, batches=1)
    apart = {target: steps_apart(int8(resnet, target=target).path, feeds) for target in ("x86-vnni", "x86-avx2")}
    assert max(apart["x86-vnni"].values()) > 10
    assert max(apart["x86-avx2"].values()) <= 1


def test_a_kernel_that_saturates_is_found_where_it_is(resnet, int8, draw, monkeypatch):
    """What VPMADDUBSW does to large sums: here to those of one value, which the values after it inherit."""
    done = int8(resnet)
    (feeds,) = draw(resnet, seed=3, batches=1)
    values = list(steps_apart(done.path, feeds))
    chosen = values[3]

    class Saturating:
        def __init__(self, session):
            self.session = session

        def get_inputs(self):
            return self.session.get_inputs()

        def run(self, names, feeds):
            arrays = self.session.run(names, feeds)
            return [np.minimum(a, 200) if name == chosen else a for name, a in zip(names, arrays, strict=True)]

    def opened(file, *, optimize=True, **options):
        session = open_session(file, optimize=optimize, **options)
        return Saturating(session) if optimize else session

    monkeypatch.setattr("edgekit.quantize.simulation.open_session", opened)
    found = steps_apart(done.path, feeds)
    assert [name for name, steps in found.items() if steps > 1] == [chosen]
    assert found[chosen] == 55


def test_a_file_that_runs_other_kernels_when_it_is_read_out_is_refused(resnet, int8, draw, monkeypatch):
    done = int8(resnet)
    (feeds,) = draw(resnet, seed=3, batches=1)

    def kernels(path, dtype):
        found = kernels_of(path, dtype)
        return (
            found if path == done.path else replace(found, nodes=tuple(n for n in found.nodes if n.op_type != "QGemm"))
        )

    monkeypatch.setattr("edgekit.quantize.simulation.kernels_of", kernels)
    with pytest.raises(QuantizeError, match="with its 8-bit values as outputs it runs other kernels: QGemm"):
        steps_apart(done.path, feeds)


def test_a_file_without_quantized_values_has_none_apart(resnet, int8, draw, tmp_path):
    (feeds,) = draw(resnet, seed=3, batches=1)
    assert steps_apart(resnet.path, feeds) == {}
    for target in ("cuda", "size"):
        assert steps_apart(int8(resnet, target=target).path, feeds) == {}
    with pytest.raises(QuantizeError, match="no file"):
        steps_apart(tmp_path / "none.onnx", feeds)
