"""Channel shuffles as part of the weights of the convolutions that read them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.quantize.graph import bypass, constant, initializer, only_user
from edgekit.quantize.rewrites.transposes import UNARY


def fold_shuffles(graph: ir.Graph) -> int:
    """Let convolutions read channels as they are before a shuffle (X. Zhang et al., *ShuffleNet*, 2018, section 3.1).

    Their weights are put in the order of the channels. A depthwise convolution hands the order on to its readers, and
    so does what treats each number alone. Where a shuffle is split or concatenated, it stays.
    """
    return sum(_fold(graph, node) for node in list(graph) if node.op_type in ("Reshape", "Gather"))


def _fold(graph: ir.Graph, node: ir.Node) -> bool:
    found = _shuffle(node)
    if found is None:
        return False
    source, order = found
    convolutions = _readers(node.outputs[0], len(order))
    if convolutions is None:
        return False
    for convolution in convolutions:
        _reorder(graph, convolution, order)
    before = node.inputs[0]
    bypass(graph, node, source)
    while before is not None and before is not source and not before.uses():
        maker = before.producer()
        assert maker is not None
        before = maker.inputs[0]
        graph.remove(maker, safe=True)
    return True


def _shuffle(last: ir.Node) -> tuple[ir.Value, np.ndarray] | None:
    """What a chain of nodes shuffles, and which channel of it each channel is; None if it does anything else."""
    if last.op_type == "Gather":
        return _gathered(last)
    turn = _maker(last.inputs[0], "Transpose")
    first = None if turn is None else _maker(turn.inputs[0], "Reshape")
    if turn is None or first is None or first.inputs[0] is None:
        return None
    source, apart, together = first.inputs[0], first.outputs[0].shape, last.outputs[0].shape
    channels, groups = _channels(source), _channels(first.outputs[0])
    # [batch, groups, channels / groups, ...] becomes [batch, channels / groups, groups, ...]
    if not channels or not groups or source.shape is None or apart is None or together != source.shape:
        return None
    if [apart[0], *apart[3:]] != [source.shape[0], *source.shape[2:]]:
        return None
    if list(turn.attributes["perm"].as_ints()) != [0, 2, 1, *range(3, len(apart))]:
        return None
    return source, np.arange(channels).reshape(groups, -1).T.ravel()


def _gathered(node: ir.Node) -> tuple[ir.Value, np.ndarray] | None:
    source, order = node.inputs[0], constant(node.inputs[1])
    if source is None or order is None or order.ndim != 1 or node.attributes.get_int("axis") != 1:
        return None
    return (source, order) if sorted(order.tolist()) == list(range(_channels(source))) else None


def _maker(value: ir.Value | None, op: str) -> ir.Node | None:
    node = None if value is None or not only_user(value) else value.producer()
    return node if node is not None and node.op_type == op else None


def _channels(value: ir.Value | None) -> int:
    """The size of a value's second axis, or 0 where there is none or it is open."""
    size = value.shape[1] if value is not None and value.shape is not None and len(value.shape) > 2 else 0
    return size if isinstance(size, int) else 0


def _readers(value: ir.Value, channels: int) -> list[ir.Node] | None:
    """The convolutions that can put a value's channels in order by their weights, or None if others read it, too."""
    found: list[ir.Node] = []
    values = [value]
    while values:
        value = values.pop()
        if value.is_graph_output() or not value.uses():
            return None
        for node, index in value.uses():
            if node.op_type in UNARY:
                values.append(node.outputs[0])
                continue
            weight = constant(node.inputs[1]) if node.op_type == "Conv" and index == 0 else None
            groups = node.attributes.get_int("group", 1)
            if weight is None or groups not in (1, channels) or (groups > 1 and len(weight) != channels):
                return None
            if groups > 1:
                if len(node.inputs) > 2 and node.inputs[2] is not None and constant(node.inputs[2]) is None:
                    return None
                values.append(node.outputs[0])
            found.append(node)
    return found


def _reorder(graph: ir.Graph, convolution: ir.Node, order: np.ndarray) -> None:
    """Put weights in order: channel i used to be what is now channel order[i]."""
    depthwise = convolution.attributes.get_int("group", 1) > 1
    for index in (1, 2) if depthwise else (1,):
        given = convolution.inputs[index] if index < len(convolution.inputs) else None
        numbers = constant(given)
        if given is None or numbers is None:
            continue
        ordered = np.empty_like(numbers)
        if depthwise:
            ordered[order] = numbers
        else:
            ordered[:, order] = numbers
        convolution.replace_input_with(index, initializer(graph, f"{given.name}.ordered", ordered))
