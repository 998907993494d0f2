"""Static int8, read off the graph that ONNX Runtime makes of the file."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx.reference import ReferenceEvaluator
from torch import nn

from edgekit.errors import EdgekitError, QuantizeError
from edgekit.quantize import QuantPlan, apply_plan, plan_quantization, quantize, sqnr_db
from edgekit.quantize import calibration as calibration_room

FLOAT_COMPUTE = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"}


def test_a_residual_network_is_int8_from_the_second_convolution_to_the_head(resnet, int8, kernels):
    done = int8(resnet)
    found = kernels(done.path)
    # 2 blocks of 2 convolutions, and the zero-padded shortcut as a fifth. The first convolution of all stays in fp32.
    assert found["QLinearConv"] == 5
    assert found["QLinearAdd"] == 2
    assert found["QLinearGlobalAveragePool"] == 1
    assert found["QGemm"] == 1
    assert found["Conv"] + found["FusedConv"] == 1
    assert not {"Pad", "Slice", "Relu", "Add"} & set(found)
    # In on the way from the stem, and nowhere out: QGemm gives fp32.
    assert (found["QuantizeLinear"], found["DequantizeLinear"]) == (1, 0)
    assert dict(done.kernels) == found


def test_every_node_is_accounted_for(resnet, int8):
    done = int8(resnet)
    nodes = {node.name: node for node in done.nodes}
    assert len(nodes) == len(done.nodes)
    assert {node.precision for node in done.nodes} == {"int8", "fp32"}
    assert all(node.reason for node in done.nodes)
    stem = next(node for node in done.nodes if node.op == "Conv" and node.precision == "fp32")
    assert stem.reason == "a first convolution over 27 numbers is faster in fp32 than gathering them for int8"


def test_the_file_agrees_with_an_evaluator_in_plain_numpy(resnet, int8, draw, run):
    done = int8(resnet)
    (feeds,) = draw(resnet, seed=5, batches=1)
    feeds = {name: array[:4] for name, array in feeds.items()}
    want = ReferenceEvaluator(onnx.load(done.path)).run(None, feeds)[0]
    have = run(done.path, feeds)
    # Values may differ by a step where a product falls between two integers; the largest scale bounds what that does.
    assert np.abs(want - have).max() <= 0.02 * np.abs(want).max()
    assert (want.argmax(1) == have.argmax(1)).all()


@pytest.mark.parametrize("kind", [("x86-vnni", None), ("x86-avx2", 128)])
def test_one_convolution_is_what_integers_give(fp32, int8, run, draw, kind):
    """Conv and ReLU by hand: 8-bit integers in, 32-bit sums, rounded and cut to 8 bits."""
    target, pair = kind
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 8, 1), nn.ReLU())
    source = fp32(net, 16, 6, 6)
    done = int8(source, target=target, bias_correction=False, weights="max", equalization=False)
    (feeds,) = draw(source, seed=3, batches=1)
    value = torch.from_numpy(next(iter(feeds.values()))).double()
    scales = {name: (scale.scale, scale.zero_point) for name, scale in done.plan.activations.items()}
    names = [done.plan.activations and name for name in scales]
    model = onnx.load(source.path)
    chain = [model.graph.input[0].name, model.graph.node[1].output[0], model.graph.node[3].output[0]]
    assert sorted(chain) == sorted(names)

    def to_integers(x, name):
        scale, zero = (np.float64(np.float32(scales[name][0])), scales[name][1])
        return torch.clamp(torch.round(x / scale) + zero, 0, 255), scale, zero

    integers, scale, zero = to_integers(value, chain[0])
    for layer, made in ((net[0], chain[1]), (net[2], chain[2])):
        weight = layer.weight.detach().double()
        per_channel = weight.abs().amax((1, 2, 3)) / 127
        if pair is not None:
            neighbours = weight.permute(0, 2, 3, 1).reshape(len(weight), -1, 2)
            per_channel = torch.maximum(per_channel, neighbours.sum(2).abs().amax(1) / pair)
        steps = torch.round(weight / per_channel[:, None, None, None])
        bias = torch.round(layer.bias.detach().double() / (per_channel * scale))
        sums = F.conv2d(integers - zero, steps, bias, padding=layer.padding)
        real = sums * (per_channel * scale)[:, None, None]
        integers, scale, zero = to_integers(real, made)
    have = torch.from_numpy(run(done.path, feeds, exact=target == "x86-vnni")).double()
    assert (((integers - zero) * scale - have).abs() <= 1.01 * scale).all()
    assert (((integers - zero) * scale - have).abs() <= 1e-5).double().mean() > 0.99


class Mixed(nn.Module):
    """Convolutions with everything between them for which there is no int8 kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1) for _ in range(9))
        self.up = nn.ConvTranspose2d(16, 16, 4, 2, 1)  # Its windows overlap.
        self.norm = nn.GroupNorm(4, 16)

    def forward(self, x):
        c = self.convs
        x = c[1](F.hardswish(c[0](x)))
        x = c[2](F.gelu(x))
        x = c[3](torch.tanh(x))
        x = c[4](F.elu(x - x.mean((2, 3), keepdim=True)))
        x = c[5](self.norm(x))
        x = c[6](self.up(x))
        x = c[7](F.interpolate(x, scale_factor=0.5, mode="bilinear"))
        return c[8](F.pad(x, (1, 1, 1, 1), value=1.0)).mean((2, 3))


