"""The probes, and the profile that comes with edgekit, against ONNX Runtime as it is installed."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from edgekit.device.profile import DeviceProfile, shipped_profile
from edgekit.quantize import placement
from edgekit.quantize.costs import LIKE
from edgekit.quantize.probe import PROBES, fuses, graph_of, probe, quantized

BY_NAME = {each.name: each for each in PROBES}


@pytest.mark.parametrize("target", ["x86-vnni", "x86-avx2"])
@pytest.mark.parametrize("name", BY_NAME)
def test_the_shipped_profile_says_what_a_fresh_probe_finds(name, target):
    """What fuses does not depend on the processor."""
    pattern = shipped_profile(target).patterns[name]
    assert {dtype: fuses(BY_NAME[name], dtype) for dtype in ("uint8", "int8")} == dict(pattern.fused)


@pytest.mark.parametrize("target", ["x86-vnni", "x86-avx2"])
def test_the_shipped_profile_knows_every_probe_and_the_borders(target):
    shipped = shipped_profile(target)
    assert shipped.target == shipped.environment["isa_target"] == target
    assert set(shipped.patterns) == {*BY_NAME, "QuantizeLinear", "DequantizeLinear"}
    for name, each in BY_NAME.items():
        if each.costed and shipped.patterns[name].fused["uint8"]:
            pattern = shipped.patterns[name]
            assert pattern.fp32.of(1e6) > 0 or pattern.int8.of(1e6) > 0, name


def test_the_rules_of_placement_agree_with_the_probe():
    allowed = placement.COMPUTE | placement.ELEMENTWISE | placement.UNARY | placement.SAME_SCALE | {"Concat"}
    fused = {each.name.partition(".")[0] for each in PROBES if fuses(each, "uint8")}
    refused = {each.name for each in PROBES if not fuses(each, "uint8")}
    alike = set(LIKE)  # Operators that are probed as another one.
    assert allowed - alike <= fused
    assert not allowed & refused


def test_what_is_known_of_onnx_runtime():
    """Read off by hand before there was a probe."""
    known = {
        True: ("Conv.dense", "Conv.depthwise", "Conv+Relu", "Gemm", "Add", "Mul", "Concat", "Sigmoid", "MaxPool"),
        False: ("ConvTranspose", "Sub", "HardSwish", "Tanh", "Gelu", "ReduceMean", "Resize.linear", "Pad"),
    }
    for fused, names in known.items():
        assert {name: fuses(BY_NAME[name], "uint8") for name in names} == dict.fromkeys(names, fused)


@pytest.mark.parametrize("repeats", [1, 4])
def test_work_is_counted_for_one_of_the_repeated_operators(repeats):
    model, work = graph_of(BY_NAME["Conv.grouped"], 8, repeats)
    assert work == 32 * (32 // 4) * 9 * 8 * 8
    assert len([node for node in model.graph.node if node.op_type == "Conv"]) == repeats
    _, elements = graph_of(BY_NAME["Concat"], 8, 1)
    assert elements == 2 * 32 * 8 * 8


@pytest.mark.parametrize("name", ["Conv.dense", "Add", "Gemm", "MaxPool"])
def test_the_int8_form_takes_integers_and_is_near_the_fp32_form(name):
    model, _ = graph_of(BY_NAME[name], 8, 1)
    integers = quantized(model, "uint8", "x86-avx2")  # Other weights overflow where there is no VNNI.
    onnx.checker.check_model(integers, full_check=True)
    assert integers.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    rng = np.random.default_rng(0)
    given = rng.integers(90, 166, [dim.dim_value for dim in integers.graph.input[0].type.tensor_type.shape.dim])

    def run(graph, value):
        session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, {session.get_inputs()[0].name: value})[0]

    have = run(integers, given.astype(np.uint8))
    if have.dtype == np.uint8:
        have = (have.astype(np.float32) - 128) * 0.05
    want = run(model, ((given - 128) * 0.05).astype(np.float32))
    assert np.abs(have - np.clip(want, -6.4, 6.35)).max() <= 0.11


def test_a_probe_of_this_machine_is_a_profile(tmp_path):
    few = [BY_NAME[name] for name in ("Conv.pointwise", "Add", "Tanh")]
    found = probe("x86-vnni", time_s=0.5, probes=few)
    assert set(found.patterns) == {"Conv.pointwise", "Add", "Tanh", "QuantizeLinear", "DequantizeLinear"}
    assert found.patterns["Conv.pointwise"].fp32.of(1e6) > 0
    assert not found.fuses("Tanh", "uint8")
    assert not found.fuses("never probed", "uint8")
    found.save(tmp_path / "profile.json")
    from edgekit.device.profile import load_profile

    again = load_profile(tmp_path / "profile.json")
    assert again.patterns == DeviceProfile.from_dict(found.to_dict()).patterns
    assert again.to_dict() == found.to_dict()
