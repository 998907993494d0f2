"""What each kind of device needs."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from edgekit.compress import Settings
from edgekit.device import isa_target
from edgekit.device.session import open_session
from edgekit.quantize import quantize, quantize_for_targets
from edgekit.quantize.calibration import observe
from edgekit.quantize.judging import outputs_of_file
from edgekit.quantize.targets import seen_here, target_of
from edgekit.search import SearchSettings
from tests.quantize.conftest import Encoder


def constants(path):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def weights(path):
    return [array for array in constants(path).values() if array.dtype == np.int8 and array.ndim >= 2]


def vpmaddubsw(activations, weight):
    """U8 times S8, neighbours added in 16 bits that saturate: what x86 without VNNI does, before it adds in 32 bits."""
    products = activations.astype(np.int32) * weight.astype(np.int32)
    return np.clip(products[..., 0::2] + products[..., 1::2], -32768, 32767)


def saturates(weight):
    """Whether the sums of any output channel come out wrong for the inputs that are worst for it.

    Those are 255 wherever the weight has one sign. Weights are paired as the file has them, as kernels pack them
    (channels last), and largest beside largest, which is the worst of all orders.
    """
    rows = weight.reshape(len(weight), -1)
    packed = np.moveaxis(weight, 1, -1).reshape(len(weight), -1)
    found = []
    for order in (rows, packed, np.sort(rows, axis=1), -np.sort(-rows, axis=1)):
        even = np.pad(order, ((0, 0), (0, order.shape[1] % 2)))
        for worst in (even > 0, even < 0):
            activations = np.where(worst, 255, 0).astype(np.uint8)
            exact = (activations.astype(np.int64) * even).sum(1)
            found.append((vpmaddubsw(activations, even).sum(1) != exact).any())
    return any(found)


@pytest.mark.parametrize(("target", "limit"), [("x86-vnni", 127), ("x86-avx2", 63), ("arm64", 127)])
def test_weights_stay_within_what_the_kernels_can_add(resnet, int8, target, limit):
    found = weights(int8(resnet, target=target).path)
    # Four convolutions, a shortcut and the head; only for ARM64 is the first convolution faster in int8.
    assert len(found) == (7 if target == "arm64" else 6)
    assert max(np.abs(array.astype(int)).max() for array in found) == limit


def test_the_emulated_instruction_saturates_from_128_on():
    pair = np.full(2, 255, np.uint8)
    assert vpmaddubsw(pair, np.array([64, 64], np.int8)).tolist() == [32640]
    assert vpmaddubsw(pair, np.array([65, 64], np.int8)).tolist() == [32767]
    assert vpmaddubsw(pair, np.array([-127, -127], np.int8)).tolist() == [-32768]


def test_no_weight_of_an_avx2_file_can_saturate_and_some_of_a_vnni_file_do(resnet, int8):
    found = {target: weights(int8(resnet, target=target).path) for target in ("x86-avx2", "x86-vnni")}
    assert [array.shape for array in found["x86-avx2"]] == [array.shape for array in found["x86-vnni"]]
    assert not any(map(saturates, found["x86-avx2"]))
    assert sum(map(saturates, found["x86-vnni"])) >= 4


def test_no_weight_of_a_dynamic_avx2_file_can_saturate(fp32, int8):
    torch.manual_seed(0)
    source = fp32(nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 8)), 64)
    found = {
        target: [array.T for array in weights(int8(source, target=target, scheme="dynamic").path)]
        for target in ("x86-avx2", "x86-vnni")
    }
    assert len(found["x86-avx2"]) == 2
    assert not any(map(saturates, found["x86-avx2"]))
    assert all(map(saturates, found["x86-vnni"]))


@pytest.mark.parametrize(("target", "kind"), [("x86-vnni", np.uint8), ("x86-avx2", np.uint8), ("arm64", np.int8)])
def test_activations_have_the_type_that_the_kernels_take(resnet, int8, target, kind):
    done = int8(resnet, target=target)
    zeros = {np.dtype(scale.dtype) for scale in done.plan.activations.values()}
    assert zeros == {np.dtype(kind)}
    # Behind a ReLU the lowest integer is zero: only then does the ReLU vanish.
    lowest = np.iinfo(kind).min
    assert sum(scale.zero_point == lowest for scale in done.plan.activations.values()) >= 4


@pytest.mark.parametrize("target", ["x86-vnni", "x86-avx2", "arm64"])
def test_each_agrees_with_fp32(resnet, int8, run, draw, target):
    done = int8(resnet, target=target)
    # Only on ARM64 is the first convolution worth it.
    assert {node.precision for node in done.nodes} == ({"int8"} if target == "arm64" else {"int8", "fp32"})
    (feeds,) = draw(resnet, seed=4, batches=1)
    want, have = run(resnet.path, feeds), run(done.path, feeds)
    assert np.abs(want - have).max() <= 0.15 * np.abs(want).max()


def test_cuda_gets_fp16_inside_and_fp32_outside(resnet, int8, run, draw):
    done = int8(resnet, target="cuda")
    model = onnx.load(done.path)
    kinds = {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    assert kinds == {onnx.TensorProto.FLOAT}
    floats = [array for array in constants(done.path).values() if np.issubdtype(array.dtype, np.floating)]
    assert {array.dtype for array in floats if array.ndim == 4} == {np.dtype(np.float16)}
    assert not [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    (feeds,) = draw(resnet, seed=4, batches=1)
    want, have = run(resnet.path, feeds), run(done.path, feeds)
    assert np.abs(want - have).max() <= 0.01 * np.abs(want).max()
    assert {node.precision for node in done.nodes} == {"fp16"}


def test_an_fp16_transformer_is_judged_without_the_optimizations_that_crash(fp32, int8, draw):
    """ONNX Runtime 1.32 ends the process when it optimizes this file for the CPU."""
    torch.manual_seed(1)
    source = fp32(Encoder(), 7, 32)
    done = int8(source, target="cuda")
    sessions = []
    for path in (source.path, done.path):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        sessions.append(onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]))
    (feeds,) = draw(source, seed=4, batches=1)
    want, have = (session.run(None, feeds)[0] for session in sessions)
    assert 0 < np.abs(want - have).max() <= 0.01 * np.abs(want).max()
    assert done.sqnr_db > 50


@pytest.mark.parametrize(
    ("here", "target", "text"),
    [
        ("x86-vnni", "x86-vnni", "kernels read and run here"),
        (
            "x86-vnni",
            "x86-avx2",
            "run here, where VNNI hides what saturates without it: the 7-bit weights rule that out",
        ),
        ("x86-avx2", "x86-avx2", "kernels read and run here"),
        (
            *("x86-avx2", "x86-vnni"),
            "run here without VNNI, where sums of products may saturate: other outputs than on its device",
        ),
        (
            *("x86-vnni", "arm64"),
            "kernels read as ARM takes them (session.qdqisint8allowed); not run on such a device",
        ),
        ("arm64", "arm64", "kernels read and run here"),
        ("arm64", "x86-vnni", "not run on such a device"),
        ("x86-vnni", "cuda", "not run on such a device"),
        ("x86-vnni", "tensorrt", "not run on such a device"),
        ("arm64", "size", "run here: any processor takes it"),
    ],
)
def test_what_a_machine_can_tell_follows_from_its_instructions(monkeypatch, here, target, text):
    monkeypatch.setattr("edgekit.quantize.targets.isa_target", lambda: here)
    assert seen_here(target) == text


@pytest.mark.parametrize(
    ("here", "target"), [("x86-vnni", "x86-vnni"), ("x86-avx2", "x86-avx2"), ("arm64", "arm64"), ("x86", "x86-avx2")]
)
def test_without_a_target_files_are_for_this_machine(resnet, int8, monkeypatch, here, target):
    monkeypatch.setattr("edgekit.quantize.targets.isa_target", lambda: here)
    assert int8(resnet, equalization=False, bias_correction=False).plan.target == target
    assert Settings().target == SearchSettings(aims=("latency", "drop")).target == target
    assert Settings(target="arm64").target == "arm64"


def test_without_vnni_a_file_for_vnni_gives_the_numbers_of_its_own_device(resnet, draw, tmp_path, monkeypatch):
    """What ONNX Runtime is told where 8-bit products overflow; with VNNI it changes nothing but the kernels."""
    path = quantize(resnet.path, draw(resnet), tmp_path / "int8.onnx", spec=resnet.spec, target="x86-vnni").path
    feeds = draw(resnet, seed=5)[:1]
    as_written = open_session(path, optimize=False).run(None, feeds[0])[0]
    found = {}
    for here in ("x86-avx2", "x86-vnni"):
        monkeypatch.setattr("edgekit.device.variants.isa_target", lambda here=here: here)
        (found[here],) = outputs_of_file(path, feeds, "x86-vnni")
    largest = np.abs(as_written).max()
    assert np.abs(found["x86-avx2"] - as_written).max() < 0.05 * largest
    if isa_target() == "x86-avx2":
        assert np.abs(found["x86-vnni"] - as_written).max() > 0.05 * largest


def test_one_calibration_serves_all_targets(resnet, draw, monkeypatch, tmp_path):
    """Two passes, before and after equalization; the scales are those that each target gets alone."""
    passes = []

    def counted(model, values, batches, **options):
        passes.append(sorted(values))
        return observe(model, values, batches, **options)

    monkeypatch.setattr("edgekit.quantize.calibration.observe", counted)
    batches, options = draw(resnet), {"spec": resnet.spec, "bias_correction": False}
    targets = ("x86-vnni", "x86-avx2", "arm64", "cuda", "tensorrt", "size")
    paths = {target: tmp_path / f"{target}.onnx" for target in targets}
    made = quantize_for_targets(resnet.path, batches, paths, **options)
    assert [done.plan.target for done in made] == list(targets)
    assert len(passes) == 2
    # What only ARM64 and TensorRT round: the input, which the first convolution of the others takes in fp32.
    assert resnet.spec.inputs[0].name in passes[0]
    for done in made:
        alone = quantize(resnet.path, batches, tmp_path / "alone.onnx", target=done.plan.target, **options)
        assert alone.plan.nodes == done.plan.nodes
        # Which values are read out changes what ONNX Runtime fuses, and the last bit of what it computes.
        scales = {name: scale.scale for name, scale in alone.plan.activations.items()}
        assert {name: scale.scale for name, scale in done.plan.activations.items()} == pytest.approx(scales, rel=1e-4)
    assert len(passes) == 2 + 2 * 4


def test_whom_a_file_is_for_is_read_off_its_integers(resnet, fp32, int8):
    def read(path):
        return target_of(ir.load(path).graph)

    encoder = fp32(Encoder(), 6, 32)
    found = {
        (name, target): read(int8(source, target=target).path)
        for name, source in (("resnet", resnet), ("encoder", encoder))
        for target in ("x86-vnni", "x86-avx2", "arm64", "size")
    }
    assert found["resnet", "x86-vnni"] == found["encoder", "x86-vnni"] == "x86-vnni"
    # Dynamic int8 has the same operators on ARM as on x86, and there 8 bits are right.
    assert found["resnet", "arm64"] == "arm64"
    assert {found[name, target] for name in ("resnet", "encoder") for target in ("x86-avx2", "size")} == {"any"}
    assert read(resnet.path) == read(encoder.path) == "any"
