"""Padding as part of the convolution or the pool that reads it; Pad has no int8 kernel."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.quantize.graph import constant, only_user

NONNEGATIVE = ("Relu", "Sigmoid", "HardSigmoid", "Softmax")


def merge_padding(graph: ir.Graph) -> int:
    """Let a Conv, AveragePool or MaxPool do the spatial padding that is done for it alone.

    A maximum ignores its own padding, and so takes over zeros only where no number is smaller than these.
    """
    return sum(_merge(graph, node) for node in list(graph) if node.op_type in _FITS)


def padding_of(pad: ir.Node) -> tuple[np.ndarray, float] | None:
    """How much a Pad adds before and after each axis, int64 [2, rank], and which number; None for other modes.

    Also None where any of it is computed at run time.
    """
    inputs = [*pad.inputs, None, None, None][:4]
    source, (pads, value, axes) = inputs[0], (constant(given) for given in inputs[1:])
    if (
        source is None
        or source.shape is None
        or pads is None
        or pad.attributes.get_string("mode") not in (None, "constant")
    ):
        return None
    if any(given is not None and known is None for given, known in zip(inputs[2:], (value, axes), strict=True)):
        return None
    rank = len(source.shape)
    full = np.zeros((2, rank), np.int64)
    full[:, [axis % rank for axis in (range(rank) if axes is None else axes.tolist())]] = pads.reshape(2, -1)
    return full, 0.0 if value is None else float(value.item())


def _merge(graph: ir.Graph, node: ir.Node) -> bool:
    value = node.inputs[0]
    pad = None if value is None else value.producer()
    if value is None or pad is None or pad.op_type != "Pad" or not only_user(value):
        return False
    found, automatic = padding_of(pad), node.attributes.get_string("auto_pad", "NOTSET")
    if found is None or automatic not in ("NOTSET", "VALID"):
        return False
    padding, number = found
    own = np.array(node.attributes.get_ints("pads", [0] * 2 * (padding.shape[1] - 2)), np.int64)
    total = padding[:, 2:].ravel() + (own if automatic == "NOTSET" else 0)
    if padding[:, :2].any() or padding.min() < 0 or not _FITS[node.op_type](node, pad, number, total):
        return False
    node.attributes["pads"] = ir.AttrInt64s("pads", total.tolist())
    node.attributes["auto_pad"] = ir.AttrString("auto_pad", "NOTSET")
    if node.op_type == "AveragePool":
        node.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 1)
    node.replace_input_with(0, pad.inputs[0])
    graph.remove(pad, safe=True)
    return True


def _convolution(_node: ir.Node, _pad: ir.Node, number: float, _total: np.ndarray) -> bool:
    return number == 0.0


def _average(node: ir.Node, _pad: ir.Node, number: float, total: np.ndarray) -> bool:
    counts = node.attributes.get_int("count_include_pad") or not any(node.attributes.get_ints("pads", ()))
    return number == 0.0 and bool(counts) and _is_narrow(node, total)


def _maximum(node: ir.Node, pad: ir.Node, number: float, total: np.ndarray) -> bool:
    least = number <= np.finfo(np.float32).min or (number == 0.0 and _is_nonnegative(pad.inputs[0]))
    counted = any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
    return least and not counted and _is_narrow(node, total)


def _is_narrow(node: ir.Node, total: np.ndarray) -> bool:
    """Whether every window of a pool holds a number of the image, as ONNX Runtime demands."""
    window = node.attributes.get_ints("kernel_shape", ())
    return not node.attributes.get_int("ceil_mode") and bool((total.reshape(2, -1) < window).all())


def _is_nonnegative(value: ir.Value | None) -> bool:
    maker = None if value is None else value.producer()
    if maker is not None and maker.op_type == "Clip" and len(maker.inputs) > 1:
        low = constant(maker.inputs[1])
        return low is not None and float(low.item()) >= 0.0
    return maker is not None and maker.op_type in NONNEGATIVE


_FITS = {"Conv": _convolution, "AveragePool": _average, "MaxPool": _maximum}
"""By reader: whether padding with a number, and the padding that it then has in all, leave what it makes as it is."""
