"""Kernels and the nodes they do, on networks that ONNX Runtime fuses."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.bench import node_rows
from edgekit.bench.nodes import contents
from edgekit.device.benchmark import profile_kernels
from edgekit.device.candidates import Candidate
from edgekit.device.kernels import Kernel, Kernels


def residual(path, *, quantized=False):
    """x -> conv1 -> relu1 -> conv2 -> add (x) -> relu2; quantized: with Q and DQ at every node, names kept."""
    rng = np.random.default_rng(0)
    nodes, constants = [], []

    def wrapped(name):
        if not quantized:
            return name
        nodes.extend(
            (
                helper.make_node("QuantizeLinear", [name, "scale", "zero"], [f"{name}_q"]),
                helper.make_node("DequantizeLinear", [f"{name}_q", "scale", "zero"], [f"{name}_dq"]),
            )
        )
        return f"{name}_dq"

    def weight(name):
        values = rng.standard_normal((16, 16, 3, 3))
        if not quantized:
            constants.append(numpy_helper.from_array(values.astype(np.float32), name))
            return name
        constants.append(numpy_helper.from_array(np.clip(30 * values, -127, 127).astype(np.int8), f"{name}_q"))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", "scale", "middle"], [name]))
        return name

    if quantized:
        constants += [
            numpy_helper.from_array(np.float32(0.05), "scale"),
            numpy_helper.from_array(np.uint8(0), "zero"),
            numpy_helper.from_array(np.int8(0), "middle"),
        ]
    start = wrapped("x")
    for name, kind, inputs in (
        ("conv1", "Conv", lambda: [start, weight("w1")]),
        ("relu1", "Relu", lambda: ["conv1_out"]),
        ("conv2", "Conv", lambda: [wrapped("relu1_out"), weight("w2")]),
        ("add", "Add", lambda: [wrapped("conv2_out"), start]),
        ("relu2", "Relu", lambda: ["add_out"]),
    ):
        given = inputs()
        more = {"pads": [1, 1, 1, 1]} if kind == "Conv" else {}
        nodes.append(helper.make_node(kind, given, [f"{name}_out"], name=name, **more))
    last = wrapped("relu2_out")
    shape = [1, 16, 8, 8]
    graph = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, shape)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def profiles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nodes")
    found = {}
    for name in ("fp32", "int8"):
        path, optimized = residual(folder / f"{name}.onnx", quantized=name == "int8"), folder / f"{name}.optimized.onnx"
        found[name] = (
            path,
            optimized,
            profile_kernels(Candidate(name=name, path=str(path)), runs=3, optimized=optimized),
        )
    return found


def test_every_node_is_in_one_row_and_no_time_is_lost(profiles):
    rows = node_rows(profiles)
    named = [name for row in rows for name in row.nodes]
    assert sorted(named) == ["add", "conv1", "conv2", "relu1", "relu2"]
    for name, (_, _, kernels) in profiles.items():
        assert sum(row.us.get(name, 0) for row in rows) == pytest.approx(sum(each.us for each in kernels.rows))
        assert sum(row.share.get(name, 0) for row in rows) == pytest.approx(1)


def test_nodes_of_one_kernel_stand_together_and_beside_those_of_the_other_file(profiles):
    by_node = {name: row for row in node_rows(profiles) for name in row.nodes}
    assert by_node["conv1"] is by_node["relu1"]
    assert by_node["conv1"].operators == ("Conv", "Relu")
    assert by_node["conv2"] is not by_node["conv1"]
    assert set(by_node["conv1"].us) == {"fp32", "int8"}
    assert "QLinearConv" in by_node["conv1"].kernels["int8"]
    assert "QLinearConv" not in by_node["conv1"].kernels["fp32"]


def test_the_costliest_come_first(profiles):
    costs = [max(row.us.values()) for row in node_rows(profiles)]
    assert costs == sorted(costs, reverse=True)


def test_a_fused_kernel_is_named_after_any_of_its_nodes(tmp_path):
    """By hand: ONNX Runtime names the kernel after the last node here, after the first one there."""
    graph = ir.load(residual(tmp_path / "net.onnx")).graph
    rows = [
        Kernel(name="relu1_nchwc", operator="Conv", provider="cpu", us=3.0),
        Kernel(name="conv2_token_7", operator="Conv", provider="cpu", us=5.0),
        Kernel(name="ReorderOutput", operator="ReorderOutput", provider="cpu", us=1.0),
    ]
    found = contents(graph, ir.Graph([], [], nodes=[]), rows)
    assert [nodes for _, nodes in found] == [("conv1", "relu1"), ("conv2", "add", "relu2"), ()]


def test_what_was_put_in_is_a_row_for_each_kind(tmp_path):
    path = residual(tmp_path / "net.onnx")
    kernels = Kernels(
        rows=tuple(
            Kernel(name=name, operator=kind, provider="cpu", us=us)
            for name, kind, us in (
                ("conv1", "Conv", 4.0),
                ("conv2", "Conv", 3.0),
                ("ReorderInput", "ReorderInput", 1.0),
                ("ReorderInput_token_3", "ReorderInput", 2.0),
            )
        ),
        run_us=12.0,
        arena_bytes=None,
    )
    rows = node_rows({"net": (path, path, kernels)})
    (inserted,) = [row for row in rows if not row.nodes]
    assert (inserted.operators, inserted.us, inserted.share) == (("ReorderInput",), {"net": 3.0}, {"net": 0.3})
