"""What an ONNX file holds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from edgekit.inspection.facts import INT8, Layer, ModelFacts
from edgekit.inspection.precision import Placed, precision_of
from edgekit.inspection.reading import bytes_of, external_files, read, type_name
from edgekit.inspection.sizes import Kinds, attributes_of, sizes
from edgekit.macs import computes, is_known, macs
from edgekit.profiling.network import DEQUANTIZE, QUANTIZE, constants_of
from edgekit.spec import TensorSpec
from edgekit.store import file_sha256

_CONSTANT_CHAIN = frozenset({DEQUANTIZE, QUANTIZE, "Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""What may stand between a weight and the node that reads it."""
_QUANTIZATION = {
    QUANTIZE: (1, 2),
    DEQUANTIZE: (1, 2),
    "ConvInteger": (2, 3),
    "DynamicQuantizeLSTM": (8, 9, 10, 11),
    "DynamicQuantizeMatMul": (2, 3),
    "MatMulInteger": (2, 3),
    "MatMulIntegerToFloat": (2, 3, 4, 5),
    "MatMulNBits": (2, 3, 4),
    "QAttention": (3, 4, 6, 7),
    "QGemm": (1, 2, 4, 5, 7, 8),
    "QLinearAdd": (1, 2, 4, 5, 6, 7),
    "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "QLinearMul": (1, 2, 4, 5, 6, 7),
}
"""Inputs that hold scales and zero points."""
_NO_NUMBERS = (onnx.TensorProto.INT64, onnx.TensorProto.BOOL, onnx.TensorProto.STRING)
"""Types of shapes, axes and indexes."""


