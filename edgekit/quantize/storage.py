"""Weights alone in 8 or 4 bits: a small file whose computation stays in fp32.

Matrix products become ONNX Runtime's MatMulNBits, which reads the small weights as it computes. Other weights are
unpacked by operators that ONNX Runtime folds when the session opens, so that they run as fast as in fp32. (It would not
fold DequantizeLinear, and would run convolutions behind one at every call, in a slower layout.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from edgekit.quantize.dynamic import CONTRIB, product_refusal
from edgekit.quantize.graph import constant, initializer, replace

WEIGHTS: Mapping[str, tuple[int, ...]] = {
    "Conv": (1,), "ConvTranspose": (1,), "GRU": (1, 2), "Gather": (0,), "Gemm": (1,), "LSTM": (1, 2), "MatMul": (0, 1),
    "RNN": (1, 2),
}  # fmt: skip
"""The inputs of operators that may be large weights."""
IMAGE = frozenset({"Conv", "ConvTranspose"})
"""Weights whose rows are all but the first axis; of others the last axis alone."""
LEAST = 1024
"""Numbers in a weight below which the nodes that unpack it take as much as it would save."""
LARGEST_BLOCK = {8: 128, 4: 32}
"""Weights in a product's column that share a scale: a scale takes the room of four 8-bit weights."""
BLOCKS = (16, 32, 64, 128)
"""The sizes that MatMulNBits takes."""


def refusals(graph: ir.Graph) -> dict[str, str]:
    """For every node without a weight that is worth it the reason."""
    found = {}
    for node in graph:
        sizes = [array.size for _, array in _constants_of(node)]
        if not sizes:
            found[str(node.name)] = "it has no weights"
        elif max(sizes) < LEAST:
            found[str(node.name)] = f"its weights are fewer than {LEAST:,}: unpacking them would take as much room"
    return found


def convert(model: ir.Model, nodes: frozenset[str], bits: int) -> None:
    """Write the weights of the named nodes in place with `bits` (8 or 4) bits each."""
    graph = model.graph
    chosen = [node for node in graph if node.name in nodes]
    products = [node for node in chosen if is_product(node)]
    packed: dict[str, tuple[ir.Value, ir.Value, int]] = {}
    for node in products:
        _product(graph, node, bits, packed)
    stored: dict[str, ir.Value] = {}
    for node in [node for node in chosen if node not in products]:
        for index, array in _constants_of(node):
            value = node.inputs[index]
            if array.size < LEAST or value is None:
                continue
            if value.name not in stored:
                stored[str(value.name)] = _unpacked(graph, node, value, array, bits)
            node.replace_input_with(index, stored[str(value.name)])
    if products:
        model.opset_imports.setdefault(CONTRIB, 1)
    RemoveUnusedNodesPass()(model)


def is_product(node: ir.Node) -> bool:
    """Whether a node's weights are for MatMulNBits: all that reads them are products."""
    if not _is_plain(node):
        return False
    weight = node.inputs[1]
    return weight is not None and all(use.idx == 1 and _is_plain(use.node) for use in weight.uses())


