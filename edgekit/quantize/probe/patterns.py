"""Small graphs of one operator, or a few that belong together: what is probed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

CHANNELS = 32
SIDES = (8, 24)
"""Of the images: two sizes, which tell what an operator costs by itself and what by its work."""
REPEATS = (1, 4)
"""How often an operator follows itself, so that the difference is free of what a call costs."""

Step = Callable[["Builder", str], str]
"""Adds an operator that reads a value, and returns the value that it makes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What is probed.

    Args:
        name: of the pattern.
        step: adds it to a graph.
        unit: `MACs` or `elements`.
        chained: whether its output has its input's shape, so that it can follow itself.
        hosted: whether it stands behind a convolution, as in a network: alone, ONNX Runtime would run it in another
            layout, which is up to 50 times slower in int8.
        channels: of its input.
        rank: 4 for images, 2 for rows of features.
        costed: whether what it costs is of interest, or only whether it fuses.
    """

    name: str
    step: Step
    unit: str = "elements"
    chained: bool = True
    hosted: bool = False
    channels: int = CHANNELS
    rank: int = 4
    costed: bool = True


class Builder:
    """An ONNX graph in the making."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.macs = 0
        self._rng = np.random.default_rng(0)

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator; returns its first output."""
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def constant(self, array: Any, dtype: Any = np.float32) -> str:
        """Add a constant."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def random(self, *shape: int) -> str:
        """Add random weights."""
        return self.constant(self._rng.standard_normal(shape) / max(1, math.prod(shape[1:])) ** 0.5)

    def model(self, output: str, *, input_type: str = "float32", output_type: str = "float32") -> onnx.ModelProto:
        """The graph from `x` to `output`, with its shapes inferred."""
        kinds = [helper.np_dtype_to_tensor_dtype(np.dtype(kind)) for kind in (input_type, output_type)]
        graph = helper.make_graph(
            self.nodes,
            "probe",
            [helper.make_tensor_value_info("x", kinds[0], self.shape)],
            [helper.make_tensor_value_info(output, kinds[1], None)],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def graph_of(probe: Probe, side: int, repeats: int) -> tuple[onnx.ModelProto, float]:
    """The fp32 graph of a pattern, and the work that it does once."""
    shape = (1, probe.channels, side, side) if probe.rank == 4 else (side, probe.channels)
    builder = Builder(shape)
    value = "x"
    for _ in range(repeats):
        value = probe.step(builder, HOST(builder, value) if probe.hosted else value)
    model = builder.model(value)
    if probe.unit == "MACs":
        return model, builder.macs / repeats
    made = [dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim]
    return model, float(max(math.prod(shape), math.prod(made)))


def _convolution(channels: int, outputs: int, kernel: int, groups: int = 1, after: str = "") -> Step:
    def step(builder: Builder, value: str) -> str:
        weight = builder.random(outputs, channels // groups, kernel, kernel)
        bias = builder.random(outputs)
        builder.macs += outputs * (channels // groups) * kernel**2 * builder.shape[2] * builder.shape[3]
        pads = [kernel // 2] * 4
        made = builder.node("Conv", value, weight, bias, kernel_shape=[kernel, kernel], pads=pads, group=groups)
        if after == "Clip":
            return builder.node("Clip", made, builder.constant(0.0), builder.constant(6.0))
        return builder.node(after, made) if after else made

    return step


def _product(op: str, outputs: int = CHANNELS) -> Step:
    def step(builder: Builder, value: str) -> str:
        builder.macs += builder.shape[0] * CHANNELS * outputs
        return builder.node(op, value, builder.random(CHANNELS, outputs))

    return step


def _unary(op: str, **attributes: Any) -> Step:
    return lambda builder, value: builder.node(op, value, **attributes)


def _with_itself(op: str) -> Step:
    return lambda builder, value: builder.node(op, value, "x")


def _with(op: str, *constants: tuple[Any, Any], **attributes: Any) -> Step:
    def step(builder: Builder, value: str) -> str:
        return builder.node(op, value, *(builder.constant(array, kind) for array, kind in constants), **attributes)

    return step


def _with_a_number(op: str) -> Step:
    return lambda builder, value: builder.node(op, value, builder.constant(1.5))


def _silu(builder: Builder, value: str) -> str:
    return builder.node("Mul", value, builder.node("Sigmoid", value))


def _resize(mode: str) -> Step:
    def step(builder: Builder, value: str) -> str:
        scales = builder.constant([1, 1, 2, 2])
        return builder.node("Resize", value, "", scales, mode=mode)

    return step


def _norm(op: str) -> Step:
    def step(builder: Builder, value: str) -> str:
        ones, zeros = builder.constant(np.ones(CHANNELS)), builder.constant(np.zeros(CHANNELS))
        if op == "BatchNormalization":
            return builder.node(op, value, ones, zeros, zeros, ones)
        if op == "LayerNormalization":
            side = builder.shape[3]
            return builder.node(op, value, builder.constant(np.ones(side)), builder.constant(np.zeros(side)))
        return builder.node(op, value, ones, zeros)

    return step


def _transposed(builder: Builder, value: str) -> str:
    builder.macs += CHANNELS * CHANNELS * 2 * 2 * builder.shape[2] * builder.shape[3]
    return builder.node("ConvTranspose", value, builder.random(CHANNELS, CHANNELS, 2, 2), strides=[2, 2])


HOST = _convolution(CHANNELS, CHANNELS, 1)
HOST_NAME = "Conv.pointwise"
INT64 = np.int64
PROBES: tuple[Probe, ...] = (
    Probe(name="Conv.dense", step=_convolution(CHANNELS, CHANNELS, 3), unit="MACs"),
    Probe(name="Conv.pointwise", step=_convolution(CHANNELS, CHANNELS, 1), unit="MACs"),
    Probe(name="Conv.depthwise", step=_convolution(CHANNELS, CHANNELS, 3, CHANNELS), unit="MACs"),
    Probe(name="Conv.channelwise", step=_convolution(CHANNELS, CHANNELS, 1, CHANNELS), unit="MACs"),
    Probe(name="Conv.grouped", step=_convolution(CHANNELS, CHANNELS, 3, 4), unit="MACs"),
    Probe(name="Conv.few_inputs", step=_convolution(3, CHANNELS, 3), unit="MACs", chained=False, channels=3),
    Probe(name="Conv+Relu", step=_convolution(CHANNELS, CHANNELS, 3, after="Relu"), unit="MACs", costed=False),
    Probe(name="Conv+Clip", step=_convolution(CHANNELS, CHANNELS, 3, after="Clip"), unit="MACs", costed=False),
    Probe(name="ConvTranspose", step=_transposed, unit="MACs", chained=False),
    Probe(name="Gemm", step=_product("Gemm"), unit="MACs", rank=2),
    Probe(name="MatMul", step=_product("MatMul"), unit="MACs", rank=2),
    Probe(name="Add", step=_with_itself("Add"), hosted=True),
    Probe(name="Mul", step=_with_itself("Mul"), hosted=True),
    Probe(name="Add.constant", step=_with_a_number("Add"), hosted=True),
    Probe(name="Mul.constant", step=_with_a_number("Mul"), hosted=True),
    Probe(name="Sub", step=_with_itself("Sub"), costed=False),
    Probe(name="Div", step=_with_itself("Div"), costed=False),
    Probe(name="Concat", step=lambda b, v: b.node("Concat", v, "x", axis=1), chained=False),
    Probe(name="Sigmoid", step=_unary("Sigmoid"), hosted=True),
    Probe(name="LeakyRelu", step=_unary("LeakyRelu", alpha=0.1), hosted=True),
    Probe(name="SiLU", step=_silu, hosted=True),
    Probe(name="HardSigmoid", step=_unary("HardSigmoid"), hosted=True),
    Probe(name="HardSwish", step=_unary("HardSwish"), hosted=True),
    Probe(name="Tanh", step=_unary("Tanh"), costed=False),
    Probe(name="Elu", step=_unary("Elu"), costed=False),
    Probe(name="Gelu", step=_unary("Gelu"), costed=False),
    Probe(name="Mish", step=_unary("Mish"), costed=False),
    Probe(name="PRelu", step=_with("PRelu", (np.full((CHANNELS, 1, 1), 0.1), np.float32)), costed=False),
    Probe(name="Softmax", step=_unary("Softmax", axis=1)),
    Probe(name="MaxPool", step=_unary("MaxPool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]), hosted=True),
    Probe(
        name="AveragePool",
        step=_unary("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
        hosted=True,
    ),
    Probe(name="GlobalAveragePool", step=_unary("GlobalAveragePool"), chained=False),
    Probe(name="ReduceMean", step=_with("ReduceMean", ([2, 3], INT64)), chained=False, costed=False),
    Probe(name="Resize.nearest", step=_resize("nearest"), chained=False),
    Probe(name="Resize.linear", step=_resize("linear"), chained=False, costed=False),
    Probe(
        name="Pad", step=_with("Pad", ([0, 0, 1, 1, 0, 0, 1, 1], INT64), (0.0, np.float32)), chained=False, costed=False
    ),
    Probe(
        name="Slice",
        step=_with("Slice", ([0, 0], INT64), ([2**31 - 1] * 2, INT64), ([2, 3], INT64), ([2, 2], INT64)),
        chained=False,
    ),
    Probe(name="Transpose", step=_unary("Transpose", perm=[0, 1, 3, 2]), costed=False),
    Probe(name="Reshape", step=_with("Reshape", ([1, -1], INT64)), chained=False),
    Probe(name="DepthToSpace", step=_unary("DepthToSpace", blocksize=2), chained=False),
    Probe(name="BatchNormalization", step=_norm("BatchNormalization"), hosted=True),
    Probe(name="InstanceNormalization", step=_norm("InstanceNormalization"), costed=False),
    Probe(name="LayerNormalization", step=_norm("LayerNormalization"), costed=False),
)
"""Every pattern that placement asks about, and those of which it says why not."""
