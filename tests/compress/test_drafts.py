"""Which plans share a graph to be timed."""

from __future__ import annotations

import onnx_ir as ir
import pytest
import torch
from torch import nn

from edgekit.compress.drafts import signature
from edgekit.export import export
from edgekit.prune import GraphPruner, analyse, make_plan
from edgekit.quantize import sketch
from edgekit.workload import Batch


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 16)
        self.mix = nn.Conv1d(16, 16, 3, padding=1)

    def forward(self, x):
        # Reshaping with a size of its own is where open dimensions get other names.
        batch, time, width = x.shape
        x = x + self.mix(x.transpose(1, 2)).transpose(1, 2).reshape(batch, time, width)
        return x + self.down(torch.relu(self.up(self.norm(x).reshape(-1, width)))).reshape(batch, time, width)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    torch.manual_seed(0)
    model = nn.Sequential(*(Layer() for _ in range(4)), nn.Linear(16, 5)).eval()
    example = Batch((torch.randn(2, 6, 16),), {}, None)
    path = export(model, example, tmp_path_factory.mktemp("net") / "net.onnx", dynamic="batch").path
    graphs, coupling = GraphPruner(ir.load(path)), analyse(model, example)

    def of(kept, blocks=()):
        names = [block.name for block in coupling.blocks if any(block.has(each) for each in blocks)]
        assert len(names) == len(blocks)
        return graphs.pruned(make_plan(coupling, kept, names))

    return of


def operators(model):
    """Each with the sizes of what it makes, without the open ones."""
    return sorted(
        (node.op_type, [size for size in node.outputs[0].shape or () if isinstance(size, int)]) for node in model.graph
    )


def test_alike_layers_share_one_and_other_widths_do_not(made):
    eight, others = list(range(8)), list(range(1, 9))
    narrow = [made({f"{layer}.up": eight}) for layer in range(3)]
    assert len({signature(graph) for graph in narrow}) == 1
    assert len({str(operators(sketch(graph, "x86-vnni"))) for graph in narrow}) == 1
    assert signature(made({"1.up": others})) == signature(narrow[0])
    assert signature(made({"1.up": list(range(16))})) != signature(narrow[0])
    assert signature(made({"0.up": eight, "1.up": eight})) != signature(narrow[0])


def test_a_block_gone_is_the_same_whichever_it_was_between_the_same_neighbours(made):
    gone = [made({}, [f"{layer}.down"]) for layer in range(4)]
    assert signature(gone[1]) == signature(gone[2])
    for border in (0, 3):  # What the network reads, and its head, stand beside another operator then.
        assert signature(gone[border]) != signature(gone[1])
    assert signature(made({}, ["0.mix"])) != signature(gone[0])
    assert signature(made({}, ["0.down", "1.down"])) != signature(gone[0])


def test_open_dimensions_keep_their_names_and_sizes_are_those_that_are_left(made):
    graph = made({"1.up": list(range(8))}).graph
    shapes = {str(value.name): list(map(str, value.shape)) for node in graph for value in node.outputs if value.shape}
    widths = {shape[-1] for name, shape in shapes.items() if name.startswith("1.up")}
    assert widths == {"8"}
    assert {shape[-1] for name, shape in shapes.items() if name.startswith("0.up")} == {"32"}
    (output,) = graph.outputs
    assert [str(size) for size in output.shape][1:] == ["6", "5"]
    assert not str(output.shape[0]).isdigit()


@pytest.mark.parametrize("bound", [6.0, 3.0])
def test_the_bounds_of_a_clip_are_part_of_what_a_plan_costs_and_weights_are_not(bound):
    def clipped(high, scale):
        x, y, scaled = (
            ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1, 4]))
            for name in ("x", "y", "scaled")
        )
        scales, low, top = constants = [
            ir.Value(name=name, const_value=ir.tensor(value, ir.DataType.FLOAT, name=name))
            for name, value in (("scales", [scale] * 4), ("low", 0.0), ("top", high))
        ]
        nodes = [
            ir.Node("", "Mul", [x, scales], outputs=[scaled]),
            ir.Node("", "Clip", [scaled, low, top], outputs=[y]),
        ]
        graph = ir.Graph([x], [y], nodes=nodes, initializers=constants, opset_imports={"": 20})
        return ir.Model(graph, ir_version=10)

    assert signature(clipped(6.0, 1.0)) == signature(clipped(6.0, 2.0))
    assert (signature(clipped(6.0, 1.0)) == signature(clipped(bound, 1.0))) == (bound == 6.0)