def blocks_of(rows: np.ndarray, block: int, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Integers, float [rows, blocks, block] in [-2**(bits-1), 2**(bits-1) - 1], and scales, float32 [rows, blocks].

    The weight with the largest magnitude of a block becomes the lowest integer, whatever its sign: with 4 bits this
    takes a fifth off the error's power (it is also what onnxruntime.quantization does).

    >>> integers, scales = blocks_of(np.array([[1.0, -0.5]], np.float32), 2, 4)
    >>> integers.tolist(), scales.tolist()
    ([[[-8.0, 4.0]]], [[-0.125]])
    """
    half = 2 ** (bits - 1)
    count = -(-rows.shape[1] // block)
    padded = np.pad(np.asarray(rows, np.float32), ((0, 0), (0, count * block - rows.shape[1])))
    cut = padded.reshape(len(rows), count, block)
    extreme = np.take_along_axis(cut, np.abs(cut).argmax(-1)[..., None], -1)[..., 0]
    # What a float32 scale could not hold is as good as zero.
    scales = np.where(np.abs(extreme) >= half * np.finfo(np.float32).tiny, extreme / -half, 1).astype(np.float32)
    return np.clip(np.round(cut / scales[..., None]), -half, half - 1), scales


def nibbles(integers: np.ndarray) -> np.ndarray:
    """Pairs of 4-bit integers as bytes, the first one in the lower half; they are counted from -8 on.

    >>> nibbles(np.array([-8, 7])).tolist()
    [240]
    """
    counted = (integers + 8).astype(np.uint8)
    packed: np.ndarray = counted[..., 0::2] | (counted[..., 1::2] << 4)
    return packed


def _constants_of(node: ir.Node) -> list[tuple[int, np.ndarray]]:
    """Inputs that are fp32 weights of two dimensions or more, and their numbers."""
    found = []
    for index in WEIGHTS.get(node.op_type, ()) if node.domain in ("", "ai.onnx") else ():
        array = constant(node.inputs[index]) if index < len(node.inputs) else None
        if array is not None and array.dtype == np.float32 and array.ndim >= 2:
            found.append((index, array))
    return found


def _is_plain(node: ir.Node) -> bool:
    return node.op_type in ("MatMul", "Gemm") and product_refusal(node) is None


def _product(graph: ir.Graph, node: ir.Node, bits: int, packed: dict[str, tuple[ir.Value, ir.Value, int]]) -> None:
    weight, source = constant(node.inputs[1]), node.inputs[1]
    assert weight is not None
    assert source is not None
    transposed = node.op_type == "Gemm" and "transB" in node.attributes and bool(node.attributes["transB"].as_int())
    columns = weight if transposed else weight.T
    key = f"{source.name}.{transposed}"
    if key not in packed:
        block = _block(columns.shape[1], bits)
        integers, scales = blocks_of(columns, block, bits)
        small = nibbles(integers) if bits == 4 else (integers + 128).astype(np.uint8)
        packed[key] = (
            initializer(graph, f"{source.name}.int{bits}", small),
            initializer(graph, f"{source.name}.scale", scales),
            block,
        )
    stored, scale, block = packed[key]
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    inputs: list[ir.Value | None] = [node.inputs[0], stored, scale]
    if bias is not None and bias.size == len(columns):
        inputs += [None, None, initializer(graph, f"{node.name}.bias", bias.reshape(-1))]
    attributes = {"K": columns.shape[1], "N": columns.shape[0], "bits": bits, "block_size": block}
    product = ir.node("MatMulNBits", inputs, attributes, domain=CONTRIB, name=f"{node.name}_int{bits}")
    if len(inputs) == 3 and len(node.inputs) > 2 and node.inputs[2] is not None:
        product.outputs[0].name = f"{product.name}_value"
        graph.insert_before(node, product)
        product = ir.node("Add", [product.outputs[0], node.inputs[2]], name=f"{node.name}_biased")
    replace(graph, node, product)


def _block(length: int, bits: int) -> int:
    """The block size with which a column of so many weights takes the fewest bytes."""
    allowed = [block for block in BLOCKS if block <= LARGEST_BLOCK[bits]]
    return min(allowed, key=lambda block: (-(-length // block) * (block * bits // 8 + 4), block))


def _unpacked(graph: ir.Graph, node: ir.Node, weight: ir.Value, array: np.ndarray, bits: int) -> ir.Value:
    """The small weight in front of `node`, and what makes float32 of it: scale * (integer) in the weight's shape."""
    if array.size % 2:
        bits = 8  # A last half byte would need a node of its own.
    name = str(weight.name)
    flat = array.reshape(len(array), -1) if node.op_type in IMAGE else array.reshape(-1, array.shape[-1])
    block = flat.shape[1] if bits == 8 else _row_block(flat.shape[1])
    integers, scales = blocks_of(flat, block, bits)
    chain = _Chain(graph, node, name)
    if bits == 8:
        value = chain.add("Cast", initializer(graph, f"{name}.int8", integers.astype(np.int8)), to=ir.DataType.FLOAT)
    else:
        pairs = initializer(graph, f"{name}.int4", nibbles(integers.reshape(-1)).reshape(-1, 1))
        value = chain.add(
            "BitShift", pairs, _shared(graph, "int4.shifts", np.array([[0, 4]], np.uint8)), direction="RIGHT"
        )
        value = chain.add("Mod", value, _shared(graph, "int4.count", np.array(16, np.uint8)))
        value = chain.add("Cast", value, to=ir.DataType.FLOAT)
        value = chain.add("Sub", value, _shared(graph, "int4.zero", np.array(8, np.float32)))
        value = chain.add("Reshape", value, _shape(graph, integers.shape))
    value = chain.add("Mul", value, initializer(graph, f"{name}.scale", scales[..., None]))
    return chain.add("Reshape", value, _shape(graph, array.shape))


def _row_block(length: int) -> int:
    """The largest divisor of a row's length from 16 to 32, or the whole row."""
    return next((block for block in range(LARGEST_BLOCK[4], 15, -1) if length % block == 0), length)


def _shape(graph: ir.Graph, shape: Sequence[int]) -> ir.Value:
    return _shared(graph, f"shape.{'x'.join(map(str, shape))}", np.array(shape, np.int64))


def _shared(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """A constant that several weights need; the first one makes it."""
    known = graph.initializers.get(name)
    return known if known is not None else initializer(graph, name, array)


class _Chain:
    """Nodes one behind the other in front of a node."""

    def __init__(self, graph: ir.Graph, before: ir.Node, name: str) -> None:
        self._graph, self._before, self._name, self._count = graph, before, name, 0

    def add(self, op: str, *inputs: ir.Value, **attributes: int | str) -> ir.Value:
        node = ir.node(op, inputs, attributes)
        self._count += 1
        node.name = node.outputs[0].name = f"{self._name}.{self._count}"
        self._graph.insert_before(self._before, node)
        return node.outputs[0]
