"""Zero-padded shortcuts as convolutions."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.quantize.graph import constant, initializer, only_user, replace
from edgekit.quantize.rewrites.padding import padding_of


def shortcuts_to_convolutions(graph: ir.Graph) -> int:
    """Write a strided Slice followed by zero padding of channels as a strided 1x1 convolution with an identity kernel.

    That is the shortcut of K. He et al., *Deep Residual Learning for Image Recognition*, 2016, section 4.2, option A.
    ONNX Runtime has an int8 kernel for the convolution, and none for Pad.
    """
    return sum(_shortcut(graph, node) for node in list(graph) if node.op_type == "Pad")


def _shortcut(graph: ir.Graph, pad: ir.Node) -> bool:
    padding, source = _added_channels(pad), pad.inputs[0]
    if padding is None or source is None or source.shape is None or source.dtype != ir.DataType.FLOAT:
        return False
    channels = source.shape[1]
    if not isinstance(channels, int):
        return False
    source, strides, slices = _before_slices(source)
    if slices and strides == [1, 1]:
        return False
    before, after = padding
    kernel = np.zeros((before + channels + after, channels, 1, 1), np.float32)
    kernel[np.arange(before, before + channels), np.arange(channels)] = 1.0
    name = pad.outputs[0].name
    weight = initializer(graph, f"{name}.identity_kernel", kernel)
    convolution = ir.node(
        "Conv", [source, weight], {"strides": strides, "kernel_shape": [1, 1]}, name=f"{pad.name or name}_as_conv"
    )
    replace(graph, pad, convolution)
    for node in slices:
        graph.remove(node, safe=True)
    return True


def _added_channels(pad: ir.Node) -> tuple[int, int] | None:
    """How many zero channels a Pad of images puts before and after, or None if it does anything else."""
    found = padding_of(pad)
    if found is None or found[0].shape[1] != 4 or found[1] != 0.0:
        return None
    before, after = (int(count) for count in found[0][:, 1])
    elsewhere = np.delete(found[0], 1, axis=1).any()
    return None if elsewhere or min(before, after) < 0 else (before, after)


def _before_slices(source: ir.Value) -> tuple[ir.Value, list[int], list[ir.Node]]:
    """What a chain of strided Slices starts from, the steps down and across that they make together, and the chain."""
    strides, slices = [1, 1], []
    while (node := source.producer()) is not None and node.op_type == "Slice" and only_user(source):
        steps, first = _steps(node), node.inputs[0]
        if steps is None or first is None:
            break
        strides = [strides[0] * steps[0], strides[1] * steps[1]]
        slices.append(node)
        source = first
    return source, strides, slices


def _steps(node: ir.Node) -> list[int] | None:
    """The spatial steps of a Slice that takes every k-th row or column from the first on, or None for any other."""
    starts, ends, axes, steps = [*(constant(value) for value in node.inputs[1:]), None, None, None, None][:4]
    if starts is None or ends is None or axes is None or (steps is None and len(node.inputs) > 4):
        return None
    result = [1, 1]
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    for start, end, axis, step in zip(
        starts, ends, axes, np.ones_like(starts) if steps is None else steps, strict=True
    ):
        size = shape[int(axis)] if shape is not None else None
        whole = start == 0 and end >= (size if isinstance(size, int) else np.iinfo(np.int32).max)
        place = int(axis) % 4 - 2  # of an image: batch and channels come out negative
        if not whole or step < 1 or (place < 0 and step != 1):
            return None
        if place >= 0:
            result[place] *= int(step)
    return result
