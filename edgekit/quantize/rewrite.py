"""Exact rewrites that let more of a graph run in int8. Each leaves every output as it was."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.quantize.graph import constant, initializer, only_user, replace


def rewrite(model: ir.Model) -> int:
    """Apply all rewrites in place; returns how many places were changed."""
    return shortcuts_to_convolutions(model.graph)


def shortcuts_to_convolutions(graph: ir.Graph) -> int:
    """A strided Slice followed by zero padding of channels (the paper's option A, He et al. 2016, section 4.2) becomes a
    1x1 convolution with an identity kernel: ONNX Runtime has an int8 kernel for that, and none for Pad.
    """
    done = 0
    for pad in [node for node in graph if node.op_type == "Pad"]:
        rewritten = _shortcut(graph, pad)
        done += rewritten
    return done


def _shortcut(graph: ir.Graph, pad: ir.Node) -> bool:
    source = pad.inputs[0]
    pads = constant(pad.inputs[1]) if len(pad.inputs) > 1 else None
    value = constant(pad.inputs[2]) if len(pad.inputs) > 2 and pad.inputs[2] is not None else np.zeros(1)
    axes = constant(pad.inputs[3]) if len(pad.inputs) > 3 and pad.inputs[3] is not None else None
    mode = pad.attributes.get("mode")
    if source is None or pads is None or value is None or source.shape is None or len(source.shape) != 4:
        return False
    if (mode is not None and mode.as_string() != "constant") or np.any(value != 0):
        return False
    if axes is not None:
        full = np.zeros(8, np.int64)
        for index, axis in enumerate(axes.tolist()):
            full[axis % 4], full[axis % 4 + 4] = pads[index], pads[index + len(axes)]
        pads = full
    before, after = int(pads[1]), int(pads[5])
    channels = source.shape[1]
    if not isinstance(channels, int) or np.delete(pads, [1, 5]).any() or min(before, after) < 0:
        return False
    strides = [1, 1]
    slices: list[ir.Node] = []
    while (node := source.producer()) is not None and node.op_type == "Slice" and only_user(source):
        steps = _strides(node)
        if steps is None:
            break
        strides = [strides[0] * steps[0], strides[1] * steps[1]]
        slices.append(node)
        assert node.inputs[0] is not None
        source = node.inputs[0]
    if strides == [1, 1] and slices:
        return False
    kernel = np.zeros((before + channels + after, channels, 1, 1), np.float32)
    kernel[np.arange(before, before + channels), np.arange(channels)] = 1.0
    output = pad.outputs[0]
    weight = initializer(graph, f"{output.name}.identity_kernel", kernel)
    convolution = ir.node(
        "Conv",
        [source, weight],
        {"strides": strides, "kernel_shape": [1, 1]},
        name=f"{pad.name or output.name}_as_conv",
    )
    replace(graph, pad, convolution)
    for node in slices:
        graph.remove(node, safe=True)
    return True


def _strides(node: ir.Node) -> list[int] | None:
    """The spatial steps of a Slice that takes every k-th row or column from the first on, or None for any other."""
    starts, ends, axes, steps = ([*(constant(value) for value in node.inputs[1:]), None, None, None, None])[:4]
    if starts is None or ends is None or axes is None:
        return None
    steps = np.ones_like(starts) if steps is None else steps
    result = [1, 1]
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = shape[int(axis)] if shape is not None else None
        whole = end >= (size if isinstance(size, int) else np.iinfo(np.int32).max)
        if start != 0 or step < 1 or not whole or (int(axis) % 4 < 2 and step != 1):
            return None
        if int(axis) % 4 >= 2:
            result[int(axis) % 4 - 2] *= int(step)
    return result