def inspect_onnx(
    path: Path,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    batch: int = 1,
    reasons: Mapping[str, str] | None = None,
) -> ModelFacts:
    """What an ONNX file holds, from the file alone: it is not run, and no other file is opened.

    Args:
        path: the file; anybody's, it need not be trusted.
        shapes: sizes of inputs by name, for which multiply-accumulates are counted.
        batch: where the first dimension of an input is open and not given. Other open dimensions leave the counts of
            the nodes behind them unknown.
        reasons: by node, why it is not int8, as a plan of quantization says it.

    Raises:
        EdgekitError: it is no ONNX file, a tensor is not as large as it says, or `shapes` do not fit.
    """
    model = read(path)
    kinds, assumed = sizes(model, shapes or {}, batch=batch, where=str(path))
    operators = Counter(_name_of(node) for node in _every_node(model.graph))
    uncounted: dict[str, list[str]] = {}
    for node in model.graph.node:
        if not _has_rule(node):
            uncounted.setdefault(_name_of(node), []).append(node.name or _output_of(node))
    nodes = len(model.graph.node)
    inputs = _specs(model.graph.input, {tensor.name for tensor in model.graph.initializer})
    constants = constants_of(model.graph)
    known = _Known(kinds=kinds, placed=Placed.of(model.graph), scales=_scales(model.graph), reasons=reasons or {})
    layers = tuple(_layers(model.graph, constants, known))
    weight_bytes: Counter[str] = Counter()
    for tensor in constants.values():
        weight_bytes[type_name(tensor.data_type)] += bytes_of(tensor)
    return ModelFacts(
        kind="onnx",
        inputs=inputs,
        outputs=_specs(model.graph.output, set()),
        assumed=assumed,
        operators=dict(operators.most_common()),
        layers=layers,
        parameters=sum(layer.parameters for layer in layers),
        weight_bytes=dict(weight_bytes.most_common()),
        uncounted={name: tuple(found) for name, found in uncounted.items()},
        size_bytes=path.stat().st_size,
        sha256=file_sha256(path),
        opsets={entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        ir_version=model.ir_version,
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        metadata={entry.key: entry.value for entry in model.metadata_props},
        external=external_files(model, path.parent),
        nodes=nodes,
        tensors=len(model.graph.initializer),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What is known around a node."""

    kinds: Kinds
    placed: Placed
    scales: frozenset[str]
    reasons: Mapping[str, str]


def _layers(graph: onnx.GraphProto, constants: Mapping[str, onnx.TensorProto], known: _Known) -> Iterator[Layer]:
    origins: dict[str, tuple[str, ...]] = {name: (name,) for name in constants}
    taken: set[str] = set()
    for node in graph.node:
        read = [name for name in node.input if name]
        if read and node.op_type in _CONSTANT_CHAIN and all(name in origins for name in read):
            found = tuple(dict.fromkeys(each for name in read for each in origins[name]))
            origins.update(dict.fromkeys(node.output, found))
            continue
        own = [each for name in read for each in origins.get(name, ()) if each not in taken]
        taken.update(own)
        if own or computes(node.op_type) or not _has_rule(node):
            yield _layer(node, [constants[name] for name in dict.fromkeys(own)], known)


def _layer(node: onnx.NodeProto, own: Sequence[onnx.TensorProto], known: _Known) -> Layer:
    attributes, kinds, title = attributes_of(node), known.kinds, node.name or _output_of(node)
    count: int | None = None
    if _has_rule(node):
        inputs = [kinds[name][1] if name in kinds else None for name in node.input]
        outputs = [kinds[name][1] if name in kinds else None for name in node.output]
        count = macs(node.op_type, inputs, outputs, attributes)
    precision, why = precision_of(node, known.placed, kinds) if computes(node.op_type) else ("", "")
    if precision != INT8:
        why = known.reasons.get(title, known.reasons.get(title.removesuffix("_int8"), why))
    if count is None:
        why = "sizes cannot be told: give them with --shape" if _has_rule(node) else "no rule for this operator"
    numbers = [tensor for tensor in own if _is_weight(tensor, known.scales)]
    parameters = sum(math.prod(tensor.dims) for tensor in numbers)
    if node.op_type in ("MatMulNBits", "MatMulBnb4") and len(node.input) > 1:
        packed = sum(math.prod(tensor.dims) for tensor in numbers if tensor.name == node.input[1])
        if packed:  # Several weights share a byte.
            parameters += int(attributes.get("K", 0)) * int(attributes.get("N", 0)) - packed
    return Layer(
        name=title,
        operator=_name_of(node),
        macs=count,
        precision=precision,
        why=why,
        parameters=parameters,
        weight_bytes=sum(map(bytes_of, own)),
    )


def _scales(graph: onnx.GraphProto) -> frozenset[str]:
    """Names of scales and zero points."""
    return frozenset(
        node.input[index]
        for node in graph.node
        for index in _QUANTIZATION.get(node.op_type, ())
        if index < len(node.input)
    )


def _is_weight(tensor: onnx.TensorProto, scales: frozenset[str]) -> bool:
    return tensor.name not in scales and tensor.data_type not in _NO_NUMBERS and len(tensor.dims) > 0


def _has_rule(node: onnx.NodeProto) -> bool:
    return node.domain in ("", "ai.onnx", "com.microsoft", "com.microsoft.nchwc") and is_known(node.op_type)


def _name_of(node: onnx.NodeProto) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def _output_of(node: onnx.NodeProto) -> str:
    return next(filter(None, node.output), "?")


def _every_node(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph and of the graphs inside of it."""
    waiting = [graph]
    while waiting:
        each = waiting.pop()
        for node in each.node:
            yield node
            for attribute in node.attribute:
                waiting += [attribute.g] if attribute.HasField("g") else []
                waiting += attribute.graphs


def _specs(values: Sequence[onnx.ValueInfoProto], constants: set[str]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            name=value.name,
            dtype=type_name(value.type.tensor_type.elem_type),
            shape=tuple(
                dim.dim_value if dim.HasField("dim_value") else dim.dim_param or f"{value.name}_{axis}"
                for axis, dim in enumerate(value.type.tensor_type.shape.dim)
            ),
        )
        for value in values
        if value.name not in constants
    )
