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
from edgekit.quantize import apply_plan, quantize, quantize_for_targets
from edgekit.quantize.calibration import observe
from edgekit.quantize.judging import outputs_of_file
from edgekit.quantize.learning.rounding import learn_rounding
from edgekit.quantize.targets import seen_here
from edgekit.quantize.weights import target_of
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

    Those are 255 wherever the weight has one sign. Weights are paired as kernels pack them, channels last.
    """
    packed = np.moveaxis(weight, 1, -1).reshape(len(weight), -1)
    found = []
    even = np.pad(packed, ((0, 0), (0, packed.shape[1] % 2)))
    for worst in (even > 0, even < 0):
        activations = np.where(worst, 255, 0).astype(np.uint8)
        exact = (activations.astype(np.int64) * even).sum(1)
        found.append((vpmaddubsw(activations, even).sum(1) != exact).any())
    return any(found)


@pytest.mark.parametrize("target", ["x86-vnni", "x86-avx2", "arm64"])
def test_weights_use_eight_bits(resnet, int8, target):
    found = weights(int8(resnet, target=target).path)
    # Four convolutions, a shortcut and the head; only for ARM64 is the first convolution faster in int8.
    assert len(found) == (7 if target == "arm64" else 6)
    # Neighbours leave a little less room where their products are added in 16 bits.
    largest = max(np.abs(array.astype(int)).max() for array in found)
    assert 100 < largest < 127 if target == "x86-avx2" else largest == 127


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


def test_no_learned_weight_of_an_avx2_file_can_saturate(resnet, int8, draw, tmp_path):
    """Rounded to where the outputs are best, which is up for some and down for others."""
    first = int8(resnet, target="x86-avx2")
    plan = learn_rounding(resnet.path, first.plan, draw(resnet), tmp_path / "rounded.onnx", steps=30)
    apply_plan(tmp_path / "rounded.onnx", plan, tmp_path / "int8.onnx")
    before, after = weights(first.path), weights(tmp_path / "int8.onnx")
    assert any((old != new).any() for old, new in zip(before, after, strict=True))
    assert not any(map(saturates, after))


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


CONVOLUTIONS = {
    "3x3": ((16, 16, 3, 3), {}),
    "3x3 of 5": ((16, 5, 3, 3), {}),
    "1x1 of 7": ((16, 7, 1, 1), {}),
    "in groups": ((16, 4, 3, 3), {"group": 4}),
    "depthwise": ((32, 1, 3, 3), {"group": 32}),
    "depthwise 5x5": ((32, 1, 5, 5), {"group": 32}),
}
PRODUCTS = {"one row": (1, 18, 16), "eight rows": (8, 64, 16)}


def in_pairs(count, first):
    """Two of four numbers are 100, from `first` on."""
    return np.where(np.isin(np.arange(count) % 4, (first, first + 1)), 100, 0)


def answer_of(nodes, arrays, x, *, optimize=True):
    """The output `y` of these nodes for `x`, in ONNX Runtime."""
    make = onnx.helper
    graph = make.make_graph(
        nodes,
        "pairs",
        [make.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x.shape)],
        [make.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    opsets = [make.make_opsetid("", 17), make.make_opsetid("com.microsoft", 1)]
    model = make.make_model(graph, opset_imports=opsets, ir_version=9)
    return open_session(model.SerializeToString(), optimize=optimize).run(None, {"x": x})[0]


def run_both_ways(op, weight, shape, attributes):
    """Outputs over their scale, from the integer kernel and from the file as it is written; inputs are 255."""
    axis = 0 if op == "Conv" else 1
    outputs = weight.shape[axis]
    step = 255.0 * np.moveaxis(weight, axis, 0).reshape(outputs, -1).sum(1).max() / 100
    arrays = {
        "one": np.float32(1), "zero": np.uint8(0), "w": weight.astype(np.int8), "ws": np.ones(outputs, np.float32),
        "wz": np.zeros(outputs, np.int8), "step": np.float32(step), "middle": np.uint8(128),
    }  # fmt: skip
    node = onnx.helper.make_node
    nodes = [
        node("QuantizeLinear", ["x", "one", "zero"], ["xq"]),
        node("DequantizeLinear", ["xq", "one", "zero"], ["xd"]),
        node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=axis),
        node(op, ["xd", "wd"], ["sum"], **attributes),
        node("QuantizeLinear", ["sum", "step", "middle"], ["yq"]),
        node("DequantizeLinear", ["yq", "step", "middle"], ["y"]),
    ]
    x = np.full(shape, 255, np.float32)
    return [answer_of(nodes, arrays, x, optimize=optimize) / step for optimize in (True, False)]


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("name", [*CONVOLUTIONS, *PRODUCTS])
def test_which_neighbours_a_kernel_adds_in_16_bits(name, first):
    """Two of four numbers are 100, channels last: a pair from the first on, or one that straddles two pairs."""
    if name in CONVOLUTIONS:
        (outputs, inputs, high, wide), attributes = CONVOLUTIONS[name]
        op, shape, count = "Conv", (1, inputs * attributes.get("group", 1), 9, 9), inputs * high * wide
    else:
        rows, count, outputs = PRODUCTS[name]
        op, shape, attributes = "MatMul", (rows, count), {}
    numbers = in_pairs(count, first)
    if op == "Conv":
        numbers = numbers.reshape(high, wide, inputs).transpose(2, 0, 1)
        weight = np.broadcast_to(numbers, (outputs, *numbers.shape))
    else:
        weight = np.repeat(numbers[:, None], outputs, 1)
    have, want = run_both_ways(op, weight, shape, attributes)
    overflows = np.abs(have - want).max() > 1.5
    assert overflows == (isa_target() == "x86-avx2" and first == 0 and "depthwise" not in name)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("rows", [1, 8])
def test_which_neighbours_a_product_at_run_time_adds_in_16_bits(rows, first):
    weight = np.repeat(in_pairs(64, first)[:, None], 16, 1)
    node = onnx.helper.make_node
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]),
        node("MatMulInteger", ["xq", "w", "xz", "wz"], ["sum"]),
        node("Cast", ["sum"], ["real"], to=onnx.TensorProto.FLOAT),
        node("Mul", ["xs", "ws"], ["scale"]),
        node("Mul", ["real", "scale"], ["y"]),
    ]
    arrays = {"w": weight.astype(np.int8), "wz": np.zeros(16, np.int8), "ws": np.ones(16, np.float32)}
    x = np.full((rows, 64), 255, np.float32)
    overflows = np.abs(answer_of(nodes, arrays, x) - x @ weight).max() > 1
    assert overflows == (isa_target() == "x86-avx2" and first == 0)


@pytest.mark.parametrize("first", [0, 1])
def test_which_neighbours_an_lstm_adds_in_16_bits(first):
    """The sums are those of a reference in numpy, made small enough for the gates to tell them apart."""
    hidden, inputs, scale = 64, 32, 1e-7
    weight = np.repeat(in_pairs(inputs, first)[:, None], 4 * hidden, 1)
    arrays = {
        "w": weight[None].astype(np.int8), "r": np.zeros((1, hidden, 4 * hidden), np.int8),
        "ws": np.float32([scale]), "wz": np.int8([0]), "rs": np.float32([1]), "rz": np.int8([0]),
    }  # fmt: skip
    words = ["x", "w", "r", *[""] * 5, "ws", "wz", "rs", "rz"]
    node = onnx.helper.make_node("DynamicQuantizeLSTM", words, ["y"], hidden_size=hidden, domain="com.microsoft")
    answer = answer_of([node], arrays, np.full((1, 1, inputs), 255, np.float32)).ravel()
    gate = float(255 * weight[:, 0].sum() * scale)
    half = 1 / (1 + np.exp(-gate))
    want = half * np.tanh(half * np.tanh(gate))
    overflows = np.abs(answer / want - 1).max() > 0.1
    assert overflows == (isa_target() == "x86-avx2" and first == 0)


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
            "run here, where VNNI hides what saturates without it: the weights rule that out",
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