def test_the_slow_patterns_are_never_written(fp32, int8, optimized):
    """What makes int8 files slower than fp32: an fp32 kernel for a convolution between DequantizeLinear and Q."""
    torch.manual_seed(2)
    done = int8(fp32(Mixed(), 16, 8, 8))
    graph = optimized(done.path).graph
    made = {output: node for node in graph.node for output in node.output}
    quantized = {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    for node in graph.node:
        if node.op_type in FLOAT_COMPUTE:
            from_int8 = node.input[0] in made and made[node.input[0]].op_type == "DequantizeLinear"
            assert not (from_int8 and node.output[0] in quantized), node.name
    counts = Counter(node.op_type for node in graph.node)
    assert counts["QLinearConv"] == 9
    refused = {node.op: node.reason for node in done.nodes if node.precision == "fp32"}
    assert {"Gelu", "Tanh", "ConvTranspose", "Resize", "Pad"} <= set(refused)
    assert refused["ConvTranspose"] == "ONNX Runtime has no int8 kernel for ConvTranspose"
    assert refused["Resize"] == "ONNX Runtime has no int8 kernel for linear resizing"


class Silu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(32, 16, 1)

    def forward(self, x):
        y = self.a(x)
        y = y * torch.sigmoid(y)
        return F.max_pool2d(self.b(torch.cat([y, x], 1)), 2)


def test_silu_concat_and_pooling_go_along(fp32, int8, kernels):
    found = kernels(int8(fp32(Silu(), 16, 8, 8)).path)
    assert found["QLinearSigmoid"] == found["QLinearMul"] == found["QLinearConcat"] == 1
    assert found["QLinearConv"] == 2
    assert found["MaxPool"] + found["NhwcMaxPool"] == 1
    assert found["DequantizeLinear"] == 1  # at the output


def test_relu6_vanishes_into_the_range(fp32, int8, kernels):
    net = nn.Sequential(nn.Conv2d(16, 16, 3), nn.ReLU6(), nn.Conv2d(16, 16, 3, groups=16), nn.ReLU6())
    done = int8(fp32(net, 16, 8, 8))
    found = kernels(done.path)
    assert found["QLinearConv"] == 2
    assert found["Clip"] == 0
    for scale in done.plan.activations.values():
        if scale.zero_point == 0:
            assert scale.scale * 255 <= 6.0 + 1e-6


class Apart(nn.Module):
    """An addition that no int8 kernel feeds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 3)

    def forward(self, x):
        return self.conv(x), torch.tanh(x) + torch.cos(x)


def test_islands_without_arithmetic_stay_in_fp32(fp32, int8):
    nodes = {node.op: node for node in int8(fp32(Apart(), 16, 4, 4)).nodes}
    assert nodes["Conv"].precision == "int8"
    assert (nodes["Add"].precision, nodes["Add"].reason) == ("fp32", "its inputs come in fp32")


def test_a_node_stays_in_fp32_when_asked(resnet, int8, kernels):
    name = next(node.name for node in int8(resnet).nodes if node.op == "Conv" and node.precision == "int8")
    done = int8(resnet, keep_float=[name])
    assert {node.name: node.reason for node in done.nodes}[name] == "it was asked to stay in fp32"
    assert kernels(done.path)["QLinearConv"] == 4


def test_accuracy_survives(resnet, int8, draw, run):
    done = int8(resnet)
    (feeds,) = draw(resnet, seed=11, batches=1)
    want, have = run(resnet.path, feeds), run(done.path, feeds)
    assert (want.argmax(1) == have.argmax(1)).mean() >= 0.9
    signal, noise = (want.astype(np.float64) ** 2).sum(), ((want.astype(np.float64) - have) ** 2).sum()
    assert 10 * np.log10(signal / noise) > 25
    held = draw(resnet)[3::4]  # What judged: batches that the plan has not seen.
    assert done.sqnr_db == pytest.approx(sqnr_db(resnet.path, done.path, held))
    assert sqnr_db(resnet.path, resnet.path, draw(resnet)) == 200.0


def test_the_source_is_left_alone_and_the_same_call_gives_the_same_bytes(resnet, int8):
    before = hashlib.sha256(resnet.path.read_bytes()).hexdigest()
    one, other = int8(resnet), int8(resnet)
    assert one.path.read_bytes() == other.path.read_bytes()
    assert hashlib.sha256(resnet.path.read_bytes()).hexdigest() == before
    assert one.path.stat().st_size < 0.5 * resnet.path.stat().st_size


def test_a_plan_that_was_saved_gives_the_same_file(resnet, int8, tmp_path):
    import json

    done = int8(resnet, target="x86-vnni")
    plan = QuantPlan.from_dict(json.loads(json.dumps(done.plan.to_dict())))
    assert plan == done.plan
    apply_plan(resnet.path, plan, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == done.path.read_bytes()
    assert str(plan).startswith("static for x86-vnni: ")


def test_cutting_batches_into_pieces_changes_no_range(resnet, draw, monkeypatch):
    def scales():
        plan = plan_quantization(resnet.path, draw(resnet), spec=resnet.spec, target="arm64", bias_correction=False)
        return plan.activations

    whole = scales()
    monkeypatch.setattr(calibration_room, "MEMORY_BYTES", 100_000)
    assert scales() == whole


@pytest.mark.parametrize("ranges", ["mse", "minmax", "percentile"])
def test_ranges_of_each_method_cover_what_they_should(resnet, int8, draw, ranges):
    done = int8(resnet, ranges=ranges, bias_correction=False)
    name = onnx.load(resnet.path).graph.node[0].output[0]
    relu = next(n.output[0] for n in onnx.load(resnet.path).graph.node if name in n.input and n.op_type == "Relu")
    model = onnx.load(resnet.path)
    model.graph.output.append(onnx.helper.make_tensor_value_info(relu, onnx.TensorProto.FLOAT, None))
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    largest = max(float(session.run([relu], feeds)[0].max()) for feeds in draw(resnet))
    scale = done.plan.activations[relu]
    assert scale.zero_point == 0
    if ranges == "minmax":
        assert scale.scale * 255 == pytest.approx(largest, rel=1e-5)
    else:
        assert 0.3 * largest < scale.scale * 255 <= largest * 1.001


@pytest.mark.parametrize(
    ("options", "problem", "where"),
    [
        ({"target": "z80"}, "unknown 'z80'", "target"),
        ({"scheme": "lazy"}, "unknown 'lazy'", "scheme"),
        ({"ranges": "luck"}, "unknown 'luck'", "ranges"),
        ({"keep_float": ["nobody"]}, "no nodes nobody", "keep_float"),
    ],
)
def test_a_wrong_option_is_named(resnet, int8, options, problem, where):
    with pytest.raises(QuantizeError) as caught:
        int8(resnet, **options)
    assert caught.value.problem == problem
    assert where in caught.value.where


def test_faults_of_files_and_data(resnet, draw, tmp_path, fp32):
    target = tmp_path / "out.onnx"
    with pytest.raises(QuantizeError, match="no file"):
        quantize(tmp_path / "none.onnx", draw(resnet), target, spec=resnet.spec)
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(QuantizeError, match="not an ONNX file"):
        quantize(tmp_path / "text.onnx", draw(resnet), target, spec=resnet.spec)
    with pytest.raises(QuantizeError, match="no calibration data"):
        quantize(resnet.path, [], target, spec=resnet.spec)
    name = resnet.spec.inputs[0].name
    with pytest.raises(EdgekitError, match="float32"):
        quantize(resnet.path, [{name: np.zeros((1, 3, 5, 5), np.float32)}], target, spec=resnet.spec)
    with pytest.raises(QuantizeError, match="NaN or infinite"):
        quantize(resnet.path, [{name: np.full((1, 3, 16, 16), np.nan, np.float32)}], target, spec=resnet.spec)
    nothing = fp32(nn.Tanh(), 4)
    with pytest.raises(QuantizeError, match="nothing in the graph can run in int8") as caught:
        quantize(nothing.path, draw(nothing), target, spec=nothing.spec)
    assert "ship fp32" in caught.value.way_out
    assert not target.exists()


def test_a_plan_for_another_file_is_refused(resnet, int8, fp32, tmp_path):
    other = fp32(nn.Sequential(nn.Conv2d(16, 16, 3), nn.ReLU()), 16, 8, 8)
    with pytest.raises(QuantizeError, match="no nodes"):
        apply_plan(other.path, int8(resnet).plan, tmp_path / "out.onnx")
    with pytest.raises(QuantizeError, match="version 7"):
        QuantPlan.from_dict({"version": 7})
    with pytest.raises(QuantizeError, match="KeyError"):
        QuantPlan.from_dict({"version": 2})


class Stage(nn.Module):
    """Residual blocks of one width: the first one adds to what the stem gives."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1)
        self.blocks = nn.ModuleList(nn.Conv2d(16, 16, 3, 1, 1) for _ in range(blocks))
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = F.relu(self.stem(x))
        for block in self.blocks:
            x = F.relu(x + block(x))
        return self.head(x.mean((2, 3)))


def test_residual_blocks_behind_the_stem_keep_one_layout(fp32, int8, kernels):
    counts = []
    for blocks in (1, 4):
        done = int8(fp32(Stage(blocks), 3, 12, 12))
        found = kernels(done.path)
        assert (found["QLinearConv"], found["QLinearAdd"]) == (blocks, blocks)
        assert (found["QuantizeLinear"], found["DequantizeLinear"]) == (1, 0)
        assert done.sqnr_db > 30
        counts.append(found["Transpose"])
    # However many blocks there are: one on the way in, and one that turns the pooled channels.
    assert counts[0] == counts[1] <= 2
