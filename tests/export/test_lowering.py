"""What is written down in the place of torch's decompositions: the same values, operators and ONNX graphs."""

from __future__ import annotations

import contextlib
import operator
import warnings

import onnx
import pytest
import torch
from torch import nn
from torch.export import ExportedProgram

from edgekit.export import export, exporters
from edgekit.export.functional import functional
from edgekit.export.lowering import is_lowered, lower
from edgekit.workload import Batch

# torch copies its own tree specifications in a way that it has deprecated itself.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")

aten = torch.ops.aten
IMAGES = torch.randn(3, 4, 6, 6)


def traced(net, x=IMAGES):
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        return functional(torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)))


def calls(program):
    found = [node.target for node in program.graph.nodes if node.op == "call_function"]
    return [target for target in found if "sym_size" not in str(target) and "assert" not in str(target)]


NORMED = nn.BatchNorm2d(4).eval()
NORMED.running_mean.normal_()
NORMED.running_var.uniform_(0.5, 2)


@pytest.mark.parametrize(
    "net",
    [
        NORMED,
        nn.BatchNorm2d(4, affine=False).eval(),
        nn.AdaptiveAvgPool2d(1),
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1),
        nn.ConvTranspose2d(4, 6, 2, bias=False, dilation=2),
        nn.ConvTranspose2d(4, 8, 2, groups=4),
    ],
    ids=lambda net: str(net)[:40],
)
def test_it_becomes_what_torch_makes_of_it(net):
    table = torch.export.default_decompositions()
    mine, theirs = lower(traced(net)), traced(net).run_decompositions(table)
    assert calls(mine) == calls(theirs)
    for size in (2, 5):
        x = torch.randn(size, *IMAGES.shape[1:])
        with torch.no_grad():
            torch.testing.assert_close(mine.module()(x), net(x), rtol=0, atol=0)
    for a, b in zip(mine.graph.nodes, theirs.graph.nodes, strict=True):
        if isinstance(b.meta.get("val"), torch.Tensor):
            assert a.meta["val"].dtype == b.meta["val"].dtype
            assert [str(size) for size in a.meta["val"].shape[1:]] == [str(size) for size in b.meta["val"].shape[1:]]


@pytest.mark.parametrize("net", [nn.AdaptiveAvgPool2d(2), nn.BatchNorm2d(4, track_running_stats=False).eval()], ids=str)
def test_what_is_something_else_stays(net):
    program = traced(net)
    before = calls(program)
    assert calls(lower(program)) == before


def test_a_program_is_lowered_when_all_its_operators_are_known_and_none_writes():
    class Both(nn.Module):
        def forward(self, x):
            first, _ = torch.relu(x).max(1)
            return first.reshape(x.shape[0] * 2, -1)

    program = traced(Both())
    known = set(calls(program)) - {operator.getitem} | {aten.sym_size.int}
    assert is_lowered(program, known)
    assert not is_lowered(program, known - {aten.relu.default})
    written = torch.export.export(Both(), (IMAGES,))
    relu = next(node for node in written.graph.nodes if node.target == aten.relu.default)
    relu.target = aten.relu_.default
    assert not is_lowered(written, known | {aten.relu_.default})
    # A graph within the graph may hold anything.
    with warnings.catch_warnings(action="ignore"):
        branches = torch.export.export(Cond(), (IMAGES,))
    assert not is_lowered(branches, known | set(calls(branches)))


class Cond(nn.Module):
    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x * 2, (x,))


def cnn():
    return nn.Sequential(
        *(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout()),
        *(nn.ConvTranspose2d(8, 4, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
    )


def attention():
    return nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.LayerNorm(8))


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.LSTM(8, 5, 2, batch_first=True, bidirectional=True)

    def forward(self, x):
        return self.layers(x)[0][:, -1]


class Resized(nn.Module):
    """With operators that torch has to decompose."""

    def forward(self, x):
        return nn.functional.interpolate(x, scale_factor=2, mode="bilinear") + x.double().mean((1, 2, 3), keepdim=True)


FAMILIES = {
    "cnn": (cnn, IMAGES, False),
    "attention": (attention, torch.randn(3, 5, 8), False),
    "recurrent": (Reader, torch.randn(3, 5, 8), False),
    "resized": (Resized, IMAGES, True),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_onnx_graph_is_that_of_the_long_way(family, tmp_path, monkeypatch):
    build, x, is_traced_again = FAMILIES[family]
    net, batch, traces = build().eval(), Batch((x,), {}, None), []
    plain = ExportedProgram.run_decompositions
    monkeypatch.setattr(ExportedProgram, "run_decompositions", lambda *words: (traces.append(1), plain(*words))[1])
    short = export(net, batch, tmp_path / "short.onnx")
    assert bool(traces) == is_traced_again
    monkeypatch.setattr(exporters, "lower", lambda program: program)
    monkeypatch.setattr(exporters, "shortcuts", contextlib.nullcontext)
    traces.clear()
    long = export(net, batch, tmp_path / "long.onnx")
    assert traces
    assert short.exporter == long.exporter == "torch.export"
    assert operators(short.path) == operators(long.path)


def operators(path):
    graph = onnx.load(path).graph
    return [(node.op_type, node.name, len(node.input), len(node.output)) for node in graph.node]
